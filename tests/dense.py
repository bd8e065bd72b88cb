"""Reference for every rasterizer: an image and its gradients in float64, by matrices."""

import numpy as np

CUT = 1 / 255


def dense(
    parameters, height, width, *, side=2, prefilter=True, cotangent=None, cut=CUT,
    clip_gradient="stop",
):  # fmt: skip
    """Renders one image in float64 by matrices: Sigma, its inverse, d^T Sigma^-1 d per sample.

    Returns (image, near, gradients): `near` marks the pixels in which some Gaussian's weight is
    within a millionth (relative) of one of the two cuts, where float32 may fall on either side.
    Gradients by matrix calculus: dL/dSigma = 1/2 Q (sum h d d^T) Q, dL/dL = 2 dL/dSigma L.
    """
    means, cholesky, colors, opacities = (np.asarray(p, np.float64) for p in parameters)
    channels = colors.shape[-1]
    y, x = np.meshgrid(
        (np.arange(height * side) + 0.5) / side,
        (np.arange(width * side) + 0.5) / side,
        indexing="ij",
    )
    image = np.zeros((height, side, width, side, channels))
    near = np.zeros((height, side, width, side), bool)
    if cotangent is not None:
        d_samples = np.broadcast_to(
            np.asarray(cotangent, np.float64)[:, None, :, None] / side**2, image.shape
        ).reshape(height * side, width * side, channels)
    gradients = [np.zeros_like(p) for p in (means, cholesky, colors, opacities)]
    for n, (mean, raw, color, opacity) in enumerate(
        zip(means, cholesky, colors, opacities, strict=True)
    ):
        factor = np.array([[raw[0] + 0.5, 0], [raw[1], raw[2] + 0.5]])
        sigma = factor @ factor.T + (np.eye(2) / 12 if prefilter else 0)
        inverse = np.linalg.inv(sigma)
        size = np.array([width, height])
        d = np.stack([x, y], -1) - size * (mean + 1) / 2
        base = np.exp(-0.5 * np.einsum("...i,ij,...j->...", d, inverse, d))
        weight = opacity * base
        near |= ((np.abs(weight / cut - 1) < 2e-5) | (np.abs(weight - 1) < 2e-5)).reshape(
            near.shape
        )
        counts = weight >= cut
        clipped = weight > 1
        used = np.where(counts, np.minimum(weight, 1), 0)
        image += (used[..., None] * color).reshape(image.shape)
        if cotangent is None:
            continue
        g = d_samples @ color
        active = np.where(counts & (~clipped | (clip_gradient == "pass")), base, 0) * g
        h = opacity * active
        second = np.einsum("yx,yxi,yxj->ij", h, d, d)
        d_factor = inverse @ second @ inverse @ factor
        gradients[0][n] = size / 2 * (inverse @ np.einsum("yx,yxi->i", h, d))
        gradients[1][n] = d_factor[0, 0], d_factor[1, 0], d_factor[1, 1]
        gradients[2][n] = np.einsum("yx,yxc->c", used, d_samples)
        gradients[3][n] = active.sum()
    return image.mean((1, 3)), near.any((1, 3)), gradients


def random_gaussians(seed, count, channels):
    """Returns Gaussians: thin, round, flipped, degenerate, outside, faint, saturated."""
    rng = np.random.default_rng(seed)
    cholesky = rng.normal(size=(count, 3)) * rng.choice([0.3, 2.0, 8.0], size=(count, 1)) - 0.5
    thin = rng.random((count, 3)) < 0.15
    cholesky = np.where(
        thin, np.array([-0.5, 0, -0.5]) + rng.normal(size=(count, 3)) * 1e-3, cholesky
    )
    means = rng.uniform(-1.3, 1.3, (count, 2))
    means = np.where(rng.random((count, 2)) < 0.1, np.sign(means), means)
    arrays = means, cholesky, rng.normal(size=(count, channels)), rng.uniform(-1, 3, count)
    return tuple(a.astype(np.float32) for a in arrays)


def saturated_gaussians(seed, count, channels):
    """Returns `random_gaussians` that are all clipped in the middle: opacities from 2 to 5."""
    *others, _ = random_gaussians(seed, count, channels)
    return *others, np.random.default_rng(seed).uniform(2, 5, count).astype(np.float32)
