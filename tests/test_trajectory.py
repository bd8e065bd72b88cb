"""Tests trajectory matching against a straightforward float64 unroll."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gsdd_jax
from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.data import augment, mixing, transforms
from gsdd_jax.data.soft_labels import Labels
from gsdd_jax.matching.tm import Segments, TrajectoryMatching
from gsdd_jax.training import distill, labeling
from tests.small_problem import Experts

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIZE, CLASSES, GPC = 4, 3, 4
SOFT = Labels(learned=True, bits=2, learning_rate=1.5)
MEAN, STD = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.25])
NETWORK = networks.build(
    "convnet", image_shape=(SIZE, SIZE, 3), num_classes=CLASSES, width=2, depth=1,
    precision="float32",
)  # fmt: skip


def problem(**settings):
    settings = dict(network=NETWORK, syn_steps=3, batch_syn=12, strategy="") | settings
    return distill.Problem(
        parameterizations.build("gaussian", (SIZE, SIZE, 3), ipc=1, images_per_class=GPC),
        TrajectoryMatching(**settings),
        CLASSES,
    )


@functools.cache
def student():
    """Returns the student's first parameters, flat, and the function that unflattens them."""
    return ravel_pytree(NETWORK.init(jax.random.key(0)))


@functools.cache
def segments(count=1):
    """Returns start and target parameters as far apart as two epochs of an expert."""
    starts = jnp.stack([ravel_pytree(NETWORK.init(jax.random.key(s)))[0] for s in range(count)])
    apart = np.random.default_rng(100).normal(scale=0.02, size=starts.shape)
    return Segments(starts, starts + jnp.float32(apart))


@functools.cache
def real():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (9, SIZE, SIZE, 3), np.uint8)
    transform = transforms.Normalize(jnp.float32(MEAN), jnp.float32(STD))
    return matching.real_data(images, np.arange(9, dtype=np.int32) % 3, CLASSES, transform)


@functools.cache
def parameters():
    key = jax.random.key(7)
    params = problem().parameterization.init(key, jnp.zeros((CLASSES * GPC, SIZE, SIZE, 3)))
    opacities = np.random.default_rng(7).uniform(0.2, 0.9, params.opacities.shape)
    params = dataclasses.replace(params, opacities=opacities)
    # Exact bfloat16 values, so that float64 renders the same Gaussians.
    return jax.tree.map(lambda p: jnp.float32(np.asarray(p, jnp.bfloat16)), params)


def loss_of(prob, data, params, aux_params, carry, key):
    return prob.matching.loss(
        prob.synthetic(params, data.transform), data, aux_params, carry, jnp.int32(0), key
    )


library_loss = jax.jit(loss_of, static_argnums=0)
library_gradient = jax.jit(jax.value_and_grad(loss_of, argnums=(2, 3)), static_argnums=0)


