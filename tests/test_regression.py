"""Tests feature regression (FRePo): its loss, its pool of networks, its labels, a resumed run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax.data.soft_labels import Labels
from gsdd_jax.matching import frepo
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.training import distill
from tests import small_problem
from tests.interrupting import check_same_bytes, interrupted_once
from tests.small_problem import (
    CLASSES,
    IPC,
    NETWORK,
    REAL,
    REAL_LABELS,
    START,
    TRANSFORM,
    real,
    started,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")

LEARNED = Labels(learned=True, bits=8)

regressed = jax.jit(frepo.regression, static_argnums=3)


def problem(labels=LEARNED, **options):
    return small_problem.problem("frepo", labels, **options)


def ridge_regression(x, synthetic, y, ridge):
    """Returns predictions by least squares with rows for the ridge, in float64."""
    x, synthetic, y = (np.asarray(a, np.float64) for a in (x, synthetic, y))
    amount = np.trace(synthetic @ synthetic.T) * max(ridge / len(synthetic), 2.0**-20)
    width = synthetic.shape[1]
    rows = np.concatenate([synthetic, np.sqrt(amount) * np.eye(width)])
    right = np.concatenate([y, np.zeros((width, y.shape[1]))])
    return x @ np.linalg.lstsq(rows, right, rcond=None)[0]


@pytest.mark.parametrize(("images", "width"), [(6, 40), (40, 6), (20, 20)])
def test_the_predictions_are_those_of_least_squares(images, width):
    random = np.random.default_rng(images)
    x, synthetic = (np.float32(random.normal(size=(n, width))) for n in (11, images))
    y = np.float32(random.normal(size=(images, 4)))
    for ridge in (1e-6, 0.3):
        expected = ridge_regression(x, synthetic, y, ridge)
        found = regressed(x, synthetic, y, ridge)
        np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())
    equal = np.repeat(synthetic[:1], images, 0)  # a kernel of rank 1
    expected = ridge_regression(x, equal, y, 1e-6)
    found = regressed(x, equal, y, 1e-6)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(y).max())


def logits_of(seed=1):
    logits = np.random.default_rng(seed).uniform(0, 8, (CLASSES * IPC, CLASSES))
    return np.float32(np.round(logits * 255 / 8) * 8 / 255)


def prepared(prob, state, key):
    """Returns the loss as a function of images and logits, of one network and all real images."""
    data = real()
    carry = prob.matching.begin(key, data, None)
    of_start = prob.synthetic({"pixels": jnp.array(START)}, TRANSFORM)
    kept = state.aux_params[distill.KEPT]
    carry = prob.matching.with_kept(carry, kept, of_start, state.aux_params)

    @jax.jit
    def loss(images, logits):
        synthetic = prob.synthetic({"pixels": images}, TRANSFORM)
        return prob.matching.loss(synthetic, data, {"labels": logits}, carry, jnp.int32(0), key)

    return carry, loss


def test_the_loss_is_the_published_one_in_float64():
    prob = problem(batch_real=100, ridge=1e-3)
    state, logits = started(prob), logits_of()
    carry, loss = prepared(prob, state, jax.random.key(3))
    network = jax.tree.map(lambda a: a[carry.place], state.aux_params[distill.KEPT].params)
    features = functools.partial(NETWORK.features, network)
    seen = (REAL / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.25]
    targets = logits - logits.mean(1, keepdims=True)
    targets = targets / 6 / np.sqrt(CLASSES / 10)
    both = np.concatenate([START, START[:, :, ::-1]])
    found = ridge_regression(
        features(jnp.float32(seen)), features(jnp.array(both)), np.tile(targets, (2, 1)), 1e-3
    )
    error = ((found - np.eye(CLASSES)[REAL_LABELS] + 1 / CLASSES) ** 2).sum(1) / 2
    by_class = np.mean([error[c == REAL_LABELS].mean() for c in range(CLASSES)])
    ordered = np.sort(targets, 1)
    margin = np.minimum(ordered[:, -1] - ordered[:, -2], 1 / CLASSES).mean()
    assert float(loss(START, logits)) == pytest.approx(by_class - margin, rel=1e-4)


def test_gradients_are_differences_of_the_loss():
    prob = problem(batch_real=100, ridge=1e-2)
    _, loss = prepared(prob, started(prob), jax.random.key(3))
    logits = logits_of(2)
    _, on_logits = jax.grad(loss, (0, 1))(START, logits)
    gradient = jax.grad(loss)(START, logits)
    along = np.asarray(gradient / jnp.linalg.norm(gradient))
    ends = [float(loss(START + sign * 0.02 * along, logits)) for sign in (1, -1)]
    expected = float((gradient * along).sum())
    assert (ends[0] - ends[1]) / 0.04 == pytest.approx(expected, rel=0.02)
    step = 4 * 8 / 255  # of the labels' grid
    for place in ((0, 0), (3, 1)):
        moved = [logits.copy() for _ in range(2)]
        moved[0][place] += step
        moved[1][place] -= step
        ends = [float(loss(START, one)) for one in moved]
        expected = float(on_logits[place])
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(expected, rel=0.05, abs=1e-4)


def adam(gradient, number, moments, rate):
    """Returns the step of Adam in NumPy, and its moments."""
    first = [0.9 * m + 0.1 * g for m, g in zip(moments[0], gradient, strict=True)]
    second = [0.999 * v + 0.001 * g**2 for v, g in zip(moments[1], gradient, strict=True)]
    corrected = zip(first, second, strict=True)
    a, b = 1 - 0.9**number, 1 - 0.999**number
    return [-rate * m / a / (np.sqrt(v / b) + 1e-8) for m, v in corrected], (first, second)


def test_networks_of_the_pool_train_and_are_replaced():
    rate, most = 0.01, 3
    options = dict(pool_size=2, max_updates=most, network_learning_rate=rate, batch_real=4)
    prob, data = problem(**options), real()
    state = started(prob)
    numbers = lambda pool, place: [np.array(a[place]) for a in jax.tree.leaves(pool.params)]
    pool = state.aux_params[distill.KEPT]
    assert pool.age.tolist() == [0, 1]
    old, ages = [numbers(pool, p) for p in range(2)], [0, 1]
    moments = [2 * [[np.zeros_like(a) for a in one]] for one in old]
    updates, replaced = [0, 0], 0

    @jax.jit
    @jax.grad
    def gradient_of(params, images, targets):
        return ((NETWORK.apply(params, images) - targets) ** 2).sum(1).mean() / 2

    for _ in range(14):
        state, _ = distill.run(prob, state, jax.random.key(0), data, None, 1)
        pool = state.aux_params[distill.KEPT]
        new = [numbers(pool, p) for p in range(2)]
        changed = [not all(map(np.array_equal, n, o)) for n, o in zip(new, old, strict=True)]
        assert sum(changed) == 1
        place = changed.index(True)
        if ages[place] > most:
            ages[place], updates[place] = 0, 0
            moments[place] = 2 * [[np.zeros_like(a) for a in new[place]]]
            replaced += 1
        else:
            logits = np.asarray(state.aux_params["labels"])
            logits = np.round(logits * 255 / 8) * 8 / 255
            targets = (logits - logits.mean(1, keepdims=True)) / 6 / np.sqrt(CLASSES / 10)
            params = jax.tree.unflatten(jax.tree.structure(pool.params), old[place])
            gradient = gradient_of(params, state.params["pixels"], jnp.float32(targets))
            ages[place] += 1
            updates[place] += 1
            gradient = [np.asarray(g) for g in jax.tree.leaves(gradient)]
            steps, moments[place] = adam(gradient, updates[place], moments[place], rate)
            for n, o, s, g in zip(new[place], old[place], steps, gradient, strict=True):
                large = np.abs(g) > 1e-5  # of less, Adam's step is the sign of rounding
                np.testing.assert_allclose((n - o)[large], s[large], atol=2e-2 * rate)
        assert pool.age.tolist() == ages
        old = new
    assert replaced >= 2


def test_labels_stay_on_the_range_of_their_grid_and_targets_stay():
    objective = problem().matching
    logits = jnp.float32([[1.0, 3.0, 2.0], [-1.0, 4.0, 0.0]])
    projected = objective.project_aux({"labels": logits})
    np.testing.assert_array_equal(projected["labels"], [[0, 2, 1], [0, 5, 1]])
    start = objective.aux_params(jnp.arange(CLASSES))
    hard = problem(Labels()).matching
    expected = (np.eye(CLASSES) - 1 / CLASSES) / np.sqrt(CLASSES / 10)
    np.testing.assert_allclose(hard._targets(jnp.arange(CLASSES), {}), expected, atol=1e-6)
    learned = objective._targets(jnp.arange(CLASSES), start)
    np.testing.assert_allclose(learned, expected, atol=0.01)  # the grid's
    assert hard.aux_params(jnp.arange(CLASSES)) == {} and hard.learned({}) == (None, None)


def test_wrong_options_are_a_line():
    for wrong, said in {
        "batch_syn": (7, r"expected 0 \(all\) to 6 images, got 7"),
        "pool_size": (0, "expected an integer from 1 to"),
        "ridge": (0.0, "expected a number from 1e-09"),
    }.items():
        with pytest.raises(gsdd_jax.UsageError, match=f"options.{wrong}: {said[1]}"):
            problem(**{wrong: said[0]})


def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path, monkeypatch):
    """Resumes with the pool of the last checkpoint; the set holds learned labels."""
    config = small_problem.with_learned_labels("frepo", pool_size=2, max_updates=2)
    resumed, whole = tmp_path / "resumed", tmp_path / "whole"
    interrupted_once(monkeypatch, distill, "run", 3, lambda: distill_to(config, resumed))
    distill_to(config, whole)
    check_same_bytes(resumed, whole)
    set_ = gsdd_jax.load(whole)
    assert set_.soft_labels.shape == (10, 10) and set_.num_bytes <= 10 * config.budget.bytes
