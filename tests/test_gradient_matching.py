"""Tests gradient matching against plain loops, and its inner training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.data import augment, transforms
from gsdd_jax.matching.dc import Carry, GradientMatching, gradient_distance
from gsdd_jax.training import distill

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIZE, CLASSES, GPC = 8, 2, 3
NETWORK = networks.build(
    "convnet", image_shape=(SIZE, SIZE, 3), num_classes=CLASSES, width=4, depth=1,
    precision="float32",
)  # fmt: skip


def problem(boundary_weight=0.1, counts=(), **settings):
    settings = dict(network=NETWORK, num_classes=CLASSES, batch_real=4, strategy="flip") | settings
    gaussians = dict(ipc=1, images_per_class=GPC, boundary_weight=boundary_weight)
    return distill.Problem(
        parameterizations.build("gaussian", (SIZE, SIZE, 3), **gaussians),
        GradientMatching(**settings),
        CLASSES,
        counts=counts,
    )


def real():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, SIZE, SIZE, 3), np.uint8)
    transform = transforms.Normalize(jnp.full(3, 0.5), jnp.full(3, 0.25))
    return matching.real_data(images, np.arange(12, dtype=np.int32) % CLASSES, CLASSES, transform)


@functools.partial(jax.jit, static_argnums=0)
def initial(prob):
    return prob.parameterization.init(jax.random.key(1), jnp.zeros((CLASSES * GPC, SIZE, SIZE, 3)))


@functools.partial(jax.jit, static_argnums=0)
def initial_images(prob, data):
    return data.transform(prob.parameterization.render(initial(prob)))


def synthetic(prob, images):
    of_images = Shown(), images, None, prob.labels
    return matching.Synthetic(CLASSES, GPC, *of_images, prob.counts)


class Shown:
    """Stores images in the networks' input space."""

    def select(self, images, indices):
        return images[indices]

    def to_network(self, images, transform):
        del transform
        return images


@jax.jit
@jax.grad
def gradient_of(params, images, labels):
    """Returns the gradient of the cross-entropy."""
    logits = NETWORK.apply(params, images)
    return -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels].mean()


distance = jax.jit(gradient_distance)
augmented = jax.jit(functools.partial(augment.augment, strategy="flip", shared=True))


def test_distance_counts_every_output_neuron_and_no_bias():
    rng = np.random.default_rng(0)
    a = {"kernel": rng.normal(size=(3, 3, 2, 5)), "dense": rng.normal(size=(7, 4)),
         "bias": rng.normal(size=5)}  # fmt: skip
    b = {name: rng.normal(size=value.shape) for name, value in a.items()}
    expected = 0.0
    for name in ("kernel", "dense"):
        for neuron in range(a[name].shape[-1]):
            x, y = a[name][..., neuron].ravel(), b[name][..., neuron].ravel()
            expected += 1 - x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
    a, b = (jax.tree.map(np.float32, tree) for tree in (a, b))
    assert float(distance(a, b)) == pytest.approx(expected, rel=1e-4)
    slope = jax.jit(jax.grad(gradient_distance))(a, jax.tree.map(np.zeros_like, b))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(slope))


@pytest.mark.parametrize(
    ("batch_real", "group", "counts"), [(7, None, ()), (4, (1,), ()), (7, None, (2, 4))]
)
def test_loss_is_the_sum_over_classes(batch_real, group, counts):
    """Draws each of six images once if asked for seven; sums the loss over a group's classes."""
    prob = problem(batch_real=batch_real, classes_per_step=len(group or ()), counts=counts)
    data = real()
    images = np.asarray(initial_images(prob, data))
    host_inputs, key = None if group is None else jnp.array(group), jax.random.key(3)
    carry = jax.jit(prob.matching.begin)(jax.random.key(2), data, host_inputs)
    actual = jax.jit(
        lambda images, carry: prob.matching.loss(
            synthetic(prob, images), data, {}, carry, jnp.int32(0), key
        )
    )(images, carry)
    keys = jax.random.split(key, 3)
    drawn, weights, indices = map(np.asarray, data.draw(keys[1], batch_real))
    expected = 0.0
    for c, augment_key in enumerate(jax.random.split(keys[0], CLASSES)):
        there = weights[c] > 0
        if c not in (group or range(CLASSES)):
            continue
        assert there.sum() == min(batch_real, 6)
        of_class = indices[c][there]
        assert (np.asarray(data.labels)[of_class] == c).all()
        assert len(set(of_class.tolist())) == len(of_class)
        gradients = [
            gradient_of(carry.network, augmented(augment_key, x), np.full(len(x), c))
            for x in (np.float32((drawn[c][there] / 255 - 0.5) / 0.25), images[prob.labels == c])
        ]
        expected += float(distance(*gradients))
    assert float(actual) == pytest.approx(expected, rel=1e-4)


