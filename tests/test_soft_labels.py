"""Tests soft labels: their grid, their bytes, and a run that learns them."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from configs import common, demo
from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.data import soft_labels
from gsdd_jax.figures import landscape
from gsdd_jax.formats import labels
from gsdd_jax.runs import evaluation, experts, fits, teacher
from gsdd_jax.runs.distill import distill_to, fit_to
from gsdd_jax.runs.progress import Reporter
from gsdd_jax.setup import components, experiment
from gsdd_jax.training import distill
from tests.interrupting import check_same_bytes, interrupted_once

pytestmark = pytest.mark.usefixtures("quickly_compiled")
started = jax.jit(soft_labels.start, static_argnums=1)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_the_nearest_value_of_the_grid(bits):
    grid = np.linspace(0, 8, 2**bits)
    logits = np.float32(np.random.default_rng(0).uniform(-1, 9, (50, 3)))
    nearest = np.abs(logits[..., None] - grid).argmin(-1)
    for there in (logits, jnp.asarray(logits)):
        codes = soft_labels.codes(there, bits)
        np.testing.assert_array_equal(codes, nearest)
        values = soft_labels.values(codes, bits)
        np.testing.assert_allclose(values, grid[nearest], atol=1e-6)
        np.testing.assert_array_equal(soft_labels.codes(values, bits), nearest)
        # What is on the grid stays there, to the bit.
        again = soft_labels.values(soft_labels.codes(values, bits), bits)
        np.testing.assert_array_equal(again, values)


def test_targets_are_of_the_grid_and_gradients_go_straight_through():
    logits = np.float32(np.random.default_rng(1).uniform(0, 8, (6, 4)))
    on_grid = np.float32(soft_labels.values(soft_labels.codes(logits, 3), 3))
    weight = np.float32(np.random.default_rng(2).normal(size=(6, 4)))

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradient(function, x):
        found, back = jax.vjp(function, x)
        return found, back(weight)[0]

    found = with_gradient(lambda x: soft_labels.targets(x, 3), logits)
    for a, e in zip(found, with_gradient(jax.nn.softmax, on_grid), strict=True):
        np.testing.assert_array_equal(a, e)


def test_they_start_as_the_own_class():
    labels = np.array([2, 0, 1])
    start = np.asarray(started(labels, 10))
    assert (start[np.arange(3), labels] == 6).all() and float(start.sum()) == 18
    own = np.asarray(jax.jit(soft_labels.targets, static_argnums=1)(start, 4))[np.arange(3), labels]
    value = np.exp(11 * 8 / 15)  # the nearest to 6
    np.testing.assert_allclose(own, value / (value + 9), rtol=1e-5)
    np.testing.assert_array_equal(soft_labels.clip(jnp.array([[-1.0, 3.0, 9.0]])), [[0, 3, 8]])


def config_of(name="gaussian", **labels):
    config = demo.get_config()
    config.budget.images_per_class = 60
    config.parameterization.name = name
    common.matched_by(config, "tm")
    config.labels.update(labels)
    return config


@pytest.mark.parametrize(("bits", "classes"), [(4, 10), (8, 10), (3, 7)])
def test_they_are_within_the_budget(bits, classes):
    build = lambda name, **o: components.build_parameterization(
        config_of(name, bits=bits, **o), (32, 32, 3), classes
    )
    hard, soft = build("gaussian"), build("gaussian", learned=True)
    assert soft == build("gaussian", source="teacher")
    packed = -(-60 * classes * classes * bits // 8)
    there = 4 * 32 * 32 * 3 * classes
    assert hard.num_gaussians == 11  # and 408 bytes per class are left, which eight bits exceed
    each = 18 * 60 * classes
    assert soft.num_gaussians * each + packed <= there < (soft.num_gaussians + 1) * each + packed
    coded = build("quantized", learned=True)
    assert coded.bytes_per_class * classes + packed <= there
    assert coded.bytes_per_class * classes + packed > there - classes


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (config_of("idc", learned=True), r"config\.labels: expected hard ones .* with idc"),
        (config_of("ddif", source="teacher"), r"config\.labels: expected hard ones .* with ddif"),
        (config_of(bits=9), r"config\.labels\.bits: expected an integer from 2 to 8"),
        (config_of(bits=1), r"config\.labels\.bits: expected an integer from 2 to 8"),
        (config_of(source="oracle"), r"config\.labels\.source: expected one of class, teacher"),
        (config_of(top=0), r"config\.labels\.top: expected an integer from 1 to"),
        (config_of(temperature=0.0), r"config\.labels\.temperature: expected a number from"),
        (
            config_of(mixes=1),
            r"config\.labels\.mixes: expected 0 with config\.labels\.source=class",
        ),
        (config_of(mixes=65, source="teacher"), r"config\.labels\.mixes: expected an integer from"),
    ],
)
def test_what_is_refused(config, message):
    with pytest.raises(gsdd_jax.UsageError, match=message):
        experiment.build_fit_parts(config)


def test_a_teacher_s_smaller_outputs_share_their_probability():
    outputs = 3 * np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32)
    outputs[0] = 1  # all equal
    found = np.asarray(soft_labels.from_outputs(jnp.asarray(outputs), 2.0, 4))
    odds = np.exp(outputs.astype(np.float64) / 2)
    expected = odds / odds.sum(1, keepdims=True)
    for row in expected:
        smaller = np.argsort(-row, kind="stable")[4:]
        row[smaller] = row[smaller].mean()
    given = np.exp(found.astype(np.float64))
    # The grid ends at a probability of exp(-8) of the largest.
    close = expected > np.exp(-8) * expected.max(1, keepdims=True)
    given /= given.sum(1, keepdims=True)
    np.testing.assert_allclose(given[close], expected[close], rtol=1e-2)
    assert (found[1:].max(1) == 8).all() and len(set(found[1])) == 5


@pytest.mark.parametrize("mixes", [0, 2])
def test_few_logits_of_many_classes_take_few_bytes(mixes):
    drawn, images, classes, top = np.random.default_rng(1), 400, 100, 5
    parts = drawn.integers(0, classes, (images, 1 + (mixes > 0)))
    codes = np.repeat(drawn.integers(0, 4, (images, 1)), classes, 1)  # of all others
    for row in codes:
        row[drawn.choice(classes, top, replace=False)] = drawn.integers(4, 16, top)
    logits = soft_labels.values(codes, 4).astype(np.float32)
    packed = labels.pack(logits, 4, parts, classes)
    np.testing.assert_array_equal(labels.unpack(packed, 4, parts, classes), logits)
    # Per image: 2 bits, which of the classes, and 12 codes of each.
    least = 2 + math.log2(math.comb(classes, top)) + top * math.log2(12)
    assert least * images / 8 < len(packed) < 1.1 * least * images / 8
    for at in (0, 20, 60, len(packed) - 1):  # each table, and the codes
        wrong = packed.copy()
        wrong[at] ^= 255
        with pytest.raises(gsdd_jax.UsageError, match=r"soft_labels|codes"):
            labels.unpack(wrong, 4, parts, classes)


def test_only_some_objectives_learn_them():
    network = networks.build("convnet", image_shape=(8, 8, 3), num_classes=2, width=4, depth=2)
    build = lambda **labels: matching.build(
        "dm", network=network, num_classes=2, images_per_class=3, strategy="",
        labels=soft_labels.Labels(**labels),
    )  # fmt: skip
    message = r"labels\.learned: expected False with dm; only bptt, datm, frepo, tm"
    with pytest.raises(gsdd_jax.UsageError, match=message):
        build(learned=True)
    assert build(source="teacher") == build()


def test_a_fit_is_of_the_bytes_that_they_leave():
    hard = fits.settings(config_of())
    assert hard == fits.settings(config_of(bits=5, learning_rate=0.1))
    soft = fits.settings(config_of(learned=True))
    assert soft == fits.settings(config_of(source="teacher", learning_rate=0.1)) != hard
    assert fits.settings(config_of(learned=True, bits=5)) not in (hard, soft)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Returns a config of a tiny run whose experts exist."""
    config = config_of(learned=True, bits=3, learning_rate=2.0)
    config.matching.options.update(syn_steps=3, batch_syn=7, max_start_epoch=2, expert_epochs=1)
    config.data.resolution = 8
    config.network.options.width, config.network.options.depth = 4, 1
    config.budget.images_per_class = 3
    config.matching.strategy = "flip"
    config.init.num_steps = 5
    config.experts.update(num_experts=2, epochs=2, dir=str(tmp_path_factory.mktemp("experts")))
    config.distill.update(num_steps=6, steps_per_call=2, checkpoint_every=2)
    config.evaluate.update(num_networks=2, epochs=2, baselines="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        experts.train_all(config, Reporter(None))
        yield config


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """Returns the run's directory and its result."""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, distill_to(tiny, workdir)


def test_a_run_learns_them(tiny, finished):
    workdir, result = finished
    set_ = gsdd_jax.load(workdir / "distilled.safetensors")
    assert set_.soft_labels.shape == (30, 10) and set_.label_bits == 3
    start = np.asarray(started(set_.labels, 10))
    start = soft_labels.values(soft_labels.codes(start, 3), 3)
    assert (set_.soft_labels != start).mean() > 0.1
    kind = set_.format
    images, most = 30 * kind.num_gaussians * 18, -(-30 * 10 * 3 // 8)
    assert images < set_.num_bytes <= images + most <= 10 * 4 * 8 * 8 * 3
    assert result["bytes_per_class"] == set_.num_bytes // 10
    assert set_.provenance["config"]["labels.learned"] is True


def test_an_evaluation_trains_on_them(tiny, finished):
    workdir, result = finished
    path = workdir / "distilled.safetensors"
    again = evaluation.evaluate_file(path, baselines=False)
    assert again["distilled_accuracies"] == result["distilled_accuracies"]
    set_, config, parts = evaluation.opened(path, {})
    trained = lambda s: jax.tree.leaves(
        evaluation.students(config, parts, s, "", Reporter(None)).params
    )
    soft, hard = trained(set_), trained(dataclasses.replace(set_, soft_labels=None, label_bits=0))
    assert any((a != b).any() for a, b in zip(soft, hard, strict=True))


def test_a_landscape_is_of_the_labels_that_a_set_carries(tiny, finished):
    set_ = gsdd_jax.load(finished[0] / "distilled.safetensors")
    parts = experiment.build(landscape.made_by(set_, {"experts.dir": tiny.experts.dir}))
    key, (_, params) = jax.random.key(4), parameterizations.of(set_)
    found = landscape.objective(parts, set_, key, 1)(params)
    train = parts.dataset.train
    data = matching.real_data(train.images, train.labels, 10, parts.transform, drawn=False)
    synthetic = parts.problem.synthetic(params, parts.transform)
    carry = jax.tree.map(lambda a: a[0], parts.host_inputs(0, 1))
    update_key = jax.random.split(jax.random.split(key, 1)[0], 3)[1]
    loss = jax.jit(
        lambda labels: parts.problem.matching.loss(
            synthetic, data, {"learning_rate": jnp.float32(set_.learning_rate), "labels": labels},
            carry, jnp.int32(0), jax.random.fold_in(update_key, 0),
        )
    )  # fmt: skip
    carried, start = set_.soft_labels, started(set_.labels, 10)
    assert float(found) == pytest.approx(float(loss(carried)), rel=1e-5)
    assert float(found) != pytest.approx(float(loss(start)), rel=1e-5)


def test_interrupted_it_ends_with_the_same_bytes(tiny, finished, tmp_path, monkeypatch):
    interrupted_once(monkeypatch, distill, "run", 3, lambda: distill_to(tiny, tmp_path))
    check_same_bytes(tmp_path, finished[0])


def test_what_is_only_fitted_has_hard_labels(tiny, tmp_path):
    result = fit_to(tiny, tmp_path)
    set_ = gsdd_jax.load(tmp_path / "fitted.safetensors")
    assert set_.soft_labels is None
    np.testing.assert_array_equal(set_.targets, set_.labels)
    assert result["bytes"] == set_.num_bytes == 30 * set_.format.num_gaussians * 18
    parts = experiment.build_fit_parts(tiny)
    assert parts.parameterization == parameterizations.of_format(set_.format)


@pytest.fixture(params=["dm", "tm"])
def taught(request, tiny):
    """Returns a tiny config of teacher's labels, for both kinds of objective."""
    config = tiny.copy_and_resolve_references()
    if request.param == "dm":
        common.matched_by(config, "dm")
        config.matching.options.batch_real = 8
        config.labels.mixes = 1
    config.labels.update(source="teacher", learned=False, temperature=1.5)
    config.teacher.update(epochs=3, num_networks=2)
    config.evaluate.baselines = ""
    return config


def test_a_teachers_labels(taught, tmp_path, monkeypatch):
    """Compares DM's labels with the stored images', and TM's with the fitted images'."""
    result = distill_to(taught, tmp_path / "whole")
    set_ = gsdd_jax.load(tmp_path / "whole" / "distilled.safetensors")
    assert set_.mixes == taught.labels.mixes and len(set_.labels) == 30 * (1 + set_.mixes)
    start = distill_to_start(taught, tmp_path)
    parts, where = experiment.build(taught), tmp_path / "whole"
    found = teacher.trained(taught, parts, where, Reporter(None))
    assert len(found.tested.test) == 2 and min(found.tested.test) > 10
    images = parts.transform(gsdd_jax.parameterizations.images(start or set_))
    outputs = jax.jit(jax.vmap(parts.network.apply, (0, None)))(found.params, images)
    outputs = np.float64(outputs).mean(0) / 1.5
    expected = np.clip(outputs - outputs.max(1, keepdims=True) + 8, 0, 8)
    assert np.abs(set_.soft_labels - expected).max() <= 8 / (2**3 - 1) / 2 + 1e-3
    assert (set_.soft_labels.max(1) == 8).all() and set_.label_bits == 3
    assert result["bytes_per_class"] * 10 <= set_.num_bytes <= 10 * 4 * 8 * 8 * 3
    if start is not None:
        return
    # Interrupted while the teacher trains, the run ends with the same bytes.
    again = tmp_path / "again"
    run = lambda: distill_to(taught, again)
    interrupted_once(monkeypatch, evaluation.evaluate, "train_epochs", 2, run)
    check_same_bytes(tmp_path / "whole", again)


@pytest.mark.parametrize("taught", ["dm"], indirect=True)
def test_gaussians_in_codes_make_room_for_labels_that_grow(taught, tmp_path, monkeypatch):
    """Estimates no bytes for labels at first, so that the images have to be stored again."""
    taught.parameterization.update(name="quantized", options={"bits_per_gaussian": 25.0})
    taught.init.num_steps, taught.distill.num_steps = 0, 0
    really, slacks = teacher.label_bytes, []

    def grown(labeled, slack=None):
        slacks.append(slack)
        return 0 if slack is None else really(labeled, slack)

    monkeypatch.setattr(teacher, "label_bytes", grown)
    result = distill_to(taught, tmp_path / "run")
    set_ = gsdd_jax.load(tmp_path / "run" / "distilled.safetensors")
    assert slacks[0] is None and any(slacks)
    assert result["bytes_per_class"] * 10 <= set_.num_bytes <= 10 * 4 * 8 * 8 * 3
    assert set_.soft_labels is not None


def distill_to_start(config, folder):
    """Returns the fitted set if the labels belong to it, as with TM; else None."""
    if config.matching.name != "tm":
        return None
    fit_to(config, folder / "fit")
    return gsdd_jax.load(folder / "fit" / "fitted.safetensors")
