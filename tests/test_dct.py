"""Tests images as quantized, entropy-coded cosine coefficients."""

import functools
import hashlib
import io

import jax
import numpy as np
import pytest
from PIL import Image

import gsdd_jax
from gsdd_jax import data, parameterizations
from gsdd_jax.formats import coefficients
from gsdd_jax.parameterizations.dct import on_codes
from gsdd_jax.rasterizer.gaussians import budget_bytes
from tests.plain import bilinear, wave

pytestmark = pytest.mark.usefixtures("quickly_compiled")

CLASSES, EACH, RESERVED = 2, 24, 1800  # bytes per class that are left free


def build(shape=(16, 16, 3), images=EACH, **options):
    return parameterizations.build(
        "dct", shape, images_per_class=images, num_classes=CLASSES, **options
    )


@functools.cache
def real(count=CLASSES * EACH, side=16, channels=3):
    images = data.load("cifar10_mini").train.images[:count].astype(np.float32) / 255
    images = images[:, :side, :side]
    return images if channels == 3 else images.mean(-1, keepdims=True)


@functools.cache
def stored(side=16, channels=3, **options):
    kind = build((side, side, channels), **{"reserved": RESERVED} | options)
    params = kind.init(jax.random.key(0), jax.device_put(real(side=side, channels=channels)))
    return kind, params, kind.to_arrays(params)


def planes(count, sizes, spread, seed=0):
    """Returns few large and many small coefficients, similar in neighboring blocks."""
    rng = np.random.default_rng(seed)
    scale = spread / (1 + np.add.outer(range(8), range(8)).ravel()) ** 1.5
    return [
        np.int32(rng.laplace(0, scale, (count, 1, 1, 64)) + rng.laplace(0, scale, (count, *n, 64)))
        for n in sizes
    ]


