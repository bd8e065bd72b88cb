"""Tests that foreign data sets and work directories run no code, whatever they name."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from configs import demo
from gsdd_jax import data
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import prepare, trusted

ROOT = pathlib.Path(__file__).parent.parent
CORE = "tensorflow_datasets.core.features"
IMAGE = {"dtype": "uint8", "encodingFormat": "png", "shape": {"dimensions": ["8", "8", "3"]}}
THING = {"pythonClassName": "evilmod.Thing", "image": IMAGE}
LEGACY = {"type": "evilmod.Thing", "content": {"shape": [8, 8, 3]}, "proto_cls": ""}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Returns a valid data set next to a module that leaves a mark when imported."""
    (tmp_path / "evilmod.py").write_text("open(__file__ + '.imported', 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evilmod", raising=False)
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(8) % 2)
    yield (
        prepare.prepare(tmp_path / "mine.npz", "mine", data_dir=tmp_path / "tfds").folder / "1.0.0"
    )
    assert not (tmp_path / "evilmod.py.imported").exists()


def load(folder) -> data.Dataset:
    root = folder.parents[1]
    return data.load("mine", data_dir=root, cache_dir=root / "cache")


def change(folder, name, edit):
    content = json.loads((folder / name).read_text())
    content = edit(content) or content
    (folder / name).write_text(json.dumps(content))


def as_features(features):
    return {
        "pythonClassName": f"{CORE}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


HOSTILE = {
    "at the top": lambda _: {"pythonClassName": "evilmod.Thing", "featuresDict": {"features": {}}},
    "in a dictionary": lambda _: as_features({"image": THING}),
    "as protocol buffers spell it": lambda _: {
        "python_class_name": f"{CORE}.features_dict.FeaturesDict",
        "features_dict": {"features": {"a": {"python_class_name": "evilmod.Thing", "image": {}}}},
    },
    "in a sequence": lambda _: as_features(
        {"s": {"pythonClassName": f"{CORE}.sequence_feature.Sequence",
               "sequence": {"feature": THING, "length": "-1"}}}
    ),
    "as before version 4.6": lambda _: {
        "type": f"{CORE}.features_dict.FeaturesDict", "content": {"image": LEGACY},
    },
    "in JSON as text": lambda _: {
        "type": f"{CORE}.features_dict.FeaturesDict",
        "proto_cls": "tensorflow_datasets.FeaturesDict",
        "content": json.dumps({"features": {"image": THING}}),
    },
    "in a JSON feature": lambda _: as_features(
        {"d": {"pythonClassName": f"{CORE}.dataset_feature.Dataset",
               "jsonFeature": {"json": json.dumps({"feature": LEGACY, "length": 3})}}}
    ),
    "by a name of TFDS and more": lambda _: as_features(
        {"image": {"pythonClassName": f"{CORE}.image_feature.Image.evilmod.Thing", "image": IMAGE}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("features", HOSTILE.values(), ids=HOSTILE)
def test_no_class_is_imported_that_is_not_tfds_s_own(folder, features):
    change(folder, "features.json", features)
    with pytest.raises(UsageError, match="expected feature classes of tensorflow"):
        load(folder)


def test_what_dataset_info_names_is_not_imported(folder):
    change(folder, "dataset_info.json", lambda info: info.update(moduleName="evilmod"))
    assert len(load(folder).train.labels) + len(load(folder).test.labels) == 8


def test_features_of_tfds_pass(folder):
    import tensorflow_datasets as tfds

    kinds = tfds.features
    features = kinds.FeaturesDict({
        "image": kinds.Image(shape=(8, 8, 3)), "label": kinds.ClassLabel(num_classes=2),
        "file": kinds.Text(), "boxes": kinds.Sequence({"box": kinds.BBoxFeature()}),
        "one": kinds.Scalar(np.int64),
        "some": kinds.Dataset({"x": kinds.Tensor(shape=(2,), dtype=np.float32)}),
        "words": kinds.Translation(["en", "de"]),
        "mask": kinds.LabeledImage(labels=2, shape=(8, 8, 1)),
    })  # fmt: skip
    for described in (features.to_json(), json.loads(json.dumps(_as_proto(features)))):
        (folder / "features.json").write_text(json.dumps(described))
        trusted.check(folder.parent)


def _as_proto(features):
    from google.protobuf import json_format

    return json_format.MessageToDict(features.to_proto())


def test_what_is_nested_deeply_ends_in_a_line(folder):
    (folder / "features.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(UsageError, match=r"features\.json"):
        load(folder)


def test_a_report_of_somebody_s_directory_imports_nothing(folder):
    """Uses a config that names the data next to it, whose features name a module."""
    change(folder, "features.json", HOSTILE["in a dictionary"])
    config = demo.get_config()
    config.data.name, config.data.dir = "mine", str(folder.parents[1])
    run = folder.parents[2] / "run"
    run.mkdir()
    (run / "config.json").write_text(config.to_json())
    command = [sys.executable, "-m", "launch.report", str(run)]
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{folder.parents[2]}"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (run / "report.html").is_file()
