"""Foundations of every room: errors, files, fields from outside, the bridge to compiled calls."""