def plain_network(params, x):
    """Computes the ConvNet layer by layer."""
    conv, norm, linear = (*params["body"].values(), params["Linear_0"])
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = conv["bias"] + sum(
        jnp.einsum("bhwc,co->bhwo", padded[:, a : a + SIZE, b : b + SIZE], conv["kernel"][a, b])
        for a in range(3)
        for b in range(3)
    )
    x = (x - x.mean((1, 2), keepdims=True)) / jnp.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    x = jnp.maximum(norm["scale"] * x + norm["bias"], 0)
    x = x.reshape(len(x), SIZE // 2, 2, SIZE // 2, 2, -1).mean((2, 4))
    return x.reshape(len(x), -1) @ linear["kernel"] + linear["bias"]


def plain_loss(params, learning_rate, targets, start, target, unravel, order):
    """Computes the loss. `order` [steps, batch]: images per step, padded beyond the last one.

    `targets` [images, classes]: logits of each image's probabilities; or parameters of a network
    that labels the images, of the same architecture.
    """
    images = gsdd_jax.rasterize(*params, height=SIZE, width=SIZE, backend="reference")
    images = (images - MEAN) / STD
    if isinstance(targets, dict):
        targets = plain_network(targets, images)
    probabilities = jnp.exp(targets) / jnp.exp(targets).sum(1, keepdims=True)

    def cross_entropy(theta, batch):
        logits = plain_network(theta, images[batch])
        log_probabilities = logits - jax.nn.logsumexp(logits, -1, keepdims=True)
        losses = -(log_probabilities * probabilities[batch]).sum(1)
        return losses.mean(where=batch < len(images))

    def step(theta, batch):
        gradient = jax.grad(cross_entropy)(theta, batch)
        return jax.tree.map(lambda p, g: p - learning_rate * g, theta, gradient), None

    end = ravel_pytree(jax.lax.scan(step, unravel(start), order)[0])[0]
    return ((end - target) ** 2).sum() / ((start - target) ** 2).sum()


def batches(key, prob):
    """Returns images per student step: shuffles in sequence, the rest first, padded by an invalid
    index."""
    count, size = CLASSES * GPC, prob.matching.batch_syn
    ends = range(count, 0, -size)
    shuffles = math.ceil(prob.matching.syn_steps / len(ends))
    found = []
    for shuffle_key in jax.random.split(jax.random.fold_in(key, 0), shuffles):
        shuffle = np.asarray(jax.random.permutation(shuffle_key, count))
        cuts = [shuffle[max(0, end - size) : end] for end in reversed(ends)]
        found += [np.append([count] * (size - len(cut)), cut) for cut in cuts]
    return np.stack(found)[: prob.matching.syn_steps].astype(np.int32)


def wide_inputs(params, carry, expert=0):
    """Returns the arguments of `plain_loss` in float64, images first, for `jax.enable_x64`."""
    start, unravel = ravel_pytree(jax.tree.map(np.float64, student()[1](carry.start[expert])))
    params = [np.float64(p) for p in jax.tree.leaves(params)]
    return params, start, np.float64(carry.target[expert]), unravel


@pytest.mark.parametrize(
    ("syn_steps", "experts", "labels", "labeled"),
    [(2, 1, Labels(), False), (4, 2, SOFT, False), (4, 1, Labels(), True)],
    ids=["hard", "soft", "labeler"],
)
def test_loss_and_gradients_equal_a_float64_unroll(
    monkeypatch, syn_steps, experts, labels, labeled
):
    """Renders the drawn images, or all of them for two experts with orders of their own."""
    monkeypatch.setattr(mixing, "MIXED", 0.0)  # of what a labeler labels
    prob = problem(syn_steps=syn_steps, batch_syn=5, lr_init=0.05, labels=labels)
    params, carry, key = parameters(), segments(experts), jax.random.key(3)
    aux_params = prob.matching.aux_params(prob.labels)
    targets = 40.0 * np.eye(CLASSES)[np.asarray(prob.labels)]  # hard
    if labels.soft:
        logits = np.random.default_rng(2).uniform(0, 8, (CLASSES * GPC, CLASSES))
        aux_params["labels"] = jnp.float32(logits)
        most = 2**labels.bits - 1
        targets = 8 * np.rint(logits / 8 * most) / most
    data = real()
    if labeled:
        targets = jax.tree.map(np.float64, NETWORK.init(jax.random.key(8)))
        of_set = labeling.Labeling(jax.tree.map(jnp.float32, targets), jnp.float32(1), NETWORK)
        data = dataclasses.replace(data, labeler=of_set)
    loss, (d_params, d_aux) = library_gradient(prob, data, params, aux_params, carry, key)
    orders = [batches(k, prob) for k in jax.random.split(key, experts)]
    with jax.enable_x64(True):
        plain = jax.jit(jax.value_and_grad(plain_loss, argnums=(0, 1, 2)), static_argnums=5)
        found = []
        for expert, order in enumerate(orders):
            wide, start, target, unravel = wide_inputs(params, carry, expert)
            rate = np.float64(np.float32(0.05))
            value = plain(wide, rate, targets, start, target, unravel, order)
            found.append(jax.tree.map(np.asarray, value))
        expected, (e_params, e_rate, e_targets) = jax.tree.map(lambda *a: np.mean(a, 0), *found)
    assert expected.dtype == np.float64
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(d_aux["learning_rate"]) == pytest.approx(e_rate, rel=1e-4)
    pairs = list(zip(jax.tree.leaves(d_params), e_params, strict=True))
    for actual, wanted in pairs + [(d_aux.get("labels"), e_targets)] * labels.soft:
        assert np.abs(actual - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_batches_go_through_shuffles_of_the_whole_set():
    """Checks that this file's order, and the library's, go through shuffles of the set."""
    prob, key = problem(syn_steps=7, batch_syn=5), jax.random.key(0)
    order = batches(key, prob)
    found, present = prob.matching._draw(key, 12)
    np.testing.assert_array_equal(found, order)
    np.testing.assert_array_equal(present, order < 12)
    assert order.shape == (7, 5)
    np.testing.assert_array_equal(present.sum(1), [2, 5, 5, 2, 5, 5, 2])
    for shuffle in (order[:3], order[3:6]):
        drawn = shuffle.ravel()
        np.testing.assert_array_equal(np.sort(drawn[drawn < 12]), np.arange(12))
    assert (order[:3] != order[3:6]).any()


def test_augmentation_is_drawn_anew_at_every_step():
    prob = problem(syn_steps=3, strategy="flip")
    params, carry, key = parameters(), segments(), jax.random.key(4)
    actual = library_loss(prob, real(), params, prob.matching.aux_params(prob.labels), carry, key)
    inner = jax.random.split(key, 1)[0]
    order = batches(inner, prob)
    step_keys = jax.random.split(jax.random.fold_in(inner, 1), 3)
    images = real().transform(prob.parameterization.render(params))
    theta = student()[1](carry.start[0])

    @jax.jit
    def step(theta, indices, step_key):
        batch, labels = (
            augment.augment(step_key, images[indices], strategy="flip"),
            prob.labels[indices],
        )
        loss = lambda theta: (
            -jax.nn.log_softmax(plain_network(theta, batch))[jnp.arange(len(labels)), labels].mean()
        )
        return jax.tree.map(lambda p, g: p - 0.01 * g, theta, jax.grad(loss)(theta))

    for indices, step_key in zip(order, step_keys, strict=True):
        theta = step(theta, indices, step_key)
    start, target = carry.start[0], carry.target[0]
    end = ravel_pytree(theta)[0]
    expected = ((end - target) ** 2).sum() / ((start - target) ** 2).sum()
    assert float(actual) == pytest.approx(float(expected), rel=1e-4)


@functools.cache
def compiled_gradient(prob):
    """Returns the compiled gradient, whose memory is known."""
    data, carry = real(), segments()
    loss = lambda params, aux_params: loss_of(
        prob, data, params, aux_params, carry, jax.random.key(0)
    )
    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return gradient.lower(parameters(), prob.matching.aux_params(prob.labels)).compile()


def test_what_is_kept_changes_memory_not_values():
    """Keeps none, two (with one left over) or all of seven student steps."""
    found, memory = [], []
    for keep_every in (0, 3, 1):
        prob = problem(syn_steps=7, batch_syn=6, keep_every=keep_every)
        compiled = compiled_gradient(prob)
        found.append(compiled(parameters(), prob.matching.aux_params(prob.labels)))
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
    assert memory == sorted(set(memory))
    value, gradient = found[-1]
    for other, its_gradient in found[:-1]:
        assert float(other) == pytest.approx(float(value), rel=1e-6)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * np.abs(y).max()),
            its_gradient,
            gradient,
        )


