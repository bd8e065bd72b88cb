"""Tests IDC: smaller images, enlarged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.data import transforms
from gsdd_jax.matching.dm import DistributionMatching
from gsdd_jax.training import distill
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


def test_it_starts_from_every_second_pixel():
    images = np.random.default_rng(0).random((8, 8, 12, 3), np.float32)
    kind = parameterizations.build("idc", (8, 12, 3), ipc=1, images_per_class=1)
    small = kind.init(jax.random.key(0), jnp.asarray(images))["small"]
    for i, j in np.ndindex(4, 6):
        np.testing.assert_array_equal(small[:, i, j], images[:, 2 * i, 2 * j])


class Far(DistributionMatching):
    """Two updates a step; each moves every number by -2."""

    num_updates = 2

    def begin(self, key, data, host_inputs):
        del key, data, host_inputs

    def loss(self, synthetic, data, aux_params, carry, update, key):
        del data, aux_params, carry, update, key
        return 2 * synthetic.params["small"].sum()


def test_a_step_begins_in_the_unit_range():
    """It is clipped before a step only: neither between its updates nor at the end."""
    kind = parameterizations.build("idc", (4, 4, 3), ipc=1, images_per_class=1)
    network = networks.build("convnet", image_shape=(4, 4, 3), num_classes=1, width=1, depth=1)
    problem = distill.Problem(kind, Far(network=network, num_classes=1), 1)
    small = np.random.default_rng(0).uniform(-1, 2, (4, 2, 2, 3)).astype(np.float32)
    state = distill.start(problem, {"small": jnp.asarray(small)}, 1.0)
    transform = transforms.Normalize(jnp.zeros(3), jnp.ones(3))
    data = matching.real_data(np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1, int), 1, transform)
    expected, velocity = small, 0.0
    for _ in range(2):
        expected = np.clip(expected, 0, 1)
        for _ in range(2):
            velocity = 0.5 * velocity + 2
            expected = expected - velocity
    state, _ = distill.run(problem, state, jax.random.key(0), data, None, 2)
    np.testing.assert_allclose(state.params["small"], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 9, 3), (7, 8, 3)])
def test_a_factor_that_does_not_divide_is_refused(shape):
    message = (
        "parameterization idc: factor: expected a divisor of the height and the width, "
        f"{shape[0]} and {shape[1]}, got 2"
    )
    with pytest.raises(gsdd_jax.UsageError, match=message):
        parameterizations.build("idc", shape, ipc=1, images_per_class=1)
