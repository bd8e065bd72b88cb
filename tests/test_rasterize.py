"""Tests the rasterizer against an independent float64 computation, and its behavior inside JAX.

Runs on whatever platform JAX's default device is: on a machine with a GPU it tests the CUDA call.
"""

import functools
import itertools
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gsdd_jax
from gsdd_jax.core import native
from gsdd_jax.rasterizer import calls, limits
from tests.conftest import QUICKLY
from tests.dense import CUT, dense, random_gaussians, saturated_gaussians

pytestmark = pytest.mark.usefixtures("quickly_compiled")

if {"cpu": "cpu", "gpu": "cuda"}[jax.default_backend()] not in native.PLATFORMS:
    pytest.fail("the custom calls were not built for this platform: see BUILD.md", pytrace=False)
if "cpu" in native.PLATFORMS:
    from gsdd_jax import _native_cpu
NAMES = ("means", "cholesky", "colors", "opacities")


@functools.cache
def programs(**settings):
    """Returns programs of images, and of images and gradients, for all parameters of a shape."""
    render = lambda *p: gsdd_jax.rasterize(*p, **settings)

    def run(cotangent, *p):
        image, pull_back = jax.vjp(render, *p)
        return image, pull_back(cotangent)

    return jax.jit(render), jax.jit(run)


def images(parameters, **settings):
    return programs(**settings)[0](*parameters)


def gradients(parameters, cotangent, **settings):
    def run(cotangent, *p):
        return jax.vjp(lambda *p: gsdd_jax.rasterize(*p, **settings), *p)[1](cotangent)

    return jax.jit(run)(cotangent, *parameters)


def both(parameters, cotangent, **settings):
    """Returns images and gradients of one program, as NumPy, which compiles nothing."""
    return jax.tree.map(np.asarray, programs(**settings)[1](cotangent, *parameters))


def compare(parameters, height, width, *backends, seed=1, **settings):
    """Compares images and gradients with float64, but for pixels that rounding decides."""
    theirs = dict(settings, side=settings.pop("samples_per_side", 2))
    theirs["cut"] = theirs.pop("min_weight", CUT) or 1e-300
    settings = dict(dict(samples_per_side=theirs["side"]), **settings)
    shape = height, width, parameters[2].shape[-1]
    cotangent = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    _, near, _ = dense(parameters, height, width, **theirs)
    cotangent[near] = 0
    image, _, expected = dense(parameters, height, width, cotangent=cotangent, **theirs)
    for backend in backends:
        ours = dict(height=height, width=width, backend=backend, **settings)
        actual, slopes = both(parameters, cotangent, **ours)
        error = np.abs(actual - image)[~near].max(initial=0)
        assert error <= 1e-5 * np.abs(image).max() + 1e-30, backend
        for name, a, e in zip(NAMES, slopes, expected, strict=True):
            assert np.abs(a - e).max() <= 1e-4 * np.abs(e).max() + 1e-30, (backend, name)
    return near, cotangent, expected


