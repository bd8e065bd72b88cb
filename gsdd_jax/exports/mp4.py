"""MP4 export: a folder per class, a video file per clip, and soft labels as a table.

H.264 stores the clips with loss; no other format of clips has any.
"""

import pathlib

import numpy as np

from gsdd_jax.core import pyav
from gsdd_jax.core.errors import UsageError
from gsdd_jax.exports import png
from gsdd_jax.exports.place import Pictures
from gsdd_jax.formats.shapes import UInt8

RATE = 8  # frames per second; a distilled clip has no time of its own
CODECS = {"libx264": {"crf": "12"}, "mpeg4": {"qscale": "2"}}  # the first that PyAV has


def write(path: pathlib.Path, pictures: Pictures) -> None:
    """Writes CLASS/NNNNN.mp4, for any player; the same clips give the same bytes."""
    if (channels := pictures.image_shape[-1]) not in (1, 3):
        raise UsageError(f"mp4: expected clips of 1 or 3 channels, got {channels}; png takes them")
    pyav.module()
    png.write_each(path, pictures, ".mp4", _write)


def _write(path: pathlib.Path, clip: UInt8[np.ndarray, "t h w c"]) -> None:
    av = pyav.module()
    codec = next(name for name in CODECS if name in av.codecs_available)
    height, width, channels = clip.shape[1:]
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream(codec, rate=RATE, options=CODECS[codec])
        stream.height, stream.width = height, width
        # Most players show no other; its colors have half the sides, which are even.
        stream.pix_fmt = "yuv420p" if height % 2 == width % 2 == 0 else "yuv444p"
        stream.codec_context.thread_count = 1
        for frame in clip:
            shown = frame[..., 0] if channels == 1 else frame
            kind = "gray" if channels == 1 else "rgb24"
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), kind)))
        file.mux(stream.encode())
