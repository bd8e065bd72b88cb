"""Dataset distillation with Gaussian splatting, in JAX."""

from gsdd_jax.artifact import DistilledSet, load, save
from gsdd_jax.errors import UsageError
from gsdd_jax.fit import fit_images
from gsdd_jax.gaussians import GaussianImages
from gsdd_jax.rasterize import rasterize, rasterize_ragged

__all__ = [
    "DistilledSet",
    "GaussianImages",
    "UsageError",
    "fit_images",
    "load",
    "rasterize",
    "rasterize_ragged",
    "save",
]