CASES = [
    # N, height, width, C, samples_per_side, prefilter
    (1, 1, 1, 1, 2, True),
    (3, 1, 9, 2, 1, True),
    (22, 32, 32, 3, 2, False),
    (85, 7, 33, 4, 3, True),
    (60, 257, 129, 4, 2, True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_native_call_matches_float64(case):
    count, height, width, channels, side, prefilter = case
    parameters = random_gaussians(count + height, count, channels)
    settings = dict(samples_per_side=side, prefilter=prefilter)
    near, *_ = compare(parameters, height, width, "native", **settings)
    assert near.mean() < 0.1


def test_many_random_images_match_float64():
    """Sweeps over shapes and settings, so that every path of a kernel runs."""
    rng = np.random.default_rng(7)
    for seed in range(24):
        count, channels = int(rng.integers(1, 30)), int(rng.integers(1, 5))
        height, width = (int(v) for v in rng.integers(1, 70, 2))
        settings = {}
        if seed % 2:
            side, prefilter = int(rng.choice([1, 2, 3])), bool(rng.random() < 0.7)
            cut = float(rng.choice([CUT, 1e-20, 1e-9, 1e-3, 0.3]))
            settings = dict(samples_per_side=side, prefilter=prefilter, min_weight=cut)
        parameters = random_gaussians(seed, count, channels)
        compare(parameters, height, width, "native", seed=seed, **settings)


LIMITS = [
    *(dict(cut=cut) for cut in (1e-37, 0.0)),
    *(dict(name=name, factor=1e9) for name in NAMES),
    dict(thin=1e-2),
]


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_the_definition_holds_to_its_limits(limit):
    """Checks every backend at the largest parameters and the smallest cuts of the docstring."""
    parameters = [p.copy() for p in random_gaussians(5, 20, 3)]
    if "name" in limit:
        parameters[NAMES.index(limit["name"])][::3] *= np.float32(limit["factor"])
    if "thin" in limit:
        parameters[1][::2, 2] = -0.5 + limit["thin"]
    settings = dict(min_weight=limit.get("cut", CUT), prefilter="thin" not in limit)
    compare(parameters, 20, 31, "native", "reference", **settings)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("opacity", [0.25, 1.0])
def test_weights_that_equal_a_cut_count_and_are_not_clipped(backend, opacity):
    """Checks the sample at a Gaussian's center, whose weight is exactly the opacity."""
    parameters = [np.zeros((1, n), np.float32) for n in (2, 3)]
    parameters += [np.ones((1, 3), np.float32), np.float32([opacity])]
    cotangent = np.ones((5, 7, 3), np.float32)
    image, near, expected = dense(parameters, 5, 7, side=1, cut=0.25, cotangent=cotangent)
    assert np.argwhere(near).tolist() == [[2, 3]] and image[2, 3, 0] == opacity
    settings = dict(height=5, width=7, samples_per_side=1, min_weight=0.25, backend=backend)
    actual, slopes = both(parameters, cotangent, **settings)
    np.testing.assert_allclose(actual, image, rtol=1e-6)
    for a, e in zip(slopes, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_gradient_passes_through_the_clipping(side):
    parameters = saturated_gaussians(50, 25, 3)
    settings = dict(samples_per_side=side, clip_gradient="pass")
    _, cotangent, expected = compare(parameters, 9, 33, "native", "reference", **settings)
    _, _, stopped = dense(parameters, 9, 33, cotangent=cotangent, side=side)
    for name, e, stop in zip(NAMES, expected, stopped, strict=True):
        assert name == "colors" or np.abs(stop - e).max() > 1e-2 * np.abs(e).max(), name


@pytest.mark.usefixtures("fully_compiled")
def test_a_hundred_gradients_have_the_same_bits():
    parameters = [np.stack([p] * 6) for p in random_gaussians(12, 60, 3)]
    cotangent = np.random.default_rng(0).normal(size=(6, 40, 56, 3)).astype(np.float32)
    settings = dict(height=40, width=56, backend="native")
    run = jax.jit(lambda *p: gradients(p, cotangent, **settings))
    first = run(*parameters)
    for _ in range(99):
        for a, b in zip(run(*parameters), first, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_float64_gradient_is_right():
    """Compares with central differences of the float64 image, away from the cuts."""
    parameters = [p.astype(np.float64) for p in random_gaussians(3, 5, 2)]
    parameters[3] = np.array([0.3, 0.9, 0.5, 0.7, 0.2])
    cotangent = np.random.default_rng(0).normal(size=(9, 11, 2))
    _, _, expected = dense(parameters, 9, 11, cotangent=cotangent, cut=1e-300)
    for which, parameter in enumerate(parameters):
        for index in itertools.islice(np.ndindex(parameter.shape), 12):
            values = []
            for sign in (1, -1):
                moved = [p.copy() for p in parameters]
                moved[which][index] += sign * 1e-6
                values.append((dense(moved, 9, 11, cut=1e-300)[0] * cotangent).sum())
            slope = (values[0] - values[1]) / 2e-6
            assert slope == pytest.approx(expected[which][index], rel=1e-5, abs=1e-6)


def test_nothing_is_culled_early_and_min_weight_zero_reaches_everywhere():
    # One wide Gaussian of opacity 3: sigma = ln(3 * 255) is 3.6 standard deviations away.
    one = ([[0.0, 0.0]], [[9.5, 0.0, 9.5]], [[1.0]], [3.0])
    parameters = [jnp.array(p, jnp.float32) for p in one]
    at = lambda r, **more: float(
        gsdd_jax.rasterize(
            parameters[0] + jnp.array([[2 * r / 81, 0.0]]), *parameters[1:],
            height=81, width=81, samples_per_side=1, **more,
        )[40, 40, 0]
    )  # fmt: skip
    deviation = np.sqrt(100 + 1 / 12)
    for r in (35.9, 36.3):
        assert at(r) == pytest.approx(3 * np.exp(-0.5 * (r / deviation) ** 2), rel=1e-4)
    assert at(36.6) == 0
    assert at(40.0, min_weight=0.0) == pytest.approx(3 * np.exp(-8 * 100 / deviation**2), rel=1e-4)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_not_finite_parameters_stay_in_their_image(backend, bad):
    clean = [np.stack([p] * 4) for p in random_gaussians(2, 6, 3)]
    settings = dict(height=8, width=8, backend=backend)
    expected = np.asarray(images(clean, **settings))
    for name in NAMES:
        parameters = [p.copy() for p in clean]
        parameters[NAMES.index(name)][2, 4] = bad
        actual, result = both(parameters, np.ones((4, 8, 8, 3), np.float32), **settings)
        assert np.isnan(actual[2]).all(), name
        others = np.array([0, 1, 3])
        np.testing.assert_array_equal(actual[others], expected[others])
        for g in result:
            assert np.isnan(g[2, 4]).all()
            assert np.isfinite(g[others]).all()


@pytest.mark.parametrize("huge", [1e18, 3e38])
def test_huge_finite_parameters_neither_hang_nor_leak(huge):
    parameters = [p.copy() for p in random_gaussians(2, 6, 3)]
    parameters[0][0] = huge
    parameters[1][1] = huge
    parameters[1][2, 0] = -huge
    image = images(parameters, height=8, width=8, backend="native")
    assert image.shape == (8, 8, 3)
    parameters = [np.delete(p, [0], axis=0) for p in parameters]
    np.testing.assert_array_equal(image, images(parameters, height=8, width=8, backend="native"))


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("batch", [(), (2, 0), (2,)])
def test_empty_batches_and_empty_images(backend, batch):
    shapes = (*batch, 0, 2), (*batch, 0, 3), (*batch, 0, 3), (*batch, 0)
    parameters = [jnp.zeros(s) for s in shapes]
    image, pull_back = jax.vjp(
        lambda *p: gsdd_jax.rasterize(*p, height=5, width=4, backend=backend), *parameters
    )
    assert image.shape == (*batch, 5, 4, 3)
    assert not image.any()
    assert [g.shape for g in pull_back(image)] == list(shapes)


def test_leading_axes_vmap_scan_checkpoint_and_jit_agree():
    one = random_gaussians(11, 12, 3)
    stacked = [np.stack([p * np.float32(s) for s in (1.0, 0.9, 1.1)]) for p in one]
    render = lambda *p: gsdd_jax.rasterize(*p, height=17, width=13, backend="native")
    loss = lambda *p: (render(*p) ** 2).sum()
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))
    expected = np.stack([render(*(p[i] for p in stacked)) for i in range(3)])
    slopes = [gradient(*(p[i] for p in stacked)) for i in range(3)]
    slopes = jax.tree.map(lambda *g: np.stack(g), *slopes)

    same = np.testing.assert_array_equal
    same(render(*stacked), expected)
    same(jax.jit(render)(*stacked), expected)
    same(jax.vmap(render)(*stacked), expected)
    same(render(*(p[:, None] for p in stacked))[:, 0], expected)
    same(jax.lax.map(lambda p: render(*p), tuple(stacked)), expected)
    jax.tree.map(same, jax.grad(loss, argnums=(0, 1, 2, 3))(*stacked), slopes)
    jax.tree.map(same, jax.vmap(gradient)(*stacked), slopes)
    checkpointed = jax.jit(jax.grad(jax.checkpoint(loss), argnums=(0, 1, 2, 3)))(*stacked)
    jax.tree.map(same, checkpointed, slopes)
    # Only one argument batched: the others are broadcast into the same single call.
    colors = jax.vmap(lambda c: render(stacked[0][0], stacked[1][0], c, stacked[3][0]))
    same(colors(stacked[2])[0], expected[0])


def test_shard_map_over_images_and_over_one_argument():
    mesh = jax.make_mesh((1,), ("d",))
    put = lambda a, spec: jax.device_put(a, NamedSharding(mesh, spec))
    parameters = [np.stack([p] * 2) for p in random_gaussians(3, 6, 3)]
    render = lambda *p: gsdd_jax.rasterize(*p, height=6, width=7)
    loss = lambda *p: (render(*p) ** 2).sum((1, 2, 3))
    sharded = jax.shard_map(loss, mesh=mesh, in_specs=(P("d"),) * 4, out_specs=P("d"))
    actual = jax.jit(jax.grad(lambda *p: sharded(*p).sum(), argnums=(0, 1, 2, 3)))(
        *(put(p, P("d")) for p in parameters)
    )
    expected = jax.grad(lambda *p: loss(*p).sum(), argnums=(0, 1, 2, 3))(*parameters)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-6), actual, expected)
    mixed = jax.shard_map(
        render, mesh=mesh, in_specs=(P(), P(), P("d"), P()), out_specs=P("d")
    )  # fmt: skip
    one = [p[0] for p in parameters]
    specs = (P(), P(), P("d"), P())
    image = jax.jit(mixed)(*(put(p, s) for p, s in zip(one, specs, strict=True)))
    np.testing.assert_array_equal(image, render(*one))


