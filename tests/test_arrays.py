"""Tests distillation and evaluation of arrays in memory."""

import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import gsdd_jax
from gsdd_jax import data
from gsdd_jax.config import adapt, own
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.trees import dotted
from gsdd_jax.data.prepare import prepare
from gsdd_jax.runs import experts
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.progress import Display, Progress

pytestmark = pytest.mark.usefixtures("quickly_compiled")

CLASSES = 3
FIELDS = {
    "budget": {"images_per_class": 2},
    "network": {"options": {"width": 4, "depth": 1}},
    "init": {"num_steps": 20},
    "matching": {"strategy": "flip", "options": {"batch_real": 4}},
    "distill": {"num_steps": 6, "steps_per_call": 2, "checkpoint_every": 2},
    "evaluate": {"num_networks": 2, "epochs": 3, "baselines": ""},
}
OPTIONS = {"syn_steps": 2, "batch_syn": 60, "expert_epochs": 1, "max_start_epoch": 2}
FOLLOWING = FIELDS | {
    "matching": {"strategy": "flip", "options": OPTIONS},
    "experts": {"num_experts": 1, "epochs": 2},
    "data": {"transform": "zca"},
}


def arrays(count=12, side=8, seed=0):
    """Returns images whose class is their brightest channel, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    images = rng.integers(0, 100, (count, side, side, 3), np.uint8)
    images[np.arange(count), ..., labels] += 120
    return images, labels


def distilled(images, labels, objective="dm", **more):
    fields = FIELDS if objective == "dm" else FOLLOWING
    return gsdd_jax.distill(
        images, labels, 400, objective=objective, verbose=False, **(fields | more)
    )


def same(one, other):
    assert one.arrays.keys() == other.arrays.keys()
    for name, values in one.arrays.items():
        np.testing.assert_array_equal(values, other.arrays[name])
    assert one.learning_rate == other.learning_rate


def test_a_taught_set_has_codes_and_labels_of_mixtures_within_its_bytes():
    images, labels = arrays(30)
    taught = {"config": {"teacher.epochs": 1}}
    set_ = gsdd_jax.distill(
        images, labels, 400, objective="taught", verbose=False, **FIELDS | taught
    )
    assert (set_.format.name, set_.mixes, set_.label_bits) == ("quantized", 4, 3)
    assert set_.soft_labels.shape == (len(set_.labels), CLASSES) and len(set_.labels) % 5 == 0
    assert set_.num_bytes <= CLASSES * 400
    made_by = set_.provenance["config"]
    assert made_by["matching.name"] == "dm" and made_by["distill.num_steps"] > 0


@pytest.mark.parametrize("objective", ["dm", "tm"])
def test_a_call_makes_the_bytes_of_the_commands(tmp_path, objective, monkeypatch):
    """Runs what the commands run on a prepared .npz file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images, labels = arrays(30)
    names = np.array(["red", "green", "blue"])
    np.savez(tmp_path / "own.npz", images=images, labels=names[labels])
    prepare(tmp_path / "own.npz", "own", data_dir=tmp_path)
    fields = dotted(FIELDS if objective == "dm" else FOLLOWING)
    fields |= {"data.name": "own", "data.dir": str(tmp_path), "budget.bytes": 400}
    config = own(objective)
    config.update_from_flattened_dict(fields | {"experts.dir": str(tmp_path / "experts")})
    loaded = data.load("own", data_dir=tmp_path)
    given = loaded.image_shape, CLASSES, max(loaded.train_counts)
    config = adapt.suited(config, *given)
    if objective == "tm":
        assert config.matching.options.batch_syn == 6  # all images of a set whose size is given
        config.matching.options.batch_syn = 0
        experts.train_all(config, Display())
    distill_to(config, tmp_path / "command", Display())
    command = gsdd_jax.load(tmp_path / "command" / "distilled.safetensors")

    made = data.from_arrays(images, names[labels])
    assert made.fingerprint == loaded.fingerprint and made.class_names == loaded.class_names
    assert (made.mean, made.std) == (loaded.mean, loaded.std)
    more = {"matching": FOLLOWING["matching"] | {"options": OPTIONS | {"batch_syn": 0}}}
    found = distilled(images, names[labels], objective, **(more if objective == "tm" else {}))
    same(found, command)
    assert found.class_names == ("blue", "green", "red") and found.num_bytes <= CLASSES * 400
    np.testing.assert_allclose(found.numpy().images, command.numpy().images, rtol=1e-5, atol=1e-5)


