"""Pictures from anywhere as square images of 8 bits, and as PNG files."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from gsdd_jax.core.errors import UsageError
from gsdd_jax.data.decode import PIL_MODES

# Those of photographs and screens; others start programs (EPS) or have no pixels (PDF).
FORMATS = (
    *("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000"),
    *("MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP"),
)
_SIXTEEN_BITS = (
    "I;16",
    "I;16B",
    "I;16L",
    "I;16N",
    "I",
)  # the last as older versions of Pillow read
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def decode(content: bytes, resolution: int) -> tuple[Image.Image, int]:
    """A picture of a file, upright, in its own mode, and its shorter side as stored, in pixels.

    Of an animation the first frame. A JPEG far larger than `resolution` is decoded at an eighth, a
    quarter or half of its size, at least twice the resolution.

    Raises whatever Pillow does with a file that is no picture or a damaged one, or that would take
    more than its limit of pixels.
    """
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    with Image.open(io.BytesIO(content), formats=known) as image:
        short = min(image.size)
        image.draft(None, (2 * resolution, 2 * resolution))
        return ImageOps.exif_transpose(image), short


def from_array(pixels: UInt8[np.ndarray, "h w c"]) -> Image.Image:
    """A picture of one, three or four channels."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def square(
    image: Image.Image, resolution: int, channels: int
) -> UInt8[np.ndarray, "{resolution} {resolution} {channels}"]:
    """The square in the middle of a picture of any mode, at `resolution` pixels a side.

    Bilinear and antialiased. What is transparent lies on white. Raises UsageError for pixels that
    are no colours of 8 or 16 bits.
    """
    image = _eight_bits(image).convert(PIL_MODES[channels])
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    image = image.crop((left, top, left + side, top + side))
    image = image.resize((resolution, resolution), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(resolution, resolution, channels)


def encode(pixels: UInt8[np.ndarray, "h w c"]) -> bytes:
    """A PNG file of grey (c = 1) or colour (c = 3), with nothing in it but the pixels."""
    out = io.BytesIO()
    from_array(pixels).save(out, "PNG")
    return out.getvalue()


def _eight_bits(image: Image.Image) -> Image.Image:
    """Opaque, 8 bits a channel."""
    if image.mode in _SIXTEEN_BITS:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UsageError("its pixels have 32 bits, expected 8 or 16")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise UsageError("its pixels are floating-point numbers, expected 8 or 16 bits")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        return page.convert("RGB")
    return image
