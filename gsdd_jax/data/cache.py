"""Decoded arrays on disk, mapped into memory: a folder for each set, subset and resolution.

Every file appears whole or not at all, and info.json, without which a folder does not count, comes
last. Processes that write the same folder at the same time replace files by equal ones.
"""

import hashlib
import json
import pathlib

import numpy as np
import PIL
from absl import logging

from gsdd_jax.core.files import write_atomically

VERSION = 2  # raise it when the same source would be decoded to other arrays


def key(builder, subset: str | None, size: tuple[int, str] | None) -> str:
    """Identifies what would be decoded: the prepared files, what is asked of them, the decoder."""
    folder = pathlib.Path(builder.data_dir)
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    identity = {
        "files": [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files],
        "dataset_info": (folder / "dataset_info.json").read_text(),
        "subset": subset,
        "size": size,
        "decoder": [VERSION, PIL.__version__],
    }
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def fingerprint(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256, in hexadecimal, of arrays with their names and shapes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()


def read(folder: pathlib.Path) -> tuple[dict[str, np.ndarray], dict] | None:
    """(arrays, info), or None where the folder is absent, incomplete or damaged."""
    try:
        info = json.loads((folder / "info.json").read_text())
        if info.pop("sha256") != _info_digest(info):
            return None
        arrays = {
            f"{split}_{part}": np.asarray(np.load(folder / f"{split}_{part}.npy", mmap_mode="r"))
            for split in ("train", "test")
            for part in ("images", "labels")
        }
        # Hashing 150 MB takes a tenth of a second, and it catches whatever happened to the files.
        if fingerprint(arrays) == info["fingerprint"]:
            return arrays, info
    except Exception:  # of any kind that readers raise at what is not theirs: it is made again
        pass
    return None


def write(folder: pathlib.Path, arrays: dict[str, np.ndarray], info: dict) -> None:
    """Keeps `arrays` and `info`, which holds their fingerprint, where the folder can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            write_atomically(folder / f"{name}.npy", lambda file, array=array: np.save(file, array))
        text = json.dumps({**info, "sha256": _info_digest(info)})
        write_atomically(folder / "info.json", text.encode())
    except OSError as error:
        logging.warning("Decoded images are not cached: %s", error)


def _info_digest(info: dict) -> str:
    return hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()
