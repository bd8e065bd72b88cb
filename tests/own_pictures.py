"""Makes folders of pictures, and data sets from them."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from gsdd_jax import data
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import prepare

ROOT = pathlib.Path(__file__).parent.parent
SIZE = 8
CLASSES = {"äpfel": 12, "birnen": 6, "kirschen": 2}


def noise(seed, *shape) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")


def fill(folder, order=1) -> dict[str, np.ndarray]:
    """Writes PNG files of the data set's size, not to be resampled; returns pixels by name."""
    made = {}
    for label, count in CLASSES.items():
        for i in range(count):
            made[f"{label}/{i:02d}.png"] = noise(len(made), SIZE, SIZE, 3)
    for name in list(made)[::order]:
        save(made[name], folder / name)
    return made


def make(tmp_path, images, name="mine", **options):
    options = {"resolution": SIZE, "data_dir": tmp_path / "tfds"} | options
    return prepare.prepare(images, name, **options)


def load(tmp_path, name="mine", **options) -> data.Dataset:
    return data.load(name, data_dir=tmp_path / "tfds", cache_dir=tmp_path / "cache", **options)


def refusal(tmp_path, images, **options) -> str:
    """Returns the one-line error; checks that nothing of the data set was left."""
    with pytest.raises(UsageError) as raised:
        make(tmp_path, images, **options)
    message = str(raised.value)
    assert "\n" not in message
    root = tmp_path / "tfds"
    assert not root.exists() or not list(root.iterdir())
    return message


def only(folder, *names):
    for i, name in enumerate(names):
        save(noise(i, SIZE, SIZE, 3), folder / name)
    return folder


def damaged_tiff() -> bytes:
    """Returns a TIFF file for which libtiff itself prints a warning."""
    out = io.BytesIO()
    Image.fromarray(noise(9, 64, 64)).save(out, "TIFF", compression="tiff_deflate")
    content = bytearray(out.getvalue())
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def files(folder) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
