"""Tests Gaussians as codes."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import parameterizations
from gsdd_jax.formats import entropy
from gsdd_jax.parameterizations import grids
from gsdd_jax.parameterizations.quantized import QuantizedImages
from gsdd_jax.rasterizer.gaussians import GaussianImages, budget_bytes
from gsdd_jax.training import fit
from tests.dense import dense

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SHAPE, CLASSES, GPC = (8, 12, 3), 2, 4
VARIANTS = [
    {},
    {"coding": "none"},
    {"log_scales": True, "luma": False, "opacity": False, "bits_means": 8, "bits_colors": 3},
]


def build(shape=SHAPE, ipc=4, images_per_class=GPC, num_classes=CLASSES, **options):
    return parameterizations.build(
        "quantized",
        shape,
        ipc=ipc,
        images_per_class=images_per_class,
        num_classes=num_classes,
        **options,
    )


@functools.cache
def render(kind):
    """Renders in a compiled program."""
    return jax.jit(kind.render)


@functools.partial(jax.jit, static_argnums=(0, 1))
def some(kind, seed=0):
    """Returns Gaussians in and outside the image, some beyond the grids."""
    count = kind.num_classes * kind.images_per_class
    params = kind.init(jax.random.key(seed), jnp.zeros((count, *kind.image_shape)))
    keys = jax.random.split(jax.random.key(seed + 1), 4)
    g = params.gaussians
    moved = [leaf + 0.5 * jax.random.normal(k, leaf.shape) for leaf, k in zip(
        (g.means, g.cholesky, g.colors, g.opacities), keys, strict=True)]  # fmt: skip
    means = jnp.clip(moved[0], -0.999, 0.999)
    gaussians = GaussianImages(means, *moved[1:], height=g.height, width=g.width)
    return dataclasses.replace(params, gaussians=gaussians)


def owners(params):
    """Returns the image that each Gaussian belongs to."""
    counts = np.asarray(params.counts, int)
    return np.repeat(np.arange(len(counts)), counts)


def plain_columns(kind, g):
    """Returns the grids' values in float64: [Gaussians, columns]."""
    means, cholesky, colors, opacities = (
        np.asarray(a, np.float64) for a in (g.means, g.cholesky, g.colors, g.opacities)
    )
    if kind.log_scales:
        l11, l21, l22 = np.moveaxis(cholesky, -1, 0) + np.array([0.5, 0, 0.5])[:, None]
        l21 = np.where(l11 < 0, -l21, l21)
        logs = [np.log(np.maximum(np.abs(x), 0.01)) for x in (l11, l22)]
        cholesky = np.stack([logs[0], l21, logs[1]], -1)
    if kind.luma:
        r, g_, b = np.moveaxis(colors, -1, 0)
        colors = np.stack([(r + 2 * g_ + b) / 4, (r - b) / 2, (2 * g_ - r - b) / 4], -1)
    parts = [means, cholesky, colors] + [opacities[..., None]] * kind.opacity
    return np.concatenate(parts, -1)


def nearest(kind, params):
    """Returns codes and values in float64, and where no value is almost half-way between codes."""
    low, high = (np.asarray(a, np.float64) for a in (params.low, params.high))
    step = (high - low) / (2.0 ** np.array(kind.widths) - 1)
    at = (plain_columns(kind, params.gaussians) - low) / step
    codes = np.clip(np.floor(at + 0.5), 0, 2.0 ** np.array(kind.widths) - 1)
    return codes, low + codes * step, np.abs(at - np.floor(at) - 0.5) > 1e-3


@pytest.mark.parametrize("options", VARIANTS)
def test_what_is_rendered_and_stored_is_the_nearest_on_the_grids(options):
    kind = build(**options)
    params = some(kind)
    owner = owners(params)
    codes, values, clear = (a[: len(owner)] for a in nearest(kind, params))
    seen = plain_columns(kind, jax.jit(kind.quantized)(params))[: len(owner)]
    np.testing.assert_allclose(seen[clear], values[clear], atol=1e-5)
    assert clear.mean() > 0.99
    # The same Gaussians come back, in another order within each image.
    loaded = kind.from_arrays(kind.to_arrays(params))
    np.testing.assert_array_equal(loaded.counts, params.counts)
    found = plain_columns(kind, loaded.gaussians)[: len(owner)]
    order = np.lexsort((codes[:, 1], codes[:, 0], owner))
    kept = clear.all(-1)[order]
    np.testing.assert_allclose(found[kept], values[order][kept], atol=1e-5)
    # Storing again changes nothing.
    for name, array in kind.to_arrays(loaded).items():
        np.testing.assert_array_equal(array, kind.to_arrays(params)[name])
    np.testing.assert_allclose(render(kind)(loaded), render(kind)(params), rtol=1e-5, atol=1e-5)


