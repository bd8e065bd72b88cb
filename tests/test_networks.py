"""Tests networks against float64 NumPy, and their derivatives against XLA's convolution."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.special
import scipy.stats
from jax.flatten_util import ravel_pytree

from gsdd_jax.core.errors import UsageError
from gsdd_jax.networks import build
from gsdd_jax.ops import winograd
from gsdd_jax.ops.conv import conv
from gsdd_jax.ops.norm import instance_norm
from gsdd_jax.ops.pool import adaptive_max_pool, average_pool, max_pool

pytestmark = pytest.mark.usefixtures("quickly_compiled")

# batch, height, width, channels in and out, kernel size, stride, padding: every form a CPU takes
WINOGRAD = (2, 8, 12, 16, 66, 3, 1, 1)
PATCHES = (2, 7, 6, 3, 5, 5, 1, 2)
SHIFTS = (2, 8, 7, 16, 18, 3, 2, 0)
DIRECT = {
    "direct, to one register": (2, 8, 8, 16, 16, 3, 1, 1),
    "direct, from colors": (2, 5, 19, 3, 21, 3, 1, 1),
    "direct, to colors": (2, 6, 21, 20, 3, 3, 1, 1),
    "direct, one column": (3, 5, 1, 5, 33, 3, 1, 1),
    "direct, 7×7 without padding": (2, 11, 8, 5, 35, 7, 1, 0),
    "direct, 4×4 to colors": (2, 6, 19, 17, 3, 4, 1, 3),
    "direct, 5×5 of many channels": (2, 7, 6, 70, 18, 5, 1, 2),
    "folded, 7×7": (2, 9, 12, 3, 18, 7, 2, 3),
    "folded, 5×5, a row left over": (2, 8, 9, 17, 5, 5, 2, 1),
    "folded, 4×4": (2, 7, 6, 2, 3, 4, 2, 1),
}
GEOMETRIES = {
    **DIRECT,
    "winograd": WINOGRAD,
    "patches": PATCHES,
    "patches, no padding": (2, 6, 5, 1, 4, 3, 1, 0),
    "sides not divisible by 4": (2, 6, 8, 16, 65, 3, 1, 1),
    "1×1": (2, 8, 8, 16, 18, 1, 2, 0),
    "5×5, many channels": (2, 8, 6, 16, 18, 5, 1, 2),
    "images of one tile": (2, 4, 4, 16, 66, 3, 1, 1),
    "stride 2, rows left over": SHIFTS,
}


def operands(geometry, seed=0):
    b, h, w, c, o, size, stride, padding = geometry
    rng = np.random.default_rng(seed)
    images, kernel = rng.normal(size=(b, h, w, c)), rng.normal(size=(size, size, c, o))
    return images, kernel, dict(stride=stride, padding=padding)


def scipy_conv(images, kernel, stride, padding):
    padded = np.pad(images, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))
    planes = [
        sum(
            scipy.signal.correlate2d(image[..., c], kernel[..., c, o], mode="valid")
            for c in range(kernel.shape[2])
        )
        for image in padded
        for o in range(kernel.shape[3])
    ]
    stacked = np.array(planes).reshape(len(images), kernel.shape[3], *planes[0].shape)
    return np.moveaxis(stacked, 1, -1)[:, ::stride, ::stride]


def relative(actual, expected):
    """Returns the largest error, in standard deviations of the expected values."""
    expected = np.asarray(expected, np.float64)
    return np.abs(np.asarray(actual, np.float64) - expected).max() / expected.std()


@pytest.mark.parametrize(
    ("geometry", "method"),
    [*((geometry, "auto") for geometry in GEOMETRIES.values()), (SHIFTS, "lax"), (PATCHES, "lax")],
    ids=[*GEOMETRIES, "lax, stride 2", "lax, padding"],
)
def test_convolution(geometry, method):
    images, kernel, options = operands(geometry)
    function = jax.jit(functools.partial(conv, method=method, **options))
    actual = function(np.float32(images), np.float32(kernel))
    assert actual.dtype == jnp.float32
    assert relative(actual, scipy_conv(images, kernel, **options)) < 1e-5


def gradients(method, options):
    """Returns first- and second-order gradients of nonlinear functions of a convolution."""

    def loss(images, kernel):
        return jnp.sin(conv(images, kernel, method=method, **options)).sum()

    def loss_of_gradients(images, kernel):
        first = jax.grad(loss, (0, 1))(images, kernel)
        return jnp.cos(first[0]).sum() + jnp.square(first[1]).sum(), first

    return jax.grad(loss_of_gradients, (0, 1), has_aux=True)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_convolution_derivatives(geometry):
    """Compares in float64, or float32 if only that is direct; sin and cos take numbers near 30."""
    images, kernel, options = operands(geometry)
    narrow = np.float32(images), np.float32(kernel)
    with jax.enable_x64(True):
        wide = tuple(map(np.float64, narrow))
        expected = jax.jit(gradients("lax", options))(*wide)
        if geometry not in DIRECT.values():
            found, tolerance = jax.jit(gradients("auto", options))(*wide), 1e-11
    if geometry in DIRECT.values():
        found, tolerance = jax.jit(gradients("auto", options))(*narrow), 3e-4
    for a, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert relative(a, e) < tolerance


@pytest.mark.parametrize(
    "geometry, shared_images", [(PATCHES, True), (SHIFTS, False)], ids=["patches", "shifts"]
)
def test_convolution_of_several_networks_at_once(geometry, shared_images):
    images, kernel, options = operands(geometry)
    with jax.enable_x64(True):
        kernels = np.stack([kernel, 0.5 * kernel[::-1], np.ones_like(kernel)])
        batches = np.stack([images, 2 * images, -images])
        function = jax.vmap(gradients("auto", options), (None if shared_images else 0, 0))
        actual = jax.jit(function)(images if shared_images else batches, kernels)
        one = jax.jit(gradients("lax", options))
        for i in range(3):
            expected = one(images if shared_images else batches[i], kernels[i])
            for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
                assert relative(a[i], e) < 1e-11


def test_kernels_larger_than_the_image_leave_nothing():
    x, kernel = np.ones((2, 4, 8, 3), np.float32), np.ones((5, 5, 3, 7), np.float32)
    of = lambda x, kernel: conv(x, kernel, padding=0)
    assert jax.jit(of)(x, kernel).shape == (2, 0, 4, 7)
    gradients = jax.jit(jax.grad(lambda *a: of(*a).sum(), (0, 1)))(x, kernel)
    assert not any(gradient.any() for gradient in gradients)


def test_other_devices_run_several_networks_one_by_one():
    """Refuses grouped convolutions and windows as large as images, which are slow on a GPU."""
    images, kernel, _ = operands((2, 32, 32, 4, 5, 3, 1, 1))

    def loss(images, kernel):
        return jnp.sin(conv(images, kernel)).sum()

    batches = [np.float32(array)[None].repeat(3, 0) for array in (images, kernel)]
    gradient = jax.jit(jax.vmap(jax.grad(loss, (0, 1))))
    text = gradient.trace(*batches).lower(lowering_platforms=("cuda",)).as_text()
    convolutions = re.findall(r"stablehlo\.convolution.*", text)
    assert len(convolutions) == 3  # forward and two gradients, for all networks
    for line in convolutions:
        assert "feature_group_count = 1 " in line and "batch_group_count = 1 " in line
        assert "tensor<2x32x32x" in line and "tensor<6x32x32x" not in line  # one network's images
    assert text.count("stablehlo.while") == 3


def test_winograd_in_slices_of_an_uneven_batch(monkeypatch):
    images, kernel, options = operands((7, 8, 8, 16, 18, 3, 1, 1))
    g = np.random.default_rng(1).normal(size=(7, 8, 8, 18))
    monkeypatch.setattr(winograd, "_SLICE", 2 * 8 * 8 * 18)
    monkeypatch.setattr(winograd, "_GRADIENT_SLICE", 3 * 8 * 8 * 18)
    assert winograd._slice_count(jax.device_put(images), 18, winograd._SLICE) == 4
    actual = jax.jit(winograd.forward)(np.float32(images), np.float32(kernel))
    assert relative(actual, scipy_conv(images, kernel, **options)) < 1e-5
    # The kernel's gradient is the correlation of padded images and cotangent.
    expected = scipy_conv(
        np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))).transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        stride=1,
        padding=0,
    ).transpose(1, 2, 0, 3)
    actual = jax.jit(winograd.kernel_gradient)(np.float32(images), np.float32(g))
    assert relative(actual, expected) < 1e-5


def test_direct_error_is_that_of_float32():
    """Includes a kernel's gradient, which adds up all pixels of all images."""
    rng = np.random.default_rng(0)
    images, g = (np.float32(rng.uniform(0, 1, (70, 32, 32, c))) for c in (3, 16))
    kernel = np.float32(rng.normal(size=(3, 3, 3, 16)))

    def with_gradient(images, kernel, g):
        found, pull_back = jax.vjp(conv, images, kernel)
        return found, pull_back(g)[1]

    found, d_kernel = jax.jit(with_gradient)(images, kernel, g)
    exact = numpy_conv(images[:5].astype(np.float64), kernel.astype(np.float64))
    assert relative(found[:5], exact) < 2e-6
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    for i, j in np.ndindex(3, 3):
        window = padded[:, i : i + 32, j : j + 32].reshape(-1, 3)
        exact = window.T @ g.astype(np.float64).reshape(-1, 16)
        np.testing.assert_allclose(d_kernel[i, j], exact, rtol=3e-6)


