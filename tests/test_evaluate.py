"""Tests training of evaluation networks against a plain loop, with tiny networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gsdd_jax import networks
from gsdd_jax.data import transforms
from gsdd_jax.networks import Network
from gsdd_jax.training import evaluate, experts
from gsdd_jax.training.evaluate import Schedule

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SHAPE = (8, 8, 3)


def network():
    return networks.build(
        "convnet", image_shape=SHAPE, num_classes=3, width=4, depth=1, precision="float32"
    )


def some_images(count, seed=0):
    return jax.device_put(np.random.default_rng(seed).random((count, *SHAPE), np.float32))


def plain_training(net, params, images, targets, epochs, learning_rate):
    """Runs full-batch SGD as the published loop counts: 502 and 499 epochs for 1000.

    Momentum 0.9, decay 5e-4, x 0.1 after the half with a fresh momentum. `targets`: probabilities.
    """

    def loss(params):
        logits = net.apply(params, images)
        shifted = logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        return -(shifted * targets).sum(-1).mean()

    gradient_of = jax.jit(jax.grad(loss))
    params = jax.tree.map(np.asarray, params)
    velocity = jax.tree.map(np.zeros_like, params)
    for epoch in range(epochs + 1):
        if epoch == epochs // 2 + 2:
            learning_rate *= 0.1
            velocity = jax.tree.map(np.zeros_like, params)
        gradient = jax.tree.map(np.asarray, gradient_of(params))
        decayed = lambda v, g, p: np.float32(0.9 * v + g + 5e-4 * p)
        velocity = jax.tree.map(decayed, velocity, gradient, params)
        params = jax.tree.map(lambda p, v: np.float32(p - learning_rate * v), params, velocity)  # noqa: B023
    return params


LABELS = jax.device_put(np.int32([0, 1, 2, 0, 1, 2]))
SOFT = jax.device_put(np.float32(np.random.default_rng(5).dirichlet(np.ones(3), 6)))


@pytest.mark.parametrize(
    ("labels", "targets"), [(LABELS, np.eye(3)[LABELS]), (SOFT, SOFT)], ids=["hard", "soft"]
)
def test_training_is_the_protocol(labels, targets):
    net, images = network(), some_images(6)
    schedule = Schedule(epochs=7, batch_size=256, strategy="")
    key = jax.random.key(3)
    trained = evaluate.train(
        net, schedule, key, images[None], labels, learning_rate=0.05, num_students=2,
        epochs_per_call=3,
    )  # fmt: skip
    starts = jax.vmap(net.init)(jax.random.split(jax.random.split(key)[0], 2))
    trained, starts = jax.tree.map(np.asarray, (trained, starts))
    for i in range(2):
        start = jax.tree.map(lambda a, i=i: a[i], starts)
        expected = plain_training(net, start, images, targets, 7, 0.05)
        jax.tree.map(
            lambda a, e, i=i: np.testing.assert_allclose(a[i], e, rtol=1e-3, atol=2e-5),
            trained,
            expected,
        )


def test_soft_labels_that_are_nearly_hard_train_the_same_network():
    net, images = network(), some_images(6)
    schedule = Schedule(epochs=6, batch_size=4, strategy="flip")
    hard, soft = (
        evaluate.train(
            net, schedule, jax.random.key(3), images[None], labels, learning_rate=0.05,
            num_students=2,
        )
        for labels in (LABELS, jax.nn.softmax(30 * jax.nn.one_hot(LABELS, 3)))
    )  # fmt: skip
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), hard, soft)


class Counter(nn.Module):
    """Counts in its parameters how often it saw each of 7 images."""

    @nn.compact
    def __call__(self, images):
        # d(loss)/d(seen) of a batch with labels 0 and two equal logits is -1/2 x the mean one-hot.
        seen = self.param("seen", lambda key: jnp.zeros(7))
        value = images.reshape(len(images), -1)[:, :7] @ seen
        return jnp.stack([value, jax.lax.stop_gradient(value)], -1)


@pytest.mark.parametrize(
    ("images", "size", "count"),
    [(7, 7, 1), (300, 150, 2), (320, 160, 2), (370, 185, 2), (515, 172, 3)],
)
def test_equal_parts_of_any_set(images, size, count):
    """Fewest parts of at most 256, and each set by its own size; a given size is kept."""
    open_ = Schedule(epochs=3, batch_size=0)
    assert (open_.batch(images), open_.num_steps(images)) == (size, 4 * count)
    assert Schedule(epochs=3, batch_size=256).batch(images) == min(256, images)
    other = open_.with_steps(open_.num_steps(images), 1000)
    assert (other.batch(1000), other.num_steps(1000)) == (250, 4 * count)


@pytest.mark.parametrize("batch_size", [0, 3, 10])
def test_every_epoch_sees_every_image_once(batch_size):
    images = jax.device_put(np.eye(7, 12, dtype=np.float32).reshape(7, 2, 2, 3))
    schedule = Schedule(
        epochs=4, batch_size=batch_size, strategy="", momentum=0.0, weight_decay=0.0
    )
    counter = networks.Network((2, 2, 3), 2, Counter())
    labels = jnp.zeros(7, jnp.int32)
    trained = evaluate.train(
        counter, schedule, jax.random.key(0), images[None], labels, learning_rate=1.0,
        num_students=3,
    )["seen"]  # fmt: skip
    trained = np.asarray(trained)
    size, rest = min(batch_size or 7, 7), 7 % min(batch_size or 7, 7)
    # Four epochs at 1 and one at 0.1; an image in a smaller last batch weighs more.
    low, high = 4.1 * 0.5 / size, 4.1 * 0.5 / (rest or size)
    assert (trained >= low - 1e-6).all()
    assert (trained <= high + 1e-6).all()
    if rest == 0:
        np.testing.assert_allclose(trained, low, rtol=1e-5)
    else:  # each epoch's mean gradient mass is one per batch
        np.testing.assert_allclose(trained.sum(1), 4.1 * 0.5 * -(-7 // size), rtol=1e-5)


def test_students_differ_and_may_have_sets_of_their_own():
    net, images = network(), some_images(4)
    labels = LABELS[:4]
    arguments = dict(learning_rate=0.05, num_students=2)
    schedule = Schedule(epochs=3, strategy="")
    key = jax.random.key(0)
    shared = evaluate.train(net, schedule, key, images[None], labels, **arguments)
    leaf = lambda params: np.asarray(jax.tree.leaves(params)[0])
    assert (leaf(shared)[0] != leaf(shared)[1]).any()
    other = jax.device_put(np.stack([images, some_images(4, seed=1)]))
    own = evaluate.train(net, schedule, key, other, labels, **arguments)
    np.testing.assert_array_equal(leaf(own)[0], leaf(shared)[0])
    assert (leaf(own)[1] != leaf(shared)[1]).any()


def test_same_key_same_bits_however_the_epochs_are_grouped():
    net, images = network(), some_images(5)
    labels = LABELS[:5]
    schedule = Schedule(epochs=6, batch_size=2, strategy="flip")
    train = lambda seed, group: jax.tree.leaves(
        evaluate.train(
            net, schedule, jax.random.key(seed), images[None], labels, learning_rate=0.05,
            num_students=2, epochs_per_call=group,
        )
    )  # fmt: skip
    for a, b in zip(train(0, 6), train(0, 2), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(train(0, 6), train(1, 6), strict=True))


class Kept(evaluate.Keeper):
    """Keeps the state on the host after each call, and interrupts at one epoch."""

    def __init__(self, until=None, state=None):
        self.until, self.state = until, state

    def restore(self, like):
        return jax.tree.map(jnp.asarray, self.state or like)

    def keep(self, state):
        self.state = jax.tree.map(np.array, state)
        if int(self.state.epoch) == self.until:
            raise InterruptedError


@pytest.mark.parametrize("until", [2, 5, 6, 7])
def test_a_training_goes_on_with_the_same_bits(until):
    """Interrupts within a phase, at its end, within the second one, and at the end of all."""
    net, images = network(), some_images(5)
    schedule, seen = Schedule(epochs=6, batch_size=2, strategy="flip"), []
    train = lambda **more: evaluate.train(
        net, schedule, jax.random.key(0), images[None], LABELS[:5], learning_rate=0.05,
        num_students=2, epochs_per_call=1, **more,
    )  # fmt: skip
    kept = Kept(until)
    with pytest.raises(InterruptedError):
        train(keeper=kept)
    whole, rest = train(), train(keeper=Kept(state=kept.state), progress=seen.append)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(rest), strict=True):
        np.testing.assert_array_equal(a, b)
    assert seen == [until, *[1] * (7 - until)]


def test_accuracy_counts_every_image_once():
    net = network()
    params = jax.vmap(net.init)(jax.random.split(jax.random.key(0), 2))
    images = np.random.default_rng(0).integers(0, 256, (13, *SHAPE), np.uint8)
    labels = np.arange(13, dtype=np.int32) % 3
    transform = jax.tree_util.Partial(lambda x: 2 * x - 1)
    real = transforms.to_device(images, transform)
    actual = evaluate.accuracy(net, params, real, jnp.asarray(labels), batch_size=5)
    every = jax.jit(jax.vmap(net.apply, (0, None)))(params, np.float32(2 * (images / 255.0) - 1))
    for i, logits in enumerate(np.asarray(every)):
        correct = np.mean(np.argmax(logits, -1) == labels)
        assert float(actual[i]) == pytest.approx(100 * correct)


class Dropped(nn.Module):
    """Logits that dropout sets to 0 in training, so that they have no gradient."""

    @nn.compact
    def __call__(self, x):
        logits = self.param("logits", nn.initializers.normal(1.0), (3,))
        drop = nn.Dropout(1.0, deterministic=not self.has_rng("dropout"))
        return drop(jnp.broadcast_to(logits, (len(x), 3)))


def test_networks_train_with_their_dropout():
    net, images = Network(SHAPE, 3, Dropped()), some_images(6)
    params, keys = evaluate.initial(net, jax.random.key(0), 2)
    schedule = Schedule(epochs=2, batch_size=4, weight_decay=0.0, strategy="")
    settings = dict(learning_rate=0.1, num_students=2)
    trained = evaluate.train(net, schedule, jax.random.key(0), images[None], LABELS, **settings)
    np.testing.assert_array_equal(trained["logits"], params["logits"])
    logits = np.asarray(params["logits"])
    vectors, real = jax.device_put(logits.copy()), transforms.RealImages(images, None)
    settings = dict(batch_size=4, learning_rate=jnp.float32(0.1), strategy="")
    vectors, _ = experts.train_epoch(net, vectors, keys, jnp.int32(0), real, LABELS, **settings)
    np.testing.assert_array_equal(vectors, logits)
    found = jax.jit(net.apply)({"logits": logits[0]}, images)
    np.testing.assert_array_equal(found[2], logits[0])


def test_baselines_get_at_least_as_many_steps():
    schedule = Schedule(epochs=100, batch_size=256)
    assert schedule.num_steps(300) == 202
    assert schedule.with_steps(202, 10).num_steps(10) == 202
    assert schedule.with_steps(203, 300).num_steps(300) == 204
    cosine = Schedule(optimizer="adam", epochs=100, batch_size=256)
    assert cosine.num_steps(300) == 200
    assert cosine.with_steps(200, 10).num_steps(10) == 200


def test_a_thousand_epochs_are_the_published_ones():
    assert Schedule(epochs=1000).phases == ((502, 1.0), (499, 0.1))
    assert Schedule(epochs=1).phases == ((2, 1.0), (0, 0.1))
    assert Schedule(optimizer="adamw", epochs=1000).phases == ((1000, 1.0),)


def test_what_is_trained_across_architectures():
    """Compares with plain formulas: SGD with momentum and decay, Adam, AdamW, cosine schedules."""
    gradient, start = np.array([0.3, -2.0]), np.array([1.0, -0.5])
    rates = 0.1 * 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))

    def run(name):
        optimizer = Schedule(optimizer=name, epochs=4, batch_size=8).transformation(0.1, 8)
        params, state = jnp.asarray(start, jnp.float32), optimizer.init(jnp.zeros(2))
        for _ in range(4):
            update, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
            params = params + update
        return np.asarray(params)

    params, velocity = start.copy(), np.zeros(2)
    for rate in rates:
        velocity = 0.9 * velocity + gradient + 5e-4 * params
        params = params - rate * velocity
    np.testing.assert_allclose(run("sgd_cosine"), params, rtol=1e-5)
    # Of a constant gradient, Adam's step is its sign.
    np.testing.assert_allclose(run("adam"), start - rates.sum() * np.sign(gradient), rtol=1e-5)
    params = start.copy()
    for rate in rates:
        params = params - rate * (np.sign(gradient) + 0.05 * params)
    np.testing.assert_allclose(run("adamw"), params, rtol=1e-5)
