"""Plain numbers in codes: multiples of one step, entropy-coded with those of all images.

A column is a group of numbers that share a frequency table. A file holds each column's least code,
the length of its table, and the tables one after the other.
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
from gsdd_jax.formats.base import CODES, CodedTogether, Contents, Format, Spec
from gsdd_jax.formats.shapes import Float, Int

PAYLOAD, TABLES, RANGES, STEP = "codes", "tables", "ranges", "step"
LARGEST = 2**10  # code, finer than what shows; tables stay short
SHORTEST = 2  # table of a column that has numbers
COPIES = 24  # memory of decoding codes, in copies of the numbers
FROM_YCOCG = np.array([[1.0, 1.0, -1.0], [1.0, 0.0, 1.0], [1.0, -1.0, -1.0]], np.float32)
YCOCG = np.array([[0.25, 0.5, 0.25], [0.5, 0.0, -0.5], [-0.25, 0.5, -0.25]], np.float32)


@dataclasses.dataclass(frozen=True)
class Codes(CodedTogether, Format):
    """Formats of `Numbers` with `dtype="codes"`; see `coded`."""

    takes_clips: ClassVar[bool] = False
    bytes_per_class: int = field(0, "budget; follows from the config")
    num_classes: int = field(1, "classes; follows from the data set")
    rate_weight: float = field(1.0, "weight of bits beyond the budget, relative to the budget")

    @property
    def num_codes(self) -> int:
        return self.num_images * self.numbers_each

    @property
    def overhead_bytes(self) -> int:
        """Bytes of the shortest tables, the coder's tail and all that has a fixed length."""
        return super().overhead_bytes + SHORTEST * self.num_columns + entropy.TAIL

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        specs = super().array_specs(num_images)
        return {
            PAYLOAD: Spec((None,), "uint8"),
            TABLES: Spec((None,), "uint8"),
            RANGES: Spec((self.num_columns, 2), "int32"),
            STEP: Spec((1,), "float32"),
        } | {name: spec for name, spec in specs.items() if name not in self.shapes()}

    def check_arrays(self, arrays: Mapping[str, Any]) -> None:
        super().check_arrays(arrays)
        if not (step := arrays[STEP][0]) > 0:
            raise UsageError(f"{STEP}: expected a positive number, got {step:g}")
        first, lengths = np.asarray(arrays[RANGES], np.int64).T
        there = len(arrays[TABLES])
        short = (lengths != 0) & (lengths < SHORTEST)
        if short.any() or lengths.sum() != there or (np.abs(first) > LARGEST).any():
            raise UsageError(
                f"{RANGES}: expected least codes within {LARGEST} of 0, and tables of {there} "
                f"values together, each of none or at least {SHORTEST}"
            )
        if not all(table.any() for table in self._tables(arrays) if len(table)):
            raise UsageError(f"{TABLES}: expected a frequency above 0 in every column")
        self.check_bytes(arrays)

    def pack(
        self, codes: Int[np.ndarray, "m n"], columns: Int[np.ndarray, "_ n"], step: float
    ) -> dict[str, np.ndarray] | None:
        """Returns a file's arrays, or None if its codes are too many for tables."""
        order, counts = self._by_column(columns)
        parts = np.split(codes.ravel()[order], np.cumsum(counts)[:-1])
        ranges = np.zeros((self.num_columns, 2), np.int32)
        for i, part in enumerate(parts):
            if len(part):
                ranges[i] = part.min(), max(SHORTEST, np.ptp(part) + 1)
        if ranges[:, 1].sum() > self.most_bytes or np.abs(codes).max() > LARGEST:
            return None
        shifted = [p - first for p, (first, _) in zip(parts, ranges, strict=True) if len(p)]
        lengths = ranges[counts > 0, 1].tolist()
        tables = [entropy.table(*pair) for pair in zip(shifted, lengths, strict=True)]
        return {
            PAYLOAD: entropy.encode(shifted, tables),
            TABLES: np.concatenate(tables),
            RANGES: ranges,
            STEP: np.array([step], np.float32),
        }

    def divided(self, arrays: Mapping[str, np.ndarray]) -> Contents:
        found = super().divided(self._others(arrays))
        found.by_image[PAYLOAD] = self.codes_of(arrays)
        found.shared[STEP] = np.asarray(arrays[STEP])
        return found

    def repacked(self, contents: Contents) -> dict[str, np.ndarray]:
        found = contents.by_image | contents.by_class | contents.shared
        codes, step = found.pop(PAYLOAD), found.pop(STEP)
        columns = self.columns(super().unpack(found))
        return found | self.pack(codes, columns, float(step[0]))

    def codes_of(self, arrays: Mapping[str, np.ndarray]) -> Int[np.ndarray, "m n"]:
        """Returns the codes of every image; raises UsageError for invalid ones."""
        memory.check(f"the numbers of {self.num_images:,} images", 4 * self.num_codes, COPIES)
        order, counts = self._by_column(self.columns(super().unpack(self._others(arrays))))
        first, lengths = np.asarray(arrays[RANGES]).T
        if not np.array_equal(counts > 0, lengths > 0):
            raise UsageError(f"{RANGES}: expected tables of the columns that have numbers")
        used, tables = np.flatnonzero(counts), self._tables(arrays)
        columns = entropy.decode(
            np.asarray(arrays[PAYLOAD]), [tables[i] for i in used], counts[used]
        )
        codes = np.empty(len(order), np.int32)
        codes[order] = np.concatenate(columns) + np.repeat(first, counts)
        return codes.reshape(self.num_images, -1)

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        known, step = super().unpack(self._others(arrays)), arrays[STEP][0]
        with np.errstate(over="ignore", invalid="ignore"):  # rendered images are checked
            found = self.arrays_of(step * self.codes_of(arrays).astype(np.float32))
        return known | found | {STEP: np.full(self.num_images, step, np.float32)}

    def _others(self, arrays):
        """Returns the arrays that are not in codes."""
        return {n: a for n, a in arrays.items() if n not in (PAYLOAD, TABLES, RANGES, STEP)}

    def _by_column(self, columns) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "columns"]]:
        """Returns the order of all numbers by column, and each column's count."""
        columns = np.broadcast_to(columns, (self.num_images, self.numbers_each)).ravel()
        order = np.argsort(columns, kind="stable")
        return order, np.bincount(columns, minlength=self.num_columns)

    def _tables(self, arrays: Mapping[str, Any]) -> list[np.ndarray]:
        lengths = np.asarray(arrays[RANGES], np.int64)[:, 1]
        return np.split(np.asarray(arrays[TABLES]), np.cumsum(lengths)[:-1])


