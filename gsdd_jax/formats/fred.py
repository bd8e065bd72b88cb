"""Images as some coefficients of their cosine transform (FreD)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import namespace, placed, sides
from gsdd_jax.formats.base import Spec, dtype_field
from gsdd_jax.formats.codes import Numbers
from gsdd_jax.formats.shapes import Float, Int
from gsdd_jax.rasterizer.limits import MAX_SIDE

MASKS = "masks"


@dataclasses.dataclass(frozen=True)
class FreD(Numbers):
    """Orthonormal DCT-II coefficients, at the same frequencies in every channel of a class.

    A bit mask per class gives the frequencies.
    """

    name: ClassVar[str] = "fred"
    takes_clips: ClassVar[bool] = True
    bits_each: ClassVar[float] = 3.0
    num_frequencies: int = field(..., "coefficients per channel")
    size: int = field(
        ...,
        "numbers per channel in the budget; published: 64 at 32 x 32, 2048 at 128 x 128",
        most=MAX_SIDE**2,
    )
    dtype: str = dtype_field()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"coefficients": (self.num_frequencies, self.channels)}

    @property
    def num_columns(self) -> int:
        return self.channels * (1 + (max(self.height, self.width) - 1).bit_length())

    def columns(self, params: Mapping[str, Any]) -> Int[Any, "m n"]:
        """Returns a column for every octave of the higher frequency of both axes, and channel."""
        higher = np.maximum(np.arange(self.height)[:, None], np.arange(self.width)).ravel()
        octave = np.ceil(np.log2(higher + 1)).astype(np.int32)
        places, xp = params["frequencies"].astype(np.int32), namespace(params["frequencies"])
        octaves = xp.asarray(octave)[places]
        columns = octaves[..., None] * self.channels + np.arange(self.channels)
        return columns.reshape(len(places), -1)

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        """Returns the coefficients, and a mask per class, packed to bytes."""
        shape = num_images // self.images_per_class, mask_bytes(self.height, self.width)
        return super().array_specs(num_images) | {MASKS: Spec(shape, "uint8")}

    def check_arrays(self, arrays: Mapping[str, Any]) -> None:
        """Raises UsageError unless each mask has `num_frequencies` valid frequencies."""
        bits = np.unpackbits(np.asarray(arrays[MASKS]), axis=-1)
        known = bits[:, : self.height * self.width].sum(-1, dtype=int)
        wrong = (known != self.num_frequencies) | (bits.sum(-1, dtype=int) != known)
        if wrong.any():
            raise UsageError(
                f"{MASKS}: expected {self.num_frequencies} of {self.height * self.width} "
                f"frequencies in each, got others in {wrong.sum()} of {len(wrong)}"
            )

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the coefficients and frequencies, counted row by row, of every image.

        Frequencies are float32, exact up to 4096², because parameters are differentiated.
        """
        bits = np.unpackbits(arrays[MASKS], axis=-1)
        places = np.nonzero(bits)[1].reshape(len(bits), -1).astype(np.float32)
        frequencies = np.repeat(places, self.images_per_class, axis=0)
        kept = {name: array for name, array in arrays.items() if name != MASKS}
        return kept | {"frequencies": frequencies}

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        """Evaluates the cosines at other points: the spectrum is padded with zeros, or cut."""
        places = params["frequencies"].astype(np.int32)
        spectrum = placed(params["coefficients"], places, self.height * self.width)
        rows, columns = min(height, self.height), min(width, self.width)
        return sides(
            cosines(height, rows, self.height),
            spectrum.reshape(-1, *self.image_shape)[:, :rows, :columns],
            cosines(width, columns, self.width),
        )


def mask_bytes(height: int, width: int) -> int:
    return -(-height * width // 8)


def cosines(points: int, count: int, native: int) -> Float[np.ndarray, "{points} {count}"]:
    """Returns the first `count` orthonormal DCT-II vectors of `native` samples, at `points`.

    Amplitudes do not depend on `points`, to keep an image's brightness.
    """
    angle = np.pi / points * np.outer(np.arange(points) + 0.5, np.arange(count))
    scale = np.where(np.arange(count) == 0, 1.0, 2.0) / native
    return (np.sqrt(scale) * np.cos(angle)).astype(np.float32)
