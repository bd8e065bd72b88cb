"""WebDataset export: reproducible tar shards of NNNNN.png and NNNNN.cls."""

from __future__ import annotations

import io
import pathlib
import tarfile
from collections.abc import Iterator, Sequence

import numpy as np

IN_A_SHARD = 1000  # images


def write(
    path: pathlib.Path,
    files: Iterator[bytes],
    labels: np.ndarray,
    names: Sequence[str] | None,
    image_shape: tuple[int, ...],
) -> None:
    """Writes shard-NNNNN.tar, for `webdataset.WebDataset(...).decode("rgb8")`."""
    del names, image_shape
    for shard, start in enumerate(range(0, len(labels), IN_A_SHARD)):
        with tarfile.open(path / f"shard-{shard:05}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(start, min(start + IN_A_SHARD, len(labels))):
                parts = {"png": next(files), "cls": str(int(labels[index])).encode()}
                for extension, content in parts.items():
                    entry = tarfile.TarInfo(f"{index:05}.{extension}")  # dated 1970
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
