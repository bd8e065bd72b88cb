"""Arrays and pictures in anyone's files, and the bytes that they take there; no code is run."""

import dataclasses
import math
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gsdd_jax.core import memory, unpickling
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.files import check_regular, check_tree

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
PICTURES_OF_CLASS, FILE = FILES = "pictures", "file"
MARK = "export.json"  # in exported folders; no reader needs it
_MOST_NUMBERS = 16  # that are no tensor, in a list
_MOST_AXES, _MOST_LETTERS = 16, 200  # of a tensor, of its name
_LIMIT = 64 << 20  # bytes of a file's structure
_TORCH = {  # classes of storages: NumPy's name of their numbers, bytes of each
    "DoubleStorage": ("float64", 8), "FloatStorage": ("float32", 4), "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2), "LongStorage": ("int64", 8), "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2), "CharStorage": ("int8", 1), "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
}  # fmt: skip
_SAFETENSORS = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1),
    "U64": ("uint64", 8), "U32": ("uint32", 4), "U16": ("uint16", 2), "U8": ("uint8", 1),
    "BOOL": ("bool", 1), "F8_E4M3": ("float8_e4m3", 1), "F8_E5M2": ("float8_e5m2", 1),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array of a file, or files of a folder: the pictures of a class, or one that is no picture.

    Attributes:
      name: path, and the array's name in it.
      dtype, shape: of the array; of files "pictures" or "file", and their number.
      bytes: what it takes where it is stored, compressed if the file compresses it.
      read: returns the array.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    read: Callable[[], np.ndarray] | None = None


def find(path: str | os.PathLike) -> list[Stored]:
    """Returns the arrays of a .pt, .pth, .npz, .npy or .safetensors file, or a folder's files.

    Raises UsageError for other files, damage, and pickles of anything but tensors in containers.
    """
    path = pathlib.Path(path).expanduser()
    if os.path.isdir(path):
        return _folder(path)
    readers = {".pt": _torch, ".pth": _torch, ".npz": _npz, ".npy": _npy}
    readers[".safetensors"] = _safetensors
    kinds = f"a folder of pictures, or a file {', '.join(readers)}"
    if path.suffix.lower() not in readers:
        raise UsageError(f"{path}: expected {kinds}")
    check_regular(path, kinds)
    with located(path):
        try:
            return list(readers[path.suffix.lower()](path))
        except UsageError:
            raise
        except Exception as error:  # zipfile, NumPy and safetensors raise anything on damage
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"expected arrays as {path.suffix.lower()} ({reason})") from None


def _folder(path) -> list[Stored]:
    check_tree(path)
    found: dict[tuple[str, str], list[int]] = {}
    for parent, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        kept = (name for name in names if not name.startswith(".") and name != MARK)
        for file in (pathlib.Path(parent, name) for name in kept):
            inside = file.relative_to(path)
            kind, name = FILE, str(file)
            if file.suffix.lower() in PICTURES and len(inside.parts) > 1:
                kind, name = PICTURES_OF_CLASS, str(path / inside.parts[0])
            found.setdefault((name, kind), []).append(file.stat().st_size)
    return [
        Stored(name, kind, (len(sizes),), sum(sizes))
        for (name, kind), sizes in sorted(found.items())
    ]


def _npy(path) -> Iterator[Stored]:
    with open(path, "rb") as file:
        dtype, shape = _npy_header(file)
    _check_size(dtype.itemsize * math.prod(shape), path.stat().st_size)
    read = lambda: np.load(path, allow_pickle=False)
    yield Stored(str(path), dtype.name, shape, dtype.itemsize * math.prod(shape), read)


def _npz(path) -> Iterator[Stored]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                dtype, shape = _npy_header(file)
            size = dtype.itemsize * math.prod(shape)
            _check_size(size, member.file_size)
            if member.compress_type != zipfile.ZIP_STORED:
                size = member.compress_size

            def read(name=name, size=member.file_size):
                memory.check(f"the array {name}", size, 2)
                with np.load(path, allow_pickle=False) as arrays:
                    return arrays[name]

            yield Stored(f"{path}: {name}", dtype.name, shape, size, read)


def _npy_header(file) -> tuple[np.dtype, tuple[int, ...]]:
    known = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = known[np.lib.format.read_magic(file)](file)
    if dtype.hasobject or dtype.names or not _are_sizes(shape):
        raise UsageError(f"expected an array of numbers, got {dtype} {list(shape)}")
    return dtype, shape


