"""How images are stored, as far as a file says: settings, arrays, and the images in NumPy."""

from __future__ import annotations

import abc
import dataclasses
import math
import numbers
import reprlib
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from gsdd_jax.core import memory
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.options import Limits, check_values
from gsdd_jax.portable.shapes import Float

MAX_SIDE = 4096  # pixels of a height or width; more would not be rendered but end the process
MAX_CHANNELS = 4
RESAMPLINGS = ("bilinear", "nearest")
COPIES = 4  # of images: what they are made of, they themselves, and transformed


class Spec(NamedTuple):
    """An array of a file. A length that depends on the values is None."""

    shape: tuple[int | None, ...]
    dtype: str  # "float32", "bfloat16" or "uint8"


class Stored(abc.ABC):
    """A frozen dataclass of static settings: what a file holds for them, and what that shows."""

    name: ClassVar[str]
    later: ClassVar[dict[str, Any]] = {}  # settings that older files lack, and what they mean then
    limits: ClassVar[Limits] = {
        "height": (1, MAX_SIDE),
        "width": (1, MAX_SIDE),
        "channels": (1, MAX_CHANNELS),
    }
    height: int
    width: int
    channels: int
    images_per_class: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.height, self.width, self.channels

    def check_num_images(self, num_images: int) -> None:
        """Raises UsageError for a set of so many images, of all classes, that there is not."""
        if num_images < 1 or num_images % self.images_per_class:
            raise UsageError(
                f"expected a multiple of images_per_class={self.images_per_class}, got {num_images}"
            )

    @abc.abstractmethod
    def array_specs(self, num_images: int) -> dict[str, Any]:
        """The arrays of a file with that many images by name: a `Spec`, or what has its fields."""

    def check_arrays(self, arrays: Mapping[str, Any]) -> None:
        """Raises UsageError for finite values of a file that are none of a set's."""
        del arrays

    def opened(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What `decode` takes, of a file's arrays (bfloat16 as float32).

        Raises UsageError for codes that are none.
        """
        return dict(arrays)

    def decode(
        self, opened: Mapping[str, np.ndarray], height: int, width: int, resample: str
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        """The images in NumPy, in [0, 1] space but unclipped.

        What is stored at one size is resampled, as by `Parameterization.render_at`.
        """
        raise UsageError(f"{self.name} is not decoded without JAX; expected it to be installed")

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """What rendering them takes beside them: here images of their own size."""
        del height, width
        return 4 * num_images * math.prod(self.image_shape)


def settings(stored: Stored) -> dict[str, Any]:
    """What `from_settings` needs to make the same again, as plain values."""
    return {"name": stored.name, **dataclasses.asdict(stored)}


def from_settings(values: Mapping[str, Any], by_name: Mapping[str, type[Stored]]) -> Stored:
    """The inverse of `settings`, of the kinds in `by_name`; believes nothing of what it is given.

    Raises UsageError for an unknown name, and for a field that is unknown, missing, not of exactly
    its type, not in its range (`limits`) or not finite; the message names the field.
    """
    values = dict(values)
    name = values.pop("name", None)
    if not isinstance(name, str) or name not in by_name:
        raise UsageError(
            f"parameterization: expected one of {', '.join(by_name)}, got {reprlib.repr(name)}"
        )
    kind = by_name[name]
    values = kind.later | values
    known = [field.name for field in dataclasses.fields(kind)]
    for field in known:
        if field not in values:
            raise UsageError(f"parameterization {name}: {field} is missing")
    for field in values:
        if field not in known:
            raise UsageError(
                f"parameterization {name}: unknown field {reprlib.repr(field)}; "
                f"expected {', '.join(known)}"
            )
    check_values(kind, values, kind.limits, f"parameterization {name}: ")
    return kind(**values)


def checked_size(
    native: Stored, num_images: int, height: int | None, width: int | None, resample: str
) -> tuple[int, int]:
    """The size that was asked for, or the set's own.

    Raises ValueError for a size or a resampling that there is not, UsageError where so many images
    do not fit into memory.
    """
    height = native.height if height is None else height
    width = native.width if width is None else width
    for name, side in (("height", height), ("width", width)):
        if not (isinstance(side, numbers.Integral) and 1 <= side <= MAX_SIDE):
            raise ValueError(f"{name}: expected an integer from 1 to {MAX_SIDE}, got {side!r}")
    if resample not in RESAMPLINGS:
        raise ValueError(f"resample: expected one of {', '.join(RESAMPLINGS)}, got {resample!r}")
    height, width = int(height), int(width)
    shape = height, width, native.channels
    what = f"{num_images:,} images of {'x'.join(map(str, shape))}"
    memory.check(what, 4 * num_images * math.prod(shape), COPIES)
    memory.check(f"what {what} are rendered with", native.working_bytes(num_images, height, width))
    return height, width


def num_bytes(arrays: Mapping[str, Any]) -> int:
    """What named arrays take, as they are stored."""
    return sum(array.size * array.dtype.itemsize for array in arrays.values())
