"""Rasterizer in NumPy, by float64: each Gaussian over its bounding box."""

import numpy as np

from gsdd_jax.formats.shapes import Float, Int

MIN_WEIGHT = 1 / 255  # smaller weights count as 0


def rasterize(
    counts: Int[np.ndarray, "m"],
    means: Float[np.ndarray, "n 2"],
    cholesky: Float[np.ndarray, "n 3"],
    colors: Float[np.ndarray, "n c"],
    opacities: Float[np.ndarray, "n"],
    *,
    height: int,
    width: int,
    scale: tuple[float, float] = (1.0, 1.0),
    samples_per_side: int = 2,
    prefilter: bool = True,
) -> Float[np.ndarray, "m {height} {width} c"]:
    """Rasterizes as `gsdd_jax.rasterize`, rounded to float32 at the end.

    Differences: rarely, float64 decides otherwise than float32 whether a weight is above
    `MIN_WEIGHT`, by 1/255 of a color in one sample point.

    The Gaussians of all images are concatenated, `counts` of each. `scale` are factors (x, y) of
    L's rows, from L's resolution to this one.
    """
    side, box = samples_per_side, 1 / 12 if prefilter else 0.0
    means, cholesky, colors, opacities = (
        np.asarray(p, np.float64) for p in (means, cholesky, colors, opacities)
    )
    half = np.array([0.5, 0.0, 0.5])
    l1, l2, l3 = ((cholesky + half) * np.array([scale[0], scale[1], scale[1]])).T
    variance_x, variance_y = l1**2 + box, l2**2 + l3**2 + box
    determinant = (l1 * l3) ** 2 + box * (l1**2 + l2**2 + l3**2 + box)
    # Gaussians without area, or too faint everywhere, are invisible.
    shows = (determinant > 0) & (opacities >= MIN_WEIGHT)
    reach = np.sqrt(2 * np.log(np.where(shows, opacities, 1) / MIN_WEIGHT))
    center = (means + 1) / 2 * np.array([width, height])
    spans = [
        _within(center[:, axis], reach * np.sqrt(variance), (width, height)[axis], side)
        for axis, variance in enumerate((variance_x, variance_y))
    ]
    points = [(np.arange(count * side) + 0.5) / side for count in (width, height)]
    images = np.zeros((len(counts), height, width, colors.shape[-1]), np.float32)
    samples = np.zeros((height * side, width * side, colors.shape[-1]))
    ends = np.cumsum(counts)
    for image, first, last in zip(images, ends - counts, ends, strict=True):
        samples[...] = 0
        for n in first + np.flatnonzero(shows[first:last]):
            (left, right), (top, bottom) = spans[0][n], spans[1][n]
            if left >= right or top >= bottom:
                continue
            dx = points[0][left:right] - center[n, 0]
            dy = points[1][top:bottom, None] - center[n, 1]
            # d^T Sigma^-1 d with the square completed in x.
            across = dx - l1[n] * l2[n] / variance_y[n] * dy
            with np.errstate(over="ignore"):  # far from a Gaussian as thin as a line
                sigma = 0.5 * (across**2 * variance_y[n] / determinant[n] + dy**2 / variance_y[n])
            weight = opacities[n] * np.exp(-sigma)
            weight = np.where(weight >= MIN_WEIGHT, np.minimum(weight, 1), 0)
            samples[top:bottom, left:right] += weight[..., None] * colors[n]
        image[...] = samples.reshape(height, side, width, side, -1).mean((1, 3))
    return images


def _within(center, reach, count, side) -> Int[np.ndarray, "n 2"]:
    """Returns the range [first, last) of sample points within `reach`, with one to spare."""
    ends = np.stack([center - reach, center + reach], 1) * side - 0.5
    first, last = np.floor(ends[:, 0]), np.ceil(ends[:, 1]) + 1
    return np.clip(np.stack([first, last], 1), 0, count * side).astype(np.int64)
