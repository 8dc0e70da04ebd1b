"""From a network to picks: score maps, their peaks, matching with the truth."""
