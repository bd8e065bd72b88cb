"""Tests characteristic function matching with complex numbers, its networks and its experts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gsdd_jax
from gsdd_jax.data import augment
from gsdd_jax.matching.ncfm import Chosen
from tests import small_problem
from tests.small_problem import (
    CLASSES,
    IPC,
    MEAN,
    NETWORK,
    REAL,
    START,
    STD,
    TRANSFORM,
    Experts,
    real,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")

KEY, LOSS_KEY = jax.random.key(3), jax.random.key(4)
FIRST, LAST = (ravel_pytree(NETWORK.init(jax.random.key(k)))[0] for k in (5, 6))
unravel = ravel_pytree(NETWORK.init(jax.random.key(0)))[1]


def problem(**options):
    return small_problem.problem("ncfm", **dict(num_frequencies=48, batch_real=6) | options)


def begun(prob, classes=None):
    return prob.matching.begin(KEY, real(), Chosen(classes, FIRST, LAST))


@functools.partial(jax.jit, static_argnums=0)
def loss_of(prob, images, update, classes=None):
    synthetic = prob.synthetic({"pixels": images}, TRANSFORM)
    carry = begun(prob, classes)
    return prob.matching.loss(synthetic, real(), {}, carry, update, LOSS_KEY)


def views(strategy, key, images):
    return augment.augment(key, images, strategy=strategy, shared=True)


def characteristic(networks, images, weights):
    """Returns the function at all frequencies, in complex numbers."""
    found = NETWORK.features(networks.between, images)
    found = found / jnp.linalg.norm(found, axis=1, keepdims=True)
    return weights @ jnp.exp(1j * (found @ networks.frequencies.T))


def expected_loss(prob, images, classes, strategy=""):
    """Returns the loss of `classes` by the published formula."""
    carry, of = jax.jit(begun, static_argnums=0)(prob), prob.matching
    draw_key = jax.random.split(KEY, 3)[2]
    _, weights, indices = map(np.asarray, real().draw(draw_key, of.batch_real))
    total = 0.0
    for c in classes:
        key, own = carry.augmentation[c], images[c * IPC : (c + 1) * IPC]
        seen = views(strategy, key, jnp.float32((REAL[indices[c]] / 255 - MEAN) / STD))
        own = views(strategy, key, own)
        one = characteristic(carry.network, seen, weights[c])
        other = characteristic(carry.network, own, jnp.full(IPC, 1 / IPC))
        amplitudes = (jnp.abs(one) - jnp.abs(other)) ** 2
        phases = 2 * (jnp.abs(one) * jnp.abs(other) - (one * other.conj()).real)
        squares = of.amplitude * amplitudes + (1 - of.amplitude) * phases
        total += 300 * jnp.sqrt(squares).mean()
        logits = NETWORK.apply(unravel(LAST), own)
        total += of.calibration * (jax.nn.logsumexp(logits, 1) - logits[:, c]).mean()
    return total


@pytest.mark.parametrize(
    "options",
    [{}, {"amplitude": 0.2, "calibration": 0.0, "class_by_class": True}, {"calibration": 7.0}],
    ids=["published weights", "phases, one class at a time", "much calibration"],
)
def test_the_loss_and_its_gradient_are_those_of_complex_numbers(options):
    """Real classes have five to nine images, of which six are drawn at most."""
    prob = problem(**options)
    given = jnp.array(START)
    of_all = functools.partial(expected_loss, prob, classes=range(CLASSES))
    expected, slope = jax.value_and_grad(of_all)(given)
    found, gradient = jax.value_and_grad(functools.partial(loss_of, prob))(given, 0)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
    np.testing.assert_allclose(gradient, slope, atol=1e-3 * np.abs(slope).max())


def test_real_and_synthetic_images_have_the_same_views():
    prob = problem(strategy="flip")
    expected = float(expected_loss(prob, jnp.array(START), range(CLASSES), "flip"))
    assert float(loss_of(prob, jnp.array(START), 0)) == pytest.approx(expected, rel=1e-4)


def test_classes_are_updated_in_turn_or_in_groups():
    """Losses of single classes, and of a group in its own order."""
    given, single = jnp.array(START), problem(per_class_updates=True)
    assert single.matching.num_updates == CLASSES
    for c in range(CLASSES):
        expected = float(expected_loss(problem(), given, [c]))
        assert float(loss_of(single, given, c)) == pytest.approx(expected, rel=1e-4)
    grouped = problem(classes_per_step=1)
    found = float(loss_of(grouped, given, 0, jnp.array([2])))
    assert found == pytest.approx(float(expected_loss(problem(), given, [2])), rel=1e-4)


def test_networks_are_between_an_expert_before_and_after_training():
    """At a random place of the line; frequencies are standard normal."""
    of, places, drawn = problem(num_frequencies=400).matching, [], []
    networks = jax.jit(lambda key: of.networks(key, Chosen(None, FIRST, LAST)))
    for seed in range(20):
        found = networks(jax.random.key(seed))
        between, trained = (np.asarray(ravel_pytree(p)[0]) for p in found[:2])
        np.testing.assert_array_equal(trained, LAST)
        way = np.asarray(FIRST - LAST)
        place = between @ way - LAST @ way
        place = float(place / (way @ way))
        np.testing.assert_allclose(between, LAST + place * way, atol=1e-5)
        places.append(place)
        drawn.append(found.frequencies)
    assert 0 <= min(places) < 0.2 and 0.8 < max(places) <= 1
    drawn = np.stack(drawn)
    assert drawn.shape == (20, 400, 4 * 4 * 4)  # features of four channels, pooled once
    assert drawn.mean() == pytest.approx(0, abs=0.01) and drawn.std() == pytest.approx(1, abs=0.01)
    assert len(np.unique(drawn)) > 0.9 * drawn.size


def test_steps_choose_among_all_experts():
    """A resumed run chooses as an uninterrupted one; classes are those of the groups."""
    of = problem(classes_per_step=1).matching
    whole = of.host_inputs(Experts(epochs=2), 7, 0, 30)
    np.testing.assert_array_equal(whole.first[:, 0], whole.last[:, 0])
    assert set(whole.first[:, 0].tolist()) == {0, 1, 2}
    assert set(whole.first[:, 1].tolist()) == {0} and set(whole.last[:, 1].tolist()) == {2}
    resumed = of.host_inputs(Experts(epochs=2), 7, 20, 10)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[20:], b), whole, resumed)
    assert sorted(whole.classes[:3, 0].tolist()) == [0, 1, 2]
    assert problem().matching.host_inputs(Experts(epochs=2), 7, 0, 1).classes is None


def test_a_black_image_has_a_gradient():
    """Features of norm 0 have no direction."""
    of, chosen = problem().matching, Chosen(None, FIRST, LAST)
    networks = of.networks(KEY, chosen)
    nothing = networks._replace(between=jax.tree.map(jnp.zeros_like, networks.between))
    slope = jax.grad(lambda images: of.features(nothing, images).sum())(jnp.array(START))
    assert np.isfinite(slope).all()


def test_frequencies_beyond_the_memory_are_one_line():
    with pytest.raises(
        gsdd_jax.UsageError, match=r"num_frequencies: 1,000,000,000 for 18 images at once"
    ):
        problem(num_frequencies=10**9)
