"""Uniform grids: columns of numbers, each rounded to equidistant values between learned ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gsdd_jax.formats.quantized import values_of

Levels = tuple[int, ...]  # number of values per column


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def on_grid(
    values: Float[Array, "*s columns"],
    low: Float[Array, "columns"],
    high: Float[Array, "columns"],
    levels: Levels,
) -> Float[Array, "*s columns"]:
    """Rounds to the nearest of `levels` values from `low` to `high`, both included.

    The derivative holds the rounding fixed, so that the ends can be learned. With respect to a
    value it is 1 within the grid and 0 beyond. Ends move clipped values with them, and scale the
    rounding error of the others.
    """
    return values_of(nearest(places(values, low, high, levels), levels), low, high, levels)


@on_grid.defjvp
def _straight_through(levels, primals, tangents):
    values, low, high = primals
    d_values, d_low, d_high = tangents
    most, at = _most(levels), places(values, low, high, levels)
    codes = nearest(at, levels)
    within = d_values + (codes - at) * (d_high - d_low) / most
    tangent = jnp.where(at < 0, d_low, jnp.where(at > most, d_high, within))
    return values_of(codes, low, high, levels), tangent


@jax.custom_jvp
def rounded(values: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Rounds to integers; the derivative is 1."""
    return jnp.round(values)


rounded.defjvp(lambda primals, tangents: (rounded(*primals), *tangents))


def places(
    values: Float[Array, "*s columns"],
    low: Float[Array, "columns"],
    high: Float[Array, "columns"],
    levels: Levels,
) -> Float[Array, "*s columns"]:
    """Returns fractional positions on the grids; whole numbers are codes."""
    return (values - low) / (high - low) * _most(levels)


def nearest(at: Float[Array, "*s columns"], levels: Levels) -> Int[Array, "*s columns"]:
    return jnp.clip(jnp.round(at), 0, _most(levels)).astype(jnp.int32)


def rate(
    at: Float[Array, "n"], codes: Int[Array, "n"], stored: Int[Array, "n"], levels: int
) -> Float[Array, ""]:
    """Returns mean bits of a column's code, by the current frequencies of `stored`.

    These are the codes as they are coded (differences). The gradient, of `at`, is that of the log
    frequencies of `codes`, the nearest ones, interpolated between neighbors.
    """
    counts = jnp.zeros(levels).at[codes].add(1.0) + 0.5
    padded = jnp.pad(counts, 1, mode="edge")  # neighboring codes have similar frequencies
    smoothed = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    cost = jax.lax.stop_gradient(-jnp.log2(smoothed / smoothed.sum()))
    smooth = jnp.interp(at, jnp.arange(float(levels)), cost).mean()
    shares = jnp.zeros(levels).at[stored].add(1.0) / len(stored)
    exact = -jnp.where(shares > 0, shares * jnp.log2(jnp.where(shares > 0, shares, 1.0)), 0).sum()
    return _valued(exact, smooth)


@jax.custom_jvp
def _valued(exact, smooth):
    """Returns the first value, with the derivative of the second."""
    del smooth
    return exact


_valued.defjvp(lambda primals, tangents: (_valued(*primals), tangents[1]))


def _most(levels) -> np.ndarray:
    return np.array(levels, np.float32) - 1
