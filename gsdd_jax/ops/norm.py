"""Instance normalization."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

EPSILON = 1e-5


def widen(x: Array) -> Array:
    """Casts to float32 unless the type is wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def instance_norm(
    x: Float[Array, "b h w c"], scale: Float[Array, " c"], shift: Float[Array, " c"]
) -> Float[Array, "b h w c"]:
    """Computes (x - mean) / √(variance + 1e-5) · scale + shift per image and channel.

    The variance is biased, in float32 or wider. A mean far from zero does not increase the relative
    error: a few roundings, in the worst case (only the middle pixel differs) one per pixel.
    """
    wide = widen(x)
    h, w = x.shape[1:3]
    # Both sums are relative to one pixel, so that one pass suffices. The pixel's value cancels from
    # the result and from every derivative.
    middle = (slice(None), slice(h // 2, h // 2 + 1), slice(w // 2, w // 2 + 1))
    moved = wide - lax.stop_gradient(wide[middle])
    mean = moved.mean((1, 2), keepdims=True)
    variance = jnp.square(moved).mean((1, 2), keepdims=True) - jnp.square(mean)
    # One factor per channel, so that the large array is read once.
    return ((moved - mean) * (lax.rsqrt(variance + EPSILON) * scale) + shift).astype(x.dtype)
