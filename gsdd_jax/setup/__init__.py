"""Parts of an experiment, built from its config."""
