"""Foundations of all packages: errors, files, fields from outside, the bridge to compiled calls."""