def test_the_learning_rate_is_learned_by_sgd_with_momentum_and_has_a_floor():
    objective = problem(lr_init=0.02, lr_lr=1e-3).matching
    optimizer = objective.aux_optimizer()
    state, velocity = optimizer.init(objective.aux_params(problem().labels)), 0.0
    for gradient in (3.0, -1.0, 2.0):
        updates, state = optimizer.update({"learning_rate": jnp.float32(gradient)}, state)
        velocity = 0.5 * velocity + gradient
        assert float(updates["learning_rate"]) == pytest.approx(-1e-3 * velocity)
    floor = objective.project_aux({"learning_rate": jnp.float32(-3.0)})
    assert float(floor["learning_rate"]) == pytest.approx(0.001)


def test_soft_labels_are_learned_by_adam_on_the_grid_beside_the_learning_rate():
    soft = dataclasses.replace(SOFT, bits=4)
    prob = problem(lr_init=0.02, lr_lr=1e-3, syn_steps=2, batch_syn=5, labels=soft)
    state = distill.start(prob, jax.tree.map(jnp.copy, parameters()), 0.01)
    labels, rate = 6.0 * np.eye(CLASSES)[np.asarray(prob.labels)], 0.02
    np.testing.assert_array_equal(state.aux_params["labels"], labels)
    mean, square, velocity = np.zeros_like(labels), np.zeros_like(labels), 0.0
    one = jax.tree.map(lambda a: a[None], segments())
    for step in range(3):
        key = jax.random.split(jax.random.fold_in(jax.random.key(0), step))[1]
        key = jax.random.split(jax.random.fold_in(key, 0))[0]
        _, (_, gradient) = library_gradient(
            prob, real(), state.params, state.aux_params, segments(), key
        )
        found = np.asarray(gradient["labels"], np.float64)
        mean, square = 0.9 * mean + 0.1 * found, 0.999 * square + 0.001 * found**2
        corrected = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
        labels = np.clip(labels - 1.5 * corrected[0] / (np.sqrt(corrected[1]) + 1e-8), 0, 8)
        velocity = 0.5 * velocity + float(gradient["learning_rate"])
        rate = max(rate - 1e-3 * velocity, 0.001)
        state, _ = distill.run(prob, state, jax.random.key(0), real(), one, 1)
        np.testing.assert_allclose(state.aux_params["labels"], labels, rtol=2e-3, atol=2e-3)
        assert float(state.aux_params["learning_rate"]) == pytest.approx(rate, rel=1e-4)
    assert (labels == 0).any() and (labels == 8).any()


