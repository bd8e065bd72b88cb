"""Tests fast sines against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gsdd_jax.ops.sine import cosine, sine


@pytest.mark.parametrize(("largest", "error"), [(1.0, 1.2e-7), (100.0, 2e-7), (1e5, 2e-7)])
def test_values_and_derivatives_in_float64(largest, error):
    x = np.float32(np.random.default_rng(0).uniform(-largest, largest, 100_000))
    x = np.append(x, np.float32([0, np.pi / 2, np.pi, 1.5 * np.pi, 2 * np.pi, -np.pi / 2, 1e-30]))
    exact = np.sin(np.float64(x)), np.cos(np.float64(x))
    run = jax.jit(lambda x: (sine(x), cosine(x), *jax.jvp(sine, [x], [2 * jnp.ones_like(x)])))
    for found, expected in zip(run(x), (*exact, exact[0], 2 * exact[1]), strict=True):
        np.testing.assert_allclose(found, expected, atol=2 * error)
    np.testing.assert_allclose(run(x)[0], exact[0], atol=error)
    third = jax.jit(jax.vmap(jax.grad(jax.grad(jax.grad(sine)))))(x[:1000])
    np.testing.assert_allclose(third, -exact[1][:1000], atol=2 * error)


def test_small_arguments_keep_their_digits():
    x = np.float32([1e-30, -1e-10, 1e-4, 1e-2])
    np.testing.assert_allclose(jax.jit(sine)(x), np.sin(np.float64(x)), rtol=1e-6)


def test_huge_and_invalid_arguments():
    x = np.float32([1e6, -1e10, 3e38, np.inf, -np.inf, np.nan])
    found = np.asarray(jax.jit(sine)(x))
    assert (np.abs(found[:3]) <= 1).all() and np.isnan(found[3:]).all()
