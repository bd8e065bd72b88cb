"""Tests back-propagation through training: its loss, its gradients, its networks, a resumed run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gsdd_jax
from gsdd_jax.data import mixing
from gsdd_jax.data.soft_labels import HARD, Labels
from gsdd_jax.matching import bptt
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.training import distill, labeling
from tests import small_problem
from tests.interrupting import check_same_bytes, interrupted_once
from tests.small_problem import (
    CLASSES,
    IPC,
    MEAN,
    NETWORK,
    REAL,
    REAL_LABELS,
    START,
    STD,
    TRANSFORM,
    real,
    started,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")

LABELS = np.repeat(np.arange(CLASSES), IPC)
RATE = 0.05
SHORT = dict(syn_steps=3, min_start_step=2, max_start_step=2, batch_real=100)
SHORT |= dict(network_learning_rate=RATE)


def problem(labels=HARD, **options):
    return small_problem.problem("bptt", labels, **options)


def prepared(prob, aux_params=None, labeler=None):
    """Returns the loss as a function of images, learned arrays and a key, and the first network."""
    data = dataclasses.replace(real(), labeler=labeler)
    of_start = prob.synthetic({"pixels": jnp.array(START)}, TRANSFORM)

    def begun(key):
        return prob.matching.begin(key, data, None)

    @jax.jit
    def loss(images, aux_params, key):
        carry = prob.matching.with_kept(begun(key), None, of_start, aux_params_at_start)
        synthetic = prob.synthetic({"pixels": images}, TRANSFORM)
        return prob.matching.loss(synthetic, data, aux_params, carry, jnp.int32(0), key)

    aux_params_at_start = aux_params or {}
    return loss, jax.jit(lambda key: begun(key).member.params)


KEY = jax.random.key(3)


@jax.jit
@jax.grad
def gradient_of(params, images, targets):
    chosen = jax.nn.log_softmax(NETWORK.apply(params, images))
    return -(targets * chosen).sum(1).mean()


def trained_by_hand(params, images, targets, optimizer, rates):
    """Returns the parameters after a step at each of `rates`, by an optimizer in float64."""
    leaves, tree = jax.tree.flatten(params)
    values = [np.asarray(a, np.float64) for a in leaves]
    moments = [2 * [np.zeros_like(a)] for a in values]
    for number, rate in enumerate(rates, 1):
        if optimizer == "sgd" and number > 1 and rate != rates[number - 2]:
            moments = [2 * [np.zeros_like(a)] for a in values]
        now = jax.tree.unflatten(tree, [jnp.float32(a) for a in values])
        gradients = jax.tree.leaves(gradient_of(now, jnp.float32(images), jnp.float32(targets)))
        for i, gradient in enumerate(np.asarray(g, np.float64) for g in gradients):
            if optimizer == "sgd":
                moments[i][0] = 0.9 * moments[i][0] + gradient + 5e-4 * values[i]
                values[i] = values[i] - rate * moments[i][0]
                continue
            first = moments[i][0] = 0.9 * moments[i][0] + 0.1 * gradient
            second = moments[i][1] = 0.999 * moments[i][1] + 0.001 * gradient**2
            first, second = first / (1 - 0.9**number), second / (1 - 0.999**number)
            values[i] = values[i] - rate * first / (np.sqrt(second) + 1e-8)
    return jax.tree.unflatten(tree, [jnp.float32(a) for a in values])


def real_loss(params):
    """Returns the mean over classes of the mean cross-entropy of a class's real images."""
    seen = jnp.float32((REAL / 255 - MEAN) / STD)
    logits = np.asarray(NETWORK.apply(params, seen), np.float64)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(seen)), REAL_LABELS]
    return np.mean([losses[c == REAL_LABELS].mean() for c in range(CLASSES)])