def test_winograd_error_is_that_of_float32():
    rng = np.random.default_rng(0)
    images, kernel = rng.uniform(0, 2, (4, 16, 16, 64)), rng.normal(size=(3, 3, 64, 64))
    images, kernel = np.float32(images), np.float32(kernel)
    expected = numpy_conv(images.astype(np.float64), kernel.astype(np.float64))
    error = np.asarray(jax.jit(winograd.forward)(images, kernel)) - expected
    assert np.sqrt(np.mean(np.square(error))) < 2e-6 * expected.std()


def test_other_devices_run_one_plain_convolution():
    images, kernel, options = operands(WINOGRAD)
    traced = jax.jit(lambda x, k: conv(x, k, **options)).trace(
        np.float32(images), np.float32(kernel)
    )
    for platform, convolutions in (("cuda", 1), ("cpu", 0)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == convolutions
        assert text.count("stablehlo.dot_general") == 2 * (1 - convolutions)


def test_convolution_refuses_mixed_types():
    with pytest.raises(ValueError, match="cast one to the other"):
        conv(jnp.zeros((1, 4, 4, 1)), jnp.zeros((3, 3, 1, 1), jnp.bfloat16))


def numpy_norm(x, scale=1.0, shift=0.0):
    return (x - x.mean((1, 2), keepdims=True)) / np.sqrt(
        x.var((1, 2), keepdims=True) + 1e-5
    ) * scale + shift


def numpy_pool(x, reduce):
    b, h, w, c = x.shape
    return reduce(x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c), (2, 4))


