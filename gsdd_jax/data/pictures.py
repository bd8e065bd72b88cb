"""Pictures of many formats as square 8-bit images, and as PNG files."""

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import color
from gsdd_jax.exports.png import MODES

# Formats of photographs and screens; others start programs (EPS) or have no pixels (PDF).
FORMATS = (
    *("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000"),
    *("MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP"),
)
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # the last in older versions of Pillow
DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras and scanners, stored in 16
_GRAY = ("1", "L", "LA", "La", *_SIXTEEN_BITS)
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Read(NamedTuple):
    pixels: UInt8[np.ndarray, "*t h w c"]
    short: int  # shorter side in pixels before resizing
    ignored: tuple[str, ...]  # invalid parts that were ignored
    repeats: bool = False  # a clip has fewer frames than are taken


class Header(NamedTuple):
    short: int  # shorter side in pixels
    largest: int | None  # value of a gray 16-bit picture


class Room:
    """Limits threads to decoding at most `most` pixels together, or one larger picture."""

    def __init__(self, most: int):
        self.most = most
        self._taken, self._changed = 0, threading.Condition()

    @contextlib.contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Reserves room for a picture; waits until there is enough."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self.most)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


ROOM = Room(2**25)  # about half a gigabyte, with copies


def read(content: bytes, resolution: int, channels: int, depth: int = 16) -> Read:
    """Decodes a file, turns the picture upright and applies `square`.

    Takes the first frame of an animation. A JPEG far larger than `resolution` is decoded at an
    eighth, a quarter or half of its size, at least twice the resolution. Raises as `square`, and
    Pillow's errors for files that are no pictures, damaged or over its limit of pixels.
    """
    with _opened(io.BytesIO(content)) as image:
        short = min(image.size)
        image.draft(None, (2 * resolution, 2 * resolution))
        deep = image.mode not in _SIXTEEN_BITS and ";16" in str([tile[3] for tile in image.tile])
        with ROOM.taken(image.width * image.height):
            image.load()  # before its EXIF, which may be damaged in a valid picture
            _refuse_dark(image, deep)
            image, valid = _upright(image)
            pixels, profile_valid = square(image, resolution, channels, depth)
    flaws = {"EXIF": valid, "a color profile": profile_valid}
    return Read(pixels, short, tuple(name for name, valid in flaws.items() if not valid))


def is_picture(path: str | os.PathLike) -> bool:
    """Returns whether a file without an extension begins as a picture."""
    if not os.path.isfile(path):
        return False
    try:
        with _opened(path):
            return True
    except Exception:  # Pillow's readers raise anything on damage
        return False


def header(path: str | os.PathLike, measured: bool) -> Header | None:
    """Returns a picture's header, with its largest value if `measured`; None if unreadable."""
    if not os.path.isfile(path):
        return None
    try:
        with _opened(path) as image:
            short, largest = min(image.size), None
            if measured and image.mode in _SIXTEEN_BITS:
                with ROOM.taken(image.width * image.height):
                    largest = int(np.asarray(image).max())
            return Header(short, largest)
    except Exception:  # as above; the error is reported when it is read
        return None


def square(
    image: Image.Image, resolution: int, channels: int, depth: int = 16
) -> tuple[UInt8[np.ndarray, "{resolution} {resolution} {channels}"], bool]:
    """Returns a picture's central square at `resolution` pixels per side, and whether its color
    profile is valid or absent.

    Converts to sRGB on white, then resizes bilinearly with antialiasing. `depth` is the number of
    bits used of 16. Raises UsageError for pixels of other than 8 or 16 bits, or above `depth`.
    """
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    image = _eight_bits(image.crop((left, top, left + side, top + side)), depth)
    image, valid = color.to_srgb(image)
    image = image.convert(MODES[channels])
    image = image.resize((resolution, resolution), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(resolution, resolution, channels), valid


def _opened(file) -> Image.Image:
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    return Image.open(file, formats=known)


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """Turns a picture upright, and returns whether its EXIF was readable."""
    try:
        method = _UPRIGHT.get(image.getexif().get(_ORIENTATION))
    except Exception:  # readers of EXIF raise anything on damage
        return image, False
    return image if method is None else image.transpose(method), True


def _refuse_dark(image: Image.Image, deep: bool) -> None:
    """Raises UsageError for 12-bit colors, of which Pillow keeps only the upper eight bits."""
    if deep:
        bands = zip(image.getbands(), image.split(), strict=True)
        if 0 < max(band.getextrema()[1] for name, band in bands if name != "A") < 16:
            raise UsageError("its colors have 12 bits stored in 16, expected 8 or all 16")


def _eight_bits(image: Image.Image, depth: int) -> Image.Image:
    """Returns an opaque picture of 8 bits per channel."""
    if image.mode in _SIXTEEN_BITS:
        values, most = np.asarray(image).astype(np.int64), 2**depth - 1
        if values.min() < 0 or values.max() > 65535:
            raise UsageError("its pixels have 32 bits, expected 8 or 16")
        if values.max() > most:
            raise UsageError(f"its pixels are up to {values.max()}, expected {depth} bits")
        gray = Image.fromarray(((values * 255 + most // 2) // most).astype(np.uint8))
        gray.info = image.info
        return gray
    if image.mode == "F":
        raise UsageError("its pixels are floating-point numbers, expected 8 or 16 bits")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        opaque = page.convert("L" if image.mode in _GRAY else "RGB")
        opaque.info = {k: v for k, v in image.info.items() if k != "transparency"}
        return opaque
    return image