def test_nothing_is_left_behind_and_an_interrupted_call_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    whole = distilled(*arrays())
    advance = Progress.advance

    def interrupted(self, count, **values):
        advance(self, count, **values)
        if "loss" in values and self._done == 4:
            raise KeyboardInterrupt

    for workdir in (None, tmp_path / "mine"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Progress, "advance", interrupted)
            distilled(*arrays(), workdir=workdir)
    assert list(tmp_path.rglob("*.safetensors")) == [tmp_path / "mine" / "real.safetensors"]
    assert not any((tmp_path / "temporary").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "temporary"]
    same(distilled(*arrays(), workdir=tmp_path / "mine"), whole)
    saved = gsdd_jax.load(tmp_path / "mine")
    same(saved, whole)
    assert "distilled_accuracy" in json.loads((tmp_path / "mine" / "result.json").read_text())
    assert (tmp_path / "mine" / "report.html").is_file()
    (tmp_path / "mine" / "distilled.safetensors").write_text("mine")
    with pytest.raises(UsageError, match=r"distilled.safetensors: not a distilled set"):
        distilled(*arrays(), workdir=tmp_path / "mine")
    with pytest.raises(UsageError, match=r"a run with data.fingerprint='\w{64}', not '\w{64}'"):
        distilled(*arrays(seed=1), workdir=tmp_path / "mine")


def test_test_images_are_those_given_and_the_accuracy_says_everything(capsys):
    images, labels = arrays()
    fields = FIELDS | {"evaluate": FIELDS["evaluate"] | {"epochs": 30, "baselines": "fitted"}}
    found = gsdd_jax.distill(images, labels, 400, test=arrays(60, seed=1), **fields)
    printed = capsys.readouterr().out.splitlines()
    accuracy = gsdd_jax.evaluate(found, *arrays(60, seed=1))
    assert printed[-1].startswith(f"test accuracy:  distilled {accuracy}   fitted ")
    assert accuracy > 60  # a third by chance
    assert accuracy == pytest.approx(np.mean(accuracy.accuracies))
    assert accuracy.std == pytest.approx(np.std(accuracy.accuracies, ddof=1))
    assert accuracy == pytest.approx(np.mean(accuracy.by_class), abs=1e-4)  # equal classes
    assert accuracy.confusion.sum() == 2 * 60
    assert float(np.trace(accuracy.confusion)) / 120 * 100 == pytest.approx(float(accuracy))
    swapped = (1 - arrays(60, seed=1)[0] / 255.0, arrays(60, seed=1)[1])
    assert gsdd_jax.evaluate(found, *swapped, verbose=False) < 40
    few = {"learning_rate": 0.5, "epochs": 1, "num_networks": 1}
    assert gsdd_jax.evaluate(found, *swapped, evaluate=few, verbose=False).learning_rate == 0.5


def test_any_images_are_evaluated():
    test = arrays(60, seed=1)
    fields = dict(evaluate={"num_networks": 2, "epochs": 30}, verbose=False)
    fields |= {"network": FIELDS["network"], "matching": {"strategy": "flip"}}
    right = gsdd_jax.evaluate(arrays(), *test, **fields)
    groups = {name: ConfigDict(fields.pop(name)) for name in ("network", "matching")}
    fields |= {"network": groups.pop("network"), "config": ConfigDict(groups)}
    images, labels = arrays()
    wrong = gsdd_jax.evaluate((images, (labels + 1) % CLASSES), *test, **fields)
    assert right > 60 > 40 > wrong
    chosen = gsdd_jax.evaluate(
        arrays(), *test, **fields | {"evaluate": {"epochs": 3, "rates": "1e-6"}}, learning_rate=0.1
    )
    assert chosen.learning_rate == pytest.approx(0.1)


def test_all_ways_to_give_the_same_images():
    images, labels = arrays()
    expected = data.from_arrays(images, labels, (images, labels))
    assert expected.class_names == ("0", "1", "2") and not expected.train.images.flags.writeable
    names = ["a", "b", "c"]
    for way in (
        (images / np.float32(255), labels),
        (jnp.asarray(images), jnp.asarray(labels)),
        ((images / 255).astype(np.float16), labels[:, None].astype(np.uint8)),
        (images.astype(np.int64), labels),
        (images.tolist(), np.ma.array(labels)),
        (images, np.array([*labels[:6], *labels[6:].tolist()], object)),
        (jax.device_get(images), [int(label) for label in labels]),
    ):
        found = data.from_arrays(*way, way)
        assert found.fingerprint == expected.fingerprint
        named = data.from_arrays(*way, way, class_names=names)
        assert named.fingerprint == expected.fingerprint and named.class_names == ("a", "b", "c")
    column = data.from_arrays(images, labels.astype(str).astype(object), (images, labels))
    assert column.fingerprint == expected.fingerprint
    two = np.arange(12) % 2
    bools, numbers = (data.from_arrays(images, two.astype(kind)) for kind in (bool, int))
    assert bools.fingerprint == numbers.fingerprint and bools.class_names == ("0", "1")
    texts = data.from_arrays(images, [names[label] for label in labels], class_names=names[::-1])
    assert texts.class_names == ("c", "b", "a") and texts.train_counts == (3, 3, 3)
    accents = ["\u00e9", "b", np.str_("c ")]
    found = data.from_arrays(images, np.array(["e\u0301", "b", "c"])[labels], class_names=accents)
    assert found.class_names == ("\u00e9", "b", "c")
    black = np.where(images > 100, np.uint8(255), np.uint8(0))
    for white in (images > 100, jnp.asarray(black / 255, jnp.bfloat16)):
        assert data.from_arrays(white, labels).fingerprint == (
            data.from_arrays(black, labels).fingerprint
        )
    gray = data.from_arrays(images[..., 0], labels)
    assert gray.image_shape == (8, 8, 1) and len(gray.test.labels) == 3