@pytest.mark.parametrize("mean", [0, 100, 1000])
def test_instance_norm_survives_a_large_mean(mean):
    rng = np.random.default_rng(0)
    x = np.float32(rng.normal(size=(8, 32, 30, 3)) + mean)
    scale, shift = np.float32(rng.normal(size=(2, 3)))
    actual = jax.jit(instance_norm)(x, scale, shift)
    assert relative(actual, numpy_norm(x.astype(np.float64), scale, shift)) < 3e-6


def test_instance_norm_survives_an_outlier():
    """Puts all variance into one pixel: the worst case of sums about a pixel."""
    x = np.float32(1e-3 * np.random.default_rng(0).normal(size=(4, 32, 32, 3)))
    x[:, 16, 16] = 1000
    actual = jax.jit(instance_norm)(x, np.ones(3, np.float32), np.zeros(3, np.float32))
    expected = numpy_norm(x.astype(np.float64))
    assert np.abs(actual - expected).max() < 2e-4 * np.abs(expected).max()


def second_derivatives(function, weights):
    """Returns derivatives of a nonlinear function of `function` and its gradients, per argument."""

    def loss(*arguments):
        return (jnp.sin(function(*arguments)) * weights).sum()

    def of_gradients(*arguments):
        first = jax.grad(loss, range(len(arguments)))(*arguments)
        return sum((jnp.cos(g) * (1 + jnp.arange(g.size).reshape(g.shape) % 3)).sum()
                   for g in first), first  # fmt: skip

    return jax.jit(lambda *some: jax.grad(of_gradients, range(len(some)), has_aux=True)(*some))


