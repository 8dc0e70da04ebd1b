"""PU + FixMatch: class priors, batches, state and log of a run."""
