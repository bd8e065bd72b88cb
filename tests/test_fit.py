"""Tests fitting of real images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from configs import demo
from gsdd_jax import data
from gsdd_jax.core import stopping
from gsdd_jax.parameterizations.gaussian import Gaussian
from gsdd_jax.parameterizations.pixels import Pixels
from gsdd_jax.runs import fits
from gsdd_jax.runs.progress import Reporter
from gsdd_jax.setup import experiment
from gsdd_jax.storage import checkpoint
from gsdd_jax.training import fit
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def real_images(count):
    return jax.device_put(np.float32(data.load("cifar10_mini").train.images[:count]) / 255)


def test_fitted_quality_on_real_images():
    """Expects about 25 dB with 22 Gaussians on CIFAR-10 after 500 steps at 0.1."""
    images = real_images(32)
    fitted, psnr = gsdd_jax.fit_images(jax.random.key(0), images, 22, num_steps=500)
    assert psnr.shape == (32,)
    assert 24.0 < float(psnr.mean()) < 27.0
    # The reported PSNR uses the stored bfloat16 numbers; recomputed here.
    stored = fitted.astype(jnp.bfloat16)
    rendered = np.asarray(stored.render(height=32, width=32), np.float64)
    by_hand = -10 * np.log10(((rendered - np.asarray(images)) ** 2).mean((1, 2, 3)))
    np.testing.assert_allclose(psnr, by_hand, atol=1e-3)
    assert np.abs(fitted.means).max() <= 0.9991


@pytest.mark.usefixtures("fully_compiled")
def test_same_key_same_bytes_however_the_steps_are_grouped():
    images = real_images(4)
    kind = Gaussian(32, 32, 3, images_per_class=1, num_gaussians=10)

    def fitted(groups, seed=0):
        state = fit.start(kind, jax.random.key(seed), images, 0.1)
        for count in groups:
            state, _ = fit.run(kind, state, images, 0.1, count)
        return np.asarray(state.params.means).tobytes()

    once = fitted([2])
    assert once == fitted([1, 1])
    assert once != fitted([2], seed=1)


def test_the_rate_of_the_means_alone_halves():
    """Compares with Adam by its formulas, in float64, on the gradient of the fit."""
    images = real_images(2)
    kind = Gaussian(32, 32, 3, images_per_class=1, num_gaussians=4, bfloat16=False)
    state = fit.start(kind, jax.random.key(0), images, 0.01, 2)
    gradient_of = jax.jit(
        jax.grad(lambda p: ((kind.render(p) - images) ** 2).mean((1, 2, 3)).sum())
    )
    fields = ("means", "cholesky", "colors", "opacities")
    expected = {name: np.asarray(getattr(state.params, name), np.float64) for name in fields}
    first, second = (dict.fromkeys(fields, 0.0) for _ in range(2))
    for step in range(5):
        state_params = dataclasses.replace(
            state.params, **{name: np.float32(v) for name, v in expected.items()}
        )
        gradient = gradient_of(state_params)
        for name in fields:
            g = np.asarray(getattr(gradient, name), np.float64)
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            unbiased = first[name] / (1 - 0.9 ** (step + 1))
            scale = np.sqrt(second[name] / (1 - 0.999 ** (step + 1))) + 1e-8
            rate = 0.01 * 0.5 ** (step // 2) if name == "means" else 0.01
            expected[name] = expected[name] - rate * unbiased / scale
        expected["means"] = np.clip(expected["means"], -0.999, 0.999)
    state, _ = fit.run(kind, state, images, 0.01, 5, 2)
    for name in fields:
        np.testing.assert_allclose(getattr(state.params, name), expected[name], atol=2e-4)
    assert fit.HALVE_EVERY == 20_000


def test_an_image_is_fitted_the_same_in_any_company():
    images = real_images(6)
    kind = Gaussian(32, 32, 3, images_per_class=1, num_gaussians=10)
    together = fit.start(kind, jax.random.key(0), images, 0.1)
    third = lambda a: np.array(a)[2:3] if a.ndim > 1 else np.array(a)
    alone, image = jax.device_put(jax.tree.map(third, (together, images)))
    together, _ = fit.run(kind, together, images, 0.1, 10)
    alone, _ = fit.run(kind, alone, image, 0.1, 10)
    np.testing.assert_allclose(third(together.params.means), alone.params.means, atol=1e-4)


def test_pixels_start_at_the_images():
    images = real_images(3)
    kind = Pixels(32, 32, 3, images_per_class=1)
    state = fit.start(kind, jax.random.key(0), images, 0.1)
    np.testing.assert_array_equal(kind.render(state.params), images)
    state, errors = fit.run(kind, state, images, 0.1, 2)
    np.testing.assert_array_equal(errors, 0)
    np.testing.assert_array_equal(kind.render(state.params), images)


def fit_unchecked(images, num_gaussians=1, **arguments):
    """Calls `fit_images` without the import hook, which would refuse types first."""
    function = getattr(gsdd_jax.fit_images, "__wrapped__", gsdd_jax.fit_images)
    return function(jax.random.key(0), images, num_gaussians, **{"num_steps": 1} | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(num_gaussians=0), "num_gaussians: expected at least 1, got 0"),
        (dict(num_steps=0), "num_steps: expected at least 1, got 0"),
        (dict(num_gaussians=True), "num_gaussians: expected an integer, got True"),
        (dict(num_steps=1.5), "num_steps: expected an integer, got 1.5"),
        *(
            (
                dict(learning_rate=rate),
                f"learning_rate: expected a positive, finite float, got {rate!r}",
            )
            for rate in (0.0, np.nan, np.inf, None, "0.1")
        ),
    ],
)
def test_wrong_numbers(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_unchecked(jnp.zeros((1, 4, 4, 3)), **arguments)


def filled(value):
    """Returns two black images, with one other value in the second."""
    images = np.zeros((2, 4, 4, 3), np.float32)
    images[1, 2, 3, 0] = value
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), r"floating point in \[0, 1\], got uint8.*/ 255"),
        (np.zeros((2, 3, 32, 32), np.float32), "channels last, with 1 to 4 channels, got"),
        (np.zeros((0, 4, 4, 3), np.float32), r"expected shape \[M, H, W, C\]"),
        (np.zeros((4, 4, 3), np.float32), r"expected shape \[M, H, W, C\]"),
        (filled(np.nan), "expected finite numbers, got NaN"),
        (filled(255), r"expected values in \[0, 1\], got 0 to 255; rescale"),
        (filled(-2), r"expected values in \[0, 1\], got -2 to 0"),
        (jnp.asarray(filled(3), jnp.bfloat16), r"expected values in \[0, 1\], got 0 to 3"),
    ],
)
def test_wrong_images(images, message):
    with pytest.raises(ValueError, match=message) as raised:
        fit_unchecked(images)
    assert str(raised.value).startswith("images: ")
    assert len(str(raised.value).splitlines()) == 1


def test_images_a_little_outside_are_fitted_as_they_are():
    images = jax.device_put(np.concatenate([filled(1.3), filled(-0.3)]))
    fitted, psnr = gsdd_jax.fit_images(jax.random.key(0), images, 2, num_steps=3)
    rendered = np.asarray(fitted.astype(jnp.bfloat16).render(), np.float64)
    by_hand = -10 * np.log10(((rendered - np.asarray(images)) ** 2).mean((1, 2, 3)))
    np.testing.assert_allclose(psnr, by_hand, atol=1e-3)


def test_under_a_trace_values_are_not_looked_at():
    """Checks traced images, and images that a traced function closes over."""
    images, key = jnp.asarray(filled(0.5)), jax.random.key(0)
    psnr = lambda key, images: gsdd_jax.fit_images(key, images, 2, num_steps=2)[1]
    expected = psnr(key, images)
    np.testing.assert_allclose(jax.jit(psnr)(key, images), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda key: psnr(key, images))(key), expected, rtol=1e-5)
    assert np.isnan(jax.jit(psnr)(key, jnp.asarray(filled(np.nan)))[1])


@pytest.fixture
def fitted_in(monkeypatch):
    """Returns a fit of 70 images of 8 x 8 in calls of `steps`, and the numbers of these."""
    config = demo.get_config()
    config.update_from_flattened_dict(TINY)
    parts = experiment.build_fit_parts(config)
    calls, run = [], fit.run

    def fitted(workdir, steps, then=lambda number: None):
        calls.clear()

        def counted(parameterization, state, images, rate, count, halve_every):
            calls.append(count)
            then(len(calls))
            return run(parameterization, state, images, rate, count, halve_every)

        monkeypatch.setattr(fit, "run", counted)
        monkeypatch.setattr(fits, "AT_ONCE", steps * 70 * 8 * 8)
        params = fits.initial(config, parts, workdir, Reporter(None))
        return jax.tree.leaves(params), list(calls)

    return fitted


def test_many_or_large_images_are_fitted_in_shorter_calls_with_the_same_bits(fitted_in, tmp_path):
    whole, calls = fitted_in(tmp_path / "whole", 20)
    assert calls == [20]
    parts, calls = fitted_in(tmp_path / "parts", 9)
    assert calls == [5] * 4  # the largest divisor of 500 steps
    assert all(map(np.array_equal, parts, whole))
    assert fitted_in(tmp_path / "ones", 0.5)[1] == [1] * 20


def test_a_fit_goes_on_where_it_was_stopped_or_killed(fitted_in, tmp_path, monkeypatch):
    def stop(number):
        assert number == 1
        assert stopping.ask()

    def kill(number):
        if number == 2:
            raise MemoryError

    whole, _ = fitted_in(tmp_path / "whole", 4)
    with pytest.raises(stopping.Stopped):
        fitted_in(tmp_path / "stopped", 4, stop)
    monkeypatch.setattr(checkpoint, "DUE_AFTER", 0.0)
    with pytest.raises(MemoryError):
        fitted_in(tmp_path / "killed", 4, kill)
    for folder in ("stopped", "killed"):
        rest, calls = fitted_in(tmp_path / folder, 4)
        assert calls == [4] * 4
        assert all(map(np.array_equal, rest, whole))
