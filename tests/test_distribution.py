"""Tests distribution matching and the distillation step against plain loops."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.data import augment, transforms
from gsdd_jax.matching import dm
from gsdd_jax.training import distill

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIZE, CLASSES = 8, 3
MEAN, STD = np.float32([[0.4, 0.5, 0.6], [0.2, 0.3, 0.25]])
TRANSFORM = transforms.Normalize(*map(jax.device_put, (MEAN, STD)))


def real_split(seed=0, counts=(7, 5, 9)):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.full(n, c, np.int32) for c, n in enumerate(counts)])
    rng.shuffle(labels)
    return rng.integers(0, 256, (len(labels), SIZE, SIZE, 3), np.uint8), labels


def real(seed=0):
    return matching.real_data(*real_split(seed), CLASSES, TRANSFORM)


def problem(**options):
    network = networks.build(
        "convnet", image_shape=(SIZE, SIZE, 3), num_classes=CLASSES, width=4, depth=1,
        precision="float32",
    )  # fmt: skip
    settings = dict(network=network, num_classes=CLASSES, batch_real=4, strategy="flip") | options
    return distill.Problem(
        parameterizations.build("gaussian", (SIZE, SIZE, 3), ipc=1, images_per_class=5),
        dm.DistributionMatching(**settings),
        CLASSES,
    )


@functools.partial(jax.jit, static_argnums=0)
def initial(prob):
    shape = (CLASSES * prob.parameterization.images_per_class, SIZE, SIZE, 3)
    return prob.parameterization.init(jax.random.key(0), jnp.zeros(shape))


@functools.partial(jax.jit, static_argnums=0)
def loss_of(prob, params, data, carry, update, key):
    synthetic = prob.synthetic(params, TRANSFORM)
    return prob.matching.loss(synthetic, data, {}, carry, update, key)


@functools.partial(jax.jit, static_argnums=0)
def features_of(network, params, key, batch):
    """Returns features of images that are augmented first."""
    batch = augment.augment(key, batch, strategy="flip", shared=True)
    return network.features(params, batch)


def test_real_images_are_drawn_by_class_without_replacement():
    data, (images, labels) = real(), real_split()
    seen = set()
    for seed in range(30):
        drawn, _, indices = data.draw(jax.random.key(seed), 4)
        assert drawn.shape == (CLASSES, 4, SIZE, SIZE, 3)
        indices = np.asarray(indices)
        np.testing.assert_array_equal(
            labels[indices], np.repeat(np.arange(CLASSES), 4).reshape(3, 4)
        )
        np.testing.assert_array_equal(drawn, images[indices])
        assert all(len(set(row)) == 4 for row in indices.tolist())
        seen.update(indices.ravel().tolist())
    assert seen == set(range(len(labels)))
    with pytest.raises(gsdd_jax.UsageError, match="class 1 has no training images"):
        matching.real_data(images, np.zeros(len(labels), np.int32), 2, TRANSFORM)


@pytest.mark.parametrize(
    ("batch_real", "batch_syn", "class_by_class"), [(4, 2, False), (8, 0, True)]
)
def test_dm_loss_is_the_distance_of_mean_features(batch_real, batch_syn, class_by_class):
    """Includes two classes with fewer than 8 images, which give each image once."""
    prob = problem(batch_real=batch_real, batch_syn=batch_syn, class_by_class=class_by_class)
    params, data, objective = initial(prob), real(), prob.matching
    carry = jax.jit(objective.begin)(jax.random.key(1), data, None)
    key = jax.random.key(2)
    actual = loss_of(prob, params, data, carry, 0, key)

    draw_key = jax.random.split(jax.random.key(1), 3)[2]
    drawn, weights, indices = map(np.asarray, data.draw(draw_key, batch_real))
    render = jax.jit(lambda p: prob.synthetic(p, TRANSFORM).sample(key, batch_syn).render())
    own = np.asarray(render(params)).reshape(CLASSES, batch_syn or 5, SIZE, SIZE, 3)
    expected = 0.0
    for c in range(CLASSES):
        means, count = [], min(batch_real, int(data.counts[c]))
        there = weights[c] > 0
        assert there.sum() == count
        assert len(set(indices[c][there].tolist())) == count
        np.testing.assert_allclose(weights[c][there], 1 / count, rtol=1e-6)
        for batch in (np.float32((drawn[c][there] / 255.0 - MEAN) / STD), own[c]):
            key = carry.augmentation[c]
            features = features_of(objective.network, carry.network, key, batch)
            means.append(np.asarray(features, np.float64).mean(0))
        expected += ((means[0] - means[1]) ** 2).sum()
    assert float(actual) == pytest.approx(expected, rel=1e-4)


def test_class_losses_sum_to_the_joint_loss_and_touch_only_their_class():
    joint, single = problem(), problem(per_class_updates=True)
    assert (joint.matching.num_updates, single.matching.num_updates) == (1, CLASSES)
    params, data = initial(joint), real()
    carry = jax.jit(joint.matching.begin)(jax.random.key(1), data, None)
    gradient = jax.jit(jax.grad(loss_of, argnums=1), static_argnums=0)
    whole = gradient(joint, params, data, carry, 0, jax.random.key(2))
    parts = [
        jax.tree.map(np.asarray, gradient(single, params, data, carry, c, jax.random.key(2)))
        for c in range(CLASSES)
    ]
    for c, part in enumerate(parts):
        others = np.setdiff1d(np.arange(15), np.arange(5 * c, 5 * c + 5))
        assert not part.colors[others].any()
    total = jax.tree.map(lambda *g: sum(g), *parts)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-6), total, whole)


@functools.partial(jax.jit, static_argnums=0)
def step_of(prob, params, data, classes):
    """Returns the loss of a step that compares `classes`, and its gradient."""

    def loss(params):
        carry = prob.matching.begin(jax.random.key(1), data, classes)
        synthetic = prob.synthetic(params, TRANSFORM)
        return prob.matching.loss(synthetic, data, {}, carry, jnp.int32(0), jax.random.key(2))

    return jax.value_and_grad(loss)(params)


def test_a_group_of_classes_is_a_problem_of_those_alone():
    """Uses all real and synthetic images of two classes, as if there were no third."""
    prob, group = problem(batch_real=9, strategy="", classes_per_step=2), (2, 0)
    params = initial(prob)
    actual, gradient = step_of(prob, params, real(), jnp.array(group))
    images, labels = real_split()
    of_group = np.isin(labels, group)
    few = matching.real_data(
        images[of_group], np.array([1, -1, 0], np.int32)[labels[of_group]], 2, TRANSFORM
    )
    own = np.concatenate([np.arange(5 * c, 5 * c + 5) for c in group])
    alone = dataclasses.replace(prob.matching, num_classes=2, classes_per_step=0)
    selected = jax.tree.map(lambda p: np.asarray(p)[own], params)
    expected, own_gradient = step_of(
        prob._replace(matching=alone, num_classes=2), selected, few, None
    )
    assert float(actual) == pytest.approx(float(expected), rel=1e-5)
    colors = np.asarray(gradient.colors)
    np.testing.assert_allclose(colors[own], own_gradient.colors, rtol=1e-3, atol=1e-6)
    assert not colors[5:10].any()


def test_a_group_of_all_classes_is_a_step_without_groups():
    """Compares up to the order of the sum; each class has its own draws."""
    prob, grouped = (problem(batch_syn=2, classes_per_step=n) for n in (0, CLASSES))
    expected, wanted = step_of(prob, initial(prob), real(), None)
    actual, gradient = step_of(grouped, initial(prob), real(), jnp.array([1, 2, 0]))
    assert float(actual) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(gradient.colors, wanted.colors, rtol=1e-3, atol=1e-6)


def test_class_by_class_a_group_is_updated_in_its_order():
    prob = problem(strategy="", classes_per_step=2, per_class_updates=True)
    whole = problem(strategy="", classes_per_step=0, per_class_updates=True)
    assert prob.matching.num_updates == 2
    params, data, key = initial(prob), real(), jax.random.key(2)
    begin = jax.jit(prob.matching.begin)
    carry = begin(jax.random.key(1), data, jnp.array([2, 0]))
    everything = begin(jax.random.key(1), data, jnp.arange(CLASSES))._replace(classes=None)
    for update, label in enumerate((2, 0)):
        actual = loss_of(prob, params, data, carry, jnp.int32(update), key)
        expected = loss_of(whole, params, data, everything, jnp.int32(label), key)
        assert float(actual) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", ["dm", "dc"])
def test_every_class_is_visited_once_a_pass(name):
    network = problem().matching.network
    build = lambda classes, per_step: matching.build(
        name, network=network, num_classes=classes, images_per_class=5, strategy="",
        classes_per_step=per_step,
    )  # fmt: skip
    visited = build(12, 3).host_inputs(None, 7, 0, 40)
    assert visited.shape == (40, 3)
    passes = visited.reshape(10, 12)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(12), (10, 1)))
    assert len({tuple(one) for one in passes.tolist()}) == 10
    np.testing.assert_array_equal(
        build(12, 3).host_inputs(None, 7, 5, 9), visited[5:14]
    )  # any grouping
    assert (build(12, 3).host_inputs(None, 8, 0, 40) != visited).any()
    assert build(12, 0).host_inputs(None, 7, 0, 40) is None
    for wrong in (5, 24):
        with pytest.raises(
            gsdd_jax.UsageError, match=rf"a divisor of the 12 classes, got {wrong}$"
        ):
            build(12, wrong)


def test_one_step_is_adam_on_the_gradient_then_a_clip():
    """Runs one program for every learning rate."""
    prob = problem(strategy="")
    params, data, key = initial(prob), real(), jax.random.key(5)
    params = jax.tree.map(np.array, params)
    params.means[0, 0] = 0.9989
    begin_key, update_key = jax.random.split(jax.random.fold_in(key, 0))
    loss_key, _ = jax.random.split(jax.random.fold_in(update_key, 0))
    carry = jax.jit(prob.matching.begin)(begin_key, data, None)

    @jax.jit
    @jax.grad
    def gradient_of(params):
        boundary = -jnp.log1p(-(params.means**2)).mean()
        return loss_of(prob, params, data, carry, 0, loss_key) + 0.1 * boundary

    gradient, programs = jax.tree.map(np.asarray, gradient_of(params)), distill.run._cache_size()
    strong = jax.tree.map(lambda g: np.abs(g) > 1e-4 * np.abs(g).max(), gradient)
    for rate in (0.01, 0.02):
        # Adam's first step with bias correction: -rate * g / (|g| + epsilon).
        step = jax.tree.map(lambda p, g, r=rate: p - r * g / (np.abs(g) + 1e-8), params, gradient)
        expected = dataclasses.replace(step, means=np.clip(step.means, -0.999, 0.999))
        state = distill.start(prob, jax.device_put(jax.tree.map(np.array, params)), rate)
        state, losses = distill.run(prob, state, key, data, None, 1)
        assert losses.shape == (1,)
        assert int(state.step) == 1
        for name in ("means", "cholesky", "colors", "opacities"):
            mask = getattr(strong, name)
            assert mask.mean() > 0.5
            np.testing.assert_allclose(
                np.asarray(getattr(state.params, name))[mask],
                np.asarray(getattr(expected, name))[mask],
                atol=2e-4,
            )
    assert distill.run._cache_size() == programs + 1


@pytest.mark.usefixtures("fully_compiled")
def test_same_key_same_bits_however_the_steps_are_grouped():
    prob, data = problem(strategy="", per_class_updates=True), real()

    def run(groups, seed=0):
        state = distill.start(prob, initial(prob), 0.01)
        losses = []
        for count in groups:
            state, some = distill.run(prob, state, jax.random.key(seed), data, None, count)
            losses += some.tolist()
        return losses, np.asarray(state.params.colors).tobytes()

    once = run([2])
    assert once == run([1, 1])
    assert once[1] != run([2], seed=1)[1]


def test_an_average_of_the_parameters_is_what_is_learned():
    prob, data = problem(strategy="")._replace(average=0.75), real()
    state = distill.start(prob, initial(prob), 0.01)
    average = np.asarray(state.params.colors, np.float64)
    for _ in range(4):
        state, _ = distill.run(prob, state, jax.random.key(0), data, None, 1)
        average = 0.75 * average + 0.25 * np.asarray(state.params.colors, np.float64)
    np.testing.assert_allclose(state.learned.colors, average, atol=1e-6)
    assert np.abs(np.asarray(state.learned.colors) - np.asarray(state.params.colors)).max() > 1e-3
    last = distill.start(problem(), initial(prob), 0.01)
    assert last.average is None and last.learned is last.params