@pytest.mark.parametrize(
    ("sizes", "spread"),
    [
        ([(1, 1)], 3), ([(2, 3), (1, 2), (1, 2)], 4), ([(1, 2)] * 4, 0.3), ([(1, 2)], 500),
        ([(2, 2), (1, 1), (1, 1)], 0.0),
    ],
)  # fmt: skip
def test_codes_come_back(sizes, spread):
    codes = planes(9, sizes, spread)
    payload, weights = coefficients.encode(codes)
    assert len(weights) == coefficients.num_weights(len(sizes))
    found = coefficients.decode(payload, weights, [(9, *n) for n in sizes])
    for one, other in zip(found, codes, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_codes_are_coded_by_is_the_same_everywhere():
    """Compares tables with rounded exact values, none of them half-way, and hashes predictors."""
    logs = 8 * np.log2(1 + np.arange(len(coefficients.LOGS), dtype=np.longdouble) / 8)
    odds = np.arange(-2047, 2048, dtype=np.longdouble) / 256
    for table, exact in (
        (coefficients.LOGS, logs),
        (65536 * coefficients.PROBABILITIES, 65536 / (1 + np.exp(-odds))),
    ):
        np.testing.assert_array_equal(table, np.rint(exact).astype(float))
        whole = exact == np.rint(exact)
        assert np.abs(exact - np.floor(exact) - 0.5)[~whole].min() > 1e-9
    everything = [coefficients._predictors(3, 3, k) for k in range(64)]
    raw = b"".join(np.asarray(a, "<i8").tobytes() for pair in everything for a in pair)
    assert hashlib.sha256(raw).hexdigest() == PREDICTORS


PREDICTORS = "3863df6556c439424c81abb81a058cb81530349c020489b5bcb2ae20b0bccc84"


def test_images_and_gradients_are_those_of_the_formula():
    for shape, options, sizes in (
        ((16, 16, 3), {}, [(16, 16), (8, 8), (8, 8)]),
        ((10, 18, 3), {"subsampled": False}, [(10, 18)] * 3),
        ((16, 12, 1), {"side": 11}, [(11, 8)]),
        ((8, 8, 4), {}, [(8, 8)] * 4),
    ):
        kind = build(shape, **options)
        rng, step, count = np.random.default_rng(1), 20.0, 2
        params, levels = {"step": np.full(count, step, np.float32)}, []
        for i, (height, width) in enumerate(sizes):
            x = rng.normal(0, 3, (count, -(-height // 8), -(-width // 8), 8, 8))
            params[f"plane_{i}"] = np.float32(x)
            rounded = np.sign(x) * np.floor(np.abs(x) + 0.3)
            rounded += 0.04 * np.sign(rounded)
            rounded[..., 0, 0] = np.round(x[..., 0, 0])
            share = 0.65 if (height, width) != sizes[0] else 1.0
            plane = np.zeros((count, 8 * x.shape[1], 8 * x.shape[2]))
            for at in np.ndindex(x.shape[:3]):
                for u, v in np.ndindex(8, 8):
                    block = rounded[at][u, v] * wave(u, v, 8, 8)
                    m, r, c = at
                    plane[m, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8] += step * share * block
            plane = bilinear(plane[:, :height, :width, None], *shape[:2])[..., 0]
            levels.append(plane + (128 if i == 0 or shape[2] != 3 else 0))
        images = levels
        if shape[2] == 3:
            y, cb, cr = levels
            red, blue = y + 1.402 * cr, y + 1.772 * cb
            images = [red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue]
        expected = np.stack(images, -1) / 255
        pulled = jax.jit(lambda f, p, d: jax.vjp(f, p)[1](d)[0], static_argnums=0)
        found = jax.jit(kind.render)(params)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        # Gradients pass as if nothing were rounded.
        as_is = lambda p, kind=kind: kind.decode(p, kind.height, kind.width)
        coded = {n: x if n == "step" else jax.jit(on_codes)(x) for n, x in params.items()}
        expected = pulled(as_is, coded, found)
        back = pulled(kind.render, params, found)
        for name in ("plane_0", f"plane_{len(sizes) - 1}"):
            np.testing.assert_allclose(back[name], expected[name], rtol=1e-4, atol=1e-4)


def test_it_starts_as_the_images_or_nearer_than_their_averages():
    images = real(channels=1)
    for side, shape in ((0, (16, 16, 1)), (0, (11, 16, 1)), (8, (16, 16, 1))):
        kind, some = build(shape, side=side, step=1.0), images[:, : shape[0]]
        params = jax.jit(kind.init)(jax.random.key(0), some)
        error = kind.decode(jax.tree.map(np.asarray, params), *shape[:2]) - some
        if side:
            averages = some.reshape(-1, 8, 2, 8, 2, 1).mean((2, 4))
            assert (error**2).mean() < 0.9 * ((bilinear(averages, 16, 16) - some) ** 2).mean()
        else:
            assert np.abs(error).max() < 1e-5


@pytest.mark.parametrize("options", [{}, {"channels": 1, "reserved": 300}])
def test_the_file_fits_the_budget_and_fills_it(options):
    kind, _, arrays = stored(**options)
    channels = options.get("channels", 3)
    each = budget_bytes(1, (16, 16, channels)) - options.get("reserved", RESERVED)
    used = sum(np.asarray(a).nbytes for a in arrays.values())
    assert 0.96 * CLASSES * each < used <= CLASSES * each
    render = jax.jit(kind.render)
    shown = render(kind.from_arrays(arrays))
    np.testing.assert_allclose(shown, render(stored(**options)[1]), atol=1e-6)


def test_a_step_of_ones_own_is_kept_or_refused():
    params = stored(step=60.0)[1]
    assert (params["step"] == 60).all()
    expected = (
        r"options.step: expected at most 1,272 bytes per class, got \d,\d+ of 24 images at a step "
        r"of 8; about \d+ per class fit \(config.budget.images_per_class\), or set step=0"
    )
    with pytest.raises(gsdd_jax.UsageError, match=expected):
        stored(step=8.0)


def test_images_are_better_than_as_jpegs_of_as_many_bytes():
    """Counts only JPEG's scans, and the tables of one of them."""
    images = data.load("cifar10_mini").train.images[:100]
    total, psnr = 0, []
    for image in images:
        Image.fromarray(image).save(
            file := io.BytesIO(), "JPEG", quality=10, optimize=True, subsampling=2
        )
        total += len(file.getvalue()) - file.getvalue().index(b"\xff\xda") - 16
        psnr.append(decibels(np.asarray(Image.open(file)) / 255, image))
    kind = parameterizations.build(
        "dct", (32, 32, 3), ipc=1, images_per_class=10, num_classes=10, step=67.0
    )
    params = jax.jit(kind.init)(jax.random.key(0), np.float32(images) / 255)
    used = sum(np.asarray(a).nbytes for a in kind.to_arrays(params).values())
    shown = np.asarray(jax.jit(kind.render)(params))
    ours = [decibels(x, image) for x, image in zip(shown, images, strict=True)]
    assert used < total
    assert np.mean(ours) > np.mean(psnr) + 0.8


def decibels(image, original):
    shown = np.round(255 * np.clip(image, 0, 1))
    return -10 * np.log10(((shown - original) ** 2).mean() / 255**2)


def test_the_rate_is_about_what_the_coder_takes_and_its_gradient_lowers_it():
    kind, params, arrays = stored()
    rate = jax.jit(jax.value_and_grad(kind.rate))
    estimate, gradient = rate(params)
    coded = 8 * arrays["codes"].size / kind.num_images
    assert coded == pytest.approx(float(estimate), rel=0.25)
    for _ in range(10):
        _, gradient = rate(params)
        params = jax.tree.map(lambda p, g: p - np.float32(0.05) * np.sign(g), params, gradient)
    assert 8 * kind.to_arrays(params)["codes"].size / kind.num_images < 0.95 * coded
    # Within the bits there is no penalty.
    assert float(jax.jit(kind.penalty)(params)) == 0


def test_what_a_distillation_made_larger_gets_a_coarser_step():
    kind, params, arrays = stored()
    larger = {n: np.asarray(x) * (1 if n == "step" else 2) for n, x in params.items()}
    larger = jax.device_put(larger)
    assert float(jax.jit(kind.penalty)(larger)) > 0.1
    again = kind.to_arrays(larger)
    assert again["step"] > arrays["step"]
    assert sum(a.nbytes for a in again.values()) <= kind.most_bytes


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("step", lambda a: 0 * a, "step: expected from 1 to 4096, got 0"),
        ("codes", lambda a: np.tile(a, 3), "codes: expected at most the budget's 2544 bytes"),
        ("codes", lambda a: a[:-4], "codes: "),
        ("codes", lambda a: a[:-1], "codes: expected a multiple of 4 bytes"),
        ("codes", lambda a: a[::-1], "codes: "),
        ("weights", lambda a: a[::-1], "codes: "),
    ],
)
def test_arrays_that_make_no_sense(name, change, message):
    kind, _, arrays = stored()
    arrays = dict(arrays) | {name: np.asarray(change(arrays[name]))}
    with pytest.raises(gsdd_jax.UsageError, match=message):
        kind.check_arrays(arrays)
        kind.unpack(arrays)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": 7}, "side: expected 0 or from 8 to the images' 16 pixels, got 7"),
        ({"side": 17}, "side: expected 0 or from 8 to the images' 16 pixels, got 17"),
        ({"step": 0.5}, "step: expected 0 or from 1 to 4096, got 0.5"),
        ({"images": 2000}, "2,000 images per class of cosine coefficients"),
    ],
)
def test_settings_that_there_are_not(options, message):
    with pytest.raises(gsdd_jax.UsageError, match=message):
        build(**options)
