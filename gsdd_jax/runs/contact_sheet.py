"""A contact sheet of a distilled set: one row of images or filmstrips per class."""

import io

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

GAP = 1  # pixels between images


def filmstrips(clips: Float[np.ndarray, "m t h w c"]) -> Float[np.ndarray, "m h tw c"]:
    """Returns one image per clip: its frames side by side."""
    count, frames, height, width, colors = clips.shape
    return clips.swapaxes(1, 2).reshape(count, height, frames * width, colors)


def contact_sheet(
    images: Float[np.ndarray, "m *t h w c"],
    labels: Int[np.ndarray, "m"],
    per_class: int = 10,
    num_classes: int = 20,
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the first `per_class` images, in [0, 1], of the first classes; values are clipped.

    Clips, [m, t, h, w, c], are filmstrips, of one clip or more per class.
    """
    if images.ndim == 5:
        per_class = max(1, per_class // images.shape[1])
        images = filmstrips(images)
    _, height, width, channels = images.shape
    classes = np.unique(labels)[:num_classes]
    rows = [np.flatnonzero(labels == c)[:per_class] for c in classes]
    columns = max(len(row) for row in rows)
    cell_h, cell_w = height + GAP, width + GAP
    sheet = np.full((len(rows) * cell_h - GAP, columns * cell_w - GAP, 3), 255, np.uint8)
    shown = np.clip(np.nan_to_num(images), 0, 1)
    shown = np.round(255 * (shown if channels == 3 else shown[..., :1].repeat(3, -1)))
    for i, row in enumerate(rows):
        for j, index in enumerate(row):
            top, left = i * cell_h, j * cell_w
            sheet[top : top + height, left : left + width] = shown[index]
    return sheet


def png(sheet: UInt8[np.ndarray, "height width 3"], scale: int = 2) -> bytes:
    """Returns the sheet as a PNG file, with every pixel `scale` x `scale`."""
    out = io.BytesIO()
    Image.fromarray(sheet.repeat(scale, 0).repeat(scale, 1)).save(out, "PNG")
    return out.getvalue()
