"""Tests fused norm, ReLU and pooling against float64, and the CUDA kernels' code on the host."""

import ctypes
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import PartitionSpec as P

from gsdd_jax import networks
from gsdd_jax.core import native
from gsdd_jax.ops.norm_pool import norm_pool
from tests.conftest import QUICKLY

pytestmark = pytest.mark.usefixtures("quickly_compiled")

ROOT = pathlib.Path(__file__).parent.parent
COMPILER = shutil.which("c++") or shutil.which("g++")
# images, height, width, channels: parts of a register or of a CUDA block, one block and more, and
# more than a CUDA thread keeps
SHAPES = [(2, 4, 6, 3), (3, 2, 2, 17), (2, 16, 12, 40), (2, 32, 32, 16), (1, 34, 36, 5)]
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.04}  # relative to the largest number


def plain(x, scale, shift):
    """Computes the definition in the arguments' own type."""
    centered = x - x.mean((1, 2), keepdims=True)
    variance = jnp.square(centered).mean((1, 2), keepdims=True)
    y = jnp.maximum(centered / jnp.sqrt(variance + 1e-5) * scale + shift, 0)
    return (y[:, ::2, ::2] + y[:, 1::2, ::2] + y[:, ::2, 1::2] + y[:, 1::2, 1::2]) / 4


def arguments(shape, dtype="float32", mean=0.0, seed=0):
    """Returns x, scale, shift, a cotangent of y, and cotangents of the three gradients.

    No pixel is so near the ReLU's edge that rounding decides its side.
    """
    rng = np.random.default_rng(seed)
    b, h, w, c = shape
    x, a = rng.normal(size=(2, *shape))
    g = rng.normal(size=(b, h // 2, w // 2, c))
    vectors = rng.normal(size=(4, c))
    rounded = lambda v: np.asarray(jnp.asarray(v, dtype), np.float64)
    x = rounded(x + mean)
    for _ in range(20):
        centered = x - x.mean((1, 2), keepdims=True)
        y = centered / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5) * vectors[0] + vectors[1]
        near = np.abs(y) < 1e-3
        x = rounded(np.where(near, x + 0.05, x))
    assert not near.any()
    scale, shift, a_scale, a_shift = np.float64(np.float32(vectors))
    return x, scale, shift, rounded(g), rounded(a), a_scale, a_shift


def exact(x, scale, shift, g, a, a_scale, a_shift):
    """Returns y, its gradients for cotangent g, and second derivatives for a, in float64."""
    with jax.enable_x64(True):
        results = plain_derivatives(*map(np.float64, (x, scale, shift, g, a, a_scale, a_shift)))
        assert results[0].dtype == np.float64
        return jax.tree.map(np.asarray, results)


@jax.jit
def plain_derivatives(x, scale, shift, g, *cotangents):
    def gradient(x, scale, g):
        return jax.vjp(plain, x, scale, shift)[1](g)

    first, pull_back = jax.vjp(gradient, x, scale, g)
    return plain(x, scale, shift), first, pull_back(cotangents)


def through_jax(x, scale, shift, g, a, a_scale, a_shift):
    def gradient(x, scale, g):
        return jax.vjp(norm_pool, x, scale, shift)[1](g)

    first, pull_back = jax.vjp(gradient, x, scale, g)
    return norm_pool(x, scale, shift), first, pull_back((a, a_scale, a_shift))


def typed(operands, dtype):
    x, scale, shift, g, a, a_scale, a_shift = operands
    images = (jnp.asarray(v, dtype) for v in (x, g, a))
    x, g, a = images
    vectors = (jnp.asarray(v, jnp.float32) for v in (scale, shift, a_scale, a_shift))
    scale, shift, a_scale, a_shift = vectors
    return x, scale, shift, g, a, a_scale, a_shift


def assert_near(actual, expected, dtype="float32"):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape
        error = np.abs(np.asarray(a, np.float64) - e).max()
        assert error <= TOLERANCE[dtype] * np.abs(e).max()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [*((shape, "float32") for shape in SHAPES), (SHAPES[0], "bfloat16"), (SHAPES[2], "bfloat16")],
    ids=str,
)
def test_two_derivatives_are_those_of_float64(shape, dtype):
    operands = arguments(shape, dtype)
    actual = jax.jit(through_jax)(*typed(operands, dtype))
    assert actual[0].dtype == actual[1][0].dtype == dtype
    assert_near(actual, exact(*operands), dtype)


def test_a_large_mean_costs_nothing():
    operands = arguments((2, 16, 16, 8), mean=100.0)
    assert_near(jax.jit(through_jax)(*typed(operands, "float32")), exact(*operands))