def test_instance_norm_derivatives():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = rng.normal(size=(2, 6, 5, 3)) + 100
        scale, shift, weights = (rng.normal(size=s) for s in (3, 3, x.shape))

        def plain(x, scale, shift):
            centered = x - x.mean((1, 2), keepdims=True)
            variance = (centered**2).mean((1, 2), keepdims=True)
            return centered / jnp.sqrt(variance + 1e-5) * scale + shift

        actual = second_derivatives(instance_norm, weights)(x, scale, shift)
        expected = second_derivatives(plain, weights)(x, scale, shift)
        for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            assert relative(a, e) < 1e-10


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_pooling(size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    assert relative(jax.jit(average_pool)(x), numpy_pool(x, np.mean)) < 1e-6
    np.testing.assert_array_equal(jax.jit(max_pool)(x), numpy_pool(x, np.max))


# The networks once more, in NumPy.


def numpy_conv(x, kernel, stride=1, padding=1):
    padded = np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], (1, 2))
    windows = windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)
    kernel = kernel.reshape(-1, kernel.shape[-1])
    return (windows.reshape(-1, len(kernel)) @ kernel).reshape(*windows.shape[:3], -1)


def relu(x):
    return np.maximum(x, 0)


class Layers:
    """Returns a network's parameters in the order of use."""

    def __init__(self, params):
        self.params = params
        self.used = {}

    def next(self, kind):
        index = self.used.get(kind, 0)
        self.used[kind] = index + 1
        return self.params[f"{kind}_{index}"]

    def conv(self, x, stride=1, padding=1):
        layer = self.next("Conv")
        return numpy_conv(x, layer["kernel"], stride, padding) + layer.get("bias", 0)

    def norm(self, x):
        layer = self.next("InstanceNorm")
        return numpy_norm(x, layer["scale"], layer["bias"])

    def layer_norm(self, x):
        layer, centered = self.next("LayerNorm"), x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)
        return centered / deviation * layer["scale"] + layer["bias"]

    def linear(self, x):
        layer = self.next("Linear")
        return x @ layer["kernel"] + layer.get("bias", 0)


def numpy_convnet(layers, x, depth=3):
    for _ in range(depth):
        x = numpy_pool(relu(layers.norm(layers.conv(x))), np.mean)
    return x.reshape(len(x), -1)


def numpy_alexnet(layers, x):
    for padding, pool in ((2, True), (2, True), (1, False), (1, False), (1, True)):
        x = relu(layers.conv(x, padding=padding))
        x = numpy_pool(x, np.max) if pool else x
    return x.reshape(len(x), -1)


def numpy_vgg11(layers, x):
    for convolutions in (1, 1, 2, 2, 2):
        for _ in range(convolutions):
            x = relu(layers.norm(layers.conv(x)))
        x = numpy_pool(x, np.max)
    return x.mean((1, 2))


def numpy_resnet18(layers, x):
    x = relu(layers.norm(layers.conv(x)))
    for stride in (1, 1, 2, 1, 2, 1, 2, 1):
        y = relu(layers.norm(layers.conv(x, stride)))
        y = layers.norm(layers.conv(y))
        x = layers.norm(layers.conv(x, stride, padding=0)) if stride == 2 else x
        x = relu(x + y)
    return x.mean((1, 2))


def numpy_vit(layers, x, depth=2, patch=4):
    b, h, w, _ = x.shape
    patches = [
        x[:, i : i + patch, j : j + patch].reshape(b, -1)
        for i in range(0, h, patch)
        for j in range(0, w, patch)
    ]
    x = layers.linear(np.stack(patches, 1))
    token = np.broadcast_to(layers.params["class_token"], (b, 1, 512))
    x = np.concatenate([token, x], 1) + layers.params["position"]
    for _ in range(depth):
        qkv = layers.linear(layers.layer_norm(x))
        heads = []
        for i in range(8):
            q, k, v = (qkv[..., 512 * j + 64 * i : 512 * j + 64 * (i + 1)] for j in range(3))
            heads.append(scipy.special.softmax(q @ k.swapaxes(1, 2) / 8, -1) @ v)
        x = x + layers.linear(np.concatenate(heads, -1))
        y = layers.linear(layers.layer_norm(x))
        x = x + layers.linear(y * scipy.stats.norm.cdf(y))
    return layers.layer_norm(x[:, 0])