def test_the_signs_of_l_do_not_matter_to_its_logarithm():
    plain, kind = build(), build(log_scales=True, bits_cholesky=8)
    columns, drawn = jax.jit(kind._columns), jax.jit(GaussianImages.render)
    g = some(kind).gaussians
    full = np.asarray(g.cholesky) + np.array([0.5, 0, 0.5])
    for signs in ([-1, -1, 1], [1, 1, -1], [-1, -1, -1]):
        turned = dataclasses.replace(
            g, cholesky=np.float32(full * np.array(signs) - np.array([0.5, 0, 0.5]))
        )
        a, b = (np.asarray(columns(x)) for x in (g, turned))
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(drawn(g), drawn(turned), atol=1e-5)
    assert plain.widths == (7, 7, 5, 5, 5, 5, 5, 5, 4)


@pytest.mark.parametrize(
    ("shape", "ipc", "gpc", "num_classes", "options"),
    [
        ((32, 32, 3), 1, 100, 10, {"bits_per_gaussian": 40.0}),
        ((32, 32, 3), 1, 60, 10, {"coding": "none"}),
        ((16, 16, 1), 7, 9, 3, {"bits_colors": 2, "coding": "none"}),
        ((16, 16, 4), 2, 5, 3, {"bits_per_gaussian": 30.0, "bits_means": 8}),
    ],
)
def test_the_budget_is_kept_and_used(shape, ipc, gpc, num_classes, options):
    kind = build(shape, ipc, gpc, num_classes, **options)
    arrays = kind.to_arrays(some(kind))
    used = sum(a.size * a.dtype.itemsize for a in arrays.values())
    there = num_classes * budget_bytes(ipc, shape)
    each = (kind.bits_per_gaussian or sum(kind.widths)) / 8
    assert used <= there
    if kind.coding == "none":  # one more Gaussian would not fit
        assert there - used < each + 1
        assert used == len(kind.widths) * 8 + int(np.ceil(kind.num_gaussians * each))
    else:  # the grids became coarser, hardly more than necessary
        assert used > 0.97 * there


def test_the_fewest_bits_of_a_budget_are_read():
    """Grids become coarser in steps, so that codes may take less than the budget's 8 bits."""
    kind = build((8, 8, 3), 2, 5, 2, bits_per_gaussian=8.0)
    arrays = kind.to_arrays(some(kind))
    assert len(arrays["codes"]) < kind.num_gaussians
    kind.check_arrays(arrays)


def test_no_budget_for_a_single_gaussian():
    with pytest.raises(gsdd_jax.UsageError, match="500 images per class of quantized Gaussians"):
        build((8, 8, 3), 1, 500)


def test_gradients_go_to_values_within_and_to_the_end_beyond_which_others_lie():
    """Compares with float64 differences of the rounded value, its rounding held fixed."""
    values = np.array([[-2.0], [-0.93], [0.1], [0.77], [1.5]])
    low, high, levels = np.array([-1.0]), np.array([1.0]), (8,)

    def held(values_, low_, high_):
        at = (values_ - low_) / (high_ - low_) * 7
        first = (values - low) / (high - low) * 7
        inside = (first >= 0) & (first <= 7)
        residue = np.floor(first + 0.5) - first
        grid = low_ + (high_ - low_) / 7 * (at + residue)
        return np.where(inside, grid, np.where(first < 0, low_, high_))

    on_grid = jax.jit(grids.on_grid, static_argnums=3)
    arguments = [np.float32(a) for a in (values, low, high)]
    rounded = np.asarray(on_grid(*arguments, levels))
    np.testing.assert_allclose(rounded, held(values, low, high), atol=1e-6)
    for i, name in enumerate(("values", "low", "high")):
        given = [values, low, high]
        small = [np.zeros_like(a) for a in given]
        small[i] = np.full_like(given[i], 1e-6)
        expected = (
            held(*(a + d for a, d in zip(given, small, strict=True)))
            - held(*(a - d for a, d in zip(given, small, strict=True)))
        ) / 2e-6
        tangents = [np.float32(d * 1e6) for d in small]
        found = jax.jvp(lambda *a: on_grid(*a, levels), tuple(arguments), tuple(tangents))[1]
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=name)


