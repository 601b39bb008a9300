"""A run's folder, checkpoints, logs and progress line."""