class Numbers(Format):
    """Base of formats of plain numbers, which `dtype` stores as they are or in codes.

    By default the last axis of every array is colors, and each channel is a column.
    """

    bits_each: ClassVar[float]  # bits per number of a suggested set in codes
    has_colors: ClassVar[bool] = True
    codes: ClassVar[type] = Codes

    @classmethod
    def variant(cls, values: Mapping[str, Any]) -> type[Format]:
        """Returns the class itself, or `coded`."""
        chosen = any(of.name == "dtype" for of in dataclasses.fields(cls))
        return coded(cls.codes, cls) if chosen and values.get("dtype") == CODES else cls

    @property
    def num_columns(self) -> int:
        return self.channels

    @property
    def numbers_each(self) -> int:
        """Numbers of an image."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def columns(self, params: Mapping[str, Any]) -> Int[Any, "_ n"]:
        """Returns the column of every number, by image if images differ."""
        del params
        return np.arange(self.numbers_each)[None] % self.channels

    def unit(self, name: str) -> float:
        """Returns the size of an array's numbers that one step suits as well as those of others."""
        del name
        return 1.0

    def numbers(self, params: Mapping[str, Any]) -> Float[Any, "m n"]:
        """Returns the numbers of each image in their units; colors as luma and chroma."""
        parts = []
        for name in self.shapes():
            array = params[name]
            if self.has_colors and self.channels == 3:
                array = einsum("...c,dc->...d", array, YCOCG)
            parts.append(array.reshape(len(array), -1) / np.float32(self.unit(name)))
        return namespace(*parts).concatenate(parts, -1)

    def arrays_of(self, numbers: Float[Any, "m n"]) -> dict[str, Any]:
        """Returns the arrays of `shapes`: the inverse of `numbers`."""
        arrays, at = {}, 0
        for name, shape in self.shapes().items():
            part = numbers[:, at : at + math.prod(shape)].reshape(-1, *shape)
            at += math.prod(shape)
            part = part * np.float32(self.unit(name))
            if self.has_colors and self.channels == 3:
                part = einsum("...d,cd->...c", part, FROM_YCOCG)
            arrays[name] = part
        return arrays


@functools.cache
def coded(mixin: type[CodedTogether], kind: type[Format]) -> type[Format]:
    """Returns the class of a format in codes: `mixin`, such as `Codes`, and the plain class."""
    derived = frozenset().union(*(getattr(part, "derived", ()) for part in (mixin, kind)))
    made = type(f"{kind.__name__}Codes", (mixin, kind), {"derived": derived})
    made.__module__, made.__doc__ = kind.__module__, kind.__doc__
    return dataclasses.dataclass(frozen=True)(made)
