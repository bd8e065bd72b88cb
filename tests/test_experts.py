"""Tests training of experts against plain loops, under any grouping and interruption."""

import io
import os
import pathlib
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import demo
from gsdd_jax import UsageError, data, networks
from gsdd_jax.data import reading, transforms
from gsdd_jax.runs import experts
from gsdd_jax.runs.progress import Reporter
from gsdd_jax.setup import components, streaming
from gsdd_jax.setup import experts as stored
from gsdd_jax.storage.trajectories import Trajectory, index_of
from gsdd_jax.training import experts as training
from tests.commands import start, until
from tests.conftest import QUICKLY

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SHAPE, CLASSES = (8, 8, 3), 3
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


class Affine(nn.Module):
    """Implements an affine network, small enough to train in NumPy."""

    classes: int = CLASSES

    @nn.compact
    def __call__(self, images, features_only=False):
        x = images.reshape(len(images), -1)
        weight = self.param("weight", nn.initializers.normal(0.05), (x.shape[1], self.classes))
        return x @ weight + self.param("bias", nn.initializers.normal(0.05), (self.classes,))


def affine(classes=CLASSES):
    return networks.Network(SHAPE, classes, Affine(classes))


def split(count, seed):
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % CLASSES
    return data.Split(random.integers(0, 256, (count, *SHAPE), np.uint8), labels)


DATASET = data.Dataset("made_up", split(11, 0), split(7, 1), CLASSES, tuple("abc"), MEAN, STD, "f0")


def config_of(directory, **settings):
    config = demo.get_config()
    config.matching.strategy = ""
    config.experts.update(
        dict(dir=str(directory), num_experts=3, epochs=4, batch_size=4, learning_rate=0.1)
        | settings
    )
    return config


@pytest.fixture
def made_up(monkeypatch):
    """Runs `train_all` on the tiny data set with the affine network."""
    monkeypatch.setattr(data, "load", lambda *_, **__: DATASET)
    monkeypatch.setattr(components, "build_network", lambda *_: affine())


@pytest.fixture
def side_by_side(made_up, monkeypatch):
    """Groups experts as on a GPU, computed on the CPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def train(config):
    return experts.train_all(config, Reporter(None, io.StringIO()))


def files(directory):
    found = sorted(pathlib.Path(directory).glob("expert_*/*"))
    return {str(p.relative_to(directory)): p.read_bytes() for p in found}


# Computation of the training.


def normalized(images):
    return ((images / 255.0 - np.array(MEAN)) / np.array(STD)).reshape(len(images), -1)


def softmax(logits):
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def orders_of(expert, epochs, count, seed=0):
    """Returns the shuffles of an expert's epochs."""
    key = jax.random.fold_in(components.stream(seed, "experts"), expert)
    for epoch in range(epochs):
        order_key = jax.random.split(jax.random.fold_in(key, epoch + 1))[0]
        yield np.asarray(jax.random.permutation(order_key, count))


@pytest.mark.parametrize("groups", ["made_up", "side_by_side"])
def test_experts_are_plain_sgd(request, tmp_path, groups):
    """Recomputes every row of the trajectory and the final accuracies in NumPy and float64."""
    request.getfixturevalue(groups)
    store = train(config_of(tmp_path, at_once=2))
    train_accuracy, test_accuracy = store.accuracies()
    x, labels = normalized(DATASET.train.images), DATASET.train.labels
    for expert in range(3):
        start = store.parameters(expert, 0).astype(np.float64)
        bias, weight = start[:CLASSES].copy(), start[CLASSES:].reshape(-1, CLASSES).copy()
        for epoch, order in enumerate(orders_of(expert, 4, 11), start=1):
            np.testing.assert_array_equal(np.sort(order), np.arange(11))
            for batch in (order[:4], order[4:8], order[8:]):
                error = softmax(x[batch] @ weight + bias) - np.eye(CLASSES)[labels[batch]]
                weight -= 0.1 * x[batch].T @ error / len(batch)
                bias -= 0.1 * error.sum(0) / len(batch)
            row = np.concatenate([bias, weight.ravel()])
            np.testing.assert_allclose(store.parameters(expert, epoch), row, rtol=1e-4, atol=1e-5)
        for part, accuracies in ((DATASET.train, train_accuracy), (DATASET.test, test_accuracy)):
            right = np.argmax(normalized(part.images) @ weight + bias, 1) == part.labels
            assert accuracies[expert] == pytest.approx(100 * right.mean())


