"""Gaussians to images: the custom calls, their definition in `jax.numpy`, and the parameters."""
