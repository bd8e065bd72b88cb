"""Tests what images share in `rtp`, `haba` and `nsd`: starts, sizes, and what partners show."""

import dataclasses

import jax
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import parameterizations
from gsdd_jax.report import gallery
from tests.test_parts import made, read_again

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.mark.parametrize("images", [40, 5])
def test_bases_begin_as_principal_components(images):
    """Compares the error with that of NumPy's SVD: no bases are better."""
    kind = parameterizations.build("rtp", (8, 12, 3), ipc=4, images_per_class=0, bases=7)
    real = np.random.default_rng(0).random((images, 8, 12, 3), np.float32)
    params = jax.jit(kind.init)(jax.random.key(0), real)
    small = np.float64(real).reshape(images, 4, 2, 6, 2, 3).mean((2, 4)).reshape(images, -1)
    found = np.float64(params["addresses"]) @ np.float64(params["bases"]).reshape(7, -1)
    best = (np.linalg.svd(small, compute_uv=False)[7:] ** 2).sum()
    assert ((found - small) ** 2).sum() == pytest.approx(best, rel=1e-4, abs=1e-6)
    squares = (np.asarray(params["bases"]).reshape(7, -1) ** 2).mean(1)
    assert (squares > 0.5).all() and (squares < 2).all()  # all can be learned


RTP, HABA = ("rtp", ("bases",)), ("haba", ("hallucinators", "base_channels"))
NSD = ("nsd", ("kernels", "rank", "size"))


@pytest.mark.parametrize(
    ("of", "ipc", "side", "options", "expected"),
    [
        (RTP, 1, 32, {}, (16, 115)), (RTP, 10, 32, {}, (74, 338)), (RTP, 1, 128, {}, (37, 99)),
        # 10 · 3072 numbers, of which a hallucinator takes 5514 of one channel, 5568 of three.
        (HABA, 1, 32, {}, (3, 1, 3)), (HABA, 1, 32, {"dtype": "bfloat16"}, (5, 3, 5)),
        (HABA, 10, 32, {}, (5, 3, 45)), (HABA, 10, 32, {"base_channels": 1}, (5, 1, 135)),
        # One of the kernels takes 2 · 32 · 6 + 3 · 26 numbers, a tensor 6 · 6 · 26.
        (NSD, 1, 32, {}, (46, 26, 6, 46)), (NSD, 50, 32, {}, (459, 420, 12, 459)),
        (NSD, 1, 32, {"kernels": 5, "rank": 9}, (5, 9, 6, 40)),
    ],
)  # fmt: skip
def test_sizes_in_a_budget_of_ten_classes(of, ipc, side, options, expected):
    name, fields = of
    kind = parameterizations.build(
        name, (side, side, 3), ipc=ipc, images_per_class=0, num_classes=10, **options
    )
    assert tuple(getattr(kind, field) for field in (*fields, "images_per_class")) == expected


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("rtp", (8, 12, 3), {"factor": 5}, "rtp: factor: expected a divisor of .* got 5"),
        ("haba", (8, 2, 3), {}, "haba: expected images of at least 3 x 3 pixels, got 8 x 2"),
        ("nsd", (8, 12, 3), {"size": 9}, "nsd: size: expected at most the sides .* 8 x 12 .* 9"),
        ("haba", (8, 12, 3), {"base_channels": 2}, "haba: base_channels: expected 1 or 3, .* 2"),
    ],
)
def test_settings_that_do_not_suit_the_images(name, shape, options, message):
    with pytest.raises(gsdd_jax.UsageError, match=message):
        parameterizations.build(name, shape, ipc=8, images_per_class=0, **options)


def hallucinated(params, base, which):
    """Computes an image in float64: every feature is added to the pixels that it reaches."""
    of = {name: np.float64(array[which]) for name, array in params.items()}
    height, width, channels = *base.shape[:2], of["decoder_bias"].size
    image = np.zeros((height, width, channels)) + of["decoder_bias"]
    for y in range(height - 2):
        for x in range(width - 2):
            window = np.float64(base[y : y + 3, x : x + 3]).reshape(-1)
            feature = window @ of["encoder"].reshape(len(window), -1) + of["encoder_bias"]
            feature = of["scale"][y, x] * feature + of["shift"][y, x]
            reached = image[y : y + 3, x : x + 3]
            reached += np.einsum("i,abio->abo", feature, of["decoder"][::-1, ::-1])
    return image