def test_several_networks_are_one_call():
    many = [typed(arguments((2, 4, 4, 5), seed=seed), "float32") for seed in range(3)]
    stacked = [jnp.stack(v) for v in zip(*many, strict=True)]
    function = jax.jit(jax.vmap(through_jax))
    found, alone = function(*stacked), jax.jit(through_jax)
    for i, operands in enumerate(many):
        jax.tree.map(
            lambda a, e, i=i: np.testing.assert_array_equal(a[i], e), found, alone(*operands)
        )
    text = function.trace(*stacked).lower(lowering_platforms=("cuda",)).as_text()
    lines = [line for line in text.splitlines() if "@gsdd_norm_pool" in line]
    assert lines and all("tensor<3x2x4x4x5xf32>" in line for line in lines)
    assert "stablehlo.while" not in text


def test_third_derivatives():
    x, scale, shift, *_ = arguments((1, 4, 4, 2))
    rng = np.random.default_rng(1)
    weights = rng.normal(size=x.shape)

    def third(function, x):
        one = lambda x: jnp.sin(
            function(x, jnp.asarray(scale, x.dtype), jnp.asarray(shift, x.dtype))
        ).sum()
        two = lambda x: jnp.square(jax.grad(one)(x)).sum()
        three = lambda x: (jnp.cos(jax.grad(two)(x)) * weights.astype(x.dtype)).sum()
        return jax.jit(jax.grad(three))(x)

    actual = third(norm_pool, jnp.float32(x))
    with jax.enable_x64(True):
        expected = np.asarray(third(plain, jnp.asarray(x)))
    assert np.abs(actual - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (2, 4, 7, 3)], ids=str)
def test_odd_sides_leave_out_the_last_pixels(shape):
    x, scale, shift, *_ = map(np.asarray, arguments((2, 8, 8, 3)))
    b, h, w, c = shape
    x = x[:, :h, :w]
    y = norm_pool(jnp.float32(x), jnp.float32(scale), jnp.float32(shift))
    centered = x - x.mean((1, 2), keepdims=True)
    h1 = np.maximum(centered / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5) * scale + shift, 0)
    h1 = h1[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
    assert np.abs(y - h1).max() < 1e-5


def test_what_is_not_finite_stays_so_in_its_image():
    x, scale, shift, g, *_ = typed(arguments((3, 4, 4, 20)), "float32")
    x = x.at[1, 2, 3, 18].set(jnp.nan)
    y, pull_back = jax.vjp(norm_pool, x, scale, shift)
    dx = pull_back(g)[0]
    for array in (y, dx):
        bad = np.isnan(array).all((1, 2))
        assert bad[1, 18] and bad.sum() == 1 and np.isnan(array).any((1, 2)).sum() == 1


def test_a_network_under_shard_map():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("d",))
    network = networks.build("convnet", image_shape=(8, 8, 3), num_classes=2, width=4, depth=1)
    params = network.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    apply = jax.shard_map(network.apply, mesh=mesh, in_specs=(P(), P("d")), out_specs=P("d"))
    actual, expected = jax.jit(apply)(params, images), jax.jit(network.apply)(params, images)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_a_network_and_its_derivatives_are_lowered_to_the_calls(platform):
    """Includes export: the flagship's student is lowered without the device."""
    network = networks.build("convnet", image_shape=(8, 8, 3), num_classes=2, width=4, depth=1)
    params = network.init(jax.random.key(0))

    def second(images):
        gradient = jax.grad(lambda p: network.apply(p, images).sum())(params)
        return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient))

    checks = [export.DisabledSafetyCheck.custom_call(name) for name in (
        "gsdd_norm_pool", "gsdd_norm_pool_gradient", "gsdd_norm_pool_second", "gsdd_conv",
        "gsdd_conv_kernel_gradient",
    )]  # fmt: skip
    exported = export.export(
        jax.jit(jax.grad(second)), platforms=[platform], disabled_checks=checks
    )(jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32))
    text = exported.mlir_module()
    if platform not in native.PLATFORMS:
        pytest.fail(f"the custom calls were not built for {platform}: see BUILD.md", pytrace=False)
    for name in ("gsdd_norm_pool", "gsdd_norm_pool_gradient", "gsdd_norm_pool_second"):
        assert f"@{name}(" in text


def test_buffers_that_disagree_are_refused():
    x, scale, shift, *_ = typed(arguments((2, 4, 4, 3)), "float32")
    outputs = [jax.ShapeDtypeStruct(s, np.float32) for s in ((2, 2, 2, 3), (2, 3), (2, 3))]
    one = lambda *a: native.call("gsdd_norm_pool", outputs, *a, epsilon=np.float32(1e-5))
    call = lambda *a: jax.block_until_ready(jax.jit(one)(*a))
    call(x, scale, shift)
    with pytest.raises(Exception, match="disagree"):
        call(jnp.zeros((3, 4, 4, 3)), scale, shift)
    with pytest.raises(Exception, match="must be even"):
        call(x[:, :3], scale, shift)
    with pytest.raises(Exception, match=r"scale must be"):
        call(x, scale[:2], shift)
    with pytest.raises(Exception, match="float32 or bfloat16"):
        call(x.astype(jnp.float16), scale, shift)


