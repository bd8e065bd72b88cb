"""Tests plain numbers in codes: pixels, IDC, FreD and DDiF."""

import functools

import jax
import numpy as np
import pytest

import gsdd_jax
from configs import demo
from gsdd_jax import parameterizations
from gsdd_jax.config import validate
from gsdd_jax.formats import base, entropy
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.progress import Reporter
from gsdd_jax.setup import components
from gsdd_jax.training import distill
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SHAPE, CLASSES, CODES = (16, 12, 3), 3, {"dtype": "codes"}
# Images per class, and options, so that a number has about five bits.
KINDS = {
    "pixels": (6, {}),
    "idc": (24, {}),
    "fred": (24, {"size": 60}),
    "ddif": (30, {"layer_width": 4, "w0": 12.0}),
}


def build(name, images_per_class=0, bytes_per_class=0, **options):
    images, own = KINDS[name]
    return parameterizations.build(
        name, SHAPE, bytes_per_class=bytes_per_class, num_classes=CLASSES,
        images_per_class=images_per_class or images, **CODES | own | options,
    )  # fmt: skip


@functools.cache
def some(name):
    """Returns a parameterization, and parameters after random updates that the step followed."""
    kind, rng = build(name), np.random.default_rng(0)
    smooth = rng.normal(size=(kind.num_images, *SHAPE)).cumsum(1).cumsum(2)
    params = jax.jit(kind.init)(jax.random.key(0), np.float32(0.5 + smooth / 30))
    moved = lambda a: np.float32(a + 0.3 * np.std(a) * rng.normal(size=a.shape))
    params = jax.tree.map(np.asarray, params)
    params = {n: moved(a) if n in kind.shapes() else a for n, a in params.items()}
    return kind, jax.jit(lambda p: jax.lax.fori_loop(0, 80, lambda _, p: kind.project(p), p))(
        params
    )


def nearest(kind, params):
    """Returns the multiples of the step in float64, and the codes, by array."""
    step, found = float(params["step"][0]), {}
    to_luma = np.array([[1, 2, 1], [2, 0, -2], [-1, 2, -1]]) / 4
    for name in kind.shapes():
        numbers = np.asarray(params[name], np.float64)
        if kind.name != "ddif":
            codes = np.floor(numbers @ to_luma.T / step + 0.5)
            y, orange, green = np.moveaxis(step * codes, -1, 0)
            values = np.stack([y + orange - green, y + green, y - orange - green], -1)
        else:
            layer = int(name[-1])
            unit = step * (1 / 30, 1 / 12, LAST)[layer]
            codes = np.floor(numbers / unit + 0.5)
            values = unit * codes
        found[name] = values, codes
    return found


LAST = 0.1  # what a code of the last layer stands for, in steps


@pytest.mark.parametrize("name", KINDS)
def test_what_is_rendered_are_the_nearest_multiples_and_gradients_pass_them(name):
    kind, params = some(name)
    weights = {n: np.random.default_rng(1).normal(size=params[n].shape) for n in kind.shapes()}

    def weighted(params):
        stored = kind.quantized(params)
        return sum((stored[n] * np.float32(w)).sum() for n, w in weights.items()), stored

    gradient, stored = jax.jit(jax.grad(weighted, has_aux=True))(params)
    for array, (values, _) in nearest(kind, params).items():
        # Few are half-way between multiples, where float32 decides.
        assert np.mean(np.abs(stored[array] - values) > 1e-5) < 1e-3
        np.testing.assert_allclose(gradient[array], weights[array], atol=1e-5)
    assert not np.any(gradient["step"])


@pytest.mark.parametrize("name", KINDS)
def test_a_file_fills_the_budget_and_shows_what_is_rendered(name, tmp_path):
    kind, params = some(name)
    labels = np.repeat(np.arange(CLASSES, dtype=np.int32), kind.images_per_class)
    stored = parameterizations.stored(kind, params, labels, 0.01)
    budget = CLASSES * int(np.prod(SHAPE)) * 4
    assert 0.96 * budget < sum(np.asarray(a).nbytes for a in stored.arrays.values()) <= budget
    assert stored.num_bytes == sum(np.asarray(a).nbytes for a in stored.arrays.values())
    found, bits = kind.from_arrays(stored.arrays), 0
    coded = stored.arrays["codes"].size - 8 + stored.arrays["tables"].size - 2 * kind.num_columns
    coded *= 8 / kind.num_images
    assert float(jax.jit(kind.rate)(found)) == pytest.approx(coded, rel=0.01)
    gsdd_jax.save(tmp_path / "set.safetensors", stored)
    loaded = gsdd_jax.load(tmp_path / "set.safetensors")
    if not kind.rounded_late:
        np.testing.assert_allclose(loaded.images(), jax.jit(kind.render)(params), atol=1e-5)
    np.testing.assert_allclose(loaded.images(), parameterizations.images(loaded), atol=1e-5)
    # The coder takes the entropy of each column's codes.
    columns = np.broadcast_to(kind.columns(params), (kind.num_images, kind.numbers_each)).ravel()
    flat = np.concatenate(
        [codes.reshape(kind.num_images, -1) for _, codes in nearest(kind, found).values()], 1
    ).ravel()
    for column in np.unique(columns):
        counts = np.unique(flat[columns == column], return_counts=True)[1]
        bits += (counts * np.log2(counts.sum() / counts)).sum()
    assert 8 * stored.arrays["codes"].size == pytest.approx(bits, rel=0.01)


