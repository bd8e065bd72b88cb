"""Dataset distillation with Gaussian splatting, in JAX."""

from gsdd_jax.rasterize import rasterize

__all__ = ["rasterize"]
