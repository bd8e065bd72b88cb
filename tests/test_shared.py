"""Tests what images share in `rtp`, `haba`, `speed`, `nsd` and `hmn`: starts, sizes, images."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
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
HMN = ("hmn", ("factor", "image_channels", "features"))
SPEED = ("speed", ("patch", "epitomes", "epitome_width", "heads", "blocks", "nonzero"))


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
        # An image takes 16 · 4 numbers, a class 16 · 8 + 8 · 8, the decoder 6160, all of them 128.
        (HMN, 1, 32, {}, (8, 4, 8, 35)), (HMN, 50, 32, {}, (8, 28, 56, 297)),
        (HMN, 1, 32, {"dtype": "bfloat16"}, (8, 6, 12, 48)), (HMN, 1, 128, {}, (16, 4, 8, 183)),
        # Published, also the images per class.
        (SPEED, 1, 32, {}, (4, 16, 32, 2, 1, 48, 17)),
        (SPEED, 10, 32, {}, (4, 64, 96, 3, 1, 48, 124)),
        (SPEED, 50, 32, {}, (4, 64, 192, 6, 3, 48, 272)),
        (SPEED, 1, 128, {}, (8, 256, 192, 4, 2, 192, 15)),
        (SPEED, 10, 128, {}, (8, 256, 384, 6, 2, 384, 111)),
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
        ("hmn", (8, 12, 3), {"factor": 5}, "hmn: factor: expected a divisor of .* got 5"),
        ("speed", (8, 12, 3), {"patch": 5}, "patch: expected a divisor of .* 8 and 12, got 5"),
        ("speed", (8, 12, 3), {"heads": 3}, "heads: expected a divisor of epitome_width, 32, .* 3"),
        ("speed", (8, 12, 3), {"nonzero": 97}, "nonzero: expected at most 96, .* got 97"),
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


def decoded(arrays, kind, which):
    """Computes an image of `hmn` in float64, cell by cell."""
    of = {name: np.float64(array) for name, array in arrays.items()}
    class_, side = which // kind.images_per_class, kind.factor
    own, (rows, columns) = of["of_images"][which], kind.cells
    image = np.zeros(kind.image_shape)
    for y, x in np.ndindex(rows, columns):
        hidden = of["hidden_bias"].copy()
        for i, j in np.ndindex(3, 3):
            at = y + i - 1, x + j - 1
            if min(at) >= 0 and at[0] < rows and at[1] < columns:
                extracted = of["extractors"][class_].T @ of["of_data_set"][at]
                joined = [*extracted, *of["of_classes"][class_][at], *own[at]]
                hidden += of["hidden"][i, j].T @ joined
        hidden = np.where(hidden < 0, hidden / 5, hidden)
        patch = (of["pixels"].T @ hidden + of["pixels_bias"]).reshape(side, side, -1)
        image[y * side :, x * side :][:side, :side] = patch
    return image


def test_a_decoder_shows_memories_of_three_levels():
    set_ = made("hmn")
    rng = np.random.default_rng(0)
    arrays = {n: np.float32(a + rng.normal(0, 0.3, a.shape)) for n, a in set_.arrays.items()}
    kind = parameterizations.of_format(set_.format)
    some = (0, kind.images_per_class, len(set_.labels) - 1)
    expected = [decoded(arrays, kind, which) for which in some]
    shown = dataclasses.replace(set_, arrays=arrays).images()[list(some)]
    np.testing.assert_allclose(shown, expected, atol=2e-5)


def test_memories_begin_as_principal_components_of_patches():
    """Compares with singular vectors of NumPy: more of them show the class's mean image."""
    real = np.random.default_rng(0).random((12, 8, 12, 3), np.float32).cumsum(1)
    build = functools.partial(parameterizations.build, "hmn", (8, 12, 3), num_classes=2)
    kind = build(ipc=8, images_per_class=0, image_channels=3, features=5)
    kind = dataclasses.replace(kind, images_per_class=6)
    assert kind.factor == 4
    patches = np.float64(real).reshape(12, 2, 4, 3, 4, 3).swapaxes(2, 3).reshape(12, 6, 48)
    mean = patches.mean((0, 1))
    left = np.linalg.svd((patches - mean).reshape(-1, 48).T)[0]
    of_class = patches.reshape(2, 6, 6, 48).mean(1).repeat(6, 0)
    near = lambda x, count: x @ left[:, :count] @ left[:, :count].T
    expected = mean + near(of_class - mean, 5) + near(patches - of_class, 3)
    expected = expected.reshape(12, 2, 3, 4, 4, 3).swapaxes(2, 3).reshape(real.shape)
    shown = jax.jit(lambda real: kind.render(kind.init(jax.random.key(0), real)))(real)
    np.testing.assert_allclose(shown, expected, atol=2e-4)