def _safetensors(path) -> Iterator[Stored]:
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:  # checks sizes
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    for name, of in slices.items():
        if of.get_dtype() not in _SAFETENSORS:
            raise UsageError(f"{name}: expected a known type, got {of.get_dtype()}")
        (dtype, size), shape = _SAFETENSORS[of.get_dtype()], tuple(of.get_shape())

        def read(name=name):
            with safetensors.safe_open(path, framework="numpy") as file:
                return file.get_tensor(name)

        yield Stored(f"{path}: {name}", dtype, shape, size * math.prod(shape), read)


@dataclasses.dataclass
class _Storage:
    """Numbers of a PyTorch file, which several tensors may show."""

    member: str
    dtype: str
    itemsize: int
    left: int  # bytes that no tensor has been counted for
    count: int  # numbers in it


class _Dict(dict):
    """Stand-in for an ordered dictionary, without the attributes of one."""

    __slots__ = ()

    def __setstate__(self, _):
        pass


class _Tensor:
    """Stand-in for a tensor; keeps what rebuilds it: storage, offset, shape, strides."""

    __slots__ = ("of",)

    def __init__(self, *of):
        self.of = of


def _torch(path) -> Iterator[Stored]:
    refusal = UsageError("expected a file that torch.save of PyTorch 1.6 or newer wrote")
    if not zipfile.is_zipfile(path):
        raise refusal
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1 or members[pickles[0]].file_size > _LIMIT:
            raise refusal
        content, top = archive.read(pickles[0]), pickles[0].removesuffix("data.pkl")
    storages: dict[str, _Storage] = {}

    def stored(pid):
        _, (dtype, itemsize), key, _, count = pid
        member = f"{top}data/{key}"
        size = members[member].file_size
        if size != itemsize * count:
            raise UsageError(f"expected {itemsize * count} bytes in {member}, got {size}")
        return storages.setdefault(member, _Storage(member, dtype, itemsize, size, count))

    value = unpickling.values(content, _torch_names(), stored=stored)
    for name, tensor in _tensors(value, "", set()):
        storage, offset, shape, strides, *_ = tensor.of
        is_dense = isinstance(storage, _Storage)
        if not is_dense or not _is_view(storage.count, offset, shape, strides):
            raise UsageError(f"{name or 'tensor'}: expected a dense tensor within its storage")
        taken = min(storage.itemsize * math.prod(shape), storage.left)
        storage.left -= taken

        def read(storage=storage, offset=offset, shape=shape, strides=strides):
            memory.check(f"the storage {storage.member}", members[storage.member].file_size, 2)
            with zipfile.ZipFile(path) as archive:
                flat = np.frombuffer(archive.read(storage.member), storage.dtype)
            steps = [flat.itemsize * stride for stride in strides]
            return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)

        where = f"{path}: {name}" if name else str(path)
        yield Stored(where, storage.dtype, tuple(shape), taken, read)


def _torch_names() -> dict[tuple[str, str], Any]:
    rebuilt = {
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        ("collections", "OrderedDict"): _Dict,
    }
    return rebuilt | {("torch", name): of for name, of in _TORCH.items()}


def _is_view(count, offset, shape, strides) -> bool:
    """Returns whether a tensor shows numbers of a storage of `count` numbers."""
    known = len(shape) == len(strides) <= _MOST_AXES and _are_sizes((offset, *shape, *strides))
    return known and _last(offset, shape, strides) < count


def _are_sizes(numbers) -> bool:
    return all(type(n) is int and 0 <= n < 2**62 for n in numbers)


def _last(offset, shape, strides) -> int:
    """Returns the largest index of a view in its storage; -1 for an empty view."""
    if 0 in shape:
        return -1
    return offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def _tensors(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, _Tensor]]:
    """Yields each tensor in a value once, with its name; raises UsageError for other objects."""
    if id(value) in seen:
        return
    if isinstance(value, _Tensor):
        seen.add(id(value))
        yield name, value
    elif isinstance(value, dict | list | tuple):
        seen.add(id(value))
        pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
        if sum(isinstance(inner, int | float) for _, inner in pairs) > _MOST_NUMBERS:
            raise UsageError(f"{name or 'value'}: expected a tensor, got {len(pairs)} plain values")
        for key, inner in pairs:
            if not isinstance(key, int | str):
                raise UsageError(
                    f"{name or 'value'}: expected names as keys, got {type(key).__name__}"
                )
            yield from _tensors(inner, f"{name}.{key}".strip(".")[:_MOST_LETTERS], seen)
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise UsageError(f"{name}: expected tensors and plain values, got {type(value).__name__}")


def _check_size(expected: int, there: int) -> None:
    if there < expected:
        raise UsageError(f"expected {expected:,} bytes, got {there:,}")
