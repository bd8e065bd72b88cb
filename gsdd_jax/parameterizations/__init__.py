"""Ways of storing an image under a byte budget, one file each, found by name."""

from __future__ import annotations

import dataclasses

from gsdd_jax import gaussians
from gsdd_jax.errors import UsageError
from gsdd_jax.parameterizations.base import Parameterization, Params
from gsdd_jax.parameterizations.gaussian import Gaussian
from gsdd_jax.parameterizations.pixels import Pixels

__all__ = ["Gaussian", "Parameterization", "Params", "Pixels", "build", "from_settings", "settings"]

BY_NAME = {kind.name: kind for kind in (Gaussian, Pixels)}


def build(
    name: str, image_shape: tuple[int, int, int], *, ipc: int, gpc: int, **options
) -> Parameterization:
    """The parameterization `name` within the bytes of `ipc` float32 images a class.

    Args:
      name: one of `BY_NAME`.
      image_shape: (height, width, channels) of one image.
      ipc: the budget, in images a class.
      gpc: Gaussian images a class; other parameterizations follow from `ipc`.
      **options: fields of the parameterization's dataclass.

    Raises:
      UsageError: for an unknown name or option, or a budget that holds nothing.
    """
    if name not in BY_NAME:
        raise UsageError(f"parameterization: expected one of {', '.join(BY_NAME)}, got {name!r}")
    if ipc < 1:
        raise UsageError(f"budget: expected ipc of at least 1, got {ipc}")
    kind = BY_NAME[name]
    height, width, channels = image_shape
    fields = dict(height=height, width=width, channels=channels)
    if kind is Gaussian:
        fields["images_per_class"] = gpc
        fields["num_gaussians"] = gaussians.gaussians_within_budget(ipc, gpc, image_shape)
    else:
        fields["images_per_class"] = ipc
    known = {f.name for f in dataclasses.fields(kind)} - fields.keys()
    if unknown := options.keys() - known:
        raise UsageError(
            f"parameterization {name}: unknown option {', '.join(sorted(unknown))}; "
            f"expected {', '.join(sorted(known)) or 'none'}"
        )
    return kind(**fields, **options)


def settings(parameterization: Parameterization) -> dict:
    """What `from_settings` needs to make the same parameterization again, as plain values."""
    return {"name": parameterization.name, **dataclasses.asdict(parameterization)}


def from_settings(values: dict) -> Parameterization:
    """The inverse of `settings`. Raises UsageError for an unknown name or field."""
    values = dict(values)
    name = values.pop("name", None)
    if name not in BY_NAME:
        raise UsageError(f"parameterization: expected one of {', '.join(BY_NAME)}, got {name!r}")
    try:
        return BY_NAME[name](**values)
    except TypeError as error:
        raise UsageError(f"parameterization {name}: {error}") from None