def script(code, *arguments, **environment):
    """Runs code in another process and returns what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **QUICKLY, **environment},
        cwd=pathlib.Path(__file__).parent.parent,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


FOUR_DEVICES = """
import jax, numpy as np, gsdd_jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tests.dense import random_gaussians

assert jax.device_count() == 4
put = lambda spec: lambda p: jax.device_put(p, NamedSharding(mesh, spec))
ragged = random_gaussians(5, 8, 3)
bounds = np.array([0, 3, 8])
dense = [np.stack([p] * 8) for p in random_gaussians(3, 6, 3)]

def render(*p):
    return gsdd_jax.rasterize(*p, height=6, width=7, backend="auto")

def render_ragged(*p):
    return gsdd_jax.rasterize_ragged(*p, bounds, height=6, width=7, backend="auto")

def compare(function, parameters, spec):
    compiled = jax.jit(function).lower(*map(put(spec), parameters)).compile()
    actual = compiled(*map(put(spec), parameters))
    expected = jax.jit(function)(*parameters)
    close = lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, actual, expected)
    return compiled.as_text(), actual

def check_all():
    for function in (render, jax.vmap(render)):
        slopes = jax.grad(lambda *p: (function(*p) ** 2).sum(), argnums=(0, 1, 2, 3))
        for each in (function, slopes):
            text, results = compare(each, dense, P("d"))
            assert "all-gather" not in text and "all-reduce" not in text, text
            assert all(a.sharding.spec[0] == "d" for a in jax.tree.leaves(results))
    compare(render, dense, P())
    compare(render_ragged, ragged, P("d"))

mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
check_all()
mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))
with jax.set_mesh(mesh):
    check_all()
"""


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="needs four devices")
def test_sharded_images_are_rendered_where_they_lie():
    """Checks under plain jit that sharding adds no collectives, forward or backward."""
    flags = f"{QUICKLY.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    script(FOUR_DEVICES, XLA_FLAGS=flags)


def derivatives_beyond_the_first(render, parameters):
    loss = lambda *p: (render(*p) ** 2).sum()
    along = lambda *p: jax.jvp(render, p, p)
    yield lambda: along(*parameters)
    yield lambda: jax.jit(jax.jacfwd(render, argnums=1))(*parameters)
    yield lambda: jax.jit(jax.hessian(loss))(*parameters)
    yield lambda: jax.jacrev(jax.jacrev(loss))(*parameters)


def test_derivatives_that_the_native_call_lacks_are_refused_in_one_line():
    parameters = list(map(jnp.asarray, random_gaussians(3, 3, 2)))
    for backend in ("native", "auto"):
        render = lambda *p, b=backend: gsdd_jax.rasterize(*p, height=4, width=5, backend=b)
        for derivative in derivatives_beyond_the_first(render, parameters):
            with pytest.raises(TypeError, match=r"differentiable once, in reverse mode") as error:
                derivative()
            assert "\n" not in str(error.value)
    bounds = np.array([0, 2, 3])
    ragged = lambda *p: gsdd_jax.rasterize_ragged(*p, bounds, height=4, width=5, backend="native")
    with pytest.raises(TypeError, match="differentiable once, in reverse mode"):
        jax.jvp(ragged, parameters, parameters)


def test_the_reference_has_all_derivatives():
    """Compares with differences of the float64 gradient along a line."""
    parameters = [p.astype(np.float64) for p in random_gaussians(3, 3, 2)]
    parameters[3] = np.array([0.3, 0.9, 0.6])
    settings = dict(height=4, width=5, backend="reference", min_weight=0.0)
    render = lambda *p: gsdd_jax.rasterize(*p, **settings)
    f32 = lambda arrays: tuple(jnp.asarray(a, jnp.float32) for a in arrays)
    direction = [np.random.default_rng(1).normal(size=p.shape) for p in parameters]
    moved = lambda t: [p + t * d for p, d in zip(parameters, direction, strict=True)]
    image = lambda t: dense(moved(t), 4, 5, cut=1e-300)[0]
    _, actual = jax.jvp(render, f32(parameters), f32(direction))
    expected = (image(1e-6) - image(-1e-6)) / 2e-6
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())

    def gradient(t):  # of a sum of squares
        return dense(moved(t), 4, 5, cotangent=2 * image(t), cut=1e-300)[2]

    slopes = jax.grad(lambda *p: (render(*p) ** 2).sum(), argnums=(0, 1, 2, 3))
    along = jax.jit(lambda p, d: jax.jvp(slopes, p, d)[1])(f32(parameters), f32(direction))
    twice = jax.grad(
        lambda p: sum((s * d).sum() for s, d in zip(slopes(*p), f32(direction), strict=True))
    )
    for order in (along, jax.jit(twice)(f32(parameters))):
        for actual, high, low in zip(order, gradient(1e-6), gradient(-1e-6), strict=True):
            expected = (high - low) / 2e-6
            np.testing.assert_allclose(actual, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("types", [["bfloat16"] * 4, ["float16", "float32", "float16", "bfloat16"]])
def test_narrower_types_are_computed_with_in_float32(types, backend):
    parameters = random_gaussians(4, 9, 3)
    parameters = [jnp.asarray(p, t) for p, t in zip(parameters, types, strict=True)]
    wide = [p.astype(jnp.float32) for p in parameters]
    cotangent = np.random.default_rng(0).normal(size=(7, 11, 3)).astype(np.float32)
    settings = dict(height=7, width=11, backend=backend)
    image, slopes = both(parameters, cotangent, **settings)
    expected, wide_slopes = both(wide, cotangent, **settings)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, expected)
    for a, e, t in zip(slopes, wide_slopes, types, strict=True):
        assert a.dtype.name == t
        np.testing.assert_array_equal(a, jnp.asarray(e, t))


def test_float64_is_the_references_and_float32_the_calls():
    parameters = [p.astype(np.float64) for p in random_gaussians(4, 9, 3)]
    cotangent = np.random.default_rng(0).normal(size=(7, 11, 3))
    image, _, expected = dense(parameters, 7, 11, cotangent=cotangent)
    settings = dict(height=7, width=11)
    with jax.enable_x64(True):
        actual, slopes = both(parameters, cotangent, backend="reference", **settings)
        assert actual.dtype == np.float64
        np.testing.assert_allclose(actual, image, atol=1e-9)
        for a, e in zip(slopes, expected, strict=True):
            assert a.dtype == np.float64
            np.testing.assert_allclose(a, e, atol=1e-9 * np.abs(e).max())
        for backend in ("native", "auto"):
            run = lambda *p, b=backend: gsdd_jax.rasterize(*p, backend=b, **settings)
            assert run(*parameters).dtype == np.float32
            slopes = jax.grad(lambda *p, r=run: (r(*p) ** 2).sum(), argnums=(0, 3))(*parameters)
            assert {slope.dtype.name for slope in slopes} == {"float64"}


@pytest.mark.parametrize(("channels", "backend"), [(5, "auto"), (9, "native"), (9, "reference")])
def test_any_number_of_channels(channels, backend):
    parameters = random_gaussians(6, 12, channels)
    _, cotangent, _ = compare(parameters, 9, 14, backend)
    # A value that is not finite affects all channels, also those of other calls.
    bad = [p.copy() for p in parameters]
    bad[2][3, 4] = np.nan
    actual, slopes = both(bad, cotangent, height=9, width=14, backend=backend)
    assert np.isnan(actual).all()
    for slope in slopes:
        assert np.isnan(slope[3]).all()
        assert backend == "reference" or np.isfinite(np.delete(slope, 3, 0)).all()


def test_any_number_of_channels_of_ragged_batches_and_under_vmap():
    parameters, bounds = random_gaussians(6, 12, 6), np.array([0, 5, 12])
    settings = dict(height=9, width=14, backend="native")
    ragged = lambda *p: gsdd_jax.rasterize_ragged(*p, bounds, **settings)
    alone = [images([p[a:b] for p in parameters], **settings) for a, b in ((0, 5), (5, 12))]
    np.testing.assert_array_equal(ragged(*parameters), np.stack(alone))
    twice = [jnp.stack([p, p]) for p in parameters]
    dense_batch = jax.vmap(lambda *p: gsdd_jax.rasterize(*p, **settings))(*twice)
    np.testing.assert_array_equal(dense_batch[1], images(parameters, **settings))
    np.testing.assert_array_equal(jax.vmap(ragged)(*twice)[1], np.stack(alone))


def exported(function, platforms, *arguments):
    checks = map(export.DisabledSafetyCheck.custom_call, calls.TARGETS)
    return export.export(jax.jit(function), platforms=platforms, disabled_checks=list(checks))(
        *arguments
    )


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="an export for the CPU")
@pytest.mark.parametrize("ragged", [False, True], ids=["dense", "ragged"])
def test_programs_of_any_batch_are_exported(ragged):
    """Serializes a program, reads it again and runs it with two sizes; for CUDA only lowers it."""
    pytest.importorskip("flatbuffers", reason="jax.export serializes by it")
    settings = dict(height=6, width=5, backend="native")

    def loss(offsets, *p):
        rendered = (
            gsdd_jax.rasterize_ragged(*p, offsets, **settings)
            if ragged
            else gsdd_jax.rasterize(*p, **settings)
        )
        return (rendered**2).sum()

    def arguments(batch):
        stacked = [np.stack([p * s for s in range(batch)]) for p in random_gaussians(0, 3, 5)]
        offsets = np.arange(0, 3 * batch + 1, 3, dtype=np.int32)
        return offsets, *(p.reshape(-1, *p.shape[2:]) if ragged else p for p in stacked)

    b, n, o = export.symbolic_shape("b, n, o")
    lead = (n,) if ragged else (b, 3)
    shapes = [jax.ShapeDtypeStruct((*lead, *last), np.float32) for last in ((2,), (3,), (5,), ())]
    shapes = jax.ShapeDtypeStruct((o,), np.int32), *shapes
    slopes = jax.value_and_grad(loss, argnums=(1, 2, 3, 4))
    program = export.deserialize(exported(slopes, ["cpu"], *shapes).serialize())
    for batch in (2, 3):
        actual, expected = program.call(*arguments(batch)), jax.jit(slopes)(*arguments(batch))
        close = lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6)
        jax.tree.map(close, actual, expected)
    text = exported(slopes, ["cuda"], *shapes).mlir_module()
    name = "@gsdd_rasterize_ragged" if ragged else "@gsdd_rasterize"
    assert text.count(f"{name}(") == text.count(f"{name}_gradient(") == 2  # 4 channels and 1


def lowered(platform, backend):
    """Returns StableHLO of value and gradient for a platform that this machine may lack."""
    loss = lambda *p: gsdd_jax.rasterize(*p, height=8, width=8, backend=backend).sum()
    slopes = jax.value_and_grad(loss, argnums=(0, 1, 2, 3))
    return exported(slopes, [platform], *random_gaussians(0, 4, 3)).mlir_module()


def test_auto_is_native_where_built_and_reference_elsewhere():
    calls = lambda text: (text.count("@gsdd_rasterize("), text.count("@gsdd_rasterize_gradient("))
    assert calls(lowered("cuda", "native")) == (1, 1)
    assert calls(lowered("tpu", "auto")) == (0, 0)
    for platform in native.PLATFORMS:
        assert calls(lowered(platform, "auto")) == (1, 1)
        assert calls(lowered(platform, "reference")) == (0, 0)


def test_without_a_build_auto_is_the_reference(monkeypatch):
    monkeypatch.setattr(native, "PLATFORMS", ())
    parameters = random_gaussians(4, 5, 3)
    jax.clear_caches()
    text = (
        jax.jit(lambda *p: gsdd_jax.rasterize(*p, height=5, width=5)).lower(*parameters).as_text()
    )
    assert "gsdd_rasterize" not in text
    np.testing.assert_allclose(
        images(parameters, height=5, width=5),
        images(parameters, height=5, width=5, backend="reference"),
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="backend: 'native' was not built"):
        images(parameters, height=5, width=5, backend="native")


GOOD = dict(
    means=jnp.zeros((4, 2)),
    cholesky=jnp.zeros((4, 3)),
    colors=jnp.zeros((4, 3)),
    opacities=jnp.zeros(4),
    height=8,
    width=8,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(means=jnp.zeros((4, 3))), "means: expected shape"),
        (dict(colors=jnp.zeros((4, 0))), "colors: expected at least 1 channel, got 0"),
        (dict(opacities=jnp.zeros((4, 1))), "means: expected shape"),
        (dict(opacities=jnp.float32(1)), "opacities: expected shape"),
        (dict(colors=jnp.zeros((4, 3), jnp.float8_e5m2)), "float64, got float8_e5m2"),
        (dict(means=jnp.zeros((4, 2), int)), "means: expected one of bfloat16, .*, got int32"),
        (dict(height=0), "height: expected from 1 to 65536, got 0"),
        (dict(width=2.5), "width: expected an integer"),
        (dict(samples_per_side=17), "samples_per_side: expected from 1 to 16, got 17"),
        (dict(min_weight=1.0), "min_weight: expected a number in"),
        (dict(min_weight=float("nan")), "min_weight: expected a number in"),
        (dict(backend="cuda"), "backend: expected one of"),
        (dict(clip_gradient="on"), "clip_gradient: expected one of stop, pass, got 'on'"),
        (dict(height=2**40, width=2**40), "height: expected from 1 to 65536, got 1099511627776"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_wrong_arguments_are_named(change, message):
    # The import hook would reject the shapes first, so call what it wraps.
    function = getattr(gsdd_jax.rasterize, "__wrapped__", gsdd_jax.rasterize)
    with pytest.raises(ValueError, match=message):
        function(**{**GOOD, **change})


def test_images_beyond_the_limit_are_refused_before_anything_is_made():
    many = 2**9
    good = {k: v[None].repeat(many, 0) for k, v in GOOD.items() if k not in ("height", "width")}
    with pytest.raises(
        ValueError, match="at most 2\\^40 elements in all, got 512 of 65536 x 65536"
    ):
        gsdd_jax.rasterize(**good, height=2**16, width=2**16)


LITTLE_MEMORY = """
import os, resource, sys
import jax, numpy as np, gsdd_jax

