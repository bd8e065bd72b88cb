"""The Gaussians of a set as ellipses, in few bytes, for a script to draw."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from gsdd_jax.figures import geometry, inputs
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.gaussian import Gaussians

# Units of the integers that are stored; script.js has the same.
PER_SIDE = 1 << 14  # of a centre, a part of the image's width or height
PER_PIXEL = 1 << 6  # of a half axis
PER_DEGREE = 100
RECORD = np.dtype(
    [
        ("centre", "<i2", 2),
        ("axes", "<u2", 2),
        ("angle", "<i2"),
        ("color", "u1", 3),
        ("alpha", "u1"),
    ]
)


def packed(set_: DistilledSet) -> dict[str, Any] | None:
    """How many Gaussians each image has, and their records one after the other in base64; None for
    a set without Gaussians.

    A record is of `RECORD`: the ellipse where a Gaussian as it is rendered, pre-filter and all, has
    exp(-1/2) of its peak, its colour as far as a screen shows it, and its opacity likewise.
    """
    kind = set_.format
    if not isinstance(kind, Gaussians):
        return None
    flat, counts = inputs.one_after_the_other(set_)
    if not kind.opacity:
        flat = dataclasses.replace(flat, opacities=np.ones_like(flat.opacities))
    shapes = geometry.ellipses(flat, kind.height, kind.width, kind.prefilter)
    records = np.empty(len(flat.opacities), RECORD)
    sides = np.array([kind.width, kind.height])
    records["centre"] = _integers(shapes.centres / sides * PER_SIDE, "<i2")
    records["axes"] = _integers(shapes.axes * PER_PIXEL, "<u2")
    records["angle"] = _integers(shapes.angles * PER_DEGREE, "<i2")
    records["color"] = _bytes(_three_channels(flat.colors))
    records["alpha"] = _bytes(flat.opacities)
    return {"counts": counts, "records": base64.b64encode(records.tobytes()).decode()}


def _integers(values: Float[np.ndarray, "..."], dtype: str) -> np.ndarray:
    """Rounded, and clipped to what the type holds: far outside of every image."""
    limits = np.iinfo(dtype)
    return np.clip(np.round(values), limits.min, limits.max).astype(dtype)


def _bytes(values: Float[np.ndarray, "..."]) -> np.ndarray:
    return np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)


def _three_channels(colors: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n 3"]:
    return colors if colors.shape[1] == 3 else colors[:, :1].repeat(3, 1)