EPOCHS = Experts(epochs=9)


def test_start_epochs_grow_from_early_to_late():
    objective = problem(
        min_start_epoch=2, max_start_epoch=8, grow_start_from=3, grow_start_over=60,
        expert_epochs=1, experts_per_step=5,
    ).matching  # fmt: skip
    objective.check(CLASSES, GPC)
    objective.check_experts(EPOCHS.epochs)
    starts = []
    for step in range(120):
        host_inputs = objective.host_inputs(EPOCHS, 0, step, 1)
        np.testing.assert_array_equal(
            host_inputs.target - host_inputs.start, np.tile([0.0, 1.0], (1, 5, 1))
        )
        starts.append(host_inputs.start[0, :, 1])
        below = 8 if step >= 60 else 3 + step // 12
        assert starts[-1].min() >= 2 and starts[-1].max() < below
    assert set(np.ravel(starts[:12])) == {2}
    assert set(np.ravel(starts[60:])) == {2, 3, 4, 5, 6, 7}


def test_start_epochs_by_default_are_all_there_are():
    starts = [
        problem(max_start_epoch=4).matching.host_inputs(EPOCHS, 0, s, 1).start for s in range(60)
    ]
    assert set(np.ravel(np.array(starts)[..., 1])) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("first", "grow", "least"), [(9, 10, 0), (3, 10, 3), (1, 0, 8)], ids=["far", "none", "empty"]
)
def test_start_epochs_that_there_are_not(first, grow, least):
    objective = problem(
        min_start_epoch=least, max_start_epoch=8, grow_start_from=first, grow_start_over=grow
    ).matching
    with pytest.raises(gsdd_jax.UsageError, match="min_start_epoch below grow_start_from"):
        objective.check(CLASSES, GPC)