def test_the_rate_is_what_the_coder_takes_and_its_gradient_lowers_it():
    kind = build((8, 8, 3), 4, 20, bits_per_gaussian=30.0)
    params = some(kind)
    wide = jax.tree.map(np.asarray, params)
    wide = dataclasses.replace(wide, low=wide.low - 1, high=wide.high + 1)
    arrays = kind.packed(wide)
    rate = jax.jit(jax.value_and_grad(kind.rate))
    estimate, _ = rate(wide)
    assert float(estimate) == pytest.approx(8 * arrays["codes"].size / kind.num_gaussians, rel=0.01)
    for _ in range(15):
        _, gradient = rate(wide)
        wide = jax.tree.map(lambda p, g: p - np.float32(0.02) * np.sign(g), wide, gradient)
    coded = 8 * kind.packed(wide)["codes"].size / kind.num_gaussians
    assert coded < float(estimate) - 2
    assert float(jax.jit(kind.penalty)(wide)) > 0.01 * (coded - 30) - 0.1


def test_within_the_bits_there_is_no_penalty_but_the_border():
    kind = build(boundary_weight=0.0)
    assert float(jax.jit(kind.penalty)(some(kind))) == 0.0


def test_a_choice_of_images_renders_alone():
    kind = build()
    assert len(set(kind.counts)) == 2
    params, chosen = some(kind), np.array([5, 2, 1])
    select = jax.jit(lambda params, chosen: kind.render(kind.select(params, chosen)))
    expected = np.asarray(render(kind)(params))[chosen]
    np.testing.assert_allclose(select(params, chosen), expected, atol=1e-5)
    # Classes of fewer images repeat one of theirs.
    repeated = np.array([0, 1, 1, 2, 7, 7, 0])
    expected = np.asarray(render(kind)(params))[repeated]
    np.testing.assert_allclose(select(params, repeated), expected, atol=1e-5)
    # Little else is rendered, or a step of few images would take as long as one of all.
    few = jax.eval_shape(kind.select, params, chosen).gaussians.means.shape
    assert few == (3 * max(kind.counts), 2) and len(params.gaussians.means) > 7 * min(kind.counts)


def test_images_are_those_of_the_codes():
    """Decodes the file's bytes here, to pixels in float64."""
    kind = build(coding="none", bits_means=6, luma=False)
    arrays = kind.to_arrays(some(kind))
    text = "".join(f"{byte:08b}" for byte in np.asarray(arrays["codes"]))
    columns, at = [], 0
    for width, (low, high) in zip(kind.widths, np.asarray(arrays["ends"], float), strict=True):
        numbers = [
            int(text[at + i * width : at + (i + 1) * width], 2) for i in range(kind.num_gaussians)
        ]
        columns.append(low + (high - low) * np.array(numbers) / (2**width - 1))
        at += width * kind.num_gaussians
    assert not text[at:].strip("0") and len(text) - at < 8
    each, more = divmod(kind.num_gaussians, CLASSES * GPC)
    ends = np.cumsum([each + (i < more) for i in range(CLASSES * GPC)])
    gaussians = np.split(np.stack(columns, 1), ends[:-1])
    images = np.asarray(render(kind)(kind.from_arrays(arrays)))
    for image, g in zip(images, gaussians, strict=True):
        expected, near, _ = dense((g[:, :2], g[:, 2:5], g[:, 5:8], g[:, 8]), *SHAPE[:2])
        np.testing.assert_allclose(image[~near], expected[~near], atol=1e-5)


