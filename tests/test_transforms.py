"""Tests normalization and ZCA against float64 NumPy, and the file of a fitted ZCA."""

import inspect
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import PartitionSpec

from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import transforms
from gsdd_jax.data.transforms import ZCA, Normalize, cached_zca, fit_zca, to_unit
from gsdd_jax.formats import transforms as host

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SHAPE = (6, 5, 3)
SIZE = 90


def photographs(num, seed=0, shape=SHAPE):
    """Returns bytes with correlated pixels: smooth images, noise, and a nearly constant channel."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(num, 2, 2, 3)).repeat(3, axis=1).repeat(3, axis=2)
    images = 120 + 60 * coarse[:, : shape[0], : shape[1]] + 15 * rng.normal(size=(num, *shape))
    images[..., 2] = 40 + images[..., 2] / 50
    return np.clip(images, 0, 255).astype(np.uint8)


def flat(images):
    """Returns the images as [n, d] in [0, 1], float64."""
    return images.reshape(len(images), -1).astype(np.float64) / 255


def covariance(rows):
    """Returns the unbiased covariance, without NumPy's own function."""
    centered = rows - rows.sum(axis=0) / len(rows)
    return centered.T @ centered / (len(rows) - 1)


@pytest.fixture(scope="module")
def images():
    return photographs(2500)


@pytest.fixture(scope="module")
def zca(images):
    return fit_zca(images)


@pytest.fixture
def fits(monkeypatch):
    """Returns a list with one entry per fit."""
    calls, fit = [], host.fit_zca
    monkeypatch.setattr(host, "fit_zca", lambda images: calls.append(0) or fit(images))
    return calls


def same(a, b):
    return np.array_equal(a.mean, b.mean) and np.array_equal(a.whitening, b.whitening)


def test_to_unit():
    every = np.arange(256, dtype=np.uint8).reshape(2, 8, 16, 1)
    unit = to_unit(every)
    assert unit.dtype == jnp.float32 and isinstance(unit, jax.Array)
    np.testing.assert_allclose(unit, every.astype(np.float64) / 255, rtol=1e-7)
    np.testing.assert_array_equal(jax.jit(to_unit)(jnp.asarray(every)), unit)
    with pytest.raises(ValueError, match="float32 images, expected uint8"):
        inspect.unwrap(to_unit)(unit)


def test_normalize():
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2023, 0.1994, 0.2010])
    normalize = Normalize(*jax.device_put((np.float32(mean), np.float32(std))))
    x = np.random.default_rng(0).random((4, 2, 6, 5, 3)).astype(np.float32)
    there_and_back = jax.jit(lambda x: (normalize(x), normalize.inverse(normalize(x))))
    for lead in (x, x[0], x[0, 0]):
        there, back = there_and_back(lead)
        np.testing.assert_allclose(there, (lead - mean) / std, atol=2e-6)
        np.testing.assert_allclose(back, lead, atol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: normalize(x).sum()))(x)
    np.testing.assert_allclose(gradient, np.broadcast_to(1 / std, x.shape), rtol=1e-6)


