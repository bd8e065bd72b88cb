"""Learned soft labels: one logit per image and class, on a fixed grid."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from gsdd_jax.formats.labels import BITS, HIGHEST, codes, values

__all__ = ["BITS", "START", "clip", "codes", "cross_entropy", "start", "targets", "values"]

START = 6.0  # logit of an image's own class; the others start at 0


def start(labels: Int[Array, "m"], num_classes: int) -> Float[Array, "m {num_classes}"]:
    """Returns initial logits, which give an image's own class nearly all of the probability."""
    return START * jax.nn.one_hot(labels, num_classes)


def clip(logits: Float[Array, "m k"]) -> Float[Array, "m k"]:
    """Clips logits to the grid's range."""
    return jnp.clip(logits, 0, HIGHEST)


def targets(logits: Float[Array, "m k"], bits: int) -> Float[Array, "m k"]:
    """Returns the target probabilities of each image, from the nearest logits on the grid.

    The rounding is straight-through for gradients.
    """
    nearest = values(codes(logits, bits), bits)
    # The difference is exactly 0: training uses what is stored.
    seen = jax.lax.stop_gradient(nearest) + (logits - jax.lax.stop_gradient(logits))
    return jax.nn.softmax(seen)


def cross_entropy(
    logits: Float[Array, "b k"], targets: Int[Array, "b"] | Float[Array, "b k"]
) -> Float[Array, "b"]:
    """Returns the cross-entropy per image; `targets` are classes, or probabilities of all."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return optax.softmax_cross_entropy(logits, targets)
