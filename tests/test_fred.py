"""Tests FreD: selected coefficients of the cosine transform, and their masks."""

import functools

import jax
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import parameterizations
from gsdd_jax.training import fit
from tests.plain import from_spectrum, spectrum

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SHAPE = (6, 8, 3)


@functools.partial(jax.jit, static_argnums=0)
def initial(kind, images):
    return kind.init(jax.random.key(0), images)


def build(shape=SHAPE, ipc=1, **options):
    return parameterizations.build("fred", shape, ipc=ipc, images_per_class=1, **options)


def real(kind, classes=2):
    """Returns images whose variation differs by class."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(classes, kind.images_per_class, *kind.image_shape))
    smooth = rng.normal(size=(classes, kind.height, 1, 1)).cumsum(1)
    return (0.5 + 0.1 * images * smooth[:, None]).reshape(-1, *kind.image_shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "ipc", "options", "images", "frequencies"),
    [
        ((32, 32, 3), 1, {}, 16, 63),  # 64 numbers as published, less the masks
        ((32, 32, 3), 1, {"dtype": "bfloat16"}, 32, 63),
        ((32, 32, 3), 10, {"size": 256}, 40, 255),
        ((128, 128, 3), 1, {}, 8, 2026),  # of 2048
        ((8, 8, 1), 3, {"size": 192}, 1, 64),  # more than exist
        ((8, 8, 1), 3, {"size": 2}, 96, 1),
    ],
)
def test_what_the_budget_holds(shape, ipc, options, images, frequencies):
    kind = build(shape, ipc, **options)
    assert (kind.images_per_class, kind.num_frequencies) == (images, frequencies)


@pytest.mark.parametrize("size", [1, 65])
def test_a_size_that_does_not_fit_is_refused(size):
    with pytest.raises(gsdd_jax.UsageError, match=f"size: expected from 2 to 64 .* got {size}"):
        build((8, 8, 1), 1, size=size)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_varies_most_in_a_class_is_kept(dtype):
    kind = build(size=12, dtype=dtype)
    images = real(kind)
    params = initial(kind, images)
    of_class = spectrum(images.astype(np.float64)).reshape(2, kind.images_per_class, -1, 3)
    spread = of_class.var(1).mean(-1)
    kept = np.asarray(params["frequencies"]).reshape(2, kind.images_per_class, -1)
    assert (kept == kept[:, :1]).all()
    assert (kept[0, 0] != kept[1, 0]).any()
    for mine, variances, values in zip(kept[:, 0].astype(int), spread, of_class, strict=True):
        assert set(mine) == set(np.argsort(-variances)[: kind.num_frequencies])
        found = np.asarray(params["coefficients"]).reshape(2, *values[:, mine].shape)
        assert any(np.allclose(f, values[:, mine], atol=1e-5) for f in found)


def test_one_image_keeps_its_largest():
    kind = build(size=48)
    assert kind.images_per_class == 1
    images = real(kind)
    params = initial(kind, images)
    energy = (spectrum(images.astype(np.float64)) ** 2).mean(-1).reshape(2, -1)
    for places, values in zip(np.asarray(params["frequencies"], int), energy, strict=True):
        assert set(places) == set(np.argsort(-values)[: kind.num_frequencies])


def test_images_and_gradients_are_those_of_the_formula():
    kind = build(size=12)
    params = initial(kind, real(kind))
    rng = np.random.default_rng(1)
    values, other = rng.normal(size=(2, *params["coefficients"].shape))
    cotangent = rng.normal(size=(len(values), *SHAPE))
    params = {n: np.asarray(a) for n, a in params.items()} | {"coefficients": np.float32(values)}
    by_formula = lambda c: from_spectrum(c, params["frequencies"], SHAPE[:2], *SHAPE[:2])

    @jax.jit
    def with_gradient(params, cotangent):
        images, transposed = jax.vjp(kind.render, params)
        return images, transposed(cotangent)[0]

    images, gradient = with_gradient(params, np.float32(cotangent))
    np.testing.assert_allclose(images, by_formula(values), atol=1e-5)
    expected = (by_formula(other) * cotangent).sum()
    assert (gradient["coefficients"] * other).sum() == pytest.approx(expected, rel=1e-4)
    np.testing.assert_array_equal(gradient["frequencies"], 0)


def test_it_starts_at_the_best_fit_and_keeps_its_frequencies():
    kind = build(size=12)
    images, others = jax.device_put((real(kind), 1 - real(kind)))
    state = fit.start(kind, jax.random.key(0), images, 0.1)
    before = jax.tree.map(np.array, state.params)
    best = fit.psnr(kind, state.params, images)
    state, _ = fit.run(kind, state, images, 0.1, 10)
    np.testing.assert_allclose(fit.psnr(kind, state.params, images), best, atol=1e-4)
    np.testing.assert_allclose(state.params["coefficients"], before["coefficients"], atol=1e-5)
    # Towards something else the coefficients move, and the frequencies still do not.
    state, _ = fit.run(kind, state, others, 0.1, 10)
    assert np.abs(np.asarray(state.params["coefficients"]) - before["coefficients"]).max() > 0.01
    np.testing.assert_array_equal(state.params["frequencies"], before["frequencies"])


def test_a_file_of_wrong_masks_is_refused(tmp_path):
    kind = build((3, 5, 1), 2, size=10)
    params = initial(kind, real(kind))
    arrays = {name: np.array(a) for name, a in kind.to_arrays(params).items()}
    assert arrays["masks"].shape == (2, 2) and arrays["masks"].dtype == np.uint8
    kind.check_arrays(arrays)
    # By hand: the first bit is the first frequency.
    bits = [[(b >> i) & 1 for b in mask for i in range(7, -1, -1)] for mask in arrays["masks"]]
    per_class = kind.images_per_class
    for mask, places in zip(bits, np.asarray(params["frequencies"])[::per_class], strict=True):
        assert list(np.flatnonzero(mask)) == list(places)
    byte, bit = divmod(int(np.flatnonzero(bits[1])[0]), 8)
    for place, change in (
        ((1, byte), 128 >> bit),
        ((1, 1), 1),
    ):  # one fewer; one that does not exist
        wrong = arrays | {"masks": arrays["masks"].copy()}
        wrong["masks"][place] ^= change
        with pytest.raises(gsdd_jax.UsageError, match=r"masks: expected \d+ of 15 .* in 1 of 2"):
            kind.check_arrays(wrong)
