"""Tests Gaussian parameters: initial values, rounding, clipping, boundary loss, budget."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import gsdd_jax
import gsdd_jax.parameterizations
from gsdd_jax.rasterizer import gaussians

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def some(num_images=3, num_gaussians=5, channels=3, size=8):
    return gaussians.init(
        jax.random.key(0), num_images, num_gaussians, height=size, width=size, channels=channels
    )


def test_initial_values():
    g = some(200, 50)
    assert g.means.shape == (200, 50, 2)
    assert g.cholesky.shape == (200, 50, 3)
    assert g.colors.shape == (200, 50, 3)
    assert (g.opacities == 1).all()
    for values, low, high in ((g.means, -1, 1), (g.cholesky, 0, 1), (g.colors, 0, 1)):
        assert values.min() >= low
        assert values.max() <= high
        assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.02)
        assert float(values.std()) == pytest.approx((high - low) / 12**0.5, abs=0.02)


def test_rounding_is_bfloat16_under_jit_and_its_derivative_is_one():
    x = np.random.default_rng(0).normal(size=2000).astype(np.float32) * 10
    expected = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert (expected != x).any()
    np.testing.assert_array_equal(jax.jit(gaussians.round_to_bfloat16)(x), expected)
    slope = jax.grad(lambda x: (gaussians.round_to_bfloat16(x) ** 2).sum())(jnp.asarray(x))
    np.testing.assert_array_equal(slope, 2 * expected)


def test_boundary_loss_and_clipping():
    u = np.array([[0.0, 0.5], [-0.9, 1.0], [-3.0, 0.999999]])
    clamped = np.clip(u, -(1 - 1e-6), 1 - 1e-6)
    expected = -np.log(1 - clamped**2).mean()
    actual = gaussians.boundary_loss(jnp.asarray(u, jnp.float32))
    assert float(actual) == pytest.approx(expected, rel=1e-3)
    slope = jax.grad(gaussians.boundary_loss)(jnp.asarray(u, jnp.float32))
    assert float(slope[0, 1]) == pytest.approx(2 * 0.5 / (1 - 0.25) / 6, rel=1e-5)
    assert slope[1, 1] == 0  # beyond the clamp
    g = dataclasses.replace(some(1, 3), means=jnp.asarray(u, jnp.float32)[None])
    np.testing.assert_allclose(
        gaussians.clip_means(g).means[0, 1:], [[-0.9, 0.999], [-0.999, 0.999]]
    )


@pytest.mark.parametrize(
    ("ipc", "gpc", "shape", "expected"),
    [  # every num_points of the published settings
        (1, 30, (32, 32, 3), 22),
        (10, 160, (32, 32, 3), 42),
        (50, 250, (32, 32, 3), 136),
        (10, 80, (32, 32, 3), 85),
        (50, 400, (32, 32, 3), 85),
        (1, 64, (128, 128, 3), 170),
        (10, 640, (128, 128, 3), 170),
        (1, 200, (128, 128, 3), 54),
    ],
)
def test_budget_gives_the_published_numbers(ipc, gpc, shape, expected):
    there = 4 * ipc * math.prod(shape)
    assert gaussians.gaussians_within_budget(there, gpc) == expected
    spent = expected * gpc * 9 * 2
    assert spent <= 4 * ipc * shape[0] * shape[1] * shape[2] < (expected + 1) * gpc * 9 * 2


def test_the_budget_is_kept_without_bfloat16():
    for on, expected in ((True, 22), (False, 11)):
        kind = gsdd_jax.parameterizations.build(
            "gaussian", (32, 32, 3), ipc=1, images_per_class=30, bfloat16=on
        )
        assert kind.num_gaussians == expected


def test_scaled_rows_of_the_factor():
    g = dataclasses.replace(some(1, 1, size=8), opacities=jnp.ones((1, 1)))
    explicit = g.cholesky + jnp.array([0.5, 0, 0.5])
    explicit = explicit * jnp.array([3.0, 2.0, 2.0]) - jnp.array([0.5, 0, 0.5])
    np.testing.assert_allclose(
        g.render(16, 24),
        gsdd_jax.rasterize(g.means, explicit, g.colors, g.opacities, height=16, width=24),
        atol=1e-6,
    )


def test_everything_stays_float32_where_jax_has_float64():
    expected = some(1, 2).render(16, 24)
    stored = {"means": jnp.zeros((1, 2, 2)), "cholesky": jnp.zeros((1, 2, 3))}
    stored["colors"] = jnp.ones((1, 2, 3))
    with jax.enable_x64(True):
        g = some(1, 2)
        np.testing.assert_array_equal(g.render(16, 24), expected)
        kind = gsdd_jax.parameterizations.build(
            "gaussian", (8, 8, 3), ipc=1, images_per_class=2, opacity=False
        )
        for params in (g, kind.init(jax.random.key(0), jnp.zeros((2, 8, 8, 3)))):
            assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
        assert kind.render(kind.from_arrays(stored)).dtype == jnp.float32
        fitted, _ = gsdd_jax.fit_images(jax.random.key(0), expected, 2, num_steps=2)
        assert fitted.means.dtype == jnp.float32


def test_without_a_native_resolution_one_must_be_given():
    g = dataclasses.replace(some(), height=None, width=None)
    assert g.render(8, 8).shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(g.render(8, 8), some().render())
    with pytest.raises(ValueError, match="no native resolution"):
        g.render()
