"""Conversion of pictures to sRGB by their embedded color profiles."""

import functools
import io

from PIL import Image, ImageCms

# Modes of pictures by the color space of a profile.
_MODES = {"RGB": ("RGB", "L"), "CMYK": ("CMYK",), "GRAY": ("L",)}


def to_srgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """Returns an opaque 8-bit picture as RGB in sRGB, and whether its profile was valid.

    A picture without a profile, or with an invalid one, is returned unchanged.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image, True
    if image.mode not in ("L", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    try:
        mode, transform = _transform(profile, image.mode)
        return ImageCms.applyTransform(image.convert(mode), transform), True
    except Exception:  # readers of profiles raise anything on damage
        return image, False


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform]:
    """Returns the mode to convert a picture of `mode` to first, and the transform from there."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if mode not in _MODES[space]:
        raise ValueError(f"a profile of {space} for a picture of {mode}")
    made_of = _MODES[space][0]
    return made_of, ImageCms.buildTransform(source, _srgb(), made_of, "RGB")


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