def epoch_of(network, params, expert, images, labels, *, epoch=0, batch_size=256, strategy=""):
    mean, std = (jnp.array(v, jnp.float32) for v in (MEAN, STD))
    rows, losses = training.train_epoch(
        network, jnp.array(params)[None], experts.expert_key(0, expert)[None], jnp.int32(epoch),
        transforms.to_device(images, transforms.Normalize(mean, std)), jnp.asarray(labels),
        learning_rate=jnp.float32(0.1), batch_size=batch_size, strategy=strategy,
    )  # fmt: skip
    return np.asarray(rows)[0], float(losses[0])


def test_the_convnet_is_trained_by_the_gradient_of_the_mean_cross_entropy():
    part = DATASET.train
    network = networks.build("convnet", image_shape=SHAPE, num_classes=CLASSES, width=4, depth=1)
    params = network.init(jax.random.key(5))
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    pixels = jnp.asarray(normalized(part.images).reshape(-1, *SHAPE), jnp.float32)

    def cross_entropy(params):
        logits = network.apply(params, pixels)
        chosen = jnp.take_along_axis(logits, part.labels[:, None], 1)[:, 0]
        return (jax.nn.logsumexp(logits, 1) - chosen).mean()

    value, gradient = jax.jit(jax.value_and_grad(cross_entropy))(params)
    row, mean = epoch_of(network, flat, 2, part.images, part.labels)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-5),
        unravel(jnp.asarray(row)),
        expected,
    )
    assert mean == pytest.approx(float(value), rel=1e-4)


def seen_images(expert, epoch, strategy, count=24):
    """Returns the augmented images of one epoch, read from the parameters that they lead to.

    From zero parameters, and with a class for each image and one for none, the step of class c
    is 0.1/n · (its image - the mean image / (n + 1) · n), and of the last class only the mean.
    """
    images = np.random.default_rng(3).integers(0, 256, (count, *SHAPE), np.uint8)
    zeros = np.zeros((1 + images[0].size) * (count + 1), np.float32)
    row, _ = epoch_of(
        affine(count + 1), zeros, expert, images, np.arange(count), epoch=epoch, strategy=strategy
    )
    weight = row[count + 1 :].reshape(-1, count + 1).astype(np.float64)
    seen = (weight[:, :count] - weight[:, count:]).T * count / 0.1
    return normalized(images).reshape(-1, *SHAPE), seen.reshape(-1, *SHAPE)


def test_augmentation_is_drawn_for_every_image_epoch_and_expert():
    draws = []
    for expert, epoch in ((0, 0), (0, 1), (1, 0)):
        images, seen = seen_images(expert, epoch, "flip")
        near = lambda a, b: np.abs(a - b).max(axis=(1, 2, 3)) < 1e-3
        flipped = near(seen, images[:, :, ::-1])
        assert (flipped ^ near(seen, images)).all()
        assert 0 < flipped.sum() < len(images)
        draws.append(tuple(flipped))
    assert len(set(draws)) == 3


def test_augmentation_follows_the_transform():
    """Checks that a cutout is zero after the transform; no pixel of these images is."""
    images, seen = seen_images(0, 0, "cutout")
    kept, empty = np.abs(seen - images) < 1e-3, np.abs(seen) < 1e-3
    assert (kept | empty).all()
    holes = empty.all(-1).sum((1, 2))
    assert (holes >= 4).all()
    assert (holes <= 16).all()
    assert len(np.unique(empty.all(-1), axis=0)) > 12


# Dependence on settings.


