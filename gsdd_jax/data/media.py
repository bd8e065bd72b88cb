"""Kinds of content of a data set: pictures, and clips of them.

Both read an item at a resolution, and measure it without reading all of it.
"""

import contextlib
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import read_regular
from gsdd_jax.data import clip_folders, pictures, videos
from gsdd_jax.data.frames import LEAST, spread
from gsdd_jax.data.items import Item
from gsdd_jax.exports import png
from gsdd_jax.formats.base import MAX_FRAMES

LARGEST = 1 << 28  # bytes of a picture's file


class Pictures:
    """Pictures in files or arrays, in the feature `image`."""

    noun, key, frames = "picture", "image", 1

    def read(self, item: Item, resolution: int, channels: int, depth: int) -> pictures.Read:
        """Returns an item's pixels [h, w, c]. Raises as `pictures.read`."""
        if isinstance(item.content, np.ndarray):
            return _square(png.from_array(item.content), resolution, channels)
        return _read(item.content, resolution, channels, depth)

    def header(self, item: Item, measured: bool) -> pictures.Header | None:
        """Returns what `pictures.header` does."""
        if isinstance(item.content, np.ndarray):
            return pictures.Header(min(item.content.shape[:2]), None)
        return pictures.header(item.content, measured)

    def feature(self, shape: tuple[int, int, int]) -> Any:
        """Returns TFDS's feature of pictures of `shape`."""
        import tensorflow_datasets as tfds

        return tfds.features.Image(shape=shape, encoding_format="png")

    def stored(self, files: list[Any]) -> Any:
        """Returns the value of the feature, of a PNG file per frame."""
        return files[0]


class Clips:
    """Clips in video files or folders of frames, of which `frames` are taken, evenly spaced.

    TFDS stores them as sequences of images, which, unlike its videos, it reads without TensorFlow.
    """

    noun, key = "clip", "video"

    def __init__(self, frames: int):
        if not LEAST <= frames <= MAX_FRAMES:
            raise UsageError(
                f"--frames: expected {LEAST} to {MAX_FRAMES} frames per clip, got {frames}"
            )
        self.frames = frames

    def read(self, item: Item, resolution: int, channels: int, depth: int) -> pictures.Read:
        """Returns an item's pixels [t, h, w, c]. Raises as `pictures.read` and `videos.count`."""
        if item.content.is_dir():
            found = clip_folders.frames(item.content)
            taken = [found[i] for i in spread(len(found), self.frames)]
            read = [_read(path, resolution, channels, depth) for path in taken]
        else:
            with pictures.ROOM.taken(int(np.prod(videos.size(item.content)))):
                found = range(videos.count(item.content))
                taken = spread(len(found), self.frames)
                images = videos.frames(item.content, taken)
                read = [_square(image, resolution, channels) for image in images]
        return pictures.Read(
            np.stack([of.pixels for of in read]),
            min(of.short for of in read),
            tuple(sorted({flaw for of in read for flaw in of.ignored})),
            repeats=len(found) < self.frames,
        )

    def header(self, item: Item, measured: bool) -> pictures.Header | None:
        """Returns the shorter side of a clip; as `pictures.header` where frames are pictures."""
        if not item.content.is_dir():
            with contextlib.suppress(UsageError, OSError):
                return pictures.Header(min(videos.size(item.content)), None)
            return None
        headers = [pictures.header(of, measured) for of in clip_folders.frames(item.content)]
        if not headers or None in headers:
            return None
        largest = [of.largest for of in headers if of.largest is not None]
        return pictures.Header(min(of.short for of in headers), max(largest, default=None))

    def feature(self, shape: tuple[int, int, int]) -> Any:
        """Returns TFDS's feature of clips whose frames are of `shape`."""
        import tensorflow_datasets as tfds

        image = tfds.features.Image(shape=shape, encoding_format="png")
        return tfds.features.Sequence(image, length=self.frames)

    def stored(self, files: list[Any]) -> Any:
        """Returns the value of the feature, of a PNG file per frame."""
        return files


def _read(path: pathlib.Path, resolution: int, channels: int, depth: int) -> pictures.Read:
    content = read_regular(path, "a picture", LARGEST)
    return pictures.read(content, resolution, channels, depth)


def _square(image: Image.Image, resolution: int, channels: int) -> pictures.Read:
    pixels, _ = pictures.square(image, resolution, channels)
    return pictures.Read(pixels, min(image.size), ())
