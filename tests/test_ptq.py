"""Pixels of two bits in patches with grouped scales."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import data, matching, networks, parameterizations
from gsdd_jax.formats import neighbors, transforms
from gsdd_jax.matching import dm
from gsdd_jax.training import distill

pytestmark = pytest.mark.usefixtures("quickly_compiled")

CLASSES, EACH = 2, 10


def build(shape=(16, 12, 3), images=EACH, ipc=1, **options):
    return parameterizations.build(
        "ptq", shape, images_per_class=images, num_classes=CLASSES, ipc=ipc, **options
    )


@functools.cache
def real(height=16, width=12, channels=3, count=CLASSES * EACH):
    images = data.load("cifar10_mini").train.images[:count, :height, :width, :channels]
    return images.astype(np.float32) / 255


@functools.cache
def stored(shape=(16, 12, 3), **options):
    kind = build(shape, **options)
    params = kind.init(jax.random.key(0), jax.device_put(real(*shape)))
    return kind, params, arrays_of(kind, params["pixels"])


def arrays_of(kind, images):
    arrays = kind.to_arrays({"pixels": jax.device_put(images)})
    return {name: np.asarray(array) for name, array in arrays.items()}


def noise(count, *shape):
    return np.random.default_rng(0).random((count, *shape), np.float32)


def size(arrays):
    """Ranges and refinement are of two bytes a number."""
    return sum(a.size * (1 if n == "codes" else 2) for n, a in arrays.items())


def test_too_few_bytes_are_said_per_class():
    with pytest.raises(gsdd_jax.UsageError, match=r"least ([\d,]+) bytes") as raised:
        build(bytes_per_class=1)
    least = int(re.search("least (\\d+) bytes", str(raised.value))[1])
    line = rf"^budget: expected at least \d+ bytes per class for {EACH} images per class with .*"
    with pytest.raises(gsdd_jax.UsageError, match=rf"{line}got {least}; lower"):
        arrays_of(build(bytes_per_class=least), noise(CLASSES * EACH, 16, 12, 3))


@pytest.mark.parametrize(("width", "most"), [(1, 0.2), (2, 0.6), (5, 3.5)])
def test_codes_come_back_and_take_few_bytes_where_neighbors_are_alike(width, most):
    rng = np.random.default_rng(width)
    steps = rng.normal(0, 0.03, (2, 6, 20, 17))
    smooth = np.cumsum(np.cumsum(steps, 2), 3)[0, ..., None] + np.array([0.5, 0.52])
    codes = np.clip(np.rint(smooth * 2**width), 0, 2**width - 1).astype(np.int32)
    few = rng.integers(0, 5, (6, 3, 4, 2))
    payload = neighbors.encode([codes, few], [width, 3])
    assert 8 * len(payload) < most * codes.size + 4 * few.size + 64
    shapes = [codes.shape, few.shape]
    for found, expected in zip(
        neighbors.decode(payload, shapes, [width, 3]), [codes, few], strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("shape", "options"),
    [((16, 12, 3), {}), ((11, 13, 1), {"bits": 3, "patch": 4, "groups": 5, "ipc": 2})],
)
def test_images_are_those_of_the_formula_and_codes_the_nearest(shape, options):
    kind, params, arrays = stored(shape, **options)
    height, width, channels = shape
    side, top = options.get("patch", 5), 2 ** options.get("bits", 2) - 1
    codes, groups = kind.codes(arrays["codes"])
    ranges, refinement = (arrays[n].astype(np.float64) for n in ("ranges", "refinement"))
    pixels = np.float64(params["pixels"])
    expected = np.zeros(pixels.shape)
    for at in np.ndindex(pixels.shape):
        m, y, x, c = at
        low, high = ranges[m, groups[m, y // side, x // side, c]]
        expected[at] = low + codes[at] * (high - low) / top
        place = (pixels[at] - low) / max(high - low, 1e-6) * top
        assert abs(codes[at] - np.clip(place, 0, top)) < 0.5 + 1e-4
    for m, c in np.ndindex(len(pixels), channels):
        gain, offset = refinement[m, c]
        expected[m, ..., c] = (1 + gain) * expected[m, ..., c] + offset
    np.testing.assert_allclose(kind.unpack(arrays)["pixels"], expected, atol=1e-6)
    # Mean and standard deviation are the originals', to what bfloat16 rounds.
    for of in (np.mean, np.std):
        np.testing.assert_allclose(of(expected, (1, 2)), of(pixels, (1, 2)), atol=1e-3)
    # Sharing ranges is hardly worse than a range of every patch by its least and largest value.
    error = ((expected - pixels) ** 2).mean()
    alone = np.zeros(pixels.shape)
    for y, x in np.ndindex(-(-height // side), -(-width // side)):
        at = (slice(None), slice(side * y, side * y + side), slice(side * x, side * x + side))
        low, high = (f(pixels[at], (1, 2), keepdims=True) for f in (np.min, np.max))
        step = np.maximum(high - low, 1e-9) / top
        alone[at] = low + np.rint((pixels[at] - low) / step) * step
    assert error < 2 * ((alone - pixels) ** 2).mean()
    # No patch would be better off in another group.
    m, c = 3, channels - 1
    patch = pixels[m, :side, :side, c]
    errors = []
    for low, high in ranges[m]:
        code = np.clip(np.rint((patch - low) / max(high - low, 1e-6) * top), 0, top)
        errors.append(((low + code * (high - low) / top - patch) ** 2).sum())
    assert errors[groups[m, 0, 0, c]] == pytest.approx(min(errors), abs=1e-6)


def test_the_number_of_images_is_what_fits_in_fixed_width_and_more_if_codes_take_less():
    kind = parameterizations.find("ptq")
    # 576 codes of two bits, 36 groups of three, and 22 numbers of two bytes.
    shape, each = (16, 12, 3), (2 * 576 + 3 * 36) / 8 + 2 * 2 * (8 + 3)
    suggested = kind.suggested_images(shape, 2304, {})
    assert suggested == math.floor(2304 / each) == 11
    full, images = build(shape, suggested), noise(22, *shape)
    arrays = arrays_of(full, images)
    assert len(arrays["codes"]) == full.bytes_of_codes
    assert size(arrays) <= CLASSES * 2304
    assert ((full.unpack(arrays)["pixels"] - images) ** 2).mean() < 0.012  # of 1/12
    # More of noise than fit become coarser; more of real images do not.
    more = build(shape, 14)
    for images, least, most in ((noise(28, *shape), 0.012, 0.1), (real(count=28), 0, 0.003)):
        arrays = arrays_of(more, images)
        assert size(arrays) <= CLASSES * 2304
        assert least < ((more.unpack(arrays)["pixels"] - images) ** 2).mean() < most


def test_gradients_are_straight_through_and_networks_see_what_the_file_holds():
    images = jax.device_put(real())
    mean, std = np.full(3, 0.4, np.float32), np.array([0.2, 0.3, 0.1], np.float32)
    transform = transforms.Normalize(mean, std)
    weights = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
    shown = {}
    for aware in (False, True):
        kind = build(aware=aware)
        start = kind.to_optimized(kind.init(jax.random.key(0), images), transform)
        loss = lambda p, kind=kind: (kind.to_network(p, transform) ** 2 * weights).sum()
        seen = kind.to_network(start, transform)
        gradient = jax.jit(jax.grad(loss))(start)["pixels"]
        np.testing.assert_allclose(gradient, 2 * seen * weights, rtol=1e-3, atol=1e-4)
        arrays = arrays_of(kind, kind.from_optimized(start, transform)["pixels"])
        shown[aware] = seen, transform(kind.render(kind.from_arrays(arrays)))
    np.testing.assert_array_equal(shown[False][0], transform(images))
    assert np.abs(shown[False][0] - shown[False][1]).max() > 0.1
    difference = np.abs(shown[True][0] - shown[True][1])
    assert (difference > 1e-4).mean() < 1e-3  # ties that rounding decides


def test_a_distillation_by_dm(tmp_path, aware=True):
    images, labels = (255 * real(count=40)).astype(np.uint8), np.arange(40) % CLASSES
    transform = transforms.Normalize(jnp.full(3, 0.4), jnp.full(3, 0.25))
    kind = build(images=3, aware=aware, patch=4)
    objective = dm.DistributionMatching(
        networks.build("convnet", image_shape=(16, 12, 3), num_classes=CLASSES, width=4, depth=1),
        num_classes=CLASSES, batch_real=8, strategy="",
    )  # fmt: skip
    problem = distill.Problem(kind, objective, CLASSES)
    params = kind.init(jax.random.key(0), jax.device_put(real(count=6)))
    start = distill.start(problem, kind.to_optimized(params, transform), 1.0)
    before = np.asarray(start.params["pixels"])
    real_data = matching.real_data(images, labels, CLASSES, transform)
    state, losses = distill.run(problem, start, jax.random.key(5), real_data, None, 3)
    assert np.isfinite(losses).all() and (np.asarray(state.params["pixels"]) != before).any()
    params = kind.from_optimized(state.params, transform)
    labels = np.repeat(np.arange(CLASSES, dtype=np.int32), 3)
    set_ = parameterizations.stored(kind, params, labels, 0.01)
    gsdd_jax.save(path := tmp_path / "set.safetensors", set_)
    loaded = gsdd_jax.load(path)
    np.testing.assert_array_equal(loaded.images(), set_.images())
    np.testing.assert_allclose(parameterizations.images(loaded), set_.images(), atol=1e-6)
    assert set_.num_bytes == size(loaded.arrays) <= CLASSES * kind.bytes_per_class


def fixed(change):
    """Codes in fixed width, which are those of images without structure."""
    kind = build(groups=5)
    arrays = arrays_of(kind, noise(CLASSES * EACH, 16, 12, 3))
    parts = np.split(arrays["codes"].copy(), [CLASSES * EACH * 16 * 12 * 3 * 2 // 8])
    return kind, arrays | {"codes": np.concatenate(change(*parts))}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("codes", lambda a: np.tile(a, 9), r"codes: expected at most \d+ bytes for 20 images"),
        ("codes", lambda a: a[:-4], "codes: "),
        ("codes", lambda a: a[:-1], "codes: expected a multiple of 4 bytes"),
        ("codes", lambda a: a[::-1], "codes: "),
        ("ranges", lambda a: a[..., ::-1], "ranges: expected each group's least value first"),
    ],
)
def test_arrays_that_make_no_sense(name, change, message):
    kind, _, arrays = stored()
    arrays = arrays | {name: np.asarray(change(arrays[name]))}
    with pytest.raises(gsdd_jax.UsageError, match=message):
        kind.check_arrays(arrays)
        kind.unpack(arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda codes, groups: (codes, groups | 255), "codes: a patch is of group 7 of 5"),
        (lambda codes, groups: (codes, groups[:-1]), "codes: "),
    ],
)
def test_groups_that_there_are_not(change, message):
    kind, arrays = fixed(change)
    with pytest.raises(gsdd_jax.UsageError, match=message):
        kind.unpack(arrays)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 9}, "bits: expected an integer from 1 to 8, got 9"),
        ({"groups": 0}, "groups: expected an integer from 1 to 256, got 0"),
        ({"images": 60}, "60 images per class of quantized pixels, got 2,304"),
        ({"images": 0}, "expected at least 1 image per class, got 0"),
    ],
)
def test_settings_that_there_are_not(options, message):
    with pytest.raises(gsdd_jax.UsageError, match=message):
        build(**options)


def test_pixels_that_are_not_finite_are_refused():
    with pytest.raises(gsdd_jax.UsageError, match="ptq: expected finite numbers"):
        build().to_arrays({"pixels": jnp.full((20, 16, 12, 3), jnp.nan)})


def test_a_patch_beyond_the_image_is_refused():
    with pytest.raises(
        gsdd_jax.UsageError, match="patch: expected 1 to the images' 8 pixels, got 4096"
    ):
        parameterizations.build(
            "ptq", (8, 8, 3), ipc=1, images_per_class=1, num_classes=2, patch=4096
        )
