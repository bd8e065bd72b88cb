"""The experiments, one file each; `tables/`, one a table."""
