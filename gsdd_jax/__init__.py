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


# Where JAX is not installed: by NumPy.
_WITHOUT_JAX = {"DistilledSet": "formats.distilled", "load": "formats.distilled"}
_JAX = ("jax", "jaxlib", "jaxtyping", "flax", "optax")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if error.name not in _JAX:
            raise
        if name not in _WITHOUT_JAX:
            raise ImportError(
                f"gsdd_jax.{name} needs {error.name}, which is not installed; without it there are "
                f"gsdd_jax.{' and gsdd_jax.'.join(_WITHOUT_JAX)}",
                name=error.name,
            ) from None
        home = importlib.import_module(f"{__name__}.{_WITHOUT_JAX[name]}")
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
