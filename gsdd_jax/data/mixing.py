"""Mixtures of the views that a labeler labels, drawn anew in each training step (CutMix)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from gsdd_jax.formats.mixes import AREAS

MIXED = 0.8  # share of the views that are mixtures


def mixed(
    key: Key[Array, ""], images: Float[Array, "b h w c"], present: Bool[Array, "b"] | None = None
) -> Float[Array, "b h w c"]:
    """Returns images of which most have a square of another one in its place.

    As the mixtures that a file may describe (`formats.mixes`), but drawn anew. Images that are not
    `present` are padding, and get into no other one.
    """
    count, height, width, _ = images.shape
    keys = jax.random.split(key, 5)
    if present is None:
        order = jax.random.permutation(keys[0], count)
    else:
        order = _permuted(keys[0], present)
    # Unique indices: gradients are summed without atomics, hence deterministically.
    others = images.at[order].get(unique_indices=True)
    least, most = (area / 256 for area in AREAS)
    side = jnp.sqrt(jax.random.uniform(keys[1], (count, 1), minval=least, maxval=most))
    chosen = jax.random.bernoulli(keys[2], MIXED, (count, 1))

    def within(key, size):
        first = jax.random.uniform(key, (count, 1)) * (1 - side)
        centers = (jnp.arange(size) + 0.5) / size
        return (centers >= first) & (centers < first + side) & chosen

    rows, columns = within(keys[3], height), within(keys[4], width)
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], others, images)


def _permuted(key: Key[Array, ""], present: Bool[Array, "b"]) -> Int[Array, "b"]:
    """Returns a random permutation of what is present, and another one of what is not."""
    random = jax.random.uniform(key, present.shape)
    places, drawn = jnp.argsort(~present), jnp.argsort(random + ~present)
    return jnp.zeros_like(places).at[places].set(drawn, unique_indices=True)