@pytest.mark.usefixtures("fully_compiled")
def test_neither_growth_nor_streaming_changes_a_bit_on_a_cpu(made_up, monkeypatch, tmp_path):
    """Streams two batches per call, then a smaller one; tests on parts of the set."""
    monkeypatch.setattr(reading, "AT_ONCE", 2 * 4 * DATASET.train.images[0].size)
    monkeypatch.setattr(streaming, "TESTED_AT_ONCE", 4)

    def trained(name, on_device="auto", **settings):
        config = config_of(tmp_path / name, epochs=2, **settings)
        config.matching.strategy, config.data.on_device = "flip", on_device
        return files(train(config).directory)

    whole = trained("whole")
    trained("grown", num_experts=1)
    assert trained("grown", at_once=2) == whole
    assert trained("streamed", on_device="streamed") == whole
    assert len(set(whole.values())) == len(whole) == 3 * 4  # three epochs and the index


def test_seeds_and_experts_differ_everywhere(made_up, tmp_path):
    stores = [train(config_of(tmp_path / str(seed), seed=seed)) for seed in (0, 1)]
    for epoch in range(5):
        rows = {s.parameters(e, epoch).tobytes() for s in stores for e in range(3)}
        assert len(rows) == 6


class Killed(BaseException):
    """Ends a run: nobody catches this exception."""


def dies_in(call, monkeypatch, function, nth):
    """Runs `call` up to the `nth` call of a method of `Trajectory`."""
    original, calls = getattr(Trajectory, function), []

    def method(self, *arguments):
        calls.append(self)
        if len(calls) == nth:
            raise Killed
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trajectory, function, method)
        try:
            call()
        except Killed:
            return True
    return False


def test_killed_at_any_write_it_ends_with_the_same_bytes(side_by_side, monkeypatch, tmp_path):
    """Kills at every write of a group of two and of one, again and again."""
    train(config_of(tmp_path / "whole", at_once=2))
    for function, least in (("append", 9), ("finish", 2)):
        cut = tmp_path / function
        interrupted = lambda cut=cut: train(config_of(cut, at_once=2))
        nth, kills = 1, 0
        while dies_in(interrupted, monkeypatch, function, nth):
            nth, kills = nth % 5 + 1, kills + 1
            assert kills < 30
        assert kills >= least
        assert files(cut) == files(tmp_path / "whole")


def test_experts_of_different_progress_go_on_together(side_by_side, monkeypatch, tmp_path):
    train(config_of(tmp_path / "whole", at_once=3))
    config = config_of(tmp_path / "cut", at_once=3)
    assert dies_in(lambda: train(config), monkeypatch, "append", 11)
    for expert, epoch in ((0, 3), (1, 1), (2, 2)):
        os.truncate(index_of(tmp_path / "cut", expert).with_name(f"epoch_{epoch:04d}.npy"), 200)
    train(config)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


# The command.


TINY = {
    "data.resolution": 8,
    "network.options.width": 2,
    "network.options.depth": 1,
    "matching.strategy": "flip",
    "experts.num_experts": 2,
    "experts.epochs": 12,
    "experts.batch_size": 250,
    "experts.learning_rate": 0.05,
}


def launch(directory):
    given = (f"--config.{name}={value}" for name, value in TINY.items())
    where = f"--config.experts.dir={directory}"
    return start("train_experts", "--config=configs/demo.py", where, *given)


