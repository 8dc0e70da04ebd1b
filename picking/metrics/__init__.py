"""Rates, curves, thresholds and intervals: of patches, pixels and picks."""