def test_dropout_where_the_published_transformer_has_it():
    """By networks whose features tell by their digits which of their parts were dropped."""
    network = network_of("vit", 128, depth=1)
    params = jax.tree.map(
        lambda s: np.zeros(s.shape, s.dtype), jax.eval_shape(network.init, jax.random.key(0))
    )
    body = params["body"]
    body["class_token"] += 0.9  # embeddings
    body["Linear_2"]["bias"] += 9  # attention
    body["Linear_3"]["bias"] += 30  # hidden; so large, GELU is the identity
    body["Linear_4"]["kernel"] += 81 / 30 * np.eye(512, dtype=np.float32)
    params["Linear_0"]["kernel"] += np.eye(512, 10, dtype=np.float32)
    apply = jax.jit(network.apply)
    images = np.zeros((16, 128, 128, 3), np.float32)
    np.testing.assert_allclose(apply(params, images), 90.9, atol=1e-3)
    logits = np.asarray(apply(params, images, jax.random.key(1)))
    digits = np.rint(logits).astype(int)
    np.testing.assert_allclose(logits, digits, atol=1e-3)
    for place, kept in ((1, 0.9), (10, 0.9), (100, 0.81)):  # the MLP drops twice
        part = digits // place % 10
        assert set(part.ravel()) == {0, 1}
        assert part.mean() == pytest.approx(kept, abs=0.07)


def network_of(name, size=32, **options):
    return build(name, image_shape=(size, size, 3), num_classes=10, **options)


