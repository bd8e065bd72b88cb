"""Dataset distillation with Gaussian splatting, in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsdd_jax.artifact import DistilledSet, load, save
    from gsdd_jax.core.errors import UsageError
    from gsdd_jax.rasterizer.gaussians import GaussianImages
    from gsdd_jax.rasterizer.rasterize import rasterize, rasterize_ragged
    from gsdd_jax.training.fit import fit_images

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

# Imported when they are first used (PEP 562), so that nobody waits for what they do not use.
_HOMES = {
    "DistilledSet": "artifact",
    "GaussianImages": "rasterizer.gaussians",
    "UsageError": "core.errors",
    "fit_images": "training.fit",
    "load": "artifact",
    "rasterize": "rasterizer.rasterize",
    "rasterize_ragged": "rasterizer.rasterize",
    "save": "artifact",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