def test_the_boundary_loss_counts_once_per_class():
    """By Adam's mean of the first update, a tenth of the gradient."""

    def gradient(weight):
        prob = problem(weight, strategy="")
        state = distill.start(prob, initial(prob), 1e-3)
        state, _ = distill.run(prob, state, jax.random.key(0), real(), None, 1)
        return 10 * np.asarray(state.optimizer[0].mu.means, np.float64)

    u = np.asarray(initial(problem()).means, np.float64)
    expected = 0.1 * CLASSES * 2 * u / (1 - u**2) / u.size
    found = gradient(0.1) - gradient(0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert problem(classes_per_step=1).matching.penalty_weight == 1


def sgd(params, batches, images, labels):
    """Trains by plain SGD on batches of indices."""
    params, images, labels = jax.tree.map(np.asarray, (params, images, labels))
    for batch in batches:
        gradient = gradient_of(params, images[batch], labels[batch])
        params = jax.tree.map(lambda p, g: p - np.float32(0.01) * np.asarray(g), params, gradient)
    return params


def close(actual, expected):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=1e-5), actual, expected)


def test_inner_training_is_sgd_over_the_synthetic_set():
    """Uses full batches without augmentation, whose order does not matter."""
    prob, data = problem(outer_loops=3, inner_loops=4, strategy=""), real()
    images = initial_images(prob, data)
    start = NETWORK.init(jax.random.key(0))
    carry, key = Carry(start, None), jax.random.key(5)
    expected = lambda places: sgd(start, [places] * 4, images, prob.labels)
    after = jax.jit(
        lambda u: prob.matching.after_update(synthetic(prob, images), carry, u, key).network
    )
    close(after(0), expected(np.arange(CLASSES * GPC)))
    jax.tree.map(np.testing.assert_array_equal, after(2), start)  # nothing after the last one
    carry = carry._replace(classes=jnp.array([1]))
    of_group = jax.jit(
        lambda u: prob.matching.after_update(synthetic(prob, images), carry, u, key).network
    )
    close(of_group(0), expected(np.arange(GPC, 2 * GPC)))
    once = problem(outer_loops=1).matching
    assert once.after_update(synthetic(prob, images), carry, jnp.int32(0), key) is carry


@pytest.mark.parametrize("inner_batch", [2, 256])
def test_inner_training_on_a_small_class_is_sgd_over_its_images(inner_batch):
    """Trains on two images, padded to the four of the other class, in one or two batches."""
    settings = dict(outer_loops=2, inner_loops=3, inner_batch=inner_batch, strategy="")
    prob, data = problem(counts=(2, 4), **settings), real()
    images, start = initial_images(prob, data), NETWORK.init(jax.random.key(0))
    carry, key = Carry(start, jnp.array([0])), jax.random.key(5)
    train = lambda u: prob.matching.after_update(synthetic(prob, images), carry, u, key).network
    close(jax.jit(train)(0), sgd(start, [np.arange(2)] * 3, images, prob.labels))


def test_inner_epochs_use_every_image_in_batches():
    prob, data = problem(outer_loops=2, inner_loops=1, inner_batch=4, strategy=""), real()
    images = initial_images(prob, data)
    start = NETWORK.init(jax.random.key(0))
    key = jax.random.key(6)
    actual = jax.jit(
        lambda carry: prob.matching.after_update(synthetic(prob, images), carry, jnp.int32(0), key)
    )(Carry(start, None)).network
    order = jax.random.permutation(jax.random.split(jax.random.split(key, 1)[0], 3)[0], 6)
    order = np.asarray(order)
    close(actual, sgd(start, (order[:4], order[4:]), images, prob.labels))
