"""What every room stands on: errors, files, options from outside, the bridge to compiled calls."""
