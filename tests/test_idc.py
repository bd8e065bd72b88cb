"""Tests IDC: smaller images, enlarged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import parameterizations
from tests.plain import bilinear

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.mark.parametrize(("shape", "factor"), [((8, 12, 3), 2), ((9, 6, 1), 3), ((6, 4, 2), 1)])
def test_images_and_gradients_are_those_of_the_formula(shape, factor):
    kind = parameterizations.build("idc", shape, ipc=2, images_per_class=1, factor=factor)
    assert kind.images_per_class == 2 * factor**2
    rng = np.random.default_rng(0)
    small = rng.normal(size=(5, shape[0] // factor, shape[1] // factor, shape[2]))
    other, cotangent = rng.normal(size=small.shape), rng.normal(size=(5, *shape))
    images, transposed = jax.vjp(kind.render, {"small": jnp.asarray(small, jnp.float32)})
    np.testing.assert_allclose(images, bilinear(small, *shape[:2]), atol=1e-6)
    # Enlarging is linear: its gradient is its transpose.
    (gradient,) = transposed(jnp.asarray(cotangent, jnp.float32))
    expected = (bilinear(other, *shape[:2]) * cotangent).sum()
    assert (gradient["small"] * other).sum() == pytest.approx(expected, rel=1e-5)


def test_it_starts_as_the_images_made_smaller():
    images = np.random.default_rng(0).random((8, 8, 12, 3), np.float32)
    kind = parameterizations.build("idc", (8, 12, 3), ipc=1, images_per_class=1)
    small = kind.init(jax.random.key(0), jnp.asarray(images))["small"]
    for i, j in np.ndindex(4, 6):
        square = images[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        np.testing.assert_allclose(small[:, i, j], square.mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 9, 3), (7, 8, 3)])
def test_a_factor_that_does_not_divide_is_refused(shape):
    message = (
        "parameterization idc: factor: expected a divisor of the height and the width, "
        f"{shape[0]} and {shape[1]}, got 2"
    )
    with pytest.raises(gsdd_jax.UsageError, match=message):
        parameterizations.build("idc", shape, ipc=1, images_per_class=1)
