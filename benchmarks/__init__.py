"""What `launch.benchmark` runs."""
