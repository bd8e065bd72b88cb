"""PyTorch export: `images` [m, c, h, w], `labels` [m] (int64) and, if soft, `targets` [m, k].

Clips are [m, t, c, h, w].

safetensors rather than `torch.save`: without pickle, and without PyTorch.
"""

import pathlib

import numpy as np

from gsdd_jax.core.files import write_atomically
from gsdd_jax.exports.place import FILE_MARK


def write(
    path: pathlib.Path, images: np.ndarray, labels: np.ndarray, targets: np.ndarray | None
) -> None:
    """Writes a file for `safetensors.torch.load_file(path)`."""
    import safetensors.numpy

    tensors = {
        "images": np.ascontiguousarray(np.moveaxis(images, -1, -3)),
        "labels": labels.astype(np.int64),
    }
    if targets is not None:
        tensors["targets"] = np.asarray(targets, np.float32)
    write_atomically(path, safetensors.numpy.save(tensors, {FILE_MARK: "torch"}))
