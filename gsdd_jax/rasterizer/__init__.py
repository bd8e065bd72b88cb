"""Renders Gaussians: the custom calls, their definition in `jax.numpy`, the parameters."""
