"""NumPy export: an `.npz` of `images` [m, h, w, c], `labels` [m] and, if soft, `targets` [m, k].

Clips are [m, t, h, w, c].
"""

import pathlib
import zipfile

import numpy as np

from gsdd_jax.core.files import write_atomically
from gsdd_jax.exports.place import FILE_MARK


def write(
    path: pathlib.Path, images: np.ndarray, labels: np.ndarray, targets: np.ndarray | None
) -> None:
    """Writes a file for `numpy.load(path)`, without pickle."""
    arrays = {"images": images, "labels": labels}
    if targets is not None:
        arrays["targets"] = targets

    def content(file) -> None:  # as `numpy.savez`, but the same arrays give the same bytes
        with zipfile.ZipFile(file, "w") as archive:
            archive.comment = FILE_MARK.encode()
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)

    write_atomically(path, content)