def test_fit_is_the_definition(images, zca):
    rows = flat(images)
    variances, directions = np.linalg.eigh(covariance(rows))
    expected = directions @ np.diag((variances + 0.1) ** -0.5) @ directions.T
    assert zca.mean.dtype == zca.whitening.dtype == jnp.float32
    np.testing.assert_allclose(zca.mean, rows.mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(zca.whitening, expected, atol=2e-6)
    assert np.array_equal(zca.whitening, zca.whitening.T)


@pytest.mark.parametrize("num", [2, 1025])
def test_every_image_counts_once(num):
    images = photographs(num, seed=num, shape=(2, 2, 3))
    expected = np.linalg.inv(covariance(flat(images)) + 0.1 * np.eye(12))
    square = np.asarray(fit_zca(images).whitening, np.float64) @ fit_zca(images).whitening
    np.testing.assert_allclose(square, expected, atol=2e-5)


def test_covariance_is_summed_in_whole_numbers(monkeypatch):
    """Uses black images with a few bytes of 1: float32 could not hold longer sums."""
    pixels = np.random.default_rng(0).integers(0, 2, (8192, 6))
    seen, eigh = [], np.linalg.eigh
    monkeypatch.setattr(
        np.linalg, "eigh", lambda matrix: seen.append(matrix.copy()) or eigh(matrix)
    )
    fit_zca(pixels.astype(np.uint8).reshape(-1, 2, 1, 3))
    total = pixels.sum(axis=0)
    exact = (8192 * pixels.T @ pixels - np.outer(total, total)) / (8192 * 8191 * 255**2)
    np.testing.assert_allclose(seen[0], exact, rtol=1e-11, atol=1e-11 * exact.max())


def test_fit_does_not_depend_on_the_order_of_the_images(images, zca):
    order = np.random.default_rng(0).permutation(len(images))
    assert same(fit_zca(images[order]), zca)


@pytest.mark.parametrize("lead", [(), (7,), (2, 3)])
def test_zca_forward_inverse_and_gradient(zca, lead):
    rng = np.random.default_rng(1)
    x = np.float32(rng.random((*lead, *SHAPE)))
    g = np.float32(rng.normal(size=x.shape))
    mean, matrix = (np.asarray(a, np.float64) for a in (zca.mean, zca.whitening))

    @jax.jit
    def everything(x, g):
        y, pullback = jax.vjp(zca.__call__, x)
        return y, pullback(g)[0], zca.inverse(y), zca.inverse(g)

    y, pulled, inverse_y, inverse_g = everything(x, g)
    assert y.shape == x.shape and y.dtype == jnp.float32
    expected = np.einsum("ij,...j->...i", matrix, np.reshape(x, (*lead, SIZE)) - mean)
    np.testing.assert_allclose(np.reshape(y, (*lead, SIZE)), expected, atol=5e-6)

    expected = np.einsum("ji,...j->...i", matrix, np.reshape(g, (*lead, SIZE)))
    np.testing.assert_allclose(np.reshape(pulled, (*lead, SIZE)), expected, atol=5e-6)

    np.testing.assert_allclose(inverse_y, x, atol=5e-6)
    expected = np.linalg.solve(matrix, np.reshape(g, (-1, SIZE)).T).T + mean
    np.testing.assert_allclose(np.reshape(inverse_g, (-1, SIZE)), expected, atol=1e-5)


def test_products_are_of_full_precision(zca):
    """Checks the precision: a GPU would otherwise round factors to ten bits."""
    jaxpr = str(jax.make_jaxpr(jax.grad(lambda x: (zca(x) ** 2).sum()))(jnp.zeros((2, *SHAPE))))
    assert jaxpr.count("dot_general[") == jaxpr.count("Precision.HIGHEST, ") == 2


def test_transforms_are_pytrees(images, zca):
    normalize = Normalize(jnp.array([0.1, 0.2, 0.3]), jnp.array([1.0, 2.0, 4.0]))
    x = to_unit(images[:3])
    call = jax.jit(lambda transform, x: transform(x))
    for transform, names in ((normalize, ["mean", "std"]), (zca, ["mean", "whitening"])):
        np.testing.assert_allclose(call(transform, x), transform(x), atol=2e-6)
        paths = jax.tree_util.tree_flatten_with_path(transform)[0]
        assert [jax.tree_util.keystr(path) for path, _ in paths] == [f".{n}" for n in names]
        stacked = jax.tree.map(lambda a: jnp.stack([a, a]), transform)
        both = jax.vmap(lambda t: t(x))(stacked)
        np.testing.assert_allclose(both[1], transform(x), atol=2e-6)
        shapes = jax.eval_shape(lambda t: t, transform)
        assert shapes.mean.shape == transform.mean.shape
        mesh = jax.sharding.Mesh(jax.devices()[:1], ("devices",))
        specs = (PartitionSpec(), PartitionSpec("devices"))
        sharded = jax.shard_map(lambda t, x: t(x), mesh=mesh, in_specs=specs, out_specs=specs[1])
        np.testing.assert_allclose(sharded(transform, x), transform(x), atol=2e-6)
        with pytest.raises(AttributeError):
            transform.mean = 0
    # Same structure, other values: nothing is compiled again.
    call(jax.tree.map(lambda a: 2 * a, zca), x)
    assert call._cache_size() == 2


def test_zca_of_other_images(zca):
    for shape in [(2, 6, 5, 1), (2, 5, 5, 3)]:
        for call in (zca, zca.inverse):
            with pytest.raises(UsageError, match=r"expected shape \[..., 6, 5, 3\], channels last"):
                call(jnp.zeros(shape))


@pytest.mark.parametrize("fit", [fit_zca, lambda images: cached_zca(images, "a")])
def test_images_that_zca_does_not_take(fit, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"128x128x3 images: 49152 .* at most 12288"):
        fit(np.zeros((2, 128, 128, 3), np.uint8))
    with pytest.raises(UsageError):
        fit(np.zeros((2, 12289, 1, 1), np.uint8))
    with pytest.raises(ValueError, match="two or more"):
        fit(np.zeros((1, 4, 4, 3), np.uint8))
    unchecked = inspect.unwrap(fit_zca)
    with pytest.raises(ValueError, match="float32 images"):
        unchecked(np.zeros((3, 4, 4, 3), np.float32))
    with pytest.raises(ValueError, match="expected two or more uint8"):
        unchecked(np.zeros((3, 48), np.uint8))


def test_cache_keeps_one_file_for_each_content(images, zca, fits, tmp_path):
    assert same(cached_zca(images, "0a", tmp_path), zca)
    assert same(cached_zca(images, "0a", tmp_path), zca)
    assert len(fits) == 1
    other = cached_zca(images[:50], "0b", tmp_path / "deep" / "er")
    assert len(fits) == 2 and not same(other, zca)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == ["deep/er/zca-0b.safetensors", "zca-0a.safetensors"]


def test_default_cache_directory(images, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    cached_zca(images[:9], "a")
    assert (tmp_path / ".cache" / "gsdd_jax" / "zca-a.safetensors").is_file()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    cached_zca(images[:9], "b")
    assert (tmp_path / "xdg" / "gsdd_jax" / "zca-b.safetensors").is_file()


RIGHT = {"gsdd_jax.zca.1": "a"}
TENSORS = {"mean": np.zeros(SIZE, np.float32), "whitening": np.eye(SIZE, dtype=np.float32)}


FOREIGN = [
    (TENSORS, None),
    (TENSORS, {"another": "a"}),
    (TENSORS, {"gsdd_jax.zca.1": "b"}),
    ({"mean": TENSORS["mean"]}, RIGHT),
    ({**TENSORS, "mean": np.zeros(SIZE)}, RIGHT),
    ({**TENSORS, "whitening": np.eye(SIZE - 1, dtype=np.float32)}, RIGHT),
    ({k: v[..., :12] for k, v in TENSORS.items()}, RIGHT),
]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-100],
        lambda content: b"",
        lambda content: b"\xff" * 5000,
        lambda content: content[: 8 + int.from_bytes(content[:8], "little")],
        *(lambda _, foreign=foreign: safetensors.numpy.save(*foreign) for foreign in FOREIGN),
    ],
)
def test_a_damaged_or_foreign_file_is_replaced(images, fits, tmp_path, damage):
    images = images[:20]
    path = tmp_path / "zca-a.safetensors"
    expected = cached_zca(images, "a", tmp_path)
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert same(cached_zca(images, "a", tmp_path), expected)
    assert len(fits) == 2 and path.read_bytes() == content
    assert os.listdir(tmp_path) == [path.name]