# One image shared by all threads, each with as much scratch memory again.
size, count = 4096, 2048
rng = np.random.default_rng(0)
f = lambda *s: rng.uniform(-1, 1, s).astype(np.float32)
parameters = f(count, 2), f(count, 3), f(count, 1), f(count)
render = lambda *p: gsdd_jax.rasterize(*p, height=size, width=size, backend="native")
slopes = jax.jit(lambda d, *p: jax.vjp(render, *p)[1](d))
cotangent = jax.numpy.asarray(f(size, size, 1))
expected = [np.asarray(a) for a in slopes(cotangent, *parameters)]
plane = 4 * size * size
refused = 0
for planes in (6, 3, 1.5, 0.5, 0.1):
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + int(planes * plane)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        actual = [np.asarray(a) for a in slopes(cotangent, *parameters)]
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        assert "no memory for" in str(error), error
        refused += 1
    else:
        for a, e in zip(actual, expected):
            np.testing.assert_array_equal(a, e)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
assert refused, "it was never short of memory"
for a, e in zip(slopes(cotangent, *parameters), expected):
    np.testing.assert_array_equal(a, e)
"""


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the CPU kernel's own test")
@pytest.mark.parametrize("threads", ["1", "6"])
def test_without_memory_it_is_an_error(threads):
    """Includes a thread of the pool without memory: no abort, no deadlock."""
    # Freed memory goes back at once, or the limit would not be met.
    at_once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    script(LITTLE_MEMORY, NPROC=threads, **at_once)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the CPU kernel's own test")
def test_another_instruction_set_is_refused_in_one_line():
    code = """
