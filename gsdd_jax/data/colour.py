"""Colours of a picture as those of sRGB, by the profile that it carries."""

import functools
import io

from PIL import Image, ImageCms

# Modes that have the colours of a profile's space.
_MODES = {"RGB": ("RGB", "L"), "CMYK": ("CMYK",), "GRAY": ("L",)}


def to_srgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """An opaque picture of 8 bits as RGB in sRGB, and whether its profile was valid.

    Without a profile, or with one that is not valid, it stays as it is.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image, True
    if image.mode not in ("L", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    try:
        mode, transform = _transform(profile, image.mode)
        return ImageCms.applyTransform(image.convert(mode), transform), True
    except Exception:  # of any kind: what reads profiles raises what damage leads it to
        return image, False


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform]:
    """The mode that a picture of another has to have, and its transform."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if mode not in _MODES[space]:
        raise ValueError(f"a profile of {space} for a picture of {mode}")
    made_of = _MODES[space][0]
    return made_of, ImageCms.buildTransform(source, _srgb(), made_of, "RGB")


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
