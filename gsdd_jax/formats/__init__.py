"""Distilled sets by NumPy and safetensors alone: the file, its images, the data's transform.

What is here imports no JAX, so that a program in another framework needs none. The rooms above
build on the same settings and the same checks.
"""