IMAGES, LABELS = arrays()
WRONG = {
    "ragged": (dict(images=[IMAGES[0], IMAGES[1, :5]]), "images: expected an array "),
    "layout": (dict(images=IMAGES.transpose(0, 3, 1, 2)), r"images: .*transpose\(0, 2, 3, 1\)"),
    "range": (dict(images=IMAGES.astype(np.float32)), "images: .* float32 from .*divide them"),
    "sign": (dict(images=IMAGES / 128 - 1), r"images: .* float64 from -1 to [\d.]+$"),
    "nan": (dict(images=np.where(IMAGES > 100, np.nan, 0.5)), r"images: .* \d+ numbers not finite"),
    "type": (dict(images=IMAGES.astype(complex)), "images: expected integers .*got complex128"),
    "integers": (dict(images=IMAGES.astype(int) * 2), "images: .* int64 from 0 to 438"),
    "bits": (dict(images=(IMAGES > 100).astype(int)), "images: .* 0 and 1 only.*astype.bool. if"),
    "mask": (dict(images=np.ma.masked_array(IMAGES, IMAGES > 100)), "images: .*without a mask"),
    "masks": (dict(labels=np.ma.masked_array(LABELS, LABELS > 1)), "labels: .*without a mask"),
    "none": (dict(images=IMAGES[:0], labels=LABELS[:0]), "images: "),
    "count": (dict(labels=LABELS[1:]), "labels: expected 12 "),
    "objects": (dict(labels=np.array([True] + [0] * 11, object)), "labels: expected 12 "),
    "long": (dict(labels=np.array([2**70] * 12, object)), "labels: expected 12 "),
    "floats": (dict(labels=LABELS / 2), "labels: expected 12 "),
    "one class": (dict(labels=LABELS * 0), "expected two classes or more, got only 0"),
    "names": (dict(class_names=["a", "b"]), "labels: expected 0 to 1, got 0 to 2"),
    "same names": (dict(class_names=["a", "b", "b"]), "class_names: expected different names"),
    "spaces": (dict(class_names=["a", "a ", "b"]), "class_names: .*different names, got a again"),
    "accents": (dict(class_names=["\u00e9", "e\u0301", "b"]), "class_names: expected different"),
    "no names": (dict(class_names=[]), "class_names: expected two classes or more, got none"),
    "one name": (dict(class_names=["a"]), "class_names: expected two classes or more, got only a"),
    **{
        f"names {type(given).__name__}": (dict(class_names=given), "class_names: expected a list")
        for given in ({"a", "b", "c"}, iter("abc"), 3, [1, 2, 3], "abc", {"a": 0, "b": 1, "c": 2})
    },
    "workdir": (dict(workdir=""), "distill: workdir: expected a path, got ''"),
    "workdirs": (dict(workdir=3), "distill: workdir: expected a path, got 3"),
    "url": (dict(workdir="s3://a/b"), "s3://a/b: expected a path on this machine"),
    "no folder": (dict(workdir="/dev/null/run"), "^workdir: cannot write to /dev/null/run"),
    "nul": (dict(workdir="a\0"), "distill: workdir: .*without NUL"),
    "name": (dict(name=3), "distill: name: expected a text, got 3"),
    "verbose": (dict(verbose="no"), "distill: verbose: expected True or False, got 'no'"),
    "no bytes": (dict(bytes_per_class=0), "bytes_per_class: expected an integer from 1 .* got 0"),
    "float": (dict(bytes_per_class=4e3), "bytes_per_class: expected an integer, got 4000.0"),
    "bytes twice": (
        dict(bytes_per_class=400, budget={"bytes": 800}),
        "bytes_per_class, config.budget.bytes: expected one of them, got both",
    ),
    "budget twice": (dict(bytes_per_class=9, budget={"ipc": 1}), "bytes_per_class, .*budget.ipc"),
    "objective twice": (
        dict(objective="dm", matching={"name": "tm"}), "objective, config.matching.name: "
    ),
    "name twice": (dict(name="a", data={"name": "b"}), "name, config.data.name: expected one"),
    "field twice": (dict(config={"init.num_steps": 1}, init={"num_steps": 2}),
                    "config.init.num_steps: expected it once"),
    "config": (dict(config=[3]), "distill: config: expected a dict or a config dict, got"),
    "number as name": (dict(distill={3: 4}), "config.distill.3: no such field"),
    "below a number": (dict(config={"seed.x": 1}), "config.seed.x: no such field"),
    "no objective": (dict(objective=""), "^objective: expected one of"),
    "array as value": (dict(seed=np.arange(3)), "config.seed: expected"),
    "set": (dict(config={"init.set": Path("no.safetensors")}), "no.safetensors: expected a dis"),
    "labels": (dict(config={"labels.source": "me"}), "config.labels.source: expected one of class"),
    "test": (dict(test=IMAGES), "test: expected .images, labels., got ndarray"),
    "test class": (dict(test=(IMAGES, LABELS + 1)), "test: expected the classes of training"),
    "test size": (dict(test=arrays(side=9)), "test: expected images of .8, 8, 3., got .9, 9, 3."),
    "field": (dict(distill={"num_step": 3}), "config.distill.num_step: no such field"),
    "group": (dict(distill=3), "config.distill: expected fields by name"),
    "value": (dict(distill={"num_steps": -3}), "config.distill.num_steps: expected"),
    "kind": (dict(seed="one"), "config.seed: expected"),
    "objective": (dict(objective="DM"), "^objective: .* tm, none, labeler, taught, got .DM."),
    "bytes": (dict(bytes_per_class=3), "budget: "),
    "rates": (dict(evaluate={"rates": "a"}), "config.evaluate.rates: expected numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_named(case, tmp_path):
    given, message = WRONG[case]
    given = dict(images=IMAGES, labels=LABELS, workdir=tmp_path / "run") | given
    with pytest.raises(UsageError, match=message):
        gsdd_jax.distill(given.pop("images"), given.pop("labels"), **given)
    assert not (tmp_path / "run" / "config.json").exists()


def test_an_evaluation_refuses_what_is_no_part_of_it():
    shipped = gsdd_jax.load("cifar10-12kB")
    color = np.zeros((10, 32, 32, 3), np.uint8)
    for of, test in ((shipped, (color, np.arange(10))), ((IMAGES, LABELS), (IMAGES, LABELS))):
        for given, message in (
            (
                dict(distill={"num_steps": 1}),
                "config.distill.num_steps: no field of this evaluation",
            ),
            (dict(budget={"bytes": 1}), "config.budget.bytes: no field .*evaluate.epochs"),
            (dict(data={"resolution": 8}), "config.data.resolution: no field"),
            (dict(mesh={"groups": 1}), "config.mesh.groups: no field"),
            (dict(seed="one"), "config.seed: expected"),
            (dict(evaluate={"epochs": "x"}), "config.evaluate.epochs: expected"),
            (dict(network={"options": {"width": "x"}}), "config.network.options.width: expected"),
            (dict(network={"options": 3}), "config.network.options: expected fields by name"),
            (dict(seed=None), "config.seed: expected"),
            (dict(learning_rate="x"), "evaluate: learning_rate: expected a number, got 'x'"),
            (dict(learning_rate=-1), "learning_rate: expected a number from"),
            (
                dict(learning_rate=0.1, evaluate={"learning_rate": 0.2}),
                "learning_rate, config.evaluate.learning_rate: expected one of them",
            ),
        ):
            with pytest.raises(UsageError, match=message):
                gsdd_jax.evaluate(of, *test, **given)
    for train, images, labels, given, message in (
        (shipped, color, LABELS[:10], dict(evaluate={"rates": "0.1"}), "evaluate.rates: no field"),
        (shipped, color, LABELS[:10], dict(evaluate={"epochs": 0}), "config.evaluate.epochs"),
        (shipped, color, LABELS[:10], dict(data={"transform": "zca"}), "data.transform: no field"),
        (shipped, color, LABELS[:10], dict(transform=3), "find_transform: source: expected a path"),
        (shipped, IMAGES, LABELS, {}, "test_images: expected images of"),
        (shipped, color, LABELS[:10] + 9, {}, "test_labels: expected 0 to 9, got 9 to 11"),
        (shipped, color, ["4"] * 10, {}, "test_labels: expected airplane, .*, got 4"),
        (IMAGES, IMAGES, LABELS, {}, "train: expected a distilled set"),
    ):
        with pytest.raises(UsageError, match=message):
            gsdd_jax.evaluate(train, images, labels, **given)


def test_a_fresh_import_has_data_and_a_version():
    assert {"data", "distill", "evaluate", "__version__"} <= set(dir(gsdd_jax))
    assert gsdd_jax.__version__[0].isdigit() and gsdd_jax.data.load is data.load
