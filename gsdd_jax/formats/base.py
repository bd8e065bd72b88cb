"""Interface of a storage format: settings, arrays of a file, and decoding to images."""

import abc
import dataclasses
import math
import numbers
import reprlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from gsdd_jax.core import kinds, memory
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import MOST_INT, check_values, field
from gsdd_jax.formats.clips import shown_shape
from gsdd_jax.formats.shapes import Float
from gsdd_jax.rasterizer.limits import MAX_CHANNELS, MAX_FRAMES, MAX_SIDE

FORMATS, PARAMETERIZATIONS = "gsdd_jax.formats", "gsdd_jax.parameterizations"
RESAMPLINGS = ("bilinear", "nearest")
CODES = "codes"  # see `formats.codes`
DTYPES = ("float32", "bfloat16", CODES)  # of real arrays
PLAIN = DTYPES[:2]  # of arrays that have no codes
ITEMSIZE = {"bfloat16": 2, "float32": 4, "int32": 4, "uint8": 1}
LEAST_BYTES = 4  # of the codes of an image that is coded together with others
# Most codes of a file: any few, and a multiple of its bytes. Suggested sets have about 20 per byte.
FREE_CODES, CODES_PER_BYTE = 1 << 18, 256
COPIES = 4  # memory of rendering, in copies of the images


def dtype_field(choices: tuple[str, ...] = DTYPES) -> Any:
    """Returns a field for the type of stored numbers."""
    return field("float32", f"type of stored numbers: {', '.join(choices)}", choices=choices)


class Spec(NamedTuple):
    """Type and shape of an array in a file; None: a length that depends on the values."""

    shape: tuple[int | None, ...]
    dtype: str  # a key of ITEMSIZE; bfloat16 is float32 in memory


def bytes_of(specs: Iterable[Spec]) -> int:
    """Returns the bytes of arrays whose length does not depend on the values."""
    return sum(ITEMSIZE[s.dtype] * math.prod(s.shape) for s in specs if None not in s.shape)


