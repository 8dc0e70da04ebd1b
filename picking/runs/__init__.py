"""A run's folder, checkpoints and processes."""
