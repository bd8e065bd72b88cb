"""Ways of storing an image under a byte budget, one file each, found by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.options import check_names, check_values
from gsdd_jax.parameterizations.base import Budget, Parameterization, Params
from gsdd_jax.parameterizations.ddif import DDiF
from gsdd_jax.parameterizations.fred import FreD
from gsdd_jax.parameterizations.gaussian import Gaussian
from gsdd_jax.parameterizations.idc import IDC
from gsdd_jax.parameterizations.pixels import Pixels
from gsdd_jax.parameterizations.quantized import Quantized
from gsdd_jax.portable import base
from gsdd_jax.portable.base import settings

__all__ = [
    "IDC",
    "DDiF",
    "FreD",
    "Gaussian",
    "Parameterization",
    "Params",
    "Pixels",
    "Quantized",
    "build",
    "from_settings",
    "settings",
]

BY_NAME = {
    kind.name: kind
    for kind in (
        Gaussian,
        Pixels,
        IDC,
        FreD,
        DDiF,
        Quantized,
    )
}


def build(
    name: str,
    image_shape: tuple[int, int, int],
    *,
    ipc: int,
    gpc: int,
    num_classes: int = 1,
    reserved: int = 0,
    fill: bool = False,
    **options,
) -> Parameterization:
    """The parameterization `name` within the bytes of `ipc` float32 images a class.

    Args:
      name: one of `BY_NAME`.
      image_shape: (height, width, channels) of one image.
      ipc: the budget, in images a class.
      gpc: Gaussian images a class; how many others fit follows from `ipc`.
      num_classes: of the data set; what is stored once for all is shared by them.
      reserved: bytes a class that something else takes (soft labels).
      fill: whether Gaussians are added until the coded bytes are the budget's.
      **options: fields of the parameterization's dataclass.

    Raises:
      UsageError: for an unknown name or option, one of a wrong type or range, or a budget that
        holds nothing.
    """
    if name not in BY_NAME:
        raise UsageError(f"parameterization: expected one of {', '.join(BY_NAME)}, got {name!r}")
    if ipc < 1:
        raise UsageError(f"budget: expected ipc of at least 1, got {ipc}")
    kind = BY_NAME[name]
    known = {field.name for field in dataclasses.fields(kind)} - kind.derived
    check_names(kind, options, known, "config.parameterization.options")
    budget = Budget(ipc, gpc, num_classes, reserved, fill)
    for use, field in (("reserved", "matching.options.soft_labels"), ("fill", "budget.fill")):
        if getattr(budget, use) and use not in kind.uses:
            able = ", ".join(n for n, k in BY_NAME.items() if use in k.uses)
            raise UsageError(f"config.{field}: expected False with {name}; only {able} can")
    given = dict(zip(("height", "width", "channels"), image_shape, strict=True)) | options
    check_values(kind, given, kind.limits, f"parameterization {name}: ")
    return kind(**kind.within(image_shape, budget, options) | given)


def from_settings(values: Mapping[str, Any]) -> Parameterization:
    """The inverse of `settings`; as `gsdd_jax.portable.base.from_settings`."""
    return base.from_settings(values, BY_NAME)
