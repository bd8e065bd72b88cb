"""Decoded arrays on disk, mapped into memory: one folder per set, subset and resolution.

Every file appears whole or not at all. info.json is written last; a folder without it does not
count. Processes that write one folder at the same time replace files by equal ones.
"""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import PIL

from gsdd_jax.core.files import check_regular, read_object, write_atomically
from gsdd_jax.data import rows
from gsdd_jax.data.decode import Chunk

VERSION = 2  # increment when the same source decodes to other arrays


def key(
    builder, subset: str | None, size: tuple[int, str] | None, frames: int | None = None
) -> str:
    """Returns a hash of everything that determines the arrays: files, request and decoder."""
    folder = pathlib.Path(builder.data_dir)
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    identity = {
        "files": [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files],
        "dataset_info": (folder / "dataset_info.json").read_text(),  # checked when it was found
        "subset": subset,
        "size": size,
        "decoder": [VERSION, PIL.__version__],
    } | ({"frames": frames} if frames else {})
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def fingerprint(arrays: dict[str, np.ndarray], frames: int = 1) -> str:
    """Returns the SHA-256, in hexadecimal, of arrays with their names and shapes.

    Clips of `frames` differ from images of as many channels.
    """
    digest = hashlib.sha256()
    if frames > 1:
        arrays = arrays | {"frames": np.array([frames])}
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        for piece in rows.pieces(arrays[name]):
            digest.update(piece.data)
    return digest.hexdigest()


def read(folder: pathlib.Path) -> tuple[dict[str, np.ndarray], dict] | None:
    """Returns (arrays, info), or None if the folder is absent, incomplete or damaged."""
    try:
        info = read_object(folder / "info.json", "what is cached")
        if info.pop("sha256") != _info_digest(info):
            return None
        arrays = _mapped(folder)
        # Hashing 150 MB takes a tenth of a second, and catches every change of the files.
        if fingerprint(arrays, info.get("frames", 1)) == info["fingerprint"]:
            return arrays, info
    except Exception:  # readers raise anything on foreign data: the cache is rebuilt
        pass
    return None


def write(
    folder: pathlib.Path,
    splits: Mapping[str, Iterable[Chunk]],
    describe: Callable[[dict[str, np.ndarray]], dict],
) -> None:
    """Writes the splits "train" and "test", chunk by chunk, and their info.

    `describe` maps the arrays to the info, with their `fingerprint`. Raises OSError if the folder
    cannot be written; errors of the chunks pass through.
    """
    for split, chunks in splits.items():
        labels = []
        images = functools.partial(_write_images, chunks=chunks, labels=labels)
        write_atomically(folder / f"{split}_images.npy", images)
        whole = np.concatenate(labels)
        write_atomically(folder / f"{split}_labels.npy", functools.partial(np.save, arr=whole))
    info = describe(_mapped(folder))
    text = json.dumps({**info, "sha256": _info_digest(info)})
    write_atomically(folder / "info.json", text.encode())


def _write_images(file, chunks, labels) -> None:
    """Writes the chunks' images in the format of `np.save`; appends their labels to `labels`."""

    def header(count):
        fields = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
        np.lib.format.write_array_header_1_0(file, fields)
        return file.tell()

    count, begin = 0, 0
    for chunk in chunks:
        if not count:
            shape = chunk.images.shape[1:]
            begin = header(0)
        file.write(chunk.images.data)
        labels.append(chunk.labels)
        count += len(chunk.labels)
    file.seek(0)
    # NumPy leaves room in a header for a first axis that grows.
    if header(count) != begin:
        raise ValueError(f"a header of {count} images is longer than one of none")


def _mapped(folder) -> dict[str, np.ndarray]:
    arrays = {}
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        path = folder / f"{name}.npy"
        check_regular(path, "a cached array")
        arrays[name] = np.asarray(np.load(path, mmap_mode="r"))
    return arrays


def _info_digest(info: dict) -> str:
    return hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()
