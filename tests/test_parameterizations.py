"""Tests the promises of every parameterization, and each one's own switches."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.data import transforms
from gsdd_jax.matching import dm
from gsdd_jax.rasterizer.gaussians import budget_bytes
from gsdd_jax.training import distill
from tests.dense import dense
from tests.plain import bilinear, from_spectrum, nearest

pytestmark = pytest.mark.usefixtures("quickly_compiled")

BFLOAT16 = {"dtype": "bfloat16"}
NAMED_ARRAYS = ["pixels", "idc", "fred", "ddif"]
KINDS = [
    ("gaussian", 3, {}),
    ("gaussian", 1, {"opacity": False}),
    ("video_gaussian", 12, {"frames": 4}),
    *((name, 3, {}) for name in NAMED_ARRAYS),
    ("dct", 3, {"side": 10, "step": 50.0}),
    ("rtp", 3, {}),
    ("haba", 3, {}),
    ("speed", 3, {}),
    ("speed", 1, BFLOAT16 | {"blocks": 2}),
    ("nsd", 3, {"kernels": 10, "size": 6}),
    ("hmn", 3, {}),
    ("ptq", 3, {}),
    ("ptq", 1, {"bits": 4, "groups": 5, "aware": True}),
]


@pytest.mark.parametrize(("name", "channels", "options"), KINDS)
def test_the_contract(name, channels, options):
    kind = parameterizations.build(
        name, (8, 12, channels), ipc=4, images_per_class=5, num_classes=3, **options
    )
    assert hash(kind) == hash(parameterizations.of_format(kind))
    count = 3 * kind.images_per_class
    real, target = np.random.default_rng(1).random((2, count, 8, 12, channels), np.float32)
    init, render = jax.jit(kind.init), jax.jit(kind.render)
    params = init(jax.random.key(0), real)
    own = params
    if kind.shared_shapes():
        own = {n: leaf for n, leaf in params.items() if not kind.is_shared(n)}
    assert own and all(len(leaf) == count for leaf in jax.tree.leaves(own))
    images = render(params)
    assert images.shape == (count, 8, 12, channels)
    assert images.dtype == jnp.float32
    # Any subset of images renders to the same pixels.
    chosen = render(kind.select(params, jnp.array([4, 1])))
    np.testing.assert_allclose(chosen, images[np.array([4, 1])], atol=1e-6)
    # Stored arrays render to the same images, within the budget.
    arrays = jax.tree.map(np.array, kind.to_arrays(params))
    sizes = kind.stored_bytes(arrays, count)
    assert sum(sizes.values()) <= 3 * budget_bytes(4, (8, 12, channels))
    stored = kind.from_arrays(arrays)
    for array in arrays.values():
        array[...] = 1  # the parameters are a copy
    kept = render(stored)
    np.testing.assert_allclose(kept, images, atol=0.4 if name == "ptq" else 0)  # rounded at the end
    # A few of its own steps reduce the error to a target.
    error = lambda p: ((kind.render(p) - target) ** 2).mean() + kind.penalty(p)
    # Steps of Adam do not shrink with the number of images.
    adam = name in (
        "gaussian",
        "video_gaussian",
        "ddif",
        "dct",
        "rtp",
        "haba",
        "speed",
        "nsd",
        "hmn",
    )
    optimizer = kind.optimizer(0.01 if adam else 30.0)

    @jax.jit
    def step(params, state):
        found, gradient = jax.value_and_grad(error)(params)
        updates, state = optimizer.update(gradient, state, params)
        return kind.project(jax.tree.map(jnp.add, params, updates)), state, found

    start, state, errors = params, jax.jit(optimizer.init)(params), []
    for _ in range(6):
        params, state, found = step(params, state)
        errors.append(found)
    assert errors[-1] < errors[0]
    # What images share is learned, too.
    assert all((params[key] != start[key]).any() for key in kind.shared_shapes())


def test_without_opacity_it_is_one_and_not_stored():
    kind = parameterizations.build("gaussian", (8, 8, 3), ipc=1, images_per_class=2, opacity=False)
    params = kind.init(jax.random.key(0), jnp.zeros((2, 8, 8, 3)))
    faded = jax.tree.map(lambda p: p, params)
    object.__setattr__(faded, "opacities", 0.1 * faded.opacities)
    np.testing.assert_array_equal(kind.render(faded), kind.render(params))
    assert "opacities" not in kind.to_arrays(params)


def test_bfloat16_is_what_is_rendered():
    on = parameterizations.build("gaussian", (8, 8, 3), ipc=1, images_per_class=2)
    off = parameterizations.build("gaussian", (8, 8, 3), ipc=1, images_per_class=2, bfloat16=False)
    params = on.init(jax.random.key(0), jnp.zeros((2, 8, 8, 3)))
    assert (on.render(params) != off.render(params)).any()
    rounded = params.astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_array_equal(on.render(params), off.render(rounded))


def test_the_gradient_of_clipped_weights_is_an_option():
    build = lambda choice: parameterizations.build(
        "gaussian", (8, 8, 3), ipc=1, images_per_class=2, clip_gradient=choice
    )
    kinds = [build("stop"), build("pass")]
    params = kinds[0].init(jax.random.key(0), jnp.zeros((2, 8, 8, 3)))
    params = jax.tree.map(lambda p: 3 * p, params)  # opacities among them
    stopped, passed = (
        jax.grad(lambda p, k=kind: k.render(p).sum())(params).opacities for kind in kinds
    )
    assert (passed >= stopped).all() and (passed > stopped).any()
    with pytest.raises(gsdd_jax.UsageError, match="expected one of stop, pass, got 'through'"):
        build("through")


def test_unknown_names_and_options():
    names = (
        "dct, ddif, frame_gaussian, fred, gaussian, generator, haba, hmn, idc, nsd, pixels, ptq, "
        "quantized, rtp, speed, static_dynamic, video_gaussian, video_quantized"
    )
    with pytest.raises(gsdd_jax.UsageError, match=f"expected one of {names}, got 'voxels'"):
        parameterizations.build("voxels", (8, 8, 3), ipc=1, images_per_class=2)
    with pytest.raises(gsdd_jax.UsageError, match="'opacitty'; gaussian has bfloat16"):
        parameterizations.build("gaussian", (8, 8, 3), ipc=1, images_per_class=2, opacitty=False)
    with pytest.raises(gsdd_jax.UsageError, match="ipc of at least 1, got 0"):
        parameterizations.build("pixels", (8, 8, 3), ipc=0, images_per_class=2)


def test_bytes_that_are_reserved_are_not_used_and_only_by_some():
    build = lambda name, **o: parameterizations.build(
        name, (8, 8, 3), ipc=2, images_per_class=3, **o
    )
    there, each = 2 * 8 * 8 * 3 * 4 - 500, 3 * 18
    assert build("gaussian", reserved=500).num_gaussians == there // each
    with pytest.raises(gsdd_jax.UsageError, match=r"their labels or labeler .1,500., got 1,536"):
        build("gaussian", reserved=1500)
    assert build("pixels").images_per_class == 2
    assert build("pixels", reserved=1).images_per_class == 1
    message = r"config.labels: expected hard ones .* with idc; only dct, frame_gaussian, "
    with pytest.raises(gsdd_jax.UsageError, match=message):
        build("idc", reserved=1)


def test_what_follows_from_the_budget_is_no_option():
    for name, field in (("gaussian", "num_gaussians"), ("fred", "num_frequencies")):
        with pytest.raises(gsdd_jax.UsageError, match=f"unknown option '{field}'; {name} has"):
            parameterizations.build(name, (8, 8, 3), ipc=1, images_per_class=2, **{field: 3})


@pytest.mark.parametrize("name", [*NAMED_ARRAYS, "rtp", "haba", "nsd"])
def test_bfloat16_is_half_the_bytes_and_what_is_rendered(name):
    full, half = (
        parameterizations.build(name, (8, 12, 3), ipc=4, images_per_class=1, **o)
        for o in ({}, BFLOAT16)
    )
    assert half.images_per_class >= 2 * full.images_per_class
    if name not in ("rtp", "haba", "nsd"):  # whose shared arrays take half the bytes, too
        assert half.images_per_class <= 2 * full.images_per_class + 1
    real = np.random.default_rng(1).random((2 * half.images_per_class, 8, 12, 3), np.float32)
    params = jax.jit(half.init)(jax.random.key(0), real)
    rounded = {
        n: p
        if n in ("frequencies", "pairs")
        else jnp.asarray(np.asarray(p).astype(jnp.bfloat16), jnp.float32)
        for n, p in params.items()
    }
    assert any((params[n] != rounded[n]).any() for n in params)

    @functools.partial(jax.jit, static_argnums=0)
    def pulled_back(kind, params):
        seen, back = jax.vjp(kind.render, params)
        return seen, back(seen)[0]

    (seen, straight), (expected, of_rounded) = pulled_back(half, params), pulled_back(full, rounded)
    np.testing.assert_array_equal(seen, expected)
    for n in params:
        np.testing.assert_array_equal(straight[n], of_rounded[n])
    with pytest.raises(
        gsdd_jax.UsageError, match=r"dtype: expected one of float32, bfloat16.* got 'float16'"
    ):
        parameterizations.build(name, (8, 12, 3), ipc=4, images_per_class=1, dtype="float16")


def both(kind, params, *size):
    """Returns the images by JAX and by NumPy."""
    shown = kind.decode({name: np.asarray(a) for name, a in params.items()}, *size)
    assert isinstance(shown, np.ndarray) and shown.dtype == np.float32
    return jax.jit(lambda p: kind.render_at(p, *size))(params), shown


@pytest.mark.parametrize(("height", "width"), [(24, 24), (1, 30)])
def test_at_another_resolution(height, width):
    """Compares with float64: fixed-size images are resampled, others are rendered.

    Of ddif see its own tests.
    """
    build = lambda name, **o: parameterizations.build(
        name, (8, 12, 3), ipc=1, images_per_class=3, **o
    )
    rng, size = np.random.default_rng(0), (height, width)
    for name in ("pixels", "idc"):
        kind = build(name)
        real = jnp.asarray(rng.random((4, 8, 12, 3)), jnp.float32)
        params = kind.init(jax.random.key(0), real)
        native = np.asarray(kind.render(params), np.float64)
        for resample, expected in (("bilinear", bilinear), ("nearest", nearest)):
            for found in both(kind, params, *size, resample):
                np.testing.assert_allclose(found, expected(native, height, width), atol=2e-6)
    kind = build("rtp", bases=3)
    params = kind.init(jax.random.key(0), real)
    small = np.tensordot(np.float64(params["addresses"]), np.float64(params["bases"]), 1)
    expected = bilinear(bilinear(small, 8, 12), height, width)
    for found in both(kind, params, *size):
        np.testing.assert_allclose(found, expected, atol=2e-6)
    kind = build("fred", size=12)
    real = jnp.asarray(rng.random((2 * kind.images_per_class, 8, 12, 3)), jnp.float32)
    params = kind.init(jax.random.key(0), real)
    expected = from_spectrum(params["coefficients"], params["frequencies"], (8, 12), *size)
    for found in both(kind, params, *size):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    kind = build("gaussian", bfloat16=False)
    params = kind.init(jax.random.key(0), real[:3])
    scale, half = np.array([width / 12, height / 8, height / 8]), np.array([0.5, 0, 0.5])
    found = np.asarray(kind.render_at(params, *size))
    for i, image in enumerate(found):
        means, cholesky, *others = (np.asarray(leaf[i]) for leaf in jax.tree.leaves(params))
        scaled = (cholesky + half) * scale - half
        expected, near, _ = dense((means, scaled, *others), *size)
        np.testing.assert_allclose(image[~near], expected[~near], atol=1e-5)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("samples_per_side", 0, "an integer from 1 to 16, got 0"),
        ("samples_per_side", 2.0, "an integer from 1 to 16, got 2.0"),
        ("opacity", 1, "true or false, got 1"),
        ("boundary_weight", float("nan"), "a number from 0 to 1e\\+19, got nan"),
    ],
)
def test_options_of_a_wrong_type_or_range(option, value, expected):
    message = f"parameterization.options.{option}: expected {expected}"
    with pytest.raises(gsdd_jax.UsageError, match=message):
        parameterizations.build("gaussian", (8, 8, 3), ipc=1, images_per_class=2, **{option: value})


CODES = {"dtype": "codes"}
SHARED = [("dct", {}), ("ptq", {}), ("quantized", {}), ("quantized", {"bits_per_gaussian": 11.3}),
          ("idc", CODES), ("fred", CODES), ("ddif", CODES)]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "images", "classes", "reserved"),
    [
        *((*one, 1, 1, 0) for one in SHARED), *((*one, 7, 3, 50) for one in SHARED),
        ("gaussian", {}, 1, 2, 0), ("gaussian", {"bfloat16": False}, 4, 2, 9),
        ("pixels", {}, 1, 2, 0), ("idc", {"dtype": "bfloat16"}, 1, 2, 0), ("ddif", {}, 1, 1, 0),
        ("fred", {"size": 2}, 1, 1, 0), ("rtp", {}, 1, 3, 0), ("rtp", {"bases": 4}, 1, 3, 0),
        ("haba", {}, 1, 3, 0), ("speed", {}, 1, 3, 0), ("speed", BFLOAT16, 1, 2, 0),
        ("nsd", {}, 1, 3, 0), ("hmn", {}, 1, 3, 0), ("static_dynamic", {}, 1, 3, 0),
        ("dct", {"shape": (2048, 2048, 3)}, 1, 2, 0),  # many numbers
    ],
)  # fmt: skip
def test_a_budget_that_is_too_small_says_the_least(name, options, images, classes, reserved):
    """Builds at the bytes that the refusal names, and not at one less."""

    def build(there):
        shape = options.get("shape", (8, 12, 3))
        return parameterizations.build(
            name, shape, images_per_class=images, num_classes=classes, bytes_per_class=there,
            reserved=reserved, **{n: o for n, o in options.items() if n != "shape"},
        )  # fmt: skip

    counted = "1 image per class of " if images == 1 else f"{images} images per class of "
    with pytest.raises(gsdd_jax.UsageError, match=counted) as raised:
        build(1)
    labels = f"their labels or labeler ({reserved})" if reserved else " per class of "
    fewer = "; lower config.budget.images_per_class" if images > 1 else ""
    assert labels in str(raised.value) and str(raised.value).endswith(f", got 1{fewer}")
    least = int(re.search(r"at least ([\d,]+) bytes", str(raised.value))[1].replace(",", ""))
    assert build(least).images_per_class >= images
    with pytest.raises(
        gsdd_jax.UsageError, match=f"at least {least:,} bytes .*, got {least - 1:,}"
    ):
        build(least - 1)


@pytest.mark.parametrize("name", ["gaussian", "dct"])
def test_no_images_are_refused(name):
    with pytest.raises(gsdd_jax.UsageError, match="at least 1 image per class, got 0"):
        parameterizations.build(name, (8, 8, 3), images_per_class=0)


@pytest.mark.parametrize("name", ["normalize", "zca"])
def test_pixels_are_optimized_as_networks_see_them_and_stored_as_pixels(name):
    """Checks that one step of distillation moves the transformed images by the published rule."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), np.uint8), np.arange(40) % 2
    if name == "zca":
        transform = transforms.fit_zca(images)
    else:
        transform = transforms.Normalize(jnp.full(3, 0.4), jnp.array([0.2, 0.3, 0.1]))
    data = matching.real_data(images, labels, 2, transform)
    kind = parameterizations.build("pixels", (8, 8, 3), ipc=2, images_per_class=1)
    objective = dm.DistributionMatching(
        networks.build("convnet", image_shape=(8, 8, 3), num_classes=2, width=4, depth=1),
        num_classes=2, batch_real=8, strategy="",
    )  # fmt: skip
    problem = distill.Problem(kind, objective, 2)
    pixels = jnp.asarray(images[:4], jnp.float32) / 255
    start = kind.to_optimized({"pixels": pixels}, transform)
    np.testing.assert_allclose(start["pixels"], transform(pixels), atol=1e-6)
    before = np.asarray(start["pixels"])

    def loss(seen):
        key = jax.random.fold_in(jax.random.key(5), 0)
        begin, update = jax.random.split(key)
        carry = objective.begin(begin, data, None)
        synthetic = matching.Synthetic(2, 2, kind, {"pixels": seen}, transform, problem.labels)
        loss_key = jax.random.split(jax.random.fold_in(update, 0))[0]
        return objective.loss(synthetic, data, {}, carry, jnp.int32(0), loss_key)

    expected = before - 3.0 * np.asarray(jax.jit(jax.grad(loss))(before))
    state, _ = distill.run(
        problem, distill.start(problem, start, 3.0), jax.random.key(5), data, None, 1
    )
    np.testing.assert_allclose(state.params["pixels"], expected, rtol=1e-4, atol=1e-5)
    stored = kind.to_arrays(kind.from_optimized(state.params, transform))["pixels"]
    assert stored.nbytes == 4 * 4 * 8 * 8 * 3
    np.testing.assert_allclose(transform(stored), expected, rtol=1e-3, atol=1e-3)
