"""What knows a config, a directory, a checkpoint or a progress bar, and runs the loops."""
