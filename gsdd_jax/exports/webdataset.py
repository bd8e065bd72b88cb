"""WebDataset export: reproducible tar shards of NNNNN.png, NNNNN.cls and NNNNN.soft.npy.

The frames of a clip are NNNNN.KKK.png.
"""

import io
import pathlib
import tarfile

import numpy as np

from gsdd_jax.exports import png
from gsdd_jax.exports.place import Pictures

IN_A_SHARD = 1000  # images


def write(path: pathlib.Path, pictures: Pictures) -> None:
    """Writes shard-NNNNN.tar, for `webdataset.WebDataset(...).decode("rgb8")`.

    Soft labels are class probabilities, float32 [k].
    """
    for shard, start in enumerate(range(0, len(pictures.labels), IN_A_SHARD)):
        with tarfile.open(path / f"shard-{shard:05}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(start, min(start + IN_A_SHARD, len(pictures.labels))):
                label = int(pictures.labels[index])
                parts = _files(next(pictures.pixels)) | {"cls": str(label).encode()}
                if pictures.soft is not None:
                    parts["soft.npy"] = _npy(pictures.soft[index])
                for extension, content in parts.items():
                    entry = tarfile.TarInfo(f"{index:05}.{extension}")  # dated 1970
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


def _files(pixels: np.ndarray) -> dict[str, bytes]:
    if pixels.ndim == 3:
        return {"png": png.encode(pixels)}
    return {f"{k:03}.png": png.encode(frame) for k, frame in enumerate(pixels)}


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()
