"""Images as pixels of a few bits in patches with grouped scales, entropy-coded.

Each patch of a channel names one of its image's groups, which is a range of values. A pixel's code
divides the range evenly. A gain and an offset of every channel are applied to the result.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core import memory
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.formats import entropy, neighbors
from gsdd_jax.formats.arrays import namespace
from gsdd_jax.formats.base import CodedTogether, Contents, Spec
from gsdd_jax.formats.pixels import Images
from gsdd_jax.formats.shapes import Float, Int, UInt8
from gsdd_jax.rasterizer.limits import MAX_SIDE

CODES, RANGES, REFINEMENT = "codes", "ranges", "refinement"
INDICES = "indices"  # of the patches' groups, coded with the codes
COPIES = 16  # memory of decoding codes, in copies of the images


@dataclasses.dataclass(frozen=True)
class PTQ(CodedTogether, Images):
    """Pixels of `bits` bits; codes are range-coded, or of fixed width where that is shorter."""

    name: ClassVar[str] = "ptq"
    bytes_per_class: int = field(0, "budget; follows from the config")
    num_classes: int = field(1, "classes; follows from the data set")
    bits: int = field(2, "bits of a pixel's channel, before coding", most=8)
    patch: int = field(5, "side of a patch in pixels", most=MAX_SIDE)
    groups: int = field(8, "ranges that the patches of an image share", most=256)
    aware: bool = field(False, "True: networks see quantized images in distillation, too")

    def __post_init__(self):
        if self.patch > (longer := max(self.height, self.width, 5)):
            raise UsageError(
                f"parameterization ptq: patch: expected 1 to the images' {longer} pixels, got "
                f"{self.patch}"
            )

    @property
    def top(self) -> int:
        """Largest code of a pixel."""
        return 2**self.bits - 1

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of patches; the last ones may be smaller."""
        return -(-self.height // self.patch), -(-self.width // self.patch)

    @property
    def widths(self) -> tuple[int, int]:
        """Bits of a pixel's code and of a patch's group."""
        return self.bits, (self.groups - 1).bit_length()

    @property
    def code_shapes(self) -> list[tuple[int, int, int, int]]:
        """Shapes of all pixels' codes and of all patches' groups."""
        of_images = self.image_shape, (*self.patches, self.channels)
        return [(self.num_images, *shape) for shape in of_images]

    @property
    def num_codes(self) -> int:
        return sum(map(math.prod, self.code_shapes))

    @property
    def bytes_of_codes(self) -> int:
        """Bytes of the codes in fixed width."""
        return sum(self._fixed_bytes())

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        return {
            CODES: Spec((None,), "uint8"),
            RANGES: Spec((num_images, self.groups, 2), "bfloat16"),
            REFINEMENT: Spec((num_images, self.channels, 2), "bfloat16"),
        }

    def check_arrays(self, arrays: Mapping[str, Any]) -> None:
        low, high = np.moveaxis(np.asarray(arrays[RANGES]), -1, 0)
        if not (low <= high).all():
            raise UsageError(f"{RANGES}: expected each group's least value first, then its largest")
        if (there := len(arrays[CODES])) > self.bytes_of_codes:
            raise UsageError(
                f"{CODES}: expected at most {self.bytes_of_codes} bytes for {self.num_images} "
                f"images, got {there}"
            )
        self.check_bytes(arrays)

    def pack(
        self, codes: Int[np.ndarray, "m h w c"], indices: Int[np.ndarray, "m _ _ c"]
    ) -> UInt8[np.ndarray, "bytes"]:
        """Returns the shorter of the codes' bytes, range-coded and in fixed width."""
        coded = neighbors.encode([codes, indices], self.widths)
        return coded if len(coded) < self.bytes_of_codes else self._fixed(codes, indices)

    def codes(
        self, payload: UInt8[np.ndarray, "bytes"]
    ) -> tuple[Int[np.ndarray, "m h w c"], Int[np.ndarray, "m _ _ c"]]:
        """Returns the pixels' codes and the patches' groups: the inverse of `pack`."""
        if len(payload) < self.bytes_of_codes:
            codes, indices = neighbors.decode(payload, self.code_shapes, self.widths)
        else:
            parts = np.split(payload, self._fixed_bytes()[:1])
            codes, indices = (
                entropy.unpack(part, [width], math.prod(shape))[0].reshape(shape)
                for part, width, shape in zip(parts, self.widths, self.code_shapes, strict=True)
            )
            if not np.array_equal(self._fixed(codes, indices), payload):
                raise UsageError(f"{CODES}: expected zeros after the last code")
        if indices.max() >= self.groups:
            raise UsageError(f"{CODES}: a patch is of group {indices.max()} of {self.groups}")
        return codes, indices

    def divided(self, arrays: Mapping[str, np.ndarray]) -> Contents:
        memory.check(f"the codes of {self.num_images:,} images", 4 * self.num_codes, COPIES)
        codes, indices = self.codes(np.asarray(arrays[CODES]))
        kept = {name: np.asarray(arrays[name]) for name in (RANGES, REFINEMENT)}
        return Contents({CODES: codes, INDICES: indices} | kept, {}, {})

    def repacked(self, contents: Contents) -> dict[str, np.ndarray]:
        found = dict(contents.by_image)
        return {CODES: self.pack(found.pop(CODES), found.pop(INDICES))} | found

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self.divided(arrays).by_image
        with np.errstate(over="ignore", invalid="ignore"):  # rendered images are checked
            values = self.values(found[CODES], found[INDICES], found[RANGES])
            return {"pixels": refined(values, found[REFINEMENT])}

    def values(
        self,
        codes: Int[Any, "m h w c"],
        indices: Int[Any, "m rows columns c"],
        ranges: Float[Any, "m groups 2"],
    ) -> Float[Any, "m h w c"]:
        """Returns the values of codes within their groups' ranges; in NumPy or JAX."""
        xp = namespace(codes)
        ends = xp.take_along_axis(ranges, indices.reshape(len(indices), -1, 1), 1)
        ends = ends.reshape(*indices.shape, 2).repeat(self.patch, 1).repeat(self.patch, 2)
        low, high = xp.moveaxis(ends[:, : self.height, : self.width], -1, 0)
        part = codes.astype(np.float32) / np.float32(self.top)
        return (1 - part) * low + part * high

    def _fixed_bytes(self):
        return [
            entropy.packed_bytes([width], math.prod(shape))
            for width, shape in zip(self.widths, self.code_shapes, strict=True)
        ]

    def _fixed(self, *planes):
        pairs = zip(planes, self.widths, strict=True)
        return np.concatenate([entropy.pack([plane.ravel()], [width]) for plane, width in pairs])


def refined(
    values: Float[Any, "m h w c"], refinement: Float[Any, "m c 2"]
) -> Float[Any, "m h w c"]:
    """Returns values with a gain, stored less 1, and an offset of each channel."""
    gain, offset = namespace(values).moveaxis(refinement[:, None, None], -1, 0)
    return values + gain * values + offset
