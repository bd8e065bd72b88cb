"""Tests replay memories, class-incremental learning, herding, and data without test images."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

import gsdd_jax
from configs import demo
from gsdd_jax import data, replay
from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats import labels
from gsdd_jax.formats.union import union
from gsdd_jax.runs import continual, selection
from gsdd_jax.runs.progress import OneLine
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FIELDS = {
    "parameterization": {"name": "gaussian"},
    "network": {"options": {"width": 4, "depth": 1}},
    "init": {"num_steps": 5},
    "matching": {"strategy": "flip", "options": {"batch_real": 4}},
    "distill": {"num_steps": 2, "steps_per_call": 2, "checkpoint_every": 2},
    "evaluate": {"num_networks": 2, "epochs": 2, "batch_size": 8},
}
BYTES, FIVE, EIGHT = 1188, 5 * 18, 8 * 18  # the budget, and images of so many Gaussians
SIDE = 8


def arrays(classes, each=12):
    """Returns images of some classes and their labels."""
    of = np.repeat(classes, each)
    return np.random.default_rng(0).integers(0, 255, (len(of), SIDE, SIDE, 3), np.uint8), of


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """A memory of classes 7 and 3, then 3 and 5, its first set before the second, and the runs."""
    folder = tmp_path_factory.mktemp("runs")
    made = replay.Memory(BYTES, workdir=folder, **FIELDS)
    made.add(*arrays([7, 3]))
    first = made.sets[0]
    made.add(*arrays([3, 5]))
    return made, first, folder


def test_the_budget_is_shared_equally_and_older_sets_give_up_their_last_images(memory):
    made, first, _ = memory
    assert first.class_counts == (6, 6)  # of five Gaussians in half of the bytes
    assert [of.class_counts for of in made.sets] == [(3, 3), (2, 2)]
    assert [of.num_bytes for of in made.sets] == [6 * FIVE, 4 * EIGHT]
    assert made.num_bytes == sum(a.size * 2 for of in made.sets for a in of.arrays.values())
    assert made.num_bytes <= made.bytes == BYTES
    for name, values in made.sets[0].arrays.items():
        np.testing.assert_array_equal(values, first.arrays[name][[0, 1, 2, 6, 7, 8]])


def test_nothing_is_held_out_or_evaluated(memory):
    images, labels = arrays([2])
    found = data.from_arrays(images, labels, ())
    np.testing.assert_array_equal(found.train.images, images)
    assert found.class_names == ("2",) and len(found.test.labels) == 0
    with pytest.raises(UsageError, match="labels: expected two classes or more"):
        data.from_arrays(images, labels)
    result = json.loads((memory[-1] / "001" / "result.json").read_text())
    assert result["images_per_class"] == 2 and not [n for n in result if "accura" in n]


def test_targets_are_places_in_the_order_of_arrival(memory):
    made, *_ = memory
    assert made.classes == ("3", "7", "5")  # each call's in the order of their numbers
    images, targets = made.numpy()
    assert targets.tolist() == [0] * 3 + [1] * 3 + [0] * 2 + [2] * 2
    expected = np.concatenate([of.images() for of in made.sets])  # by NumPy
    np.testing.assert_allclose(images, expected, atol=1e-5)
    assert made.indices([5, 7, 3]).tolist() == made.indices(["5", "7", "3"]).tolist() == [2, 1, 0]
    batches = list(made.batches(8, seed=3, epochs=2, clip=True))
    assert [len(batch.images) for batch in batches] == [8, 2, 8, 2]
    assert all(b.images.min() >= 0 and b.images.max() <= 1 for b in batches)
    assert sorted(np.concatenate([b.targets for b in batches[:2]])) == sorted(targets)
    found = made.evaluate(*arrays([3, 5, 7], 4))
    assert found.confusion.sum() == 2 * 12 and (found.confusion.sum(1) == 8).all()


def test_a_saved_memory_goes_on(memory, tmp_path):
    made, *_ = memory
    folder = tmp_path / "memory"
    made.save(folder)
    files = sorted(p.name for p in folder.iterdir())
    made.save(folder)
    assert files == sorted(p.name for p in folder.iterdir()) and len(files) == 3
    again = replay.load(folder, **FIELDS)
    assert (again.classes, again.bytes, again.num_bytes) == (made.classes, BYTES, made.num_bytes)
    again.add(*arrays([9]))
    assert [of.class_counts for of in again.sets] == [(2, 2), (1, 1), (2,)]
    again.save(folder)
    assert len(list(folder.iterdir())) == 4  # the whole sets are gone
    assert replay.load(folder).classes == ("3", "7", "5", "9")


def test_an_interrupted_memory_is_the_old_one_or_the_new_one(memory, tmp_path, monkeypatch):
    made, *_ = memory
    made.save(tmp_path / "memory")
    before = replay.load(tmp_path / "memory")
    one = replay.Memory(bytes_per_class=10**6)
    one.sets = made.sets[:1]
    monkeypatch.setattr(replay, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        one.save(tmp_path / "memory")
    assert repr(replay.load(tmp_path / "memory")) == repr(before)
    with pytest.raises(KeyboardInterrupt):
        one.save(tmp_path / "first")
    monkeypatch.undo()
    one.save(tmp_path / "first")  # over what was left
    assert replay.load(tmp_path / "first").classes == ("3", "7")


def test_a_full_disk_is_one_line(memory, tmp_path, monkeypatch):
    def full(path, of):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replay.file, "save", full)
    with pytest.raises(UsageError, match=r"cannot write \(No space left on device\)"):
        memory[0].save(tmp_path)


def test_mixtures_are_only_in_memories_whose_sets_stay_whole():
    assert replay.Memory(9, objective="none")._base.labels.mixes == 0
    assert replay.Memory(bytes_per_class=9, objective="none")._base.labels.mixes == 4


def test_soft_labels_know_the_classes_of_their_own_set(memory):
    """A set with soft labels beside one of hard labels."""
    logits = labels.values(np.arange(12).reshape(6, 2) % 5, 3)
    soft = dataclasses.replace(memory[0].sets[0], soft_labels=logits, label_bits=3)
    _, targets, classes = union([soft, memory[0].sets[1]])
    odds = np.exp(logits)
    assert classes == ("3", "7", "5")
    np.testing.assert_allclose(targets[:6, :2], odds / odds.sum(1, keepdims=True), atol=1e-6)
    assert (targets[:6, 2] == 0).all()
    assert targets[6:].tolist() == 2 * [[1, 0, 0]] + 2 * [[0, 0, 1]]
    assert targets.dtype == np.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: replay.Memory(), "bytes, bytes_per_class: expected one of them, got none"),
        (lambda _: replay.Memory(5, bytes_per_class=5), "expected one of them, got both"),
        (lambda _: replay.Memory(0), "bytes: expected"),
        (lambda _: replay.Memory("5"), "Memory: bytes: expected an integer, got '5'"),
        (lambda _: replay.Memory(9, budget={"bytes": 4}), "config.budget.bytes: expected none"),
        (lambda _: replay.Memory(9, objective="mm"), "objective: expected one of"),
        (lambda _: replay.Memory(9, distil={"num_steps": 4}), "config.distil"),
        (lambda _: replay.Memory(9, config={"labels.mixes": 4}), "config.labels.mixes: expected 0"),
        (lambda _: replay.load("x", bytes=9), "bytes: expected none, since the folder has it"),
        (lambda _: replay.load("https://x/y"), "got a URL"),
        (lambda m: m.batches("64"), "batch_size: expected an integer"),
        (lambda _: replay.Memory(9).indices([1]), "memory: expected images, got none"),
        (lambda _: replay.Memory(9).numpy(), "memory: expected images, got none"),
        (lambda m: m.add(*arrays([4, 5], 3)[:1], [1]), "labels: expected"),
        (lambda m: m.add(np.zeros((4, 9, 9, 3), np.uint8), [0, 1, 2, 3]), "images: expected (8, 8"),
        (lambda m: m.add(*arrays(range(12))), "for each of 16 classes: set 1: bytes_per"),
        (lambda m: m.indices([3, 4]), "labels: expected classes of the memory, 3, 7, 5, got 4"),
        (lambda m: m.evaluate(*arrays([3, 6])), "test: expected classes among 3, 7, 5, got 6"),
        (lambda m: m.evaluate(*arrays([3]), data={"name": "x"}), "config.data.name: no field of"),
    ],
)
def test_a_wrong_argument_is_named_and_the_memory_stays(memory, call, message):
    made, *_ = memory
    before = repr(made), made.sets
    with pytest.raises(UsageError) as error:
        call(made)
    assert str(error.value).startswith(message) or message in str(error.value)
    assert "\n" not in str(error.value)
    assert before == (repr(made), made.sets)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "sets",
            ["../../secret.safetensors"],
            "sets: expected different names of sets in the folder",
        ),
        ("sets", [], "sets: expected different names"),
        ("sets", ["0" * 32 + ".safetensors"], "no such file"),
        ("bytes", 100, "expected at most 100 bytes, got"),
        ("bytes", -3, "bytes: expected"),
        ("bytes", None, "expected one of them, got none"),
        ("format", "other", "expected the format"),
        ("objective", "dm", "unknown field 'objective'"),
    ],
)
def test_a_forged_index_is_refused(memory, tmp_path, field, value, message):
    memory[0].save(tmp_path)
    index = json.loads((tmp_path / replay.INDEX).read_text())
    (tmp_path / replay.INDEX).write_text(json.dumps(index | {field: value}))
    with pytest.raises(UsageError) as error:
        replay.load(tmp_path)
    assert message.lower() in str(error.value).lower()


def test_a_folder_of_others_stays(memory, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(UsageError, match="expected a new folder"):
        memory[0].save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_herding_chooses_the_best_next_row():
    """Compared with the means of all candidates, in every step."""
    rows = np.random.default_rng(0).normal(size=(9, 4))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = []
    for _ in range(4):
        distances = {
            i: np.linalg.norm(unit.mean(0) - unit[[*expected, i]].mean(0))
            for i in set(range(9)) - set(expected)
        }
        expected.append(min(distances, key=distances.get))
    assert selection.herded(rows, 4).tolist() == expected
    assert sorted(selection.herded(rows, 20)) == list(range(9))


def config(**more):
    found = demo.get_config()
    found.update_from_flattened_dict(TINY | {"evaluate.rates": "0.1", "evaluate.epochs": 6} | more)
    return found


def test_class_incremental_learning_resumes_with_the_same_result(tmp_path, monkeypatch):
    """Herded pixels, which are real images of the step's classes."""
    pixels = {"parameterization.name": "pixels", "init.images": "herding", "teacher.epochs": 1}
    pixels |= {
        "distill.num_steps": 0,
        "init.num_steps": 0,
        "budget.ipc": 2,
        "distill.eval_every": 0,
    }
    of = config(**pixels)
    whole = continual.continual_to(of, 2, tmp_path / "whole", OneLine())
    state = np.random.get_state()
    np.random.seed(0)  # the published code's
    order = np.random.permutation(10)
    np.random.set_state(state)
    mini = data.load("cifar10_mini", resolution=8)
    assert whole["classes"] == [mini.class_names[c] for c in order]
    assert whole["images_per_class"] == [2, 2] and whole["bytes_per_class"] == [2 * 768] * 2
    assert list(whole["accuracies"]) == ["1", "2"]
    for step, classes in enumerate(order.reshape(2, 5)):
        found = gsdd_jax.load(tmp_path / "whole" / "steps" / str(step + 1))
        for image, c in zip(found.images(), np.repeat(classes, 2), strict=True):
            there = mini.train.images[mini.train.labels == c] / 255
            assert np.abs(there - image).max((1, 2, 3)).min() < 1e-6
    records = json.loads((tmp_path / "whole" / "evaluations.json").read_text())
    for step in (1, 2):  # tested on the classes so far, with outputs for all
        counts = np.array(records[f"after step {step}"]["confusion"])
        assert counts.shape == (10, 10)
        assert (counts.sum(1) == [200] * 5 * step + [0] * 5 * (2 - step)).all()

    calls, real = itertools.count(), continual.distill_to

    def interrupted(*args):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(continual, "distill_to", interrupted)
    for _ in range(2):
        try:
            again = continual.continual_to(of, 2, tmp_path / "again", OneLine())
        except KeyboardInterrupt:
            again = None
    assert again == whole


@pytest.mark.parametrize(
    ("steps", "more", "message"),
    [
        (3, {}, "steps: expected a divisor of 10 classes"),
        (10, {}, "steps: expected a divisor of 10 classes, with two or more"),
        (5, {"data.transform": "zca"}, "config.data.transform: expected normalize"),
    ],
)
def test_a_wrong_protocol_is_refused(tmp_path, steps, more, message):
    with pytest.raises(UsageError, match=message):
        continual.continual_to(config(**more), steps, tmp_path, OneLine())
