"""Gaussians as ellipses."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gsdd_jax.rasterizer.gaussians import GaussianImages


class Ellipses(NamedTuple):
    """Ellipses on which each Gaussian's density is exp(-1/2) of its peak.

    In pixels, x to the right and y down; angles in degrees, from x toward y.
    """

    centers: Float[np.ndarray, "*b n 2"]
    axes: Float[np.ndarray, "*b n 2"]  # half lengths, the longer one first
    angles: Float[np.ndarray, "*b n"]  # of the longer axis


def ellipses(gaussians: GaussianImages, height: int, width: int, prefilter: bool) -> Ellipses:
    """Returns the ellipses of Gaussians of native resolution `height` x `width`; `prefilter` adds
    its variance of 1/12 square pixel."""
    means, raw = (np.asarray(a, np.float64) for a in (gaussians.means, gaussians.cholesky))
    l1, l2, l3 = raw[..., 0] + 0.5, raw[..., 1], raw[..., 2] + 0.5
    box = 1 / 12 if prefilter else 0.0
    xx, xy, yy = l1**2 + box, l1 * l2, l2**2 + l3**2 + box
    middle, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    # Their product is the determinant; a difference would cancel for long thin ellipses.
    larger = middle + spread
    smaller = ((l1 * l3) ** 2 + box * (l1**2 + l2**2 + l3**2 + box)) / larger
    return Ellipses(
        centers=(means + 1) / 2 * np.array([width, height]),
        axes=np.sqrt(np.stack([larger, smaller], -1)),
        angles=np.degrees(np.arctan2(2 * xy, xx - yy) / 2),
    )
