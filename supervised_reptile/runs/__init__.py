"""A run on disk: checkpoints, learning curve and record."""