@pytest.mark.parametrize(("optimizer", "last_rate"), [("adam", 1.0), ("sgd", 1.0), ("sgd", 0.1)])
def test_the_loss_is_that_of_a_network_trained_by_hand(optimizer, last_rate):
    prob = problem(optimizer=optimizer, last_rate=last_rate, **SHORT)
    loss, first = prepared(prob)
    first = first(KEY)
    rates = [RATE] * 2 + [RATE * last_rate] * 3
    end = trained_by_hand(first, START, np.eye(CLASSES)[LABELS], optimizer, rates)
    assert float(loss(START, {}, KEY)) == pytest.approx(real_loss(end), rel=1e-4)
    assert real_loss(end) != pytest.approx(real_loss(first), rel=1e-3)


def stepped(optimizer, params, images, targets, rates):
    """Returns the parameters after a step at each of `rates`, written as the optimizers are."""
    moments = jax.tree.map(lambda p: (jnp.zeros_like(p), jnp.zeros_like(p)), params)
    for number, rate in enumerate(rates, 1):

        def update(p, g, both, number=number, rate=rate):
            if optimizer == "sgd":
                first = 0.9 * both[0] + g + 5e-4 * p
                return p - rate * first, (first, first)
            both = 0.9 * both[0] + 0.1 * g, 0.999 * both[1] + 0.001 * g**2
            first, second = both[0] / (1 - 0.9**number), both[1] / (1 - 0.999**number)
            safe = jnp.where(second > 0, second, 1.0)
            root = jnp.where(second > 0, jnp.sqrt(safe), 0.0)
            return p - rate * first / (root + 1e-8), both

        gradient, tree = gradient_of(params, images, targets), jax.tree.structure(params)
        leaves = zip(
            *map(jax.tree.leaves, (params, gradient)), tree.flatten_up_to(moments), strict=True
        )
        updated = [update(*leaf) for leaf in leaves]
        params = tree.unflatten([one[0] for one in updated])
        moments = tree.unflatten([one[1] for one in updated])
    return params


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_gradients_are_those_of_the_last_steps_alone(optimizer):
    """What came before is a constant. The loss is not continuous, so no differences are taken."""
    rate = RATE if optimizer == "sgd" else 1e-3
    given = dict(optimizer=optimizer, last_rate=0.5, **SHORT | {"network_learning_rate": rate})
    prob = problem(Labels(learned=True, bits=8), **given)
    logits = (
        np.round(np.random.default_rng(1).uniform(1, 7, (CLASSES * IPC, CLASSES)) * 255 / 8)
        * 8
        / 255
    )
    logits = jnp.float32(logits)
    loss, first = prepared(prob, {"labels": logits})
    begin = stepped(optimizer, first(KEY), START, jax.nn.softmax(logits), [rate] * 2)

    def last_steps(images, logits):
        end = stepped(optimizer, begin, images, jax.nn.softmax(logits), [rate / 2] * 3)
        outputs = NETWORK.apply(end, jnp.float32((REAL / 255 - MEAN) / STD))
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, REAL_LABELS)
        return jnp.mean(jnp.array([losses[c == REAL_LABELS].mean() for c in range(CLASSES)]))

    expected = jax.jit(jax.grad(last_steps, (0, 1)))(jnp.array(START), logits)
    at = lambda images, logits: loss(images, {"labels": logits}, KEY)
    found = jax.grad(at, (0, 1))(jnp.array(START), logits)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other).max() > 1e-5
        np.testing.assert_allclose(one, other, atol=2e-3 * np.abs(other).max())


def test_a_labeler_labels_the_views_that_networks_train_on(monkeypatch):
    """Without mixtures and augmentation the views are the images, of which it knows the targets."""
    monkeypatch.setattr(mixing, "MIXED", 0.0)
    labeler = labeling.Labeling(NETWORK.init(jax.random.key(8)), jnp.float32(0.5), NETWORK)
    prob = problem(optimizer="sgd", **SHORT)
    loss, first = prepared(prob, labeler=labeler)
    outputs = np.asarray(NETWORK.apply(labeler.params, jnp.array(START)), np.float64) / 0.5
    targets = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    end = trained_by_hand(first(KEY), START, targets, "sgd", [RATE] * 5)
    assert float(loss(START, {}, KEY)) == pytest.approx(real_loss(end), rel=1e-4)
    monkeypatch.setattr(mixing, "MIXED", 1.0)
    mixed = float(prepared(prob, labeler=labeler)[0](START, {}, KEY))
    assert mixed != pytest.approx(real_loss(end), rel=1e-4)


