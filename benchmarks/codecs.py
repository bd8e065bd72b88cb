"""Quality of real images by their bytes: `dct` compared with JPEG, WebP and AVIF.

The first 500 training images of CIFAR-10's small subset, also shrunk before and enlarged after.
Pillow's codecs are counted without headers and containers, JPEG also without its tables; `dct` with
all that its file holds. Values between measured bytes are interpolated.
"""

import io
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks.table import Table
from gsdd_jax import data, parameterizations
from gsdd_jax.formats.arrays import resize
from gsdd_jax.parameterizations.dct import STEP

IMAGES, BYTES = 500, (50, 100, 150, 200)
STEPS = {32: (110, 70, 38, 26, 18), 24: (90, 60, 30, 17, 10), 16: (60, 30, 14, 8, 4)}
WEBP_HEADER = 20  # RIFF, and the chunk's name and length
SETTINGS = {
    "JPEG": [dict(quality=q, optimize=True) for q in (4, 8, 15, 25, 40, 60, 80, 92)],
    "WEBP": [dict(quality=q, method=6) for q in (0, 1, 5, 15, 30, 50, 70, 90)],
    "AVIF": [dict(quality=q, speed=0) for q in (5, 15, 25, 35, 45, 60, 75, 90)],
}

COLUMNS = "codec side " + " ".join(f"psnr_at_{count}:.2f" for count in BYTES)


def main(out: str | None) -> None:
    images = data.load("cifar10_mini").train.images[:IMAGES]
    table = Table(out, COLUMNS)
    for side, steps in STEPS.items():
        add(table, "dct", side, [by_dct(images, side, step) for step in steps])
        for codec, settings in SETTINGS.items():
            add(table, codec.lower(), side, [by_pillow(images, side, codec, s) for s in settings])


def add(table: Table, codec: str, side: int, points: list[tuple[float, float]]) -> None:
    """Adds the row of (bytes per image, PSNR); no value beyond the measured bytes."""
    sizes, psnr = np.array(sorted(points)).T
    at = np.interp(np.log(BYTES), np.log(sizes), psnr, left=np.nan, right=np.nan)
    row = {
        f"psnr_at_{n}": None if np.isnan(x) else float(x) for n, x in zip(BYTES, at, strict=True)
    }
    table.add(dict(codec=codec, side=side, **row))


def by_dct(images: np.ndarray, side: int, step: float) -> tuple[float, float]:
    """Returns bytes per image and PSNR."""
    kind = parameterizations.build(
        "dct", images.shape[1:], ipc=4, images_per_class=len(images) // 10, num_classes=10,
        side=side, step=step,
    )  # fmt: skip
    params = kind.init(jax.random.key(0), jnp.asarray(images, jnp.float32) / 255)
    arrays = kind.to_arrays(params)
    assert arrays[STEP] == step
    used = sum(kind.stored_bytes(arrays, len(images)).values())
    return used / len(images), decibels(np.asarray(kind.render(params)), images)


def by_pillow(images: np.ndarray, side: int, codec: str, settings: dict) -> tuple[float, float]:
    total, found = 0, []
    for image in images:
        small = Image.fromarray(image)
        if side != len(image):
            small = small.resize((side, side), Image.Resampling.BOX)
        small.save(file := io.BytesIO(), codec, **settings)
        total += PAYLOADS[codec](file.getvalue())
        found.append(np.asarray(Image.open(file).convert("RGB"), np.float32) / 255)
    shown = resize(np.stack(found), *images.shape[1:3], "bilinear")
    return total / len(images), decibels(shown, images)


def of_jpeg(content: bytes) -> int:
    """Returns the bytes of a JPEG's only scan."""
    start = content.index(b"\xff\xda")
    return len(content) - start - 2 - int.from_bytes(content[start + 2 : start + 4], "big") - 2


def of_avif(content: bytes) -> int:
    """Returns the bytes of an AVIF's media box."""
    at = content.index(b"mdat")
    return int.from_bytes(content[at - 4 : at], "big") - 8


PAYLOADS: dict[str, Callable[[bytes], int]] = {
    "JPEG": of_jpeg, "WEBP": lambda content: len(content) - WEBP_HEADER, "AVIF": of_avif,
}  # fmt: skip


def decibels(shown: np.ndarray, images: np.ndarray) -> float:
    """Returns the mean PSNR of images as 8-bit ones."""
    errors = np.round(255 * np.clip(shown, 0, 1)) - images
    return float((-10 * np.log10((errors**2).mean((1, 2, 3)) / 255**2)).mean())