@pytest.mark.parametrize("base_channels", [1, 3])
def test_every_base_is_shown_by_every_hallucinator(tmp_path, base_channels):
    """Compares with float64, also for a number of images that no whole bases show."""
    options = {"hallucinators": 2, "base_channels": base_channels}
    set_ = made("haba", options)
    rng = np.random.default_rng(0)
    arrays = {n: np.float32(a + rng.normal(0, 0.3, a.shape)) for n, a in set_.arrays.items()}
    bases = arrays["bases"]
    kind = parameterizations.of_format(set_.format)
    params = kind.from_arrays(arrays)
    shown = np.asarray(jax.jit(kind.render)(params))
    shared = {name: array for name, array in arrays.items() if name != "bases"}
    expected = [hallucinated(shared, base, which) for base in bases for which in range(2)]
    assert len(shown) == len(expected) == 3 * kind.images_per_class
    np.testing.assert_allclose(shown, expected, atol=1e-4)
    if base_channels == 1:
        set_ = parameterizations.stored(kind, params, set_.labels, 0.02, set_.provenance)
        cut = read_again(tmp_path / "cut", gsdd_jax.subset(set_, ["c"], images_per_class=3))
        assert len(cut.arrays["bases"]) == 2
        images = set_.images().reshape(3, kind.images_per_class, 16, 12, 3)
        np.testing.assert_array_equal(cut.images(), images[2, :3])
        some = gallery.chosen(set_, 3)
        np.testing.assert_array_equal(some.images(), images[:, :3].reshape(-1, 16, 12, 3))


def test_hallucinators_begin_by_showing_real_images():
    kind = parameterizations.build("haba", (16, 16, 3), ipc=20, images_per_class=0, hallucinators=3)
    real = np.random.default_rng(0).random((kind.images_per_class, 16, 16, 3), np.float32)
    shown = np.asarray(jax.jit(lambda real: kind.render(kind.init(jax.random.key(0), real)))(real))[
        :, 1:-1, 1:-1
    ]
    far = np.abs(shown - np.repeat(real[::3], 3, 0)[:, 1:-1, 1:-1])
    assert 0.005 < far.mean() < 0.1
    assert np.abs(shown[0] - shown[1]).mean() > 0.005


def product(tensor, rows, columns, colors):
    """Computes an image in float64, one number of the spectrum tensor after the other."""
    image = np.zeros((len(rows), len(columns), len(colors)))
    for (y, x, r), value in np.ndenumerate(np.float64(tensor)):
        lines = np.multiply.outer(np.float64(rows[:, y]), columns[:, x])
        image += value * np.multiply.outer(lines, np.float64(colors[:, r]))
    return image


def test_every_spectrum_tensor_is_shown_by_every_kernel(tmp_path):
    set_ = made("nsd", {"kernels": 3, "rank": 4})
    rng = np.random.default_rng(0)
    arrays = {n: np.float32(rng.normal(0, 1, a.shape)) for n, a in set_.arrays.items()}
    kind = parameterizations.of_format(set_.format)
    assert kind.images_per_class > kind.kernels
    shown = np.asarray(jax.jit(kind.render)(kind.from_arrays(arrays)))
    kernels = list(zip(*(arrays[name] for name in ("rows", "columns", "colors")), strict=True))
    expected = [product(tensor, *kernel) for tensor in arrays["tensors"] for kernel in kernels]
    np.testing.assert_allclose(shown, expected, atol=1e-4)
    set_ = dataclasses.replace(set_, arrays=arrays)
    cut = read_again(tmp_path / "cut", gsdd_jax.subset(set_, ["c"], images_per_class=2))
    assert len(cut.arrays["tensors"]) == 1
    first = 2 * kind.images_per_class
    np.testing.assert_array_equal(cut.images(), set_.images()[first : first + 2])


def test_tensors_and_kernels_begin_as_a_decomposition_of_real_images():
    """Finds the same images by projection on singular vectors of NumPy; full ranks are exact."""
    real = np.random.default_rng(0).random((12, 8, 12, 3), np.float32).cumsum(1)
    build = lambda **options: parameterizations.build(
        "nsd", (8, 12, 3), ipc=8, images_per_class=0, num_classes=2, **options
    )
    for rank, size in ((5, 4), (18, 8)):
        kind = dataclasses.replace(build(kernels=6, rank=rank, size=size), images_per_class=6)
        params = jax.jit(kind.init)(jax.random.key(0), real)
        left = [np.linalg.svd(np.moveaxis(np.float64(real), axis, 0).reshape(side, -1))[0][:, :size]
                for axis, side in ((1, 8), (2, 12))]  # fmt: skip
        kept = np.einsum(
            "mhwc,hy,iy,wx,jx->mijc", np.float64(real), left[0], left[0], *left[1:] * 2
        )
        flat = np.moveaxis(kept.reshape(2, 6, 8, 12, 3), (1, 4), (0, 1)).reshape(18, -1)
        u, s, v = np.linalg.svd(flat, full_matrices=False)
        flat = (u[:, :rank] * s[:rank]) @ v[:rank]
        expected = np.moveaxis(flat.reshape(6, 3, 2, 8, 12), (0, 1), (1, 4)).reshape(real.shape)
        np.testing.assert_allclose(jax.jit(kind.render)(params), expected, atol=2e-4)
    assert np.abs(kept - real).max() > 0.01  # eight of twelve columns