def test_a_fit_learns_its_grids():
    """Checks that fitting on coarse grids beats rounding to them afterwards."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.random((8, 4, 4, 3)), np.ones((1, 4, 4, 1)))
    images = jax.device_put(np.float32(coarse))
    kind = build((16, 16, 3), 4, 4, coding="none", bits_means=5, bits_cholesky=4, bits_colors=4,
                 bits_opacities=3)  # fmt: skip
    each = kind.num_gaussians // 8
    kind = dataclasses.replace(kind, num_gaussians=8 * each)
    state = fit.start(kind, jax.random.key(0), images, 0.1)
    low, counts = np.asarray(state.params.low), np.asarray(state.params.counts)
    state, _ = fit.run(kind, state, images, 0.1, 300)
    aware = fit.psnr(kind, state.params, images).mean()
    assert (np.asarray(state.params.low) != low).all()
    plain = parameterizations.find("gaussian")(16, 16, 3, 4, each)
    state = fit.start(plain, jax.random.key(0), images, 0.1)
    state, _ = fit.run(plain, state, images, 0.1, 300)
    reshaped = lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:])
    flat = jax.device_put(jax.tree.map(reshaped, state.params))
    columns = np.asarray(jax.jit(kind._columns)(flat))
    low, high = np.float32(np.quantile(columns, [0.002, 0.998], axis=0))
    after = fit.psnr(kind, QuantizedImages(flat, counts, low, high), images).mean()
    assert aware > after + 1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ends", lambda a: a[:, ::-1], "ends: expected each column's least value below its larg"),
        ("tables", lambda a: 0 * a, "tables: expected a frequency above 0 in every column"),
        ("codes", lambda a: a[:8], "codes: expected at least .* bytes for .* Gaussians, got 8"),
        ("codes", lambda a: np.tile(a, 99), "codes: expected at most the budget's"),
    ],
)
def test_arrays_that_make_no_sense(name, change, message):
    kind = build()
    arrays = {n: np.asarray(a) for n, a in kind.to_arrays(some(kind)).items()}
    kind.check_arrays(arrays)
    arrays[name] = change(arrays[name])
    with pytest.raises(gsdd_jax.UsageError, match=message):
        kind.check_arrays(arrays)


def test_codes_beyond_their_grid_are_refused():
    kind = build(bits_means=2)
    arrays = kind.packed(some(kind))
    tables = np.split(np.asarray(arrays["tables"]), np.cumsum(kind.levels)[:-1])
    columns = entropy.decode(np.asarray(arrays["codes"]), tables, kind.num_gaussians)
    columns[0] = np.full_like(columns[0], 3)  # differences with too large a sum
    tables[0] = entropy.table(columns[0], 4)
    wrong = {"codes": entropy.encode(columns, tables), "tables": np.concatenate(tables)}
    with pytest.raises(gsdd_jax.UsageError, match="codes: u goes beyond its 4 values"):
        kind.unpack(arrays | wrong)


def test_the_number_of_images_is_the_parameterizations():
    kind = build()
    with pytest.raises(
        gsdd_jax.UsageError, match="expected images_per_class=4 of each of 2 classes"
    ):
        kind.check_num_images(9)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("bits_means", 9, "an integer from 2 to 8, got 9"),
        ("bits_colors", 1, "an integer from 2 to 8, got 1"),
        ("bits_per_gaussian", 7.9, r"0 \(automatic\) or a number from 8 to 1000, got 7.9"),
        ("bits_per_gaussian", 1e6, r"0 \(automatic\) or a number from 8 to 1000, got 1000000.0"),
        ("coding", "huffman", "one of range, none, got 'huffman'"),
    ],
)
def test_options_out_of_range(option, value, expected):
    with pytest.raises(gsdd_jax.UsageError, match=f"options.{option}: expected {expected}"):
        build(**{option: value})


def test_codes_of_fixed_length_do_not_become_shorter():
    assert build(coding="none", bits_per_gaussian=54.0).num_gaussians
    with pytest.raises(gsdd_jax.UsageError, match=r"bits_per_gaussian: .*number from 48 to 1000, "):
        build(coding="none", bits_per_gaussian=47.0)


def test_grids_of_every_shape_are_counted():
    for channels, opacity in itertools.product((1, 3, 4), (False, True)):
        kind = build((8, 8, channels), opacity=opacity, coding="none")
        assert len(kind.widths) == 5 + channels + opacity
        quantized = jax.eval_shape(lambda kind=kind: kind.quantized(some(kind)))
        assert quantized.colors.shape[-1] == channels
