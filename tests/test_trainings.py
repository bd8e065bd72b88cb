"""Tests trainings of evaluation networks that resume."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo
from gsdd_jax.core import stopping
from gsdd_jax.core.errors import DivergedError
from gsdd_jax.runs import trainings
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.storage import checkpoint
from gsdd_jax.training import evaluate
from tests.test_evaluate import LABELS, network, some_images
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")


class Killed(BaseException):
    """What no handler of errors catches."""


@pytest.fixture
def epochs(monkeypatch):
    """Trains one epoch per call; returns a list of their numbers, and what is called after each."""
    really, numbers, then = evaluate.train_epochs, [], []

    def counted(network, schedule, students, *rest):
        result = really(network, schedule, students, *rest)
        numbers.append(int(result[0].epoch))
        for function in then:
            function(len(numbers))
        return result

    monkeypatch.setattr(evaluate, "AT_ONCE", 1)
    monkeypatch.setattr(evaluate, "train_epochs", counted)
    return numbers, then


def train(seed=0, rate=0.05):
    schedule = evaluate.Schedule(epochs=5, batch_size=3, strategy="flip")
    trained = trainings.train(
        network(), schedule, jax.random.key(seed), jnp.asarray(some_images(6))[None], LABELS,
        learning_rate=rate, num_students=2, progress=lambda count: None,
    )  # fmt: skip
    return jax.tree.leaves(trained)


def kept(folder):
    return trainings.kept(folder, pytest.fail)


def same(some, others):
    return all(map(np.array_equal, some, others))


def test_a_killed_training_goes_on_after_its_last_checkpoint(epochs, tmp_path, monkeypatch):
    whole, (numbers, then) = train(), epochs
    numbers.clear()
    monkeypatch.setattr(checkpoint, "DUE_AFTER", 0.0)

    def kill(count):
        if count == 4:
            raise Killed

    then.append(kill)
    with pytest.raises(Killed), kept(tmp_path / "of it"):
        train()
    then.clear()
    assert list(tmp_path.rglob("3"))
    numbers.clear()
    with kept(tmp_path / "of it"):
        rest = train()
        assert list(tmp_path.rglob("6"))
    assert numbers == [4, 5, 6] and same(rest, whole)
    assert not list(tmp_path.iterdir())


def test_a_training_stops_when_it_is_asked_to(epochs, tmp_path):
    whole, (numbers, then) = train(), epochs
    numbers.clear()
    then.append(lambda count: stopping.ask())
    for number in range(1, 7):
        with pytest.raises(stopping.Stopped), kept(tmp_path / "of it"):
            train()
        assert numbers == list(range(1, number + 1))
    then.clear()
    with kept(tmp_path / "of it"):
        assert same(train(), whole)
    assert len(numbers) == 6


def test_a_training_that_diverges_leaves_the_request_to_the_next(epochs, tmp_path):
    numbers, then = epochs
    then.append(lambda count: count == 1 and stopping.ask())
    with pytest.raises(stopping.Stopped), kept(tmp_path / "of it"):
        with pytest.raises(DivergedError):
            train(rate=1e30)
        train()
        pytest.fail("it was asked to stop")
    assert numbers == [1, 1] and not stopping.asked()
    assert list(tmp_path.rglob("1"))


def test_without_a_folder_nothing_stops_it(epochs):
    epochs[1].append(lambda count: stopping.ask() and pytest.fail("it can save nothing"))
    train()


def test_what_another_training_left_is_not_taken(epochs, tmp_path, monkeypatch):
    """Trains from another seed, and at another rate; only what took long is kept at its end."""
    (numbers, _), folder = epochs, tmp_path / "of it"
    expected = train(1), train(0, 0.1)
    monkeypatch.setattr(trainings, "WORTH", 0.0)
    with pytest.raises(Killed), kept(folder):
        train()
        raise Killed
    numbers.clear()
    with kept(folder):
        assert same(train(1), expected[0]) and same(train(0, 0.1), expected[1])
        assert len(numbers) == 12
        train()
        assert len(numbers) == 12
    assert not folder.exists()


def test_a_run_goes_on_within_its_evaluations_with_the_same_bytes(epochs, tmp_path, monkeypatch):
    """Kills it in each of its nine trainings once, after the second of three epochs."""
    (numbers, then), config = epochs, demo.get_config()
    config.update_from_flattened_dict(TINY)
    config.evaluate.update(epochs=2, num_networks=1, rates="0.03", baselines="fitted,random_real")
    config.distill.eval_every = 0
    distill_to(config, tmp_path / "whole")
    assert numbers == 9 * [1, 2, 3]
    monkeypatch.setattr(checkpoint, "DUE_AFTER", 0.0)
    monkeypatch.setattr(trainings, "WORTH", 0.0)
    killed = set()

    def kill(count):
        training = sum(number == 1 for number in numbers)
        if numbers[-1] == 2 and training not in killed:
            killed.add(training)
            raise Killed

    then.append(kill)
    numbers.clear()
    for _ in range(9):
        with pytest.raises(Killed):
            distill_to(config, tmp_path / "cut")
        numbers.append(0)
    distill_to(config, tmp_path / "cut")
    assert [number for number in numbers if number] == 9 * [1, 2, 2, 3]
    for name in ("distilled.safetensors", "result.json", "evaluations.json"):
        expected, actual = ((tmp_path / at / name).read_bytes() for at in ("whole", "cut"))
        assert expected == actual, name
    assert set(os.listdir(tmp_path / "cut" / "checkpoints")) == {"distill", "fit"}
