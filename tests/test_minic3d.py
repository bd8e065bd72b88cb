"""Tests the network of clips."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gsdd_jax import networks
from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats.clips import folded

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def numpy_minic3d(params, x, depth, frames):
    """Computes features and logits of clips [b, t, h, w, c] in float64, position by position."""
    for block in range(depth):
        layer = jax.tree.map(np.float64, params["body"][f"Conv_{block}"])
        kernel = layer["kernel"].reshape(7, 7, 3, x.shape[-1], -1)  # the three frames' channels
        b, t, h, w, _ = x.shape
        padded = np.pad(x, ((0, 0), (1, 1), (3, 3), (3, 3), (0, 0)))
        y = np.zeros((b, t, -(-h // 2), -(-w // 2), kernel.shape[-1]))
        for k, i, j in itertools.product(*map(range, y.shape[1:4])):
            window = padded[:, k : k + 3, 2 * i : 2 * i + 7, 2 * j : 2 * j + 7]
            y[:, k, i, j] = np.einsum("btijc,ijtco->bo", window, kernel) + layer["bias"]
        y, pooled = np.maximum(y, 0), 2 if block else 1
        shape = t // pooled, y.shape[2] // 2, y.shape[3] // 2
        x = np.zeros((b, *shape, y.shape[-1]))
        for k, i, j in itertools.product(*map(range, shape)):
            window = y[:, pooled * k : pooled * (k + 1), 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            x[:, k, i, j] = window.max((1, 2, 3))
    linear, mean = params["Linear_0"], x.mean((2, 3))
    pairs = (mean[:, 1:] + mean[:, :-1]) / 2 if mean.shape[1] > 1 else mean
    return x.reshape(len(x), -1), (pairs @ linear["kernel"] + linear["bias"]).max(1)


@pytest.mark.parametrize(("size", "frames", "depth"), [((12, 16), 5, 2), ((8, 8), 4, 1)])
def test_the_network_in_numpy(size, frames, depth):
    shape = (*size, 3 * frames)
    network = networks.build("minic3d", image_shape=shape, num_classes=5, frames=frames, width=6)
    params = network.init(jax.random.key(0))
    x = np.random.default_rng(1).normal(size=(2, frames, *size, 3))
    features, logits = numpy_minic3d(params, x, depth, frames)
    images, key = np.float32(folded(x)), jax.random.key(2)
    run = lambda *given: (
        network.features(*given),
        network.apply(*given),
        network.apply(*given, key),
    )
    found, of_all, dropped = jax.jit(run)(params, images)
    np.testing.assert_allclose(found, features, atol=1e-4)
    np.testing.assert_allclose(of_all, logits, atol=1e-4)
    assert np.abs(dropped - logits).max() > 1e-3


def test_the_network_has_the_published_size():
    network = networks.build("minic3d", image_shape=(112, 112, 48), num_classes=50, frames=16)
    params = jax.eval_shape(network.init, jax.random.key(0))
    layers = [(3, 64), (64, 128), (128, 128)]
    expected = sum(3 * 7 * 7 * i * o + o for i, o in layers) + 129 * 50
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
    images = jax.ShapeDtypeStruct((2, 112, 112, 48), jnp.float32)
    assert jax.eval_shape(network.features, params, images).shape == (2, 4 * 2 * 2 * 128)


@pytest.mark.parametrize(
    ("shape", "frames", "options", "message"),
    [
        ((8, 8, 10), 4, {}, "frames: expected a divisor of the 10 channels, got 4"),
        ((8, 8, 12), 4, {"frames": 5}, "frames: expected a divisor of the 12 channels, got 5"),
        ((8, 8, 12), 4, {"depth": 2}, "images of 11 pixels per side or more, not 8"),
        ((16, 16, 3), 1, {"depth": 2}, "clips of 2 frames or more, not 1"),
    ],
)
def test_what_the_network_refuses(shape, frames, options, message):
    with pytest.raises(UsageError, match=message):
        kind = networks.architecture("minic3d", options)
        kind.build(image_shape=shape, num_classes=2, frames=frames)