def test_the_command_killed_ends_with_the_same_bytes(tmp_path, monkeypatch):
    for name, value in QUICKLY.items():
        monkeypatch.setenv(name, value)
    process = launch(tmp_path / "cut")
    config = demo.get_config()
    config.update_from_flattened_dict(TINY | {"experts.dir": str(tmp_path / "whole")})
    path = index_of(tmp_path / "cut", 1)
    until(lambda: path.with_name("epoch_0002.npy").exists(), process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    again = launch(tmp_path / "cut")
    # While the second expert was trained: the first one is whole.
    store, cut = train(config), files(tmp_path / "cut")
    whole = files(tmp_path / "whole")
    first = {name for name in whole if name.startswith("expert_00000")}
    assert all(cut[name] == whole[name] for name in first)

    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert files(tmp_path / "cut") == whole
    train_accuracy, test_accuracy = store.accuracies()
    last = out.strip().splitlines()[-1]
    assert last.startswith(f"experts in {tmp_path / 'cut'}: 2, of 12 epochs; mean accuracy ")
    assert f"train {train_accuracy.mean():.1f} %, test {test_accuracy.mean():.1f} %" in last
    assert "experts 24/24 epochs" in out


# Refusals.


def test_settings_without_sense_are_refused(tmp_path):
    sizes = dict.fromkeys(("num_experts", "epochs", "batch_size", "at_once"), 0)
    wrong = [*sizes.items(), ("seed", -1), ("learning_rate", 0.0), ("learning_rate", float("nan"))]
    for field, value in wrong:
        with pytest.raises(UsageError, match=f"config.experts.{field}: expected "):
            train(config_of(tmp_path / "new", **{field: value}))
        assert not (tmp_path / "new").exists()


def test_an_unknown_augmentation_is_refused(made_up, tmp_path):
    config = config_of(tmp_path / "new")
    config.matching.strategy = "blur"
    with pytest.raises(UsageError, match="blur"):
        train(config)
    assert not (tmp_path / "new").exists()


def test_divergence_names_expert_and_epoch_and_stores_nothing_of_it(side_by_side, tmp_path):
    with pytest.raises(UsageError, match=r"expert 0 diverged in epoch 1 \(loss [^)]+\)"):
        train(config_of(tmp_path, learning_rate=1e9, at_once=3))
    kept = [
        f"expert_0000{e}/{name}" for e in range(3) for name in ("epoch_0000.npy", "epochs.json")
    ]
    assert sorted(files(tmp_path)) == kept
    made_of = stored.identity(config_of(tmp_path, learning_rate=1e9), DATASET, affine())
    assert [Trajectory(tmp_path, made_of, e).rows for e in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("finished", [True, False])
def test_a_store_is_not_continued_with_other_settings(made_up, monkeypatch, tmp_path, finished):
    config = config_of(tmp_path, num_experts=2)
    if finished:
        train(config)
    else:
        assert dies_in(lambda: train(config), monkeypatch, "append", 5)
    before = files(tmp_path)
    changes = dict(epochs=(4, 5), batch_size=(4, 5), learning_rate=(0.1, 0.2), seed=(0, 1))
    for name, (old, new) in changes.items():
        words = f"expert_00000.*made with experts.{name}={old}, expected {new}"
        with pytest.raises(UsageError, match=words):
            train(config_of(tmp_path, num_experts=2, **{name: new}))
    assert files(tmp_path) == before


def test_a_distillation_that_disagrees_is_told_in_what(made_up, tmp_path):
    config = config_of(tmp_path, num_experts=1, epochs=1)
    train(config)
    assert len(stored.open_store(config, DATASET, affine())) == 1

    def refused(words, dataset=DATASET, network=None, **changes):
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(changes)
        with pytest.raises(UsageError, match=words):
            stored.open_store(changed, dataset, network or affine())

    for field, value in {
        "data.name": "cifar10",
        "data.transform": "zca",
        "network.options.width": 8,
        "network.precision": "float32",
        "matching.strategy": "flip",
    }.items():
        refused(f"expert_00000.*made with {field}=.*, expected '?{value}", **{field: value})
    other = data.Dataset(**{**vars(DATASET), "fingerprint": "f1"})
    refused("made with data.fingerprint='f0', expected 'f1'", other)
    refused("made with num_parameters=579, expected 772", network=affine(4))
    refused("3 of 4 experts are missing", **{"experts.num_experts": 4})


def test_the_directory_is_named_for_data_and_network():
    config = demo.get_config()
    assert stored.directory(config) == pathlib.Path(
        "runs/experts/cifar10_mini-normalize-convnet-32"
    )
    config.data.name, config.data.resolution = "imagenette/160px-v2", 128
    config.data.transform, config.network.options.depth = "zca", 4
    name = stored.directory(config).name
    assert name == "imagenette-160px-v2-128-zca-convnet-32-4"
    config.network.name, config.network.options = "resnet18", ConfigDict()
    assert stored.directory(config).name == "imagenette-160px-v2-128-zca-resnet18"
    config.experts.dir = "elsewhere/experts"
    assert stored.directory(config) == pathlib.Path("elsewhere/experts")
