"""Work directories, checkpoints and stores."""
