"""CIFAR-10 and CIFAR-100 from the files that torchvision downloads, as TFDS data sets.

The files are pickles, which may name anything to be called. Here they may only name the parts of
NumPy arrays, replaced by inert stand-ins: no code is imported or run.
"""

import io
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from gsdd_jax.core import records, unpickling
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.files import read_regular
from gsdd_jax.data import prepare, prepared
from gsdd_jax.exports import png

VERSION = "3.0.2"  # of the TFDS sets
SHAPE = (32, 32, 3)
NUM_IMAGES = {"train": 50_000, "test": 10_000}
_MOST_BYTES = 2**28  # of a file; the largest has 155 MB


class _Kind(NamedTuple):
    """Names of one data set's files and of the fields in them."""

    name: str
    names_file: str
    files: Mapping[str, tuple[str, ...]]  # by split
    labels: Mapping[str, tuple[str, str]]  # by TFDS's name: keys of labels and of class names


_KINDS = (
    _Kind(
        prepared.CIFAR[0],
        "batches.meta",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        {"label": ("labels", "label_names")},
    ),
    _Kind(
        prepared.CIFAR[1],
        "meta",
        {"train": ("train",), "test": ("test",)},
        {
            "label": ("fine_labels", "fine_label_names"),
            "coarse_label": ("coarse_labels", "coarse_label_names"),
        },
    ),
)


class _Batch(NamedTuple):
    images: UInt8[np.ndarray, "n 32 32 3"]
    labels: dict[str, list[int]]  # by TFDS's names


def prepare_cifar(
    folder: str | os.PathLike, *, overwrite: bool = False, data_dir: str | os.PathLike | None = None
) -> prepare.Prepared:
    """Makes TFDS's `cifar10` from cifar-10-batches-py, or its `cifar100` from cifar-100-python.

    Images keep the order of the files.

    Arguments and errors are those of `prepare.prepare`; `folder` is as torchvision unpacks it.
    """
    import tensorflow_datasets as tfds

    folder = pathlib.Path(folder).expanduser()
    kind = next((kind for kind in _KINDS if (folder / kind.names_file).is_file()), None)
    if kind is None:
        raise UsageError(
            f"--cifar: expected torchvision's folder cifar-10-batches-py or cifar-100-python, got "
            f"{folder}"
        )
    root = prepared.data_root(data_dir)
    prepare.check_free(root, kind.name, overwrite)
    names = _class_names(folder, kind)
    batches = {
        split: [_batch(folder / file, kind, names) for file in files]
        for split, files in kind.files.items()
    }
    for split, expected in NUM_IMAGES.items():
        found = sum(len(batch.images) for batch in batches[split])
        if found != expected:
            raise UsageError(f"{folder}: expected {expected} images in {split}, got {found}")
    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=SHAPE, encoding_format="png"),
        **{feature: tfds.features.ClassLabel(names=names[feature]) for feature in kind.labels},
    }
    with prepare.new_set(root, kind.name, VERSION) as made:
        examples = {split: _examples(split, batches[split]) for split in batches}
        records.write(made, kind.name, features, examples, "Made of the authors' files.")
    counts = (
        sum(np.bincount(batch.labels["label"], minlength=len(names["label"])) for batch in found)
        for found in batches.values()
    )
    train, test = (count.tolist() for count in counts)
    return prepare.Prepared(root / kind.name, names["label"], train, test, SHAPE, [])


def _examples(split: str, batches: list[_Batch]) -> Iterator[dict[str, Any]]:
    total, i = sum(len(batch.images) for batch in batches), 0
    with tqdm(total=total, desc=f"preparing {split}", disable=None) as progress:
        for batch in batches:
            for place, image in enumerate(batch.images):
                labels = {feature: labels[place] for feature, labels in batch.labels.items()}
                encoded = io.BytesIO(png.encode(image))
                yield {"id": f"{split}_{i:05d}", "image": encoded, **labels}
                i += 1
                progress.update()


def _class_names(folder: pathlib.Path, kind: _Kind) -> dict[str, list[str]]:
    path = folder / kind.names_file
    with located(path):
        values, names = _values(path), {}
        for feature, (_, key) in kind.labels.items():
            found = values.get(key.encode())
            if not _is_list(found, bytes) or len(set(found)) != len(found):
                raise UsageError(f"expected different names as its {key}")
            names[feature] = [name.decode(errors="replace") for name in found]
        return names


def _batch(path: pathlib.Path, kind: _Kind, names: dict[str, list[str]]) -> _Batch:
    size = int(np.prod(SHAPE))
    with located(path):
        values, labels = _values(path), {}
        data = getattr(values.get(b"data"), "state", None)
        match data:
            case (_, (int(count), width), _Dtype(name="u1"), False, bytes(pixels)) if (
                width == size and len(pixels) == count * size
            ):
                images = np.frombuffer(pixels, np.uint8).reshape(count, 3, *SHAPE[:2])
            case _:
                raise UsageError(f"expected uint8 [n, {size}] as its data")
        for feature, (key, _) in kind.labels.items():
            found, most = values.get(key.encode()), len(names[feature])
            if not _is_list(found, int) or len(found) != count:
                raise UsageError(f"expected {count} whole numbers as its {key}")
            if not all(0 <= label < most for label in found):
                raise UsageError(f"expected numbers from 0 to {most - 1} as its {key}")
            labels[feature] = found
        return _Batch(images.transpose(0, 2, 3, 1), labels)


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(v) is kind for v in value)


def _values(path: pathlib.Path) -> dict[bytes, Any]:
    """Returns the content of a file, with arrays as `_Array`."""
    content = read_regular(path, "a file of CIFAR", _MOST_BYTES)
    try:
        values = unpickling.values(content, _STAND_INS, encoding="bytes")
    except UsageError as error:
        raise UsageError(f"expected a file of CIFAR as its authors made it ({error})") from None
    if not isinstance(values, dict):
        raise UsageError(f"expected values by name, got {type(values).__name__}")
    return values


class _Array:
    """Stand-in for an array; keeps its state: version, shape, type, Fortran order, bytes."""

    __slots__ = ("state",)

    def __init__(self, *_):
        self.state = None

    def __setstate__(self, state):
        self.state = state


class _Dtype:
    """Stand-in for a NumPy dtype; keeps its name."""

    __slots__ = ("name",)

    def __init__(self, name=b"", *_):
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, _):
        pass


_STAND_INS = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
}