import gsdd_jax
z = __import__("numpy").zeros
try:
    gsdd_jax.rasterize(z((1, 2), "f"), z((1, 3), "f"), z((1, 3), "f"), z(1, "f"), height=2, width=2)
except gsdd_jax.UsageError as error:
    print(error)
"""
    names = ", ".join(_native_cpu.instruction_sets)
    expected = f"GSDD_CPU: expected one of {names} on this machine, got 'sse9'\n"
    assert script(code, GSDD_CPU="sse9") == expected


def test_the_kernels_check_again():
    """Calls around the Python checks: wrong buffers raise errors and touch no memory."""
    shape = lambda *s: jnp.zeros(s)
    attributes = dict(
        samples_per_side=np.int64(2), prefilter=True, min_weight=np.float64(CUT), pass_clipped=False
    )

    def call(*arguments, out=(3, 8, 8, 3), **more):
        result = jax.ffi.ffi_call("gsdd_rasterize", jax.ShapeDtypeStruct(out, np.float32))
        return jax.block_until_ready(result(*arguments, **{**attributes, **more}))

    good = shape(3, 4, 2), shape(3, 4, 3), shape(3, 4, 3), shape(3, 4)
    call(*good)
    with pytest.raises(Exception, match="means must be"):
        call(shape(3, 4, 3), *good[1:])
    with pytest.raises(Exception, match="disagree"):
        call(shape(3, 5, 2), *good[1:])
    with pytest.raises(Exception, match="disagree"):
        call(*good, out=(2, 8, 8, 3))
    with pytest.raises(Exception, match="images must be"):
        call(*good, out=(3, 8, 8, 4))
    with pytest.raises(Exception, match="at most 65536"):
        call(*good, out=(3, 1, 65537, 3))
    with pytest.raises(Exception, match="samples_per_side"):
        call(*good, samples_per_side=np.int64(99))


SAME_BITS = """
import os, sys
if sys.argv[1] == "one":
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
import jax, numpy as np, gsdd_jax
from gsdd_jax import _native_cpu
rng = np.random.default_rng(0)
f = lambda *s: rng.uniform(-0.5, 1.5, s).astype(np.float32)
results = []
# Many small images, one large one, which several threads share, and one sample a pixel.
for b, n, height, width, side in ((9, 40, 33, 47, 2), (1, 300, 150, 90, 2), (40, 30, 32, 32, 1)):
    p = f(b, n, 2), 3 * f(b, n, 3), f(b, n, 3), f(b, n)
    render = lambda *p: gsdd_jax.rasterize(
        *p, height=height, width=width, samples_per_side=side, backend="native"
    )
    g = jax.jit(jax.grad(lambda *p: (render(*p) ** 2).sum(), argnums=(0, 1, 2, 3)))
    results += [render(*p), *g(*p)]
