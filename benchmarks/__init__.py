"""Benchmarks of `launch.benchmark`."""
