"""Dataset distillation with Gaussian splatting, in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsdd_jax import data, federated, privacy, replay
    from gsdd_jax.arrays import Accuracy, distill, evaluate
    from gsdd_jax.core.errors import UsageError
    from gsdd_jax.formats.distilled import DistilledSet
    from gsdd_jax.formats.file import load, save
    from gsdd_jax.formats.info import info
    from gsdd_jax.formats.parts import merge, subset
    from gsdd_jax.rasterizer.gaussians import GaussianImages
    from gsdd_jax.rasterizer.rasterize import rasterize, rasterize_ragged
    from gsdd_jax.training.fit import fit_images

__all__ = [
    "Accuracy",
    "DistilledSet",
    "GaussianImages",
    "UsageError",
    "__version__",
    "data",
    "distill",
    "evaluate",
    "federated",
    "fit_images",
    "info",
    "load",
    "merge",
    "privacy",
    "rasterize",
    "rasterize_ragged",
    "replay",
    "save",
    "subset",
]

# Imported on first use (PEP 562), for a fast start.
_HOMES = {
    "Accuracy": "arrays",
    "DistilledSet": "formats.distilled",
    "GaussianImages": "rasterizer.gaussians",
    "UsageError": "core.errors",
    "distill": "arrays",
    "evaluate": "arrays",
    "fit_images": "training.fit",
    "info": "formats.info",
    "load": "formats.file",
    "merge": "formats.parts",
    "rasterize": "rasterizer.rasterize",
    "rasterize_ragged": "rasterizer.rasterize",
    "save": "formats.file",
    "subset": "formats.parts",
}

_JAX = ("jax", "jaxlib", "jaxtyping", "flax", "optax")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from gsdd_jax.storage.version import number

        return number()
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(f"{__name__}.{_HOMES.get(name, name)}")
    except ModuleNotFoundError as error:
        if error.name not in _JAX:
            raise
        raise ImportError(
            f"gsdd_jax.{name} needs {error.name}, which is not installed; without it there are "
            "gsdd_jax.DistilledSet, load, save, info, merge and subset",
            name=error.name,
        ) from None
    value = getattr(home, name) if name in _HOMES else home
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