def shown_by_network(arrays, kind, which):
    """Computes an image of `speed` in float64, patch by patch."""
    own = [arrays[name][which] for name in ("values", "patches", "atoms")]
    of = {name: np.float64(array) for name, array in arrays.items()}
    width, side = kind.epitome_width, kind.patch
    sums = np.zeros((kind.num_patches, width))
    for head in range(kind.heads):
        inside = slice(head * width // kind.heads, (head + 1) * width // kind.heads)
        for value, patch, atom in zip(*(array[head] for array in own), strict=True):
            sums[patch, inside] += value * of["tokens"][atom, inside]

    def norm(x, name, i):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-6) * of[name + "_scale"][i] + of[
            name + "_shift"
        ][i]

    image = np.zeros(kind.image_shape)
    for patch, sum_ in enumerate(sums):
        x = np.zeros(width)
        for i in range(kind.blocks):
            x = norm(x + of["mix"][i].T @ sum_ + of["mix_bias"][i], "norm_mixed", i)
            hidden = of["hidden"][i].T @ x + of["hidden_bias"][i]
            hidden = [0.5 * h * math.erfc(-h / math.sqrt(2)) for h in hidden]
            x = norm(x + of["out"][i].T @ hidden + of["out_bias"][i], "norm_out", i)
        pixels = (of["pixels"].T @ x + of["pixels_bias"]).reshape(side, side, -1)
        row, column = divmod(patch, kind.width // side)
        image[row * side :, column * side :][:side, :side] = pixels
    return image


@pytest.fixture(scope="module")
def sparse():
    """Returns a set of `speed` with random numbers, and its parameterization."""
    set_ = made("speed", {"blocks": 2})
    rng = np.random.default_rng(0)
    moved = {n: a for n, a in set_.arrays.items() if a.dtype.kind == "f"}
    moved = {n: np.float32(a + rng.normal(0, 0.3, a.shape)) for n, a in moved.items()}
    set_ = dataclasses.replace(set_, arrays=set_.arrays | moved)
    return set_, parameterizations.of_format(set_.format)


def test_a_network_shows_sparse_sums(tmp_path, sparse):
    set_, kind = sparse
    some = (0, 7, len(set_.labels) - 1)
    expected = [shown_by_network(set_.arrays, kind, which) for which in some]
    read = read_again(tmp_path / "set", set_)
    np.testing.assert_allclose(read.images()[list(some)], expected, atol=2e-5)
    images = np.asarray(parameterizations.images(read))[list(some)]
    np.testing.assert_allclose(images, expected, atol=2e-5)


def test_the_largest_codes_are_shown_and_learned(sparse):
    """Compares the stored codes with those sorted by NumPy, and the gradients' places."""
    set_, kind = sparse
    count = len(set_.labels)
    codes = np.random.default_rng(1).normal(size=(count, kind.heads, kind.num_codes))
    params = kind.from_arrays(set_.arrays)
    params["codes"] = jnp.float32(codes.reshape(params["codes"].shape))
    arrays = kind.to_arrays(params)
    flat = np.asarray(params["codes"]).reshape(codes.shape)
    places = np.sort(np.argsort(-np.abs(flat), -1)[..., : kind.nonzero], -1)
    np.testing.assert_array_equal(arrays["values"], np.take_along_axis(flat, places, -1))
    found = np.int64(arrays["patches"]) * kind.epitomes + arrays["atoms"]
    np.testing.assert_array_equal(found, places)
    slope = jax.jit(jax.grad(lambda p: (kind.render(p) ** 2).sum()))(params)["codes"]
    learned = np.zeros(codes.shape, bool)
    np.put_along_axis(learned, places, True, -1)
    np.testing.assert_array_equal(np.asarray(slope).reshape(codes.shape) != 0, learned)


def test_sparse_sums_begin_near_real_images():
    """Compares with patches of one color, which take as many numbers in 32 x 32 pixels."""
    kind = parameterizations.build("speed", (32, 32, 3), images_per_class=0, num_classes=10)
    noise = np.random.default_rng(0).normal(0, 0.1, (40, 32, 32, 3)).cumsum(1).cumsum(2)
    real = np.float32(0.5 + noise / noise.std() / 5)
    shown = jax.jit(lambda real: kind.render(kind.init(jax.random.key(0), real)))(real)
    gray = real.reshape(40, 8, 4, 8, 4, 3).mean((2, 4, 5))
    gray = gray.repeat(4, 1).repeat(4, 2)[..., None]
    assert kind.heads * kind.nonzero == 1.5 * kind.num_patches
    assert ((shown - real) ** 2).mean() < ((gray - real) ** 2).mean()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("atoms", lambda a, k: np.full_like(a, k.epitomes), "atoms: expected 0 to 7, got 8"),
        ("patches", lambda a, k: a + np.uint8(200), "patches: expected 0 to 11, got 2"),
        ("atoms", lambda a, k: a[..., ::-1], "patches, atoms: expected places in ascending order"),
        ("patches", lambda a, k: a * 0, "patches, atoms: expected places .* in 66 of 66 heads"),
        ("patches", lambda a, k: np.int32(a), r"patches: expected uint8 \[33, 2, 24\], .* int32"),
        ("values", lambda a, k: a * np.nan, "values: expected finite numbers, got 1584 that"),
        ("tokens", lambda a, k: a[1:], r"tokens: expected float32 \[8, 16\], .* \[7, 16\]"),
    ],
)
def test_forged_codes_are_refused(tmp_path, sparse, name, change, message):
    set_, kind = sparse
    arrays = set_.arrays | {name: change(set_.arrays[name], kind)}
    with pytest.raises(gsdd_jax.UsageError, match=message):
        gsdd_jax.save(tmp_path / "set.safetensors", dataclasses.replace(set_, arrays=arrays))
