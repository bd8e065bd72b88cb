"""Layers of small networks for NumPy and JAX."""

from typing import Any

import numpy as np

from gsdd_jax.formats.arrays import matmul, namespace
from gsdd_jax.formats.shapes import Float

EPSILON = 1e-6  # added to variances
# Abramowitz & Stegun 7.1.26: NumPy has no error function; exact to 1.5e-7.
_POINT = 0.3275911
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def linear(
    x: Float[Any, "*b i"], weights: Float[Any, "i o"], biases: Float[Any, "o"]
) -> Float[Any, "*b o"]:
    """Computes x · weights + biases."""
    return matmul(x, weights) + biases


def layer_norm(
    x: Float[Any, "*b n"], scale: Float[Any, "n"], shift: Float[Any, "n"]
) -> Float[Any, "*b n"]:
    """Normalizes the last axis to mean 0 and variance 1, then scales and shifts it."""
    xp, centered = namespace(x), x - x.mean(-1, keepdims=True)
    variance = (centered * centered).mean(-1, keepdims=True)
    return centered / xp.sqrt(variance + np.float32(EPSILON)) * scale + shift


def gelu(x: Float[Any, "*s"]) -> Float[Any, "*s"]:
    """Computes x times the normal distribution function of x."""
    xp, root = namespace(x), np.float32(np.sqrt(0.5))
    size = abs(x) * root
    t, series = 1 / (1 + np.float32(_POINT) * size), 0.0
    for factor in reversed(_ERF):
        series = t * (np.float32(factor) + series)
    erf = xp.sign(x) * (1 - series * xp.exp(-size * size))
    return 0.5 * x * (1 + erf)
