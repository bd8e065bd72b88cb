"""Defines the rasterizer in plain `jax.numpy`; the kernels are tested against it.

Every sample point evaluates every Gaussian. Works on any platform and in any float type.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gsdd_jax.rasterizer.calls import Settings


def rasterize(
    settings: Settings,
    means: Float[Array, "*b n 2"],
    cholesky: Float[Array, "*b n 3"],
    colors: Float[Array, "*b n c"],
    opacities: Float[Array, "*b n"],
) -> Float[Array, "*b h w c"]:
    """Sums the weighted colors at every sample point and averages each pixel.

    Implements equations 2 to 4 and 9 of the paper. Takes the arguments of `gsdd_jax.rasterize`.
    A NaN or infinite parameter makes its whole image NaN.
    """
    height, width, side, prefilter, min_weight, clip_gradient = settings
    dtype = means.dtype
    finite = (
        jnp.isfinite(means).all(-1)
        & jnp.isfinite(cholesky).all(-1)
        & jnp.isfinite(colors).all(-1)
        & jnp.isfinite(opacities)
    )
    poison = jnp.where(finite, 1, jnp.nan).astype(dtype)  # [*b, n]
    means, cholesky, colors = (p * poison[..., None] for p in (means, cholesky, colors))
    opacities = opacities * poison

    # Covariance L L^T plus the pre-filter, the variance of a one-pixel box.
    l1, l2, l3 = cholesky[..., 0] + 0.5, cholesky[..., 1], cholesky[..., 2] + 0.5
    box = 1 / 12 if prefilter else 0.0
    variance_y = l2**2 + l3**2 + box
    covariance = l1 * l2
    # The expanded determinant: a difference of products would cancel on long thin Gaussians.
    determinant = (l1 * l3) ** 2 + box * (l1**2 + l2**2 + l3**2 + box)
    degenerate = determinant == 0  # without pre-filter: no area, no contribution
    determinant = jnp.where(degenerate, 1, determinant)
    variance_y = jnp.where(degenerate, 1, variance_y)

    x = ((jnp.arange(width * side) + 0.5) / side).astype(dtype)  # sample points, pixels
    y = ((jnp.arange(height * side) + 0.5) / side).astype(dtype)
    # p - mean, relative to the image's center, where small differences lose no digits.
    dx = (x - width / 2) - (width / 2) * means[..., 0, None]  # [*b, n, W S]
    dy = (y - height / 2) - (height / 2) * means[..., 1, None]  # [*b, n, H S]
    # d^T Sigma^-1 d, the square completed in x.
    slope = covariance / variance_y
    across = dx[..., None, :] - (slope[..., None] * dy)[..., None]  # [*b, n, H S, W S]
    sigma = 0.5 * (
        across**2 * (variance_y / determinant)[..., None, None]
        + (dy**2 / variance_y[..., None])[..., None]
    )
    raw = opacities[..., None, None] * jnp.exp(-sigma)
    counts = (raw >= min_weight) & ~degenerate[..., None, None]
    # `where` rather than `minimum`: the gradient is 1 up to and including a weight of exactly 1.
    clipped = jnp.where(raw > 1, 1, raw)
    if clip_gradient == "pass":
        clipped = raw + jax.lax.stop_gradient(clipped - raw)
    weight = jnp.where(counts, clipped, 0).astype(dtype)

    exactly = jax.lax.Precision.HIGHEST  # a GPU would take TF32
    samples = jnp.einsum("...nyx,...nc->...yxc", weight, colors, precision=exactly)
    pixels = samples.reshape(
        *samples.shape[:-3], height, side, width, side, samples.shape[-1]
    ).mean((-4, -2))
    return pixels * poison.prod(-1)[..., None, None, None]


def rasterize_ragged(
    settings: Settings,
    offsets: Int[Array, "images_plus_1"],
    means: Float[Array, "n 2"],
    cholesky: Float[Array, "n 3"],
    colors: Float[Array, "n c"],
    opacities: Float[Array, "n"],
) -> Float[Array, "images h w c"]:
    """Sums the Gaussians from offsets[b] to offsets[b + 1] into image b.

    Renders every Gaussian to an image of its own first. Offsets that decrease or exceed the
    arrays make the image between them NaN.
    """
    num_images, count = len(offsets) - 1, len(opacities)
    alone = rasterize(
        settings, means[:, None], cholesky[:, None], colors[:, None], opacities[:, None]
    )
    owner = jnp.searchsorted(offsets, jnp.arange(count), side="right") - 1
    owner = jnp.where(owner < 0, num_images, owner)  # out of range: no image
    images = jax.ops.segment_sum(alone, owner, num_images)
    first, last = offsets[:-1], offsets[1:]
    valid = (first >= 0) & (first <= last) & (last <= count)
    return jnp.where(valid[:, None, None, None], images, jnp.nan)
