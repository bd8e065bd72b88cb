"""Images as Gaussians in codes on uniform grids, entropy-coded.

A column is one number of every Gaussian: u, v, the three of L, the channels, the opacity. All
images share its grid: the file holds the ends, the field's bits give the number of values. Images'
counts of Gaussians differ by at most one.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core import memory
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.formats import entropy
from gsdd_jax.formats.arrays import einsum, namespace
from gsdd_jax.formats.base import CodedTogether, Contents, Spec
from gsdd_jax.formats.codes import FROM_YCOCG
from gsdd_jax.formats.gaussian import Gaussians
from gsdd_jax.formats.shapes import Float, Int

CODINGS = ("range", "none")
MOST_BITS = 1000  # per Gaussian in a budget
FEWEST_BITS = 4  # per Gaussian: a few bytes must not decode to any number of these
COPIES = 8  # memory of decoding codes, in copies of the numbers
CODES, TABLES, ENDS = "codes", "tables", "ends"


@dataclasses.dataclass(frozen=True)
class Quantized(CodedTogether, Gaussians):
    """Gaussians of a few bits per number instead of nine bfloat16 numbers.

    With `coding="range"` Gaussians are sorted by u, whose differences are coded, and each column is
    coded by its frequencies. Grids are widened at the end until the file fits the budget.
    """

    name: ClassVar[str] = "quantized"
    of_all_classes: ClassVar[frozenset[str]] = CodedTogether.of_all_classes | {"num_gaussians"}
    coded: ClassVar[float] = 5 / 6  # bits that the range coder leaves of a fit's
    num_gaussians: int = field(..., "Gaussians of all images together")
    bytes_per_class: int = field(0, "budget; follows from the config")
    num_classes: int = field(1, "classes; follows from the data set")
    # Defaults have the fewest bits at equal PSNR of a fit (docs/results.md).
    bits_means: int = field(7, "bits per coordinate of a center, before coding", 2, 8)
    bits_cholesky: int = field(5, "bits per entry of L, before coding", 2, 8)
    bits_colors: int = field(5, "bits per color channel, before coding", 2, 8)
    bits_opacities: int = field(4, "bits per opacity, before coding", 2, 8)
    log_scales: bool = field(False, "True: L's diagonal is quantized on a logarithmic scale")
    luma: bool = field(True, "True: colors are stored as luma and two chroma differences (YCoCg)")
    coding: str = field(
        "range", "coding: range (entropy coding) or none (codes of fixed length)", choices=CODINGS
    )
    bits_per_gaussian: float = field(
        0.0, "bits per Gaussian in the budget; 0: as expected after coding", 8, MOST_BITS,
        automatic=True,
    )  # fmt: skip
    rate_weight: float = field(0.01, "weight of bits above bits_per_gaussian in the objective")

    @property
    def layout(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """Shape of each stored field of a Gaussian, and bits per number, in the columns' order."""
        fields = {
            "means": ((2,), self.bits_means),
            "cholesky": ((3,), self.bits_cholesky),
            "colors": ((self.colors,), self.bits_colors),
            "opacities": ((), self.bits_opacities),
        }
        if not self.opacity:
            del fields["opacities"]
        return fields

    @functools.cached_property
    def field_sizes(self) -> dict[str, int]:
        """Numbers of each stored field of a Gaussian."""
        return {name: math.prod(shape) for name, (shape, _) in self.layout.items()}

    def by_field(self, columns: Any) -> dict[str, Any]:
        """Returns columns [..., columns], of NumPy or JAX, divided by field."""
        ends = np.cumsum(list(self.field_sizes.values()))[:-1]
        parts = namespace(columns).split(columns, ends, -1)
        return dict(zip(self.layout, parts, strict=True))

    @functools.cached_property
    def widths(self) -> tuple[int, ...]:
        """Bits of each column before coding."""
        return tuple(bits for shape, bits in self.layout.values() for _ in range(math.prod(shape)))

    @property
    def stored_bits(self) -> float:
        """Bits of the budget per Gaussian."""
        expected = self.coded if self.coding == "range" else 1.0
        return self.bits_per_gaussian or expected * sum(self.widths)

    @property
    def counts(self) -> Int[np.ndarray, "m"]:
        each, more = divmod(self.num_gaussians, self.num_images)
        return each + (np.arange(self.num_images) < more)

    @property
    def most_gaussians(self) -> int:
        return int(self.counts[0])

    @property
    def overhead_bytes(self) -> int:
        """Bytes of the grids, the tables and the coder's tail."""
        return super().overhead_bytes + (entropy.TAIL if self.coding == "range" else 0)

    @property
    def num_codes(self) -> int:
        return self.num_gaussians * len(self.widths)

    @property
    def least_bytes(self) -> int:
        """Bytes of a Gaussian per image."""
        return self.overhead_bytes + math.ceil(self.num_images * self.stored_bits / 8)

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        specs = {CODES: Spec((None,), "uint8"), ENDS: Spec((len(self.widths), 2), "float32")}
        if self.coding == "range":
            specs[TABLES] = Spec((sum(self.levels),), "uint8")
        return specs

    def check_arrays(self, arrays: Mapping[str, Any]) -> None:
        low, high = np.asarray(arrays[ENDS]).T
        if not (low < high).all():
            raise UsageError(f"{ENDS}: expected each column's least value below its largest")
        total, there = self.num_gaussians, len(arrays[CODES])
        if self.coding == "none":
            if there != (expected := entropy.packed_bytes(self.widths, total)):
                raise UsageError(
                    f"{CODES}: expected {expected} bytes for {total} Gaussians, got {there}"
                )
            return
        if not all(table.any() for table in self._tables(arrays)):
            raise UsageError(f"{TABLES}: expected a frequency above 0 in every column")
        least = total * FEWEST_BITS // 8
        if there < least:
            raise UsageError(
                f"{CODES}: expected at least {least} bytes for {total} Gaussians, got {there}"
            )
        self.check_bytes(arrays)

    def codes(self, arrays: Mapping[str, Any]) -> Int[np.ndarray, "n columns"]:
        """Returns the codes of all Gaussians, ordered by image."""
        memory.check(f"the codes of {self.num_gaussians:,} Gaussians", 4 * self.num_codes, COPIES)
        payload = np.asarray(arrays[CODES])
        if self.coding == "none":
            columns = entropy.unpack(payload, self.widths, self.num_gaussians)
        else:
            columns = entropy.decode(payload, self._tables(arrays), self.num_gaussians)
            counts, summed = self.counts, np.cumsum(columns[0])
            first = np.repeat(np.cumsum(counts) - counts, counts)  # of the same image
            columns[0] = summed - (summed[first] - columns[0][first])
            if columns[0].max() >= 2**self.bits_means:
                raise UsageError(f"{CODES}: u goes beyond its {2**self.bits_means} values")
        return np.stack(columns, 1).astype(np.int32)

    def pack(
        self, codes: Int[np.ndarray, "n columns"], ends: Float[np.ndarray, "columns 2"]
    ) -> dict[str, np.ndarray]:
        """Packs codes, sorted within each image, and grids' ends as a file's arrays."""
        owner = np.repeat(np.arange(self.num_images), self.counts)
        # The order of Gaussians is free; this one is cheap to store.
        codes = codes[np.lexsort((codes[:, 1], codes[:, 0], owner))]
        if self.coding == "none":
            return {ENDS: ends, CODES: entropy.pack(list(codes.T), self.widths)}
        same = np.diff(owner, prepend=-1) == 0
        codes[:, 0] = np.where(same, np.diff(codes[:, 0], prepend=0), codes[:, 0])
        columns = list(codes.T)
        tables = [entropy.table(*pair) for pair in zip(columns, self.levels, strict=True)]
        coded = entropy.encode(columns, tables)
        return {ENDS: ends, CODES: coded, TABLES: np.concatenate(tables)}

    def divided(self, arrays: Mapping[str, np.ndarray]) -> Contents:
        codes = np.empty(self.num_images, object)  # images differ in length
        for i, image in enumerate(np.split(self.codes(arrays), np.cumsum(self.counts)[:-1])):
            codes[i] = image
        return Contents({CODES: codes}, {}, {ENDS: np.asarray(arrays[ENDS])})

    def sizes(self, contents: Contents) -> dict[str, int]:
        return {"num_gaussians": sum(map(len, contents.by_image[CODES]))}

    def repacked(self, contents: Contents) -> dict[str, np.ndarray]:
        images = contents.by_image[CODES]
        if list(map(len, images)) != self.counts.tolist():
            raise UsageError(
                f"{self.name}: expected images of equally many Gaussians, or of one more before "
                "those of one less; in another order they cannot be stored without loss"
            )
        return self.pack(np.concatenate(images), contents.shared[ENDS])

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        low, high = arrays[ENDS].T
        codes = self.codes(arrays)
        with np.errstate(over="ignore", invalid="ignore"):  # rendered images are checked
            fields = self.fields(values_of(codes, low, high, self.levels))
        return fields | {"counts": self.counts}

    def fields(self, columns: Float[Any, "n columns"]) -> dict[str, Any]:
        """Returns Gaussians by field from the numbers on the grids; in NumPy or JAX."""
        xp, many = namespace(columns), columns.shape[:-1]
        found = {
            name: part.reshape(*many, *self.layout[name][0])
            for name, part in self.by_field(columns).items()
        }
        if self.log_scales:
            l11, l21, l22 = xp.moveaxis(found["cholesky"], -1, 0)
            found["cholesky"] = xp.stack([xp.exp(l11) - 0.5, l21, xp.exp(l22) - 0.5], -1)
        if self.has_luma:
            found["colors"] = einsum("nd,cd->nc", found["colors"], FROM_YCOCG)
        return {"opacities": xp.ones(many, np.float32)} | found

    @property
    def has_luma(self) -> bool:
        return self.luma and self.colors == 3

    @property
    def levels(self) -> tuple[int, ...]:
        return tuple(2**width for width in self.widths)

    def _tables(self, arrays: Mapping[str, Any]) -> list[np.ndarray]:
        return np.split(np.asarray(arrays[TABLES]), np.cumsum(self.levels)[:-1])


def values_of(
    codes: Int[Any, "*s columns"],
    low: Float[Any, "columns"],
    high: Float[Any, "columns"],
    levels: tuple[int, ...],
) -> Float[Any, "*s columns"]:
    """Returns the numbers of codes on grids of `levels` values from `low` to `high`."""
    return low + codes * ((high - low) / (np.array(levels, np.float32) - 1))