np.save(sys.argv[2], np.concatenate([np.ravel(a) for a in results]))
print(_native_cpu.instruction_set)
"""


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the CPU kernel's own test")
def test_the_bits_do_not_depend_on_threads_or_vector_width(tmp_path):
    def run(threads="all", **environment):
        path = tmp_path / "found.npy"
        chosen = script(SAME_BITS, threads, path, **environment).strip()
        assert chosen == environment.get("GSDD_CPU", chosen).capitalize()
        return np.load(path)

    default = run(NPROC="3")
    assert np.isfinite(default).all()
    avx2 = {"GSDD_CPU": "AVX2"} if "Avx2" in _native_cpu.instruction_sets else {}
    np.testing.assert_array_equal(run("one", **avx2), default)
    generic = run(GSDD_CPU="generic")
    # The gradient of each parameter follows the image: one scale for all is what float32 gives.
    assert np.abs(generic - default).max() < 1e-5 * np.abs(default).max()


def test_python_and_the_calls_have_the_same_limits():
    folder = pathlib.Path(__file__).parent.parent / "xla_ops" / "rasterizer"
    text = (folder / "gaussian.h").read_text() + (folder / "shapes.h").read_text()
    constant = r"constexpr int(?:64_t)? k(\w+) = (?:int64_t\{)?(\d+)\}?(?: << (\d+))?;"
    found = {name: int(value) << int(by or 0) for name, value, by in re.findall(constant, text)}
    assert found == {
        "MaxChannels": limits.MAX_CALL_CHANNELS,
        "MaxSamples": limits.MAX_SAMPLES_PER_SIDE,
        "MaxSide": limits.MAX_CALL_SIDE,
        "MaxElements": limits.MAX_CALL_ELEMENTS,
    }
