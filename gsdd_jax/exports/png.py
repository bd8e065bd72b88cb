"""PNG export: a folder per class, and soft labels as a table."""

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.exports.place import Pictures
from gsdd_jax.formats.shapes import Float, UInt8

LONGEST = 100  # bytes of a class name in its folder's name
SOFT = "soft_labels.csv"
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> Pillow's mode


def from_array(pixels: UInt8[np.ndarray, "h w c"]) -> Any:
    """Returns a Pillow picture of one, three or four channels."""
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def encode(pixels: UInt8[np.ndarray, "h w c"]) -> bytes:
    """Returns a PNG file without metadata."""
    out = io.BytesIO()
    from_array(pixels).save(out, "PNG")
    return out.getvalue()


def encoded(images: Float[np.ndarray, "m h w c"]) -> Iterator[bytes]:
    """Encodes each image as PNG, clipped to [0, 1] and rounded to 8 bits."""
    channels = images.shape[-1]
    if channels not in MODES:
        raise UsageError(f"PNG has 1, 3 or 4 channels, this set {channels}; npz and torch take any")
    for image in images:
        yield encode(np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8))


def folders(labels: np.ndarray, names: Sequence[str] | None) -> list[str]:
    """Returns a folder name per class; the names sort in the order of the labels."""
    count = int(labels.max()) + 1
    digits = len(str(count - 1))
    if names is None:
        return [f"{c:0{digits}}" for c in range(count)]
    plain = ["".join(x if x.isalnum() or x in "-_." else "_" for x in name) for name in names]
    # File systems count bytes.
    short = [name.encode()[:LONGEST].decode(errors="ignore") for name in plain]
    return [f"{c:0{digits}}_{name}" for c, name in enumerate(short)]


def write(path: pathlib.Path, pictures: Pictures) -> None:
    """Writes CLASS/NNNNN.png, for example for torchvision's `ImageFolder`.

    Soft labels are class probabilities in `SOFT`, a row per picture and a column per class.
    """
    of_class = folders(pictures.labels, pictures.names)
    for name in of_class:
        (path / name).mkdir()
    names = [f"{of_class[label]}/{index:05}.png" for index, label in enumerate(pictures.labels)]
    for name, content in zip(names, pictures.files, strict=True):
        (path / name).write_bytes(content)
    if pictures.soft is None:
        return
    with open(path / SOFT, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", *(pictures.names or range(len(of_class)))])
        for name, row in zip(names, pictures.soft, strict=True):
            table.writerow([name, *row.tolist()])
