"""Images as some coefficients of their cosine transform (FreD)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.options import Limits
from gsdd_jax.formats.base import MAX_SIDE, Spec
from gsdd_jax.formats.named_arrays import NamedArrays
from gsdd_jax.formats.shapes import Float

MASKS = "masks"


@dataclasses.dataclass(frozen=True)
class FreD(NamedArrays):
    """Of every channel's orthonormal DCT-II `num_frequencies` coefficients; a bit mask for each
    class says which."""

    name: ClassVar[str] = "fred"
    limits: ClassVar[Limits] = NamedArrays.limits | {"size": (1, MAX_SIDE**2)}
    height: int
    width: int
    channels: int
    images_per_class: int
    num_frequencies: int
    size: int  # numbers of a channel, as published: 64 at 32 x 32, 2048 at 128 x 128
    dtype: str = "float32"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"coefficients": (self.num_frequencies, self.channels)}

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        """Besides the coefficients a mask, packed to bytes, for all images of a class."""
        shape = num_images // self.images_per_class, mask_bytes(self.height, self.width)
        return super().array_specs(num_images) | {MASKS: Spec(shape, "uint8")}

    def check_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Each mask has as many frequencies as the images have coefficients, and all are known."""
        bits = np.unpackbits(np.asarray(arrays[MASKS]), axis=-1)
        known = bits[:, : self.height * self.width].sum(-1, dtype=int)
        wrong = (known != self.num_frequencies) | (bits.sum(-1, dtype=int) != known)
        if wrong.any():
            raise UsageError(
                f"{MASKS}: expected {self.num_frequencies} of {self.height * self.width} "
                f"frequencies in each, got others in {wrong.sum()} of {len(wrong)}"
            )

    def decode(
        self, opened: Mapping[str, np.ndarray], height: int, width: int, resample: str
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        """The cosines at other points: the spectrum padded with zeros, or cut."""
        del resample
        size = self.height * self.width
        masks = np.unpackbits(opened[MASKS], axis=-1)[:, :size].astype(bool)
        spectrum = np.zeros((len(opened["coefficients"]), size, self.channels), np.float32)
        # As booleans choose: image by image, in the order of the frequencies.
        chosen = np.repeat(masks, self.images_per_class, axis=0)
        spectrum[chosen] = opened["coefficients"].reshape(-1, self.channels)
        rows, columns = min(height, self.height), min(width, self.width)
        spectrum = spectrum.reshape(-1, *self.image_shape)[:, :rows, :columns]
        left = cosines(height, rows, self.height)
        right = cosines(width, columns, self.width)
        return np.einsum("yi,mijc,xj->myxc", left, spectrum, right, optimize=True)


def mask_bytes(height: int, width: int) -> int:
    """Of one mask."""
    return -(-height * width // 8)


def cosines(points: int, count: int, native: int) -> Float[np.ndarray, "{points} {count}"]:
    """The first `count` orthonormal DCT-II vectors of `native` samples, seen at `points`.

    At other points than the native ones they keep their height, so that the image keeps its
    brightness.
    """
    angle = np.pi / points * np.outer(np.arange(points) + 0.5, np.arange(count))
    scale = np.where(np.arange(count) == 0, 1.0, 2.0) / native
    return (np.sqrt(scale) * np.cos(angle)).astype(np.float32)