def test_adam_has_derivatives_where_a_gradient_is_zero():
    optimizer = problem(**SHORT).matching._optimizer()
    state = optimizer.init(jnp.zeros(2))
    step = lambda gradient: optimizer.update(gradient, state)[0].sum()
    assert np.isfinite(jax.grad(step)(jnp.array([0.0, 1.0]))).all()


def test_real_images_are_judged_in_parts(monkeypatch):
    prob = problem(**SHORT)
    expected = float(prepared(prob)[0](START, {}, KEY))
    monkeypatch.setattr(bptt, "AT_ONCE", 4)
    assert float(prepared(prob)[0](START, {}, KEY)) == pytest.approx(expected, rel=1e-5)


def test_the_first_steps_are_between_their_bounds():
    """The loss says after how many steps it was read."""
    options = SHORT | dict(syn_steps=1, min_start_step=1, max_start_step=3, optimizer="sgd")
    loss, first = prepared(problem(**options))
    targets, found = np.eye(CLASSES)[LABELS], set()
    for seed in range(12):
        key = jax.random.key(seed)
        value, begin = float(loss(START, {}, key)), first(key)
        trained = (trained_by_hand(begin, START, targets, "sgd", [RATE] * n) for n in range(1, 6))
        after = np.array([real_loss(params) for params in trained])
        nearest = int(np.argmin(np.abs(after - value)))
        assert after[nearest] == pytest.approx(value, rel=1e-4)
        found.add(nearest)  # steps before the last one
    assert found == {1, 2, 3}


def test_networks_of_the_pool_go_on_and_are_replaced():
    """A new one first takes the least number of steps; each then takes as many as a window."""
    options = SHORT | dict(min_start_step=2, max_start_step=9, syn_steps=3)
    prob, data = problem(pool_size=2, **options), real()
    state = started(prob)
    pool = state.aux_params[distill.KEPT]
    assert pool.age.tolist() == [0, 0] and pool.last.tolist() == [5, 9]
    ages, last, replaced = [0, 0], [5, 9], 0
    numbers = lambda pool, place: [np.array(a[place]) for a in jax.tree.leaves(pool.params)]
    old = [numbers(pool, p) for p in range(2)]
    for _ in range(14):
        images = np.array(state.params["pixels"])
        state, _ = distill.run(prob, state, jax.random.key(0), data, None, 1)
        assert not np.array_equal(images, state.params["pixels"])
        pool = state.aux_params[distill.KEPT]
        new = [numbers(pool, p) for p in range(2)]
        changed = [not all(map(np.array_equal, n, o)) for n, o in zip(new, old, strict=True)]
        assert sum(changed) == 1
        place = changed.index(True)
        ages[place] = max(ages[place], 2) + 3
        if ages[place] > last[place]:
            ages[place], last[place] = 0, 9
            replaced += 1
        assert (pool.age.tolist(), pool.last.tolist()) == (ages, last)
        old = new
    assert replaced >= 2


def test_wrong_bounds_are_one_line():
    with pytest.raises(gsdd_jax.UsageError, match="expected at most max_start_step=2, got 3"):
        problem(**SHORT | dict(min_start_step=3))


@pytest.mark.parametrize("pool_size", [0, 2])
def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path, monkeypatch, pool_size):
    """Resumes with the pool of the last checkpoint; the set holds learned labels."""
    config = small_problem.with_learned_labels(
        "bptt", syn_steps=2, max_start_step=3, pool_size=pool_size
    )
    resumed, whole = tmp_path / "resumed", tmp_path / "whole"
    interrupted_once(monkeypatch, distill, "run", 3, lambda: distill_to(config, resumed))
    distill_to(config, whole)
    check_same_bytes(resumed, whole)
    set_ = gsdd_jax.load(whole)
    assert set_.soft_labels.shape == (10, 10) and set_.num_bytes <= 10 * config.budget.bytes
