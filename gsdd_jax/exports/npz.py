"""As one `.npz`: `images` [m, h, w, c], `labels` [m] and, where they are soft, `targets` [m, k]."""

from __future__ import annotations

import pathlib

import numpy as np

from gsdd_jax.core.files import write_atomically


def write(
    path: pathlib.Path, images: np.ndarray, labels: np.ndarray, targets: np.ndarray | None
) -> None:
    """Read it with `numpy.load(path)`; nothing in it is pickled."""
    arrays = {"images": images, "labels": labels}
    if targets is not None:
        arrays["targets"] = targets
    write_atomically(path, lambda file: np.savez(file, **arrays))
