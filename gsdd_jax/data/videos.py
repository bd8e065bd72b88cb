"""Frames of video files, decoded by PyAV.

The extension decides the format: FFmpeg would otherwise read a playlist or a list of other files
under any name. Limits bound the time and memory that a file can take.
"""

import contextlib
import math
import os
from collections.abc import Iterator

import numpy as np
from PIL import Image

from gsdd_jax.core import pyav
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import open_regular

FORMATS = {  # of FFmpeg, by extension
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".3gp"), "mov"),
    **dict.fromkeys((".webm", ".mkv"), "matroska"),
    **dict.fromkeys((".mpg", ".mpeg"), "mpeg"),
    ".avi": "avi",
    ".gif": "gif",
}
SECONDS = 3600
FRAMES = 2**16
PIXELS = 2**25  # of a frame
ALL_PIXELS = 2**36  # of all frames
WHOLE = 0.8  # least part of the stated duration that has frames


def size(path: str | os.PathLike) -> tuple[int, int]:
    """Returns width and height as stated. Raises as `count`."""
    with _opened(path) as (_, stream):
        return stream.width, stream.height


def count(path: str | os.PathLike) -> int:
    """Returns the number of frames, which decodes them all: a file may state another.

    Raises UsageError for a file that is no video, damaged, cut short or beyond a limit.
    """
    number, end = 0, None
    with _opened(path) as (container, stream):
        for frame in _decoded(container, stream):
            number += 1
            end = frame.time if frame.time is not None else end
        stated, each = container.duration, stream.average_rate
        start = (stream.start_time or 0) * (stream.time_base or 0)
    if not number:
        raise UsageError("a video without frames")
    if stated is not None and end is not None:
        end += (1 / float(each) if each else 0) - float(start)
        if end < WHOLE * stated / 1e6:
            raise UsageError(f"its frames end after {end:.1f} of {stated / 1e6:.1f} seconds")
    return number


def frames(path: str | os.PathLike, indices: list[int]) -> Iterator[Image.Image]:
    """Yields the frames of sorted indices, upright; equal ones repeat. Raises as `count`."""
    wanted = {index: indices.count(index) for index in indices}
    with _opened(path) as (container, stream):
        for index, frame in enumerate(_decoded(container, stream)):
            if index in wanted:
                yield from [_upright(frame)] * wanted[index]
            if index == indices[-1]:
                return


@contextlib.contextmanager
def _opened(path) -> Iterator[tuple]:
    av = pyav.module()
    extension = os.path.splitext(path)[1].lower()
    if extension not in FORMATS:
        raise UsageError(f"expected a video of {', '.join(FORMATS)}, or a folder of its frames")
    with open_regular(path, "a video") as file:
        try:
            with av.open(file, format=FORMATS[extension]) as container:
                stream = container.streams.best("video")
                if stream is None:
                    raise UsageError("no video in it")
                _check("pixels per frame", stream.width * stream.height, PIXELS)
                _check("seconds", math.ceil((container.duration or 0) / 1e6), SECONDS)
                stream.codec_context.options = {"max_pixels": str(PIXELS)}  # before memory is taken
                stream.codec_context.thread_count = 1
                yield container, stream
        except UsageError:
            raise
        except Exception as error:  # PyAV raises anything on damage
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise UsageError(f"no video that can be read ({reason})") from None


def _decoded(container, stream) -> Iterator:
    """Yields the frames of a video within the limits."""
    pixels = 0
    for number, frame in enumerate(container.decode(stream), 1):
        if frame.is_corrupt:
            raise UsageError(f"frame {number} is damaged")
        pixels += frame.width * frame.height
        _check("frames", number, FRAMES)
        _check("pixels in all frames", pixels, ALL_PIXELS)
        yield frame


def _check(what: str, found: int, most: int) -> None:
    if found > most:
        raise UsageError(f"more than {most:,} {what}")


def _upright(frame) -> Image.Image:
    has_alpha = any(part.is_alpha for part in frame.format.components)
    image = Image.fromarray(np.asarray(frame.to_ndarray(format="rgba" if has_alpha else "rgb24")))
    turned = round(frame.rotation / 90) % 4
    return image.rotate(90 * turned, expand=True) if turned else image
