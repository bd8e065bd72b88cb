"""Tests DDiF: a small network of sines per image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import data, parameterizations
from gsdd_jax.formats import base
from gsdd_jax.training import fit
from tests.plain import Siren

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def build(shape=(32, 32, 3), ipc=1, **options):
    return parameterizations.build("ddif", shape, ipc=ipc, images_per_class=1, **options)


@functools.partial(jax.jit, static_argnums=(0, 1))
def initial(kind, images):
    return kind.init(jax.random.key(0), jnp.zeros((images, *kind.image_shape)))


def sirens(kind, params):
    """Returns the same networks in float64."""
    params = {name: np.asarray(a) for name, a in params.items()}
    return [
        Siren(
            [(params[f"weights_{i}"][m], params[f"biases_{i}"][m]) for i in range(kind.layers + 1)],
            kind.w0,
        )
        for m in range(len(params["biases_0"]))
    ]


@pytest.mark.parametrize(
    ("shape", "ipc", "options", "images", "numbers"),
    [
        ((32, 32, 3), 1, {}, 37, 81),
        ((32, 32, 3), 1, {"dtype": "bfloat16"}, 75, 81),
        ((32, 32, 3), 50, {}, 282, 543),
        ((32, 32, 3), 1, {"layer_width": 10}, 17, 173),  # CIFAR-100
        ((128, 128, 3), 1, {}, 51, 963),
    ],
)
def test_what_the_budget_holds(shape, ipc, options, images, numbers):
    kind = build(shape, ipc, **options)
    assert kind.images_per_class == images
    assert sum(np.prod(s.shape) for s in kind.array_specs(1).values()) == numbers
    assert (kind.layers, kind.w0) == ((2, 10.0) if shape[0] == 32 else (3, 40.0))


def test_a_network_that_does_not_fit_is_refused():
    with pytest.raises(gsdd_jax.UsageError, match="at least 268 bytes per class"):
        build((4, 4, 1))


def test_initial_values_are_uniform_in_their_bounds():
    kind = build((8, 8, 3), 20, layers=3, layer_width=24, w0=15.0)
    params = initial(kind, 200)
    for name, values in jax.tree.map(np.asarray, params).items():
        bound = 0.5 if name.endswith("0") else np.sqrt(6 / 24) / 15
        assert 0.99 * bound < np.abs(values).max() <= bound
        assert float(values.var()) == pytest.approx(bound**2 / 3, rel=0.1)


@pytest.mark.parametrize(("size", "layers"), [((5, 7), 1), ((10, 4), 3), ((1, 3), 3)])
def test_images_and_gradients_are_those_of_the_formula_at_any_size(size, layers):
    kind = build((5, 7, 2), 10, layers=layers, layer_width=9, w0=40.0)
    params = initial(kind, 3)
    cotangent = np.random.default_rng(0).normal(size=(3, *size, 2))

    @jax.jit
    def pulled(params, cotangent):
        images, transposed = jax.vjp(lambda p: kind.render_at(p, *size), params)
        return images, transposed(cotangent)[0]

    images, gradient = jax.tree.map(np.asarray, pulled(params, np.float32(cotangent)))
    by_numpy = kind.decode({name: np.asarray(a) for name, a in params.items()}, *size)
    for m, net in enumerate(sirens(kind, params)):
        np.testing.assert_allclose(images[m], net.image(*size), atol=1e-5)
        np.testing.assert_allclose(by_numpy[m], net.image(*size), atol=1e-5)
        for i, expected in enumerate(net.gradients(cotangent[m])):
            for name, g in zip(("weights", "biases"), expected, strict=True):
                scale = np.abs(g).max()
                np.testing.assert_allclose(gradient[f"{name}_{i}"][m], g, atol=2e-5 * scale)


@pytest.mark.parametrize("scale", [1, 1e3, 1e6, 1e30])
def test_without_jax_images_are_the_same_for_any_weights(scale):
    """Large arguments of sines are limited, by both. The compiler chooses how sums are rounded."""
    kind = build((8, 8, 3), 10, layers=2, layer_width=6)
    params = {name: np.array(array) for name, array in initial(kind, 3).items()}
    params["weights_0"] *= np.float32(scale)
    by_numpy = kind.decode(params, 8, 8)
    rounding = min(1e5, 30 * scale) * 2**-24
    np.testing.assert_allclose(
        jax.jit(kind.render)(params), by_numpy, atol=2e-6 + 4 * rounding, rtol=0
    )


@pytest.mark.parametrize(
    ("side", "mean", "std"),
    [
        (32, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        (128, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_normalized_fields_of_the_published_code(side, mean, std):
    """The same networks are images in [0, 1] or normalized ones."""
    shape = (side, side, 3)
    unit, normalized = build(shape), build(shape, space="normalized")
    params = initial(unit, 2)
    expected = np.asarray(jax.jit(unit.render)(params), np.float64) * std + mean
    np.testing.assert_allclose(jax.jit(normalized.render)(params), expected, atol=1e-6)
    with pytest.raises(gsdd_jax.UsageError, match="space: expected unit for images of 1 channels"):
        build((side, side, 1), ipc=10, space="normalized")


def test_a_file_of_before_is_of_unit_images():
    values = base.settings(build())
    del values["space"]
    assert base.format_of(values).space == "unit"


def test_held_out_images_are_reconstructed_as_well_as_in_float64():
    """Trains the published CIFAR-10 network from the same initial values by the same optimizer."""
    real = np.float32(data.load("cifar10_mini").test.images[:2]) / 255
    images = jax.device_put(real)
    kind, steps, rate = build(), 200, 5e-3
    state = fit.start(kind, jax.random.key(0), images, rate, 0)
    start, nets = fit.psnr(kind, state.params, images), sirens(kind, state.params)
    state, _ = fit.run(kind, state, images, rate, steps, 0)
    found = fit.psnr(kind, state.params, images)
    for m, net in enumerate(nets):
        target = np.float64(real[m])
        net.fit(target, steps, rate)
        expected = -10 * np.log10(((net.image(32, 32) - target) ** 2).mean())
        assert float(found[m]) == pytest.approx(expected, abs=0.2)
        assert expected > start[m] + 5
