"""Instance normalization."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

EPSILON = 1e-5


def widen(x: Array) -> Array:
    """`x` in float32, or in its own type where that is wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def instance_norm(
    x: Float[Array, "b h w c"], scale: Float[Array, " c"], shift: Float[Array, " c"]
) -> Float[Array, "b h w c"]:
    """(x - mean) / √(variance + 1e-5) · scale + shift, each image and channel by itself.

    The variance is the biased one, in float32 at least. A mean far from zero does not add to its
    relative error, which is a few roundings, and as many as there are pixels in the worst case:
    where the middle pixel alone differs from the others.
    """
    wide = widen(x)
    h, w = x.shape[1:3]
    # Both sums about one pixel's value, so that they take one pass over the array. It cancels from
    # the result, and so from every derivative.
    middle = (slice(None), slice(h // 2, h // 2 + 1), slice(w // 2, w // 2 + 1))
    moved = wide - lax.stop_gradient(wide[middle])
    mean = moved.mean((1, 2), keepdims=True)
    variance = jnp.square(moved).mean((1, 2), keepdims=True) - jnp.square(mean)
    # One factor a channel, so that the large array is read once.
    return ((moved - mean) * (lax.rsqrt(variance + EPSILON) * scale) + shift).astype(x.dtype)
