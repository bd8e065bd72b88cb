"""Real images in a run's work directory, for comparison with its own."""

import math
import os
import pathlib

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import UInt8
from ml_collections import ConfigDict

from gsdd_jax.config.fields import BY_TEACHER
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import read_regular, write_atomically
from gsdd_jax.data import Dataset
from gsdd_jax.setup import experiment
from gsdd_jax.setup.components import stream

NAME = "real.safetensors"
MOST = 5  # images per class
_BYTES = 1 << 26  # bytes of all classes, about
_LIMIT = 1 << 30  # most bytes of a file to read


def keep(workdir: pathlib.Path, config: ConfigDict, dataset: Dataset) -> None:
    """Writes the first real images that the run starts from, unless the file exists, or a teacher
    chooses them, which is not there yet."""
    path = workdir / NAME
    if path.exists() or config.init.images in BY_TEACHER:
        return
    one_of_each = dataset.num_classes * math.prod(dataset.image_shape)
    count = min(MOST, max(1, _BYTES // one_of_each))
    key, counts = stream(config.seed, "initial images"), dataset.num_classes * [count]
    images = experiment.initial_images(dataset, key, counts)
    pixels = np.rint(255 * images).astype(np.uint8).reshape(-1, count, *dataset.image_shape)
    write_atomically(path, safetensors.numpy.save({"images": pixels}))


def read(workdir: str | os.PathLike) -> UInt8[np.ndarray, "k n h w c"]:
    """Returns a run's images [class, image, h, w, c]. Raises UsageError if missing or invalid."""
    path = pathlib.Path(workdir, NAME)
    if not path.exists():
        raise UsageError(
            f"there is no {NAME}: the run has not begun, is of an earlier version, or starts from "
            "images that a teacher chose"
        )
    content = read_regular(path, "real images", _LIMIT)
    try:
        images = safetensors.numpy.load(content)["images"]
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise UsageError(f"{path}: expected real images ({error})") from None
    if images.dtype != np.uint8 or images.ndim != 5 or not images.size:
        raise UsageError(
            f"{path}: expected images as uint8 [class, image, height, width, channel], got "
            f"{images.dtype} {list(images.shape)}"
        )
    return images