def test_an_intact_file_is_what_is_returned(images, fits, tmp_path):
    (tmp_path / "zca-a.safetensors").write_bytes(safetensors.numpy.save(TENSORS, RIGHT))
    assert same(cached_zca(images, "a", tmp_path), ZCA(*map(jnp.asarray, TENSORS.values()), SHAPE))
    assert not fits


def test_without_a_writable_cache_nothing_is_kept(images, zca, fits, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        assert same(cached_zca(images, "a", tmp_path / "file" / "sub"), zca)
    assert len(fits) == 2
    (tmp_path / "zca-a.safetensors").mkdir()  # a directory of the file's name
    assert same(cached_zca(images, "a", tmp_path), zca)
    assert sorted(os.listdir(tmp_path)) == ["file", "zca-a.safetensors"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_nothing_behind(images, zca, tmp_path, monkeypatch, failing):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, failing, full)
    assert same(cached_zca(images, "a", tmp_path), zca)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fingerprint", ["", "../up", "a/b", "é", "a\n"])
def test_fingerprint_is_part_of_a_file_name(images, tmp_path, fingerprint):
    with pytest.raises(ValueError, match="fingerprint"):
        cached_zca(images, fingerprint, tmp_path)


@pytest.mark.parametrize("count", [1, 3, 4, 11])
def test_real_images_are_whitened_once_each(monkeypatch, count):
    """Whitens in parts of four: as float64, with the same bits wherever an image is drawn."""
    monkeypatch.setattr(transforms, "_WHITENED_AT_ONCE", 4)
    images = photographs(30)
    zca = fit_zca(images)
    real = transforms.to_device(images[-count:], zca)
    assert real.stored.dtype == jnp.float32
    mean, whitening = (np.asarray(a, np.float64) for a in (zca.mean, zca.whitening))
    expected = ((flat(images[-count:]) - mean) @ whitening).reshape(-1, *SHAPE)
    np.testing.assert_allclose(real.stored, expected, rtol=1e-4, atol=1e-5)
    for indices in ([[count - 1]], [0, count // 2, 0]):
        drawn = jax.jit(lambda real, indices: real[indices])(real, jnp.array(indices))
        np.testing.assert_array_equal(drawn, np.asarray(real.stored)[np.array(indices)])


def test_what_is_not_worth_keeping_is_transformed_as_it_is_drawn(monkeypatch):
    images = photographs(12)
    zca = fit_zca(images)
    normalize = Normalize(jnp.full(3, 0.5), jnp.full(3, 0.25))
    kept = transforms.to_device(images, zca)
    monkeypatch.setattr(transforms, "MOST_WHITENED", 4 * images.size - 1)
    for transform, real in (
        (normalize, transforms.to_device(images, normalize)),
        (zca, transforms.to_device(images, zca)),
    ):
        np.testing.assert_array_equal(real.stored, images)
        np.testing.assert_allclose(real[jnp.arange(3)], transform(to_unit(images[:3])), atol=1e-5)
    np.testing.assert_allclose(kept[jnp.arange(3)], real[jnp.arange(3)], atol=1e-5)
