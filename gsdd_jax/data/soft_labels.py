"""Soft labels while they are learned: of each image a logit for every class, on a fixed grid."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from gsdd_jax.formats.labels import BITS, HIGHEST, codes, values

__all__ = ["BITS", "START", "clip", "codes", "cross_entropy", "start", "targets", "values"]

START = 6.0  # of an image's own class, where the others have 0


def start(labels: Int[Array, "m"], num_classes: int) -> Float[Array, "m {num_classes}"]:
    """Logits before anything is learned: nearly all of the probability is the own class's."""
    return START * jax.nn.one_hot(labels, num_classes)


def clip(logits: Float[Array, "m k"]) -> Float[Array, "m k"]:
    """Within the ends of the grid."""
    return jnp.clip(logits, 0, HIGHEST)


def targets(logits: Float[Array, "m k"], bits: int) -> Float[Array, "m k"]:
    """The probabilities that a network learns of each image, by the nearest logits on the grid.

    Gradients go straight through the rounding.
    """
    nearest = values(codes(logits, bits), bits)
    # The difference is 0 to the bit: what is seen is what is stored.
    seen = jax.lax.stop_gradient(nearest) + (logits - jax.lax.stop_gradient(logits))
    return jax.nn.softmax(seen)


def cross_entropy(
    logits: Float[Array, "b k"], targets: Int[Array, "b"] | Float[Array, "b k"]
) -> Float[Array, "b"]:
    """Of a network's logits, by image; `targets` are classes, or the probabilities of all."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return optax.softmax_cross_entropy(logits, targets)