class Contents(NamedTuple):
    """Exact contents of a file's arrays, by name, that images can be taken from and added to."""

    by_image: dict[str, np.ndarray]
    by_class: dict[str, np.ndarray]
    shared: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Format(abc.ABC):
    """Static settings of a storage format, as in a file; no JAX.

    By default a file holds the arrays of `shapes` with images as leading axis, as `dtype`.
    """

    name: ClassVar[str]
    since: ClassVar[dict[str, Any]] = {}  # values of fields that files of before lack
    # Fields that follow from the number of classes.
    of_all_classes: ClassVar[frozenset[str]] = frozenset()
    takes_clips: ClassVar[bool] = False  # whether `frames` may be more than one
    dtype = "float32"  # of all arrays; a field in formats with a choice
    height: int = field(..., "pixels", most=MAX_SIDE)
    width: int = field(..., "pixels", most=MAX_SIDE)
    channels: int = field(..., "1 (gray) to 4, of each frame", most=MAX_CHANNELS)
    images_per_class: int = field(..., "synthetic images per class, on average")
    _: dataclasses.KW_ONLY
    frames: int = field(1, "frames of a clip, one after the other as channels", most=MAX_FRAMES)

    @classmethod
    def variant(cls, values: Mapping[str, Any]) -> type["Format"]:
        """Returns the class for such settings, which may have more fields."""
        del values
        return cls

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image; the channels of a clip are of all frames."""
        return self.height, self.width, self.channels

    @property
    def colors(self) -> int:
        """Channels of a frame."""
        return self.channels // self.frames

    @property
    def shown_shape(self) -> str:
        """Frames of a clip, height, width and colors, for people."""
        return shown_shape(self.image_shape, self.frames)

    @property
    def besides(self) -> tuple[str, ...]:
        """What a reader needs besides the file, with its bytes, which do not count."""
        return ()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of one image's arrays, by name."""
        raise NotImplementedError

    def shared_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the arrays that all images share, by name."""
        return {}

    def is_shared(self, name: str) -> bool:
        """Returns whether a parameter of `decode` is kept whole for any of the images."""
        return name in self.shared_shapes()

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        """Returns the arrays of a file with `num_images` images, by name."""
        own = {n: Spec((num_images, *shape), self.dtype) for n, shape in self.shapes().items()}
        return own | {n: Spec(shape, self.dtype) for n, shape in self.shared_shapes().items()}

    def check_num_images(self, num_images: int) -> None:
        """Raises UsageError for an impossible total number of images."""
        if num_images < 1 or num_images % self.images_per_class:
            raise UsageError(
                f"expected a multiple of images_per_class={self.images_per_class}, got {num_images}"
            )

    def check_arrays(self, arrays: Mapping[str, Any]) -> None:
        """Raises UsageError for finite but invalid values of a file."""
        del arrays

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the parameters of `decode`, in float32, from a file's arrays.

        Raises UsageError for invalid codes.
        """
        return dict(arrays)

    def divided(self, arrays: Mapping[str, np.ndarray]) -> Contents:
        """Returns the contents of a file's arrays by the axis that grows with its images."""
        found = Contents({}, {}, {})
        for name, axis in self._axes().items():
            if name in arrays:
                getattr(found, axis)[name] = arrays[name]
        return found

    def arrays_by_class(self) -> list[str]:
        """Returns the arrays of a file that lead with classes of equally many images."""
        return [name for name, axis in self._axes().items() if axis == "by_class"]

    def _axes(self) -> dict[str, str]:
        """Returns for each array the field of `Contents` that it belongs to."""
        one, two = (self.array_specs(classes * self.images_per_class) for classes in (1, 2))
        found = {}
        for name in one:
            first, then = one[name].shape[:1], two[name].shape[:1]
            by = "by_image" if first == (self.images_per_class,) else "by_class"
            found[name] = "shared" if first == then else by
        return found

    def resized(
        self, contents: Contents, images_per_class: int, num_classes: int
    ) -> tuple["Format", dict[str, np.ndarray]]:
        """Returns the format of contents of other images, and their arrays in a file.

        Raises UsageError if it cannot store them exactly.
        """
        del num_classes
        kind = dataclasses.replace(self, images_per_class=images_per_class)
        return kind, contents.by_image | contents.by_class | contents.shared

    @abc.abstractmethod
    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        """Decodes parameters of NumPy or JAX to images in [0, 1] space, unclipped.

        Formats with one image size resample by one of `RESAMPLINGS`: half-pixel centers, edges
        repeated, no smoothing when shrinking. Others render at any size and ignore `resample`.
        """

    def rendered(
        self, params: Mapping[str, np.ndarray], height: int, width: int, resample: str
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        """Decodes the images in NumPy one by one: in less memory, to bits independent of others."""
        shared = {n: a for n, a in params.items() if self.is_shared(n)}
        own = {n: a for n, a in params.items() if n not in shared}
        count = len(next(iter(own.values())))
        each = [shared | {n: a[i : i + 1] for n, a in own.items()} for i in range(count)]
        return np.concatenate([self.decode(one, height, width, resample) for one in each])

    def stored_bytes(self, arrays: Mapping[str, Any], num_images: int) -> dict[str, int]:
        """Returns the bytes of each array in a file."""
        specs = self.array_specs(num_images)
        return {name: ITEMSIZE[spec.dtype] * arrays[name].size for name, spec in specs.items()}

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the temporary bytes of rendering: by default images of the stored size."""
        return 4 * num_images * math.prod(self.image_shape)


class CodedTogether:
    """Base of formats with `num_classes`, whose images share `bytes_per_class` of all classes."""

    of_all_classes: ClassVar[frozenset[str]] = frozenset({"bytes_per_class", "num_classes"})

    @property
    def num_images(self) -> int:
        return self.num_classes * self.images_per_class

    @property
    def most_bytes(self) -> int:
        return self.num_classes * self.bytes_per_class

    @property
    def overhead_bytes(self) -> int:
        """Bytes of the arrays whose length does not depend on the values."""
        return bytes_of(self.array_specs(self.num_images).values())

    @property
    def bits_for_codes(self) -> int:
        """Bits of the budget that the other arrays leave to codes."""
        return 8 * (self.most_bytes - self.overhead_bytes)

    @property
    def num_codes(self) -> int:
        """Codes of all images."""
        raise NotImplementedError

    @property
    def least_bytes(self) -> int:
        """Fewest bytes of a budget."""
        codes = max(LEAST_BYTES * self.num_images, (self.num_codes - FREE_CODES) // CODES_PER_BYTE)
        return self.overhead_bytes + codes

    def check_num_images(self, num_images: int) -> None:
        if num_images != self.num_images:
            raise UsageError(
                f"expected images_per_class={self.images_per_class} of each of {self.num_classes} "
                f"classes, got {num_images}"
            )

    def resized(
        self, contents: Contents, images_per_class: int, num_classes: int
    ) -> tuple[Format, dict[str, np.ndarray]]:
        """Codes the images together again; their bytes may exceed the budget of before."""
        sizes = dict(images_per_class=images_per_class, num_classes=num_classes)
        kind = dataclasses.replace(self, **sizes | self.sizes(contents), bytes_per_class=MOST_INT)
        arrays = kind.repacked(contents)
        used = max(self.bytes_per_class, -(-kind.used_bytes(arrays) // num_classes))
        return dataclasses.replace(kind, bytes_per_class=used), arrays

    def sizes(self, contents: Contents) -> dict[str, int]:
        """Returns further fields that follow from the images."""
        del contents
        return {}

    def repacked(self, contents: Contents) -> dict[str, np.ndarray]:
        """Returns the file's arrays of contents: the inverse of `divided`."""
        raise UsageError(f"{self.name}: its images cannot be divided or joined")

    def used_bytes(self, arrays: Mapping[str, Any]) -> int:
        """Returns the bytes of all arrays in a file."""
        return sum(self.stored_bytes(arrays, self.num_images).values())

    def check_bytes(self, arrays: Mapping[str, Any]) -> None:
        """Raises UsageError for arrays larger than the budget, or too small for their codes."""
        used = self.used_bytes(arrays)
        if used > self.most_bytes:
            raise UsageError(f"codes: expected at most the budget's {self.most_bytes} bytes")
        check_codes("codes", self.num_codes, used)


def check_codes(name: str, codes: int, size: int) -> None:
    """Raises UsageError for more codes than `size` bytes plausibly hold, before any is decoded."""
    if not plausible(codes, size):
        raise UsageError(f"{name}: expected more than {size:,} bytes for {codes:,} codes")


def plausible(codes: int, size: int) -> bool:
    """Returns whether `size` bytes may hold so many codes: few bytes must not take much work."""
    return codes <= FREE_CODES + CODES_PER_BYTE * size


def is_unequal(counts: Collection[int]) -> bool:
    """Returns whether classes have different numbers of images."""
    return min(counts) < max(counts)


def settings(kind: Format) -> dict[str, Any]:
    """Returns the settings as plain values for `from_settings`; images have no `frames`."""
    values = {"name": kind.name, **dataclasses.asdict(kind)}
    if kind.frames == 1:
        del values["frames"]
    return values


def from_settings(values: Mapping[str, Any], kind: type[Format]) -> Format:
    """Builds a format from untrusted settings: the inverse of `settings`.

    Raises UsageError, naming the field, for an unknown, missing or invalid one.
    """
    kind = kind.variant(values)
    name, given = kind.name, {n: v for n, v in values.items() if n != "name"}
    values = {"frames": 1} | kind.since | given
    known = [of.name for of in dataclasses.fields(kind)]
    if missing := [of for of in known if of not in values]:
        raise UsageError(f"parameterization {name}: {missing[0]} is missing")
    if unknown := [of for of in values if of not in known]:
        raise UsageError(
            f"parameterization {name}: unknown field {reprlib.repr(unknown[0])}; "
            f"expected {', '.join(known)}"
        )
    check_fields(kind, values)
    return kind(**values)


def check_fields(kind: type[Format], values: Mapping[str, Any]) -> None:
    """Raises UsageError, naming the field, for a value of a wrong type or range.

    Frames are checked first, channels by frame. Raises it for clips, too, if the format takes none.
    """
    fields, where = dataclasses.fields(kind), f"parameterization {kind.name}: "
    check_values([of for of in fields if of.name == "frames"], values, where)
    frames, channels = values.get("frames", 1), values.get("channels")
    if type(channels) is int and frames > 1:
        if channels % frames:
            raise UsageError(
                f"{where}channels: expected a multiple of its {frames} frames, got {channels}"
            )
        values = {**values, "channels": channels // frames}
    check_values(fields, values, where)
    if frames > 1 and not kind.takes_clips:
        able = [n for n, of in kinds.known(FORMATS, Format).items() if of.takes_clips]
        raise UsageError(
            f"parameterization {kind.name}{' in codes' if kind.name in able else ''}: expected "
            f"images, got clips of {frames} frames; clips are stored by {', '.join(able)}, not by "
            "dtype=codes"
        )


def format_of(values: dict[str, Any]) -> Format:
    """Returns the format that a file describes, or a parameterization without a format.

    Raises UsageError as `from_settings`, for an unknown name, and if a parameterization needs JAX
    that is not installed.
    """
    name = values.get("name")
    kind = kinds.find(FORMATS, name, Format)
    if kind is None and isinstance(name, str) and name in kinds.modules(PARAMETERIZATIONS):
        try:
            kind = kinds.find(PARAMETERIZATIONS, name, Format)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"parameterization {name}: reading it needs {error.name}, which is not installed"
            ) from None
    if kind is None:
        raise UsageError(
            f"parameterization: expected one of {', '.join(kinds.known(FORMATS, Format))}, "
            f"got {reprlib.repr(name)}"
        )
    return from_settings(values, kind)


def checked_size(
    native: Format, num_images: int, height: int | None, width: int | None, resample: str
) -> tuple[int, int]:
    """Returns the requested size, by default the set's own.

    Raises ValueError for an invalid size or resampling, or a height without a width, and UsageError
    if the images do not fit into memory.
    """
    if (height is None) != (width is None):
        raise ValueError(f"height, width: expected both or neither, got {height} and {width}")
    height = native.height if height is None else height
    width = native.width if width is None else width
    for name, side in (("height", height), ("width", width)):
        if not (isinstance(side, numbers.Integral) and 1 <= side <= MAX_SIDE):
            raise ValueError(f"{name}: expected an integer from 1 to {MAX_SIDE}, got {side!r}")
    if resample not in RESAMPLINGS:
        raise ValueError(f"resample: expected one of {', '.join(RESAMPLINGS)}, got {resample!r}")
    height, width = int(height), int(width)
    shape = height, width, native.channels
    what = f"{num_images:,} images of {shown_shape(shape, native.frames)}"
    memory.check(what, 4 * num_images * math.prod(shape), COPIES)
    memory.check(f"what {what} are rendered with", native.working_bytes(num_images, height, width))
    return height, width
