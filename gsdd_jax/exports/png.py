"""PNG export: a folder per class, of pictures or of clips, and soft labels as a table."""

import csv
import io
import pathlib
from collections.abc import Callable, Iterator, Sequence
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


def rounded(images: Float[np.ndarray, "m *t h w c"]) -> Iterator[UInt8[np.ndarray, "*t h w c"]]:
    """Yields each image or clip, clipped to [0, 1] and rounded to 8 bits."""
    channels = images.shape[-1]
    if channels not in MODES:
        raise UsageError(f"PNG has 1, 3 or 4 channels, this set {channels}; npz and torch take any")
    for image in images:
        yield np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


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

    Clips are folders of frames, CLASS/NNNNN/KKK.png, which `launch.prepare --clips` reads.
    """
    if pictures.is_clips:
        write_each(path, pictures, "", write_frames)
    else:
        write_each(path, pictures, ".png", lambda at, pixels: at.write_bytes(encode(pixels)))


def write_each(
    path: pathlib.Path,
    pictures: Pictures,
    extension: str,
    write_one: Callable[[pathlib.Path, UInt8[np.ndarray, "*t h w c"]], Any],
) -> None:
    """Writes CLASS/NNNNN.EXTENSION for each picture, by `write_one`.

    Soft labels are class probabilities in `SOFT`, a row per picture and a column per class.
    """
    of_class = folders(pictures.labels, pictures.names)
    for name in of_class:
        (path / name).mkdir()
    names = [
        f"{of_class[label]}/{index:05}{extension}" for index, label in enumerate(pictures.labels)
    ]
    for name, pixels in zip(names, pictures.pixels, strict=True):
        write_one(path / name, pixels)
    if pictures.soft is None:
        return
    with open(path / SOFT, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", *(pictures.names or range(len(of_class)))])
        for name, row in zip(names, pictures.soft, strict=True):
            table.writerow([name, *row.tolist()])


def write_frames(path: pathlib.Path, clip: UInt8[np.ndarray, "t h w c"]) -> None:
    """Writes a new folder of a clip's frames, KKK.png."""
    path.mkdir()
    for k, frame in enumerate(clip):
        (path / f"{k:03}.png").write_bytes(encode(frame))
