"""Clips of a run in motion: one per class, as animated pictures."""

import base64
import io

import numpy as np
from PIL import Image

from gsdd_jax import parameterizations
from gsdd_jax.exports import png
from gsdd_jax.exports.mp4 import RATE
from gsdd_jax.formats.clips import unfolded
from gsdd_jax.report import gallery
from gsdd_jax.report.source import Run

MOST = 10  # classes of a page, of all its runs
SIDE = 96  # most pixels per side
FRAMES = 32  # most frames; of longer clips, evenly spaced ones


def section(run: Run, num_runs: int) -> list[tuple[str, str]]:
    """Returns the class name and the data URL of the first clip of each class; none for images."""
    kind = run.last.format
    if kind.frames == 1:
        return []
    first = gallery.chosen(run.last, 1)
    clips = unfolded(np.asarray(parameterizations.rendered(first)), kind.frames)
    shown = zip(first.labels, png.rounded(clips), strict=True)
    classes = max(1, MOST // num_runs)
    return [(run.class_name(int(label)), _url(clip)) for label, clip in list(shown)[:classes]]


def _url(clip: np.ndarray) -> str:
    """Returns a data URL of an animated WebP of a clip, uint8 [t, h, w, c]."""
    taken = clip[np.arange(min(len(clip), FRAMES)) * len(clip) // min(len(clip), FRAMES)]
    frames = [png.from_array(frame).convert("RGB") for frame in taken]
    for frame in frames:
        frame.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    first, *rest = frames
    out = io.BytesIO()
    first.save(
        out, "WEBP", save_all=True, append_images=rest, duration=1000 // RATE, loop=0, quality=90
    )
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
