"""Distilled sets in NumPy and safetensors: files, images and the data's transform.

No JAX is imported, so that programs in other frameworks need none.
"""
