"""Optimizable storage formats, one file each, found by name."""

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from gsdd_jax.core import kinds
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import check_options
from gsdd_jax.formats.base import Format, check_fields, checked_size, from_settings, settings
from gsdd_jax.formats.clips import unfolded
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.mixes import with_mixes
from gsdd_jax.parameterizations.base import Budget, Parameterization, Params
from gsdd_jax.rasterizer.gaussians import budget_bytes

__all__ = [
    "Parameterization", "Params", "build", "find", "images", "known", "of", "rendered", "stored",
]  # fmt: skip


def find(name: str) -> type[Parameterization]:
    """Returns the parameterization `name`, or raises UsageError."""
    return kinds.named(__name__, Parameterization, name, "config.parameterization.name")


def known() -> dict[str, type[Parameterization]]:
    return kinds.known(__name__, Parameterization)


def build(
    name: str,
    image_shape: tuple[int, int, int],
    *,
    ipc: int = 1,
    bytes_per_class: int = 0,
    images_per_class: int,
    num_classes: int = 1,
    reserved: int = 0,
    frames: int = 1,
    **options,
) -> Parameterization:
    """Builds the parameterization `name` within a budget.

    Args:
      ipc: budget in float32 images per class.
      bytes_per_class: budget in bytes per class; 0: that of `ipc`.
      images_per_class: images per class of formats that leave their number free, as Gaussians do.
      num_classes: classes of the data set, which share what is stored once.
      reserved: bytes per class taken by soft labels.
      frames: frames of a clip, whose channels are those of all frames.
      **options: fields of the parameterization's dataclass.

    Raises UsageError for an unknown name or option, an option of a wrong type or range, or a budget
    below one image.
    """
    kind = check_options(find(name), options, "config.parameterization.options")
    if ipc < 1 or bytes_per_class < 0 or images_per_class < 0:
        raise UsageError(
            f"budget: expected ipc of at least 1, got {ipc}, and no negative numbers, got "
            f"{bytes_per_class} bytes and {images_per_class} images per class"
        )
    if reserved and not kind.reserves:
        able = ", ".join(n for n, k in known().items() if k.reserves)
        raise UsageError(
            f"config.labels: expected hard ones (source=class, learned=False) with {name}; only "
            f"{able} and dtype=codes leave bytes to soft ones"
        )
    shape = dict(zip(("height", "width", "channels"), image_shape, strict=True))
    if frames > 1:
        options["frames"] = frames
    check_fields(kind, shape | {"frames": frames})
    there = bytes_per_class or budget_bytes(ipc, image_shape)
    budget = Budget(there, images_per_class, num_classes, reserved)
    return kind(**kind.within(image_shape, budget, options) | shape | options)


def of_format(kind: Format) -> Parameterization:
    """Returns the parameterization that optimizes a format, with the same settings."""
    return from_settings(settings(kind), find(kind.name))


def of(distilled: DistilledSet) -> tuple[Parameterization, Params]:
    """Returns the parameterization of a distilled set, and its parameters in float32."""
    kind = of_format(distilled.format)
    return kind, kind.from_arrays(distilled.arrays)


def stored(
    kind: Parameterization, params: Params, labels: Any, learning_rate: float, *more: Any
) -> DistilledSet:
    """Builds a distilled set from parameters; `more` are further arguments of `DistilledSet`."""
    arrays = {name: np.asarray(array) for name, array in kind.to_arrays(params).items()}
    return DistilledSet(kind, arrays, labels, learning_rate, *more)


def images(
    distilled: DistilledSet,
    height: int | None = None,
    width: int | None = None,
    resample: str = "bilinear",
) -> Float[Array, "m *t h w c"]:
    """Renders `distilled.images(...)` with JAX, Gaussians with the rasterizer; the same errors."""
    return unfolded(rendered(distilled, height, width, resample), distilled.format.frames)


def rendered(
    distilled: DistilledSet,
    height: int | None = None,
    width: int | None = None,
    resample: str = "bilinear",
) -> Float[Array, "m h w c"]:
    """Renders as `images`; the frames of a clip are channels, one after the other."""
    kind, params = of(distilled)
    size = checked_size(kind, len(distilled.labels), height, width, resample)
    found = _rendered(kind, params, *size, resample)
    # Outside of the program, which would hold every rectangle's mask as a constant.
    return distilled.checked(with_mixes(found, distilled.mixes))


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))
def _rendered(kind, params, height, width, resample):
    return kind.render_at(params, height, width, resample)
