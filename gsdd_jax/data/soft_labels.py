"""Soft labels: of each image a logit for every class, one of a few values on a fixed grid.

The grid has 2 ** bits values from 0 to `HIGHEST`. Only differences matter to a softmax, so nothing
of it is learned, and a code is all that is stored of a logit.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

BITS = (2, 8)  # of a code, the fewest and the most
HIGHEST = 8.0  # of the grid; against zeros its probability is 0.997 in ten classes
START = 6.0  # of an image's own class, where the others have 0


def start(labels: Int[Array, "m"], num_classes: int) -> Float[Array, "m {num_classes}"]:
    """Logits before anything is learned: nearly all of the probability is the own class's."""
    return START * jax.nn.one_hot(labels, num_classes)


def clip(logits: Float[Array, "m k"]) -> Float[Array, "m k"]:
    """Within the ends of the grid."""
    return jnp.clip(logits, 0, HIGHEST)


def codes(logits: Float[Array | np.ndarray, "m k"], bits: int) -> Any:
    """Of the nearest values on the grid, in float32: whole numbers from 0 to 2 ** bits - 1.

    A product and a rounding, which NumPy and every device compute to the same bits.
    """
    most = 2**bits - 1
    return (logits * np.float32(most / HIGHEST)).round().clip(0, most)


def values(codes: Any, bits: int) -> Any:
    """The logits that codes stand for."""
    return codes.astype(np.float32) * np.float32(HIGHEST / (2**bits - 1))


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