def any_params(network, seed=0):
    """Returns random parameters of the right shapes, including norms' scales and shifts."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape) / math.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return np.float32(value + (path[-1].key == "scale"))

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(network.init, jax.random.key(0)))


@pytest.mark.parametrize(
    "name, forward, options, tolerance",
    [
        ("convnet", numpy_convnet, dict(width=16), 3e-5),
        ("alexnet", numpy_alexnet, dict(conv="lax"), 3e-5),
        ("vgg11", numpy_vgg11, dict(conv="lax"), 1e-3),
        ("resnet18", numpy_resnet18, dict(conv="lax"), 1e-3),
        ("vit", numpy_vit, dict(depth=2), 3e-5),
    ],
)
def test_network_in_numpy(name, forward, options, tolerance):
    network = network_of(name, **options)
    params = any_params(network)
    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3))
    wide = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    expected = forward(Layers(wide["body"]), images)
    expected = expected @ wide["Linear_0"]["kernel"] + wide["Linear_0"]["bias"]
    logits = jax.jit(network.apply)(params, np.float32(images))
    assert logits.dtype == jnp.float32
    assert relative(logits, expected) < tolerance


@pytest.mark.parametrize("name, options", [("convnet", {}), ("vit", dict(depth=1))])
def test_initial_parameters(name, options):
    network = network_of(name, **options)
    params = network.init(jax.random.key(3))
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        *_, layer, kind = ["", *(entry.key for entry in path)]
        assert value.dtype == jnp.float32
        if "Norm" in layer:
            assert np.all(value == (kind == "scale"))
        elif kind in ("class_token", "position"):
            assert scipy.stats.kstest(np.ravel(value), "norm").pvalue > 1e-4
        else:
            owner = params
            for entry in path[:-1]:
                owner = owner[entry.key]
            bound = 1 / math.sqrt(np.prod(owner["kernel"].shape[:-1]))
            assert np.abs(value).max() <= bound
            drawn = np.ravel(value)[:20_000]
            assert scipy.stats.kstest(drawn, "uniform", (-bound, 2 * bound)).pvalue > 1e-4
    again, other = (jax.tree.leaves(network.init(jax.random.key(seed))) for seed in (3, 4))
    same = [[np.array_equal(*pair) for pair in zip(jax.tree.leaves(params), o, strict=True)]
            for o in (again, other)]  # fmt: skip
    assert all(same[0]) and not all(same[1])


@pytest.mark.parametrize("height, width, size", [(4, 4, 7), (7, 7, 7), (9, 15, 7), (5, 3, 2)])
def test_adaptive_max_pooling(height, width, size):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    actual = np.asarray(jax.jit(adaptive_max_pool, static_argnums=1)(x, size))
    for i in range(size):
        for j in range(size):
            rows = slice(math.floor(i * height / size), math.ceil((i + 1) * height / size))
            columns = slice(math.floor(j * width / size), math.ceil((j + 1) * width / size))
            np.testing.assert_array_equal(actual[:, i, j], x[:, rows, columns].max((1, 2)))


@pytest.mark.parametrize(
    "name, size, count, features",
    [
        ("convnet", 32, 320_010, 2048),
        ("convnet", 128, 615_690, 2048),
        ("alexnet", 32, 1_872_202, 3072),
        ("alexnet", 128, 2_333_002, 49152),
        ("vgg11", 128, 9_476_874, 25088),
        ("resnet18", 32, 11_173_962, 512),
        ("vit", 32, 9_523_722, 512),
        ("vit", 128, 16_176_650, 512),
    ],
)
def test_parameter_count_and_shapes(name, size, count, features):
    network = network_of(name, size)
    params = jax.eval_shape(network.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    images = jax.ShapeDtypeStruct((5, size, size, 3), jnp.float32)
    assert jax.eval_shape(network.features, params, images).shape == (5, features)


def test_several_networks_at_once_and_as_vectors():
    network = network_of("convnet", 8, width=16, depth=2)
    params = [any_params(network, seed) for seed in range(3)]
    vectors = np.stack([np.concatenate([*map(np.ravel, jax.tree.leaves(p))]) for p in params])
    _, unravel = ravel_pytree(params[0])
    images = np.random.default_rng(1).normal(size=(4, 8, 8, 3))
    run = jax.jit(jax.vmap(lambda vector, x: network.features(unravel(vector), x), (0, None)))
    features = np.asarray(run(vectors, np.float32(images)))
    for i in range(3):
        expected = numpy_convnet(Layers(params[i]["body"]), images, depth=2)
        assert relative(features[i], expected) < 3e-5


@pytest.mark.parametrize(
    "name, forward, options",
    [("convnet", numpy_convnet, dict(width=16)), ("vit", numpy_vit, dict(depth=2))],
)
def test_bfloat16_is_near_float64(name, forward, options):
    network = network_of(name, precision="bfloat16", **options)
    params = any_params(network)
    images = np.random.default_rng(1).normal(size=(4, 32, 32, 3))
    actual = jax.jit(network.features)(params, np.float32(images))
    assert actual.dtype == jnp.float32
    assert 1e-4 < relative(actual, forward(Layers(params["body"]), images)) < 0.1
    loss = lambda p, x: network.apply(p, x).sum()
    gradient = jax.eval_shape(jax.grad(loss), params, np.float32(images))
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}


@pytest.mark.usefixtures("fully_compiled")
def test_gradient_of_the_same_bits_every_time():
    """Includes a bias without effect, whose gradient is exactly zero."""
    network = network_of("convnet", 16, width=16, depth=2)
    params = any_params(network)
    images = np.float32(np.random.default_rng(1).normal(size=(64, 16, 16, 3)))
    function = jax.jit(jax.grad(lambda p, x: jnp.sin(network.apply(p, x)).sum()))
    first = function(params, images)
    for _ in range(3):
        again = jax.tree.leaves(function(params, images))
        for a, b in zip(jax.tree.leaves(first), again, strict=True):
            assert np.array_equal(a, b)
    assert not np.any(first["body"]["Conv_0"]["bias"])
    assert np.any(first["body"]["Conv_0"]["kernel"])
    assert np.any(first["Linear_0"]["bias"])


def test_refused_images():
    network = network_of("convnet", width=16)
    with pytest.raises(ValueError, match="built for"):
        jax.eval_shape(network.apply, any_params(network), np.zeros((1, 16, 16, 3), np.float32))


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("lenet", {}, "config.network.name: expected one of .*'lenet'"),
        ("convnet", dict(precision="half"), "unknown precision 'half'"),
        ("convnet", dict(conv="fft"), "unknown convolution 'fft'"),
        ("convnet", dict(depth=6), "64 pixels"),
        ("convnet", dict(depth=17), r"options.depth: expected an integer from 0 to 16, got 17$"),
        ("convnet", dict(width=8.0), r"config.network.options.width: expected .*, got 8.0$"),
        ("convnet", dict(wide=8), "unknown option 'wide'; convnet has depth, width$"),
        ("resnet18", dict(width=64), "network.options: unknown option 'width'; resnet18 has none$"),
        ("vgg11", dict(size=16), "32 pixels"),
        ("vit", dict(size=28), "patches of 3 pixels"),
    ],
)
def test_refused_settings(name, options, message):
    with pytest.raises(UsageError, match=message):
        network_of(name, **options)


@pytest.mark.parametrize(
    "name, size, depths",
    [("convnet", 32, (3, 0)), ("convnet", 64, (4, 0)), ("vit", 32, (6, 0)), ("vit", 128, (10, 0))],
)
def test_depth_by_resolution(name, size, depths):
    assert network_of(name, size, depth=depths[0]) == network_of(name, size, depth=depths[1])
    assert network_of(name, size) == network_of(name, size, depth=0)
    assert network_of(name, size) != network_of(name, size, depth=1)
