"""Tests difficulty-aligned trajectory matching: its labels, what it discards, how it starts."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gsdd_jax
from configs import demo, load
from gsdd_jax.data.soft_labels import Labels
from gsdd_jax.matching.tm import Segments
from gsdd_jax.runs import selection
from gsdd_jax.runs.progress import OneLine
from gsdd_jax.setup import experiment
from gsdd_jax.setup.components import stream
from gsdd_jax.training import distill
from tests import small_problem
from tests.small_problem import CLASSES, IPC, NETWORK, real
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")

LEARNED = Labels("teacher", learned=True, bits=8)
FIRST = ravel_pytree(NETWORK.init(jax.random.key(5)))[0]
APART = np.random.default_rng(6).normal(0, 0.02, FIRST.shape)
SEGMENT = Segments(FIRST[None, None], jnp.float32(FIRST + APART)[None, None])
LOGITS = jnp.float32(np.random.default_rng(7).uniform(2, 6, (CLASSES * IPC, CLASSES)))


def stepped(prob, count=1):
    """Returns the states at the start and after so many steps along one segment, and losses."""
    state = distill.start(prob, {"pixels": jnp.array(small_problem.START)}, 0.1, jnp.copy(LOGITS))
    start = jax.tree.map(np.array, state)
    segments = jax.tree.map(lambda a: jnp.repeat(a, count, 0), SEGMENT)
    state, losses = distill.run(prob, state, jax.random.key(0), real(), segments, count)
    return start, state, np.asarray(losses)


def problem(name="datm", **options):
    return small_problem.problem(name, LEARNED, **dict(syn_steps=2, lr_init=0.05) | options)


def test_labels_move_by_sgd_with_momentum():
    """The gradient is that of `tm` for the same set, whose loss is the same."""
    rate = 0.5
    prob, plain = problem(labels_learning_rate=rate, threshold=1e9), problem("tm")

    def loss(logits, key):
        synthetic = plain.synthetic({"pixels": jnp.array(images)}, small_problem.TRANSFORM)
        carry = jax.tree.map(lambda a: a[0], SEGMENT)
        aux_params = {"labels": logits, "learning_rate": jnp.float32(0.05)}
        return plain.matching.loss(synthetic, real(), aux_params, carry, jnp.int32(0), key)

    images = small_problem.START
    begin = distill._step_keys(jax.random.key(0), jnp.int32(0))[1]
    loss_key = distill._loss_keys(begin, 0)[0]
    value, gradient = jax.value_and_grad(loss)(LOGITS, loss_key)
    start, state, losses = stepped(prob)
    assert losses[0] == pytest.approx(float(value), rel=1e-5)
    moved = state.aux_params["labels"] - start.aux_params["labels"]
    np.testing.assert_allclose(moved, -rate * gradient, atol=1e-3 * rate * np.abs(gradient).max())
    optimizer = prob.matching.labels_optimizer()
    one = jnp.ones(2)
    first, memory = optimizer.update(one, optimizer.init(one))
    second, _ = optimizer.update(one, memory)
    np.testing.assert_allclose(first, -rate)
    np.testing.assert_allclose(second, -1.9 * rate)


def test_a_step_of_a_larger_loss_changes_nothing():
    """Neither images nor labels, rates or moments; the step counts, and its loss is shown."""
    _, _, losses = stepped(problem(threshold=1e9))
    below, above = 0.99 * float(losses[0]), 1.01 * float(losses[0])
    start, state, again = stepped(problem(threshold=below), 2)
    np.testing.assert_allclose(again[0], losses[0], rtol=1e-6)
    assert int(state.step) == 2
    jax.tree.map(np.testing.assert_array_equal, start._replace(step=2), state)
    start, state, _ = stepped(problem(threshold=above))
    assert not np.array_equal(start.params["pixels"], state.params["pixels"])


def test_recognized_images_come_first_in_their_random_order():
    order, wanted = np.array([3, 0, 4, 1, 2]), np.array([True, False, False, True, True])
    assert selection.first(order, wanted).tolist() == [3, 0, 4, 1, 2]
    wanted = np.array([False, True, False, True, False])
    assert selection.first(order, wanted).tolist() == [3, 1, 0, 4, 2]


def test_a_set_starts_from_images_that_a_teacher_recognizes(tmp_path, monkeypatch):
    """Here the teacher recognizes bright ones; a class has at least 300 images."""
    config = demo.get_config()
    config.update_from_flattened_dict(TINY | {"init.images": "recognized"})
    material, turn = experiment.build_fit_parts(config), itertools.count()

    def outputs(network, params, images):
        bright = images.mean((1, 2, 3)) > 0
        return jnp.where(bright[:, None], jax.nn.one_hot(next(turn), 10), -1.0 / jnp.arange(1, 11))

    taught = types.SimpleNamespace(network=None, params=None)
    monkeypatch.setattr(selection.teacher, "trained", lambda *given: taught)
    monkeypatch.setattr(selection.evaluate, "outputs", outputs)
    chosen = selection.chosen(config, material, tmp_path, OneLine())
    train = material.dataset.train
    labels = np.repeat(np.arange(10), material.counts)
    np.testing.assert_array_equal(train.labels[chosen], labels)
    assert len(set(chosen.tolist())) == len(chosen)
    seen = (train.images[chosen] / 255 - material.dataset.mean) / material.dataset.std
    # The last class is the one that it always names otherwise.
    assert (seen[labels < 9].mean((1, 2, 3)) > -1e-4).all()
    key = stream(config.seed, "initial images")
    random = experiment.choose_by_class(key, train.labels, material.counts)
    assert not np.array_equal(chosen, random)


def test_the_published_settings_for_each_budget():
    found = {ipc: load(f"cifar10_datm:ipc={ipc}") for ipc in (1, 10, 50)}
    assert [c.matching.options.max_start_epoch for c in found.values()] == [4, 20, 40]
    assert [c.matching.options.labels_learning_rate for c in found.values()] == [5, 2, 2]
    assert all(c.labels.learned and c.labels.source == "teacher" for c in found.values())


@pytest.mark.parametrize("threshold", [1e-30, 1e9])
def test_a_run_says_what_it_discards(tmp_path, capsys, threshold):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    changes = {
        "matching.options.threshold": threshold, "init.num_steps": 2, "distill.num_steps": 2,
        "experts.num_experts": 1, "teacher.epochs": 1, "network.options.width": 4,
        "network.options.depth": 1, "budget.images_per_class": 2, "evaluate.baselines": "",
    }  # fmt: skip
    labels = np.arange(20) % 2
    made = gsdd_jax.distill(
        images, labels, objective="datm", test=(), workdir=tmp_path, config=changes
    )
    assert ("nothing changed in 2 steps: the loss" in capsys.readouterr().out) == (threshold < 1)
    assert (made.learning_rate == pytest.approx(0.05, rel=1e-6)) == (threshold < 1)
    # A teacher chose the first images, which are therefore not those of `real.safetensors`.
    assert not (tmp_path / "real.safetensors").exists()


def test_nothing_is_trained_for_a_run_that_is_refused(tmp_path):
    """Neither in the directory of another run, nor before a set that is not there."""
    images, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 0, 1, 1])
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"seed": 7}')
    (other / "inputs.json").write_text("{}")
    for objective in ("tm", "ncfm"):
        distill_ = lambda of, **more: gsdd_jax.distill(
            images, labels, objective=of, test=(), verbose=False, **more
        )
        with pytest.raises(gsdd_jax.UsageError, match="holds a run with"):
            distill_(objective, workdir=other)
        with pytest.raises(gsdd_jax.UsageError, match=r"init\.set: .* no such file or"):
            distill_(
                objective, workdir=tmp_path / "new", config={"init.set": str(tmp_path / "none")}
            )
        assert not list(tmp_path.rglob("experts"))


def test_a_rate_that_it_does_not_use_is_one_line():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    message = r"labels\.learning_rate: expected 0\.02 with the objective datm, got 7"
    with pytest.raises(gsdd_jax.UsageError, match=message):
        gsdd_jax.distill(
            images, np.arange(20) % 2, objective="datm", test=(), verbose=False,
            config={"labels.learning_rate": 7.0},
        )  # fmt: skip