SAME_BITS = """
import os, sys
if sys.argv[1] == "one":
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
import jax, jax.numpy as jnp, numpy as np
from gsdd_jax import networks
network = networks.build("convnet", image_shape=(12, 12, 3), num_classes=5, width=20, depth=1)
rng = np.random.default_rng(0)
f = lambda *s: rng.normal(scale=0.3, size=s).astype(np.float32)
params = jax.eval_shape(network.init, jax.random.key(0))
params = jax.tree.map(lambda p: f(*p.shape), params)
def second(x):
    gradient = jax.grad(lambda p: jnp.sin(network.apply(p, x)).sum())(params)
    return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient)), gradient
results = jax.tree.leaves(jax.jit(jax.grad(second, has_aux=True))(f(70, 12, 12, 3)))
np.save(sys.argv[2], np.concatenate([np.ravel(np.asarray(a, np.float32)) for a in results]))
"""


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the CPU kernels' own test")
def test_the_bits_do_not_depend_on_threads(tmp_path):
    def run(threads="all", **environment):
        path = tmp_path / "found.npy"
        command = [sys.executable, "-c", SAME_BITS, threads, str(path)]
        subprocess.run(command, check=True, env={**os.environ, **QUICKLY, **environment}, cwd=ROOT)
        return np.load(path)

    default = run()
    assert np.isfinite(default).all() and np.abs(default).max() > 0
    avx2 = b"avx2" in pathlib.Path("/proc/cpuinfo").read_bytes()
    found = run("one", **({"GSDD_CPU": "Avx2"} if avx2 else {}))
    np.testing.assert_array_equal(found, default)


class Arguments(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "scale", "shift", "mean", "rate")),
        *((name, ctypes.c_int64) for name in ("images", "images_per_row")),
        *((n, ctypes.c_int) for n in ("height", "width", "channels", "narrow", "backwards")),
    ]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if COMPILER is None:
        pytest.skip("no C++ compiler on this machine")
    path = tmp_path_factory.mktemp("cuda") / "norm_pool.so"
    emulation = ROOT / "tests" / "cuda_on_cpu"
    command = [COMPILER, "-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas"]
    command += [f"-I{emulation}", f"-I{ROOT / 'xla_ops'}", str(emulation / "norm_pool_driver.cc")]
    result = subprocess.run([*command, "-o", str(path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return ctypes.CDLL(str(path))


def on_cuda(library, operands, *, rows=1, backwards=False):
    """Computes what `through_jax` does by the CUDA kernels' code; `rows` of scale and shift."""
    x, scale, shift, g, a, a_scale, a_shift = (np.ascontiguousarray(v) for v in operands)
    b, h, w, c = x.shape
    mean, rate = np.full((2, b, c), 7e7, np.float32)
    spread = lambda v: np.ascontiguousarray(np.repeat(v.reshape(rows, c), b // rows, 0))
    a_scale, a_shift = spread(a_scale), spread(a_shift)
    pointer = lambda v: v.ctypes.data_as(ctypes.c_void_p)
    arguments = Arguments(
        *map(pointer, (x, scale, shift, mean, rate)), b, b // rows, h, w, c,
        x.dtype != np.float32, backwards,
    )  # fmt: skip
    new = lambda like: np.full_like(like, 77)
    y, dx, second_dx, dg = new(g), new(x), new(x), new(g)
    d_scale, d_shift, second_scale = np.full((3, b, c), 7e7, np.float32)
    library.forward(ctypes.byref(arguments), pointer(y))
    library.gradient(ctypes.byref(arguments), *map(pointer, (g, dx, d_scale, d_shift)))
    outputs = (second_dx, second_scale, dg)
    library.second(
        ctypes.byref(arguments), *map(pointer, (g, a, a_scale, a_shift)), *map(pointer, outputs)
    )
    add = lambda v: v.reshape(rows, -1, c).sum(1, dtype=np.float64).reshape(scale.shape)
    return y, (dx, add(d_scale), add(d_shift)), (second_dx, add(second_scale), dg)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cuda_kernels_on_the_host(library, shape, dtype):
    operands = arguments(shape, dtype, mean=3.0)
    numbers = [np.asarray(v) for v in typed(operands, dtype)]
    actual = on_cuda(library, numbers)
    assert_near(actual, exact(*operands), dtype)
    again = on_cuda(library, numbers, backwards=True)  # another order of threads
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_cuda_kernels_take_a_row_of_scales_for_each_network(library):
    many = [typed(arguments((2, 4, 4, 18), seed=seed), "float32") for seed in range(3)]
    x, scale, shift, g, a, a_scale, a_shift = (
        np.concatenate([np.asarray(v)[None] for v in each]) for each in zip(*many, strict=True)
    )
    flat = lambda v: v.reshape(-1, *v.shape[2:])
    all_of = on_cuda(library, (flat(x), scale, shift, flat(g), flat(a), a_scale, a_shift), rows=3)
    for i, operands in enumerate(many):
        one = on_cuda(library, [np.asarray(v) for v in operands])
        for whole, part in zip(jax.tree.leaves(all_of), jax.tree.leaves(one), strict=True):
            mine = whole.reshape(3, *part.shape)[i]
            np.testing.assert_array_equal(mine, part)