def test_the_columns_of_fred_are_octaves_and_channels():
    kind, params = some("fred")
    expected = [
        [3 * max(int(f) // 12, int(f) % 12).bit_length() + c for f in image for c in range(3)]
        for image in np.asarray(params["frequencies"])
    ]
    np.testing.assert_array_equal(kind.columns(params), expected)
    assert kind.num_columns == 15


def test_the_penalty_lowers_the_bits():
    kind, params = some("idc")
    finer = params | {"step": np.asarray(params["step"]) / 2}
    rate, moved = jax.jit(jax.value_and_grad(kind.rate)), finer
    bits = float(rate(finer)[0])
    for _ in range(10):
        signs = np.sign(rate(moved)[1]["small"])
        moved = moved | {"small": moved["small"] - np.float32(0.002) * signs}
    assert rate(moved)[0] < 0.97 * bits
    there = 8 * (kind.most_bytes - kind.overhead_bytes) / kind.num_images
    penalty = jax.jit(kind.penalty)
    assert float(penalty(finer)) == pytest.approx(bits / there - 1, rel=1e-4)
    assert float(penalty(params | {"step": 4 * finer["step"]})) == 0


def test_the_number_of_images_is_the_budgets_or_suggested_by_the_bytes():
    idc = parameterizations.find("idc").variant(CODES)
    # 12,288 bytes, less ranges, step, shortest tables and tail, at four bits for 768 numbers.
    there = 12288 - 3 * 8 - 4 - 3 * 2 - 8
    assert idc.suggested_images((32, 32, 3), 12288, CODES) == there * 8 // (4 * 768)
    fred = parameterizations.find("fred").variant(CODES)
    many = fred.suggested_images((8, 8, 3), 768, CODES)
    own = {**CODES, "images_per_class": many, "bytes_per_class": 768}
    assert parameterizations.build("fred", (8, 8, 3), **own).images_per_class == many
    kind = build("idc", 7, reserved=100)
    assert (kind.images_per_class, kind.bytes_per_class) == (7, 4 * 16 * 12 * 3 - 100)
    assert build("fred", size=17).num_frequencies == 17
    least = kind.overhead_bytes // 3 + 30  # the fewest bytes: all codes may be 0
    tiny, noise = build("idc", 7, least), np.random.default_rng(0).random((21, *SHAPE), np.float32)
    arrays = tiny.to_arrays(jax.jit(tiny.init)(jax.random.key(0), noise))
    assert tiny.used_bytes(arrays) <= 3 * least
    with pytest.raises(gsdd_jax.UsageError, match="99 images per class of numbers in codes"):
        build("idc", 99, 140)


def test_only_formats_with_a_choice_of_types_have_codes():
    described = base.settings(build("idc")) | {"name": "ptq"}
    with pytest.raises(gsdd_jax.UsageError, match="parameterization ptq: "):
        base.format_of(described)
    config = demo.get_config()
    config.parameterization.update(name="idc", options=CODES | {"rate_weight": 2.0})
    validate.options(config)
    config.parameterization.options.dtype = "float32"
    with pytest.raises(gsdd_jax.UsageError, match="unknown option 'rate_weight'; idc has dtype"):
        validate.options(config)


@pytest.mark.parametrize("name", KINDS)
def test_other_files_say_what_they_said(name):
    """Their description has no field of codes, which would change their bytes."""
    kind = parameterizations.build(name, SHAPE, ipc=2, images_per_class=1, num_classes=CLASSES)
    own = {"idc": {"factor"}, "fred": {"num_frequencies", "size"}, "pixels": set(),
           "ddif": {"layers", "layer_width", "w0", "space"}}  # fmt: skip
    shared = {"name", "height", "width", "channels", "images_per_class", "dtype"}
    assert set(base.settings(kind)) == shared | own[name]


@pytest.mark.parametrize(
    ("array", "change", "message"),
    [
        ("step", lambda a: -a, "step: expected a positive number, got -"),
        ("ranges", lambda a: a + 2**20, "ranges: expected least codes within 1024 of 0, and ta"),
        ("ranges", lambda a: -a, "ranges: expected least codes within 1024 of 0, and ta"),
        ("ranges", lambda a: a[::-1], "codes: |ranges: "),
        ("ranges", lambda a: a * [1, 0] + [0, 1], "each of none or at least 2"),
        ("tables", lambda a: a[:-1], "ranges: expected least codes within 1024"),
        ("tables", lambda a: 0 * a, "tables: expected a frequency above 0 in every column"),
        ("tables", lambda a: a[::-1], "codes: "),
        ("codes", lambda a: np.tile(a, 3), "codes: expected at most the budget's 6912 bytes"),
        ("codes", lambda a: a[:-4], "codes: "),
        ("codes", lambda a: a[:0], "codes: "),
        ("codes", lambda a: a[:-1], "codes: expected a multiple of 4 bytes"),
        ("codes", lambda a: a[::-1], "codes: "),
        ("masks", lambda a: a | 255, "masks: expected 60 of 192 frequencies"),
    ],
)
def test_arrays_that_make_no_sense(array, change, message):
    kind, params = some("fred")
    arrays = {n: np.asarray(a) for n, a in kind.to_arrays(params).items()}
    arrays[array] = change(arrays[array])
    with pytest.raises(gsdd_jax.UsageError, match=message):
        kind.check_arrays(arrays)
        kind.unpack(arrays)


def test_tables_of_columns_without_numbers_are_refused():
    kind, params = some("fred")
    arrays = {n: np.asarray(a) for n, a in kind.to_arrays(params).items()}
    empty = np.flatnonzero(arrays["ranges"][:, 1] == 0)
    moved = arrays["ranges"].copy()
    used = np.flatnonzero(moved[:, 1])
    moved[empty[0] if len(empty) else used[0], 1], moved[used[-1], 1] = moved[used[-1], 1], 0
    with pytest.raises(gsdd_jax.UsageError, match="ranges: expected tables of the columns that h"):
        kind.unpack(arrays | {"ranges": moved})


def test_numbers_that_are_not_finite_are_refused():
    kind, params = some("idc")
    with pytest.raises(gsdd_jax.UsageError, match="idc: expected finite numbers, got others"):
        kind.to_arrays(params | {"small": np.nan * np.asarray(params["small"])})


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_whatever_a_distillation_made_of_the_numbers_is_stored(scale):
    kind, params = some("ddif")
    grown = {
        n: np.float32(scale) * np.asarray(a) if n in kind.shapes() else a for n, a in params.items()
    }
    arrays = kind.to_arrays(grown)
    assert 0.96 * kind.most_bytes < kind.used_bytes(arrays) <= kind.most_bytes
    found = kind.from_arrays(arrays)
    for name in kind.shapes():
        error = np.sqrt(np.mean((np.asarray(found[name]) - grown[name]) ** 2))
        assert error < 0.2 * np.std(grown[name])


def test_columns_may_have_different_counts():
    columns = [np.arange(40) % 7, np.arange(9) ** 2 % 5]
    tables = [entropy.table(columns[0], 7), entropy.table(columns[1], 5)]
    payload = entropy.encode(columns, tables)
    for found, expected in zip(
        entropy.decode(payload, tables, np.array([40, 9])), columns, strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def config_of():
    config = demo.get_config()
    config.update_from_flattened_dict(TINY)
    config.parameterization.update(name="idc", options=CODES)
    config.init.num_steps, config.budget.images_per_class = 0, 20
    config.distill.update(num_steps=4, eval_every=0, snapshot_every=0, learning_rate=0.1)
    config.evaluate.baselines = ""
    return config


def test_a_distillation_resumes_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    whole = distill_to(config_of(), tmp_path / "whole", Reporter(None))
    calls, really_run = [], distill.run

    def run_once(*arguments):
        if calls:
            raise KeyboardInterrupt
        calls.append(really_run(*arguments))
        return calls[0]

    monkeypatch.setattr(distill, "run", run_once)
    with pytest.raises(KeyboardInterrupt):
        distill_to(config_of(), tmp_path / "parts", Reporter(None))
    monkeypatch.undo()
    distill_to(config_of(), tmp_path / "parts", Reporter(None))
    once, twice = ((tmp_path / n / "distilled.safetensors") for n in ("whole", "parts"))
    assert once.read_bytes() == twice.read_bytes()
    set_ = gsdd_jax.load(once)
    assert (set_.format.dtype, len(set_.labels)) == ("codes", 200)
    assert 0.96 * 7680 < set_.num_bytes <= 7680
    assert 0 < whole["stored"]["bits_per_number"] < 8 * 7680 / 200 / 48
    config = config_of()
    config.labels.source = "teacher"
    kind = components.build_parameterization(config, (8, 8, 3), 10)
    assert kind.most_bytes == 7680 - 200 * 10 * 4 // 8  # soft labels of four bits
