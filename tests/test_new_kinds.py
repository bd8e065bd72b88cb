"""Adds an objective, a parameterization, a network and a data set, each by one file."""

import contextlib
import json
import re

import jax
import numpy as np
import pytest

import gsdd_jax
from configs import demo
from gsdd_jax import exports, matching, networks, parameterizations
from gsdd_jax.config import adapt
from gsdd_jax.data import transforms
from gsdd_jax.data.prepare import prepare
from gsdd_jax.report import document
from gsdd_jax.runs import evaluation
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.tables import reproduce
from gsdd_jax.tables.table import Cell, Table
from gsdd_jax.training import distill
from launch import fields
from tests.commands import ROOT
from tests.more_kinds import in_package
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")

KINDS = {matching: "mean_images", parameterizations: "gray", networks: "perceptron"}


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """Adds the architecture document's examples, each in its folder, and a set of arrays."""
    root = tmp_path_factory.mktemp("added")
    text = (ROOT / "docs" / "architecture.md").read_text()
    codes = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with contextlib.ExitStack() as stack:
        for package, name in KINDS.items():
            (code,) = (c for c in codes if f'name: ClassVar[str] = "{name}"' in c)
            folder = root / package.__name__
            folder.mkdir()
            (folder / f"{name}.py").write_text(code)
            stack.enter_context(in_package(package, folder))
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (60, 8, 8, 3), np.uint8)
        images[::2, :4] //= 4
        few = dict(test_images=images[:20], test_labels=np.arange(20) % 2)
        np.savez(root / "arrays.npz", images=images, labels=np.arange(60) % 2, **few)
        prepare(root / "arrays.npz", "shades", data_dir=root / "sets")
        yield root


@pytest.fixture(scope="module")
def config(added):
    """Returns the config of `--config=demo --config.matching.name=mean_images …`."""
    names = {"matching.name": "mean_images", "parameterization.name": "gray"}
    names |= {"network.name": "perceptron", "data.name": "shades"}
    names |= {"data.dir": str(added / "sets"), "data.resolution": 0, "evaluate.baselines": ""}
    config = demo.get_config()
    config.update_from_flattened_dict({f: v for f, v in TINY.items() if ".options." not in f})
    config.update_from_flattened_dict(names)
    return adapt.swapped(config, demo.get_config(), names)


@pytest.fixture(scope="module")
def finished(added, config):
    result = distill_to(config, added / "run")
    return added / "run", result


def test_it_distils_by_flags(finished, config):
    workdir, result = finished
    assert config.matching.options.to_dict() == {"batch_real": 64, "batch_syn": 0}
    assert config.network.options.to_dict() == {"depth": 2, "width": 64}
    assert result["distilled_accuracy"] >= 0
    images = gsdd_jax.load(workdir).images()
    # Three channels of float32 in place of one: three images in the bytes of one.
    assert images.shape == (6, 8, 8, 3)
    np.testing.assert_array_equal(images[..., 0], images[..., 2])


def test_it_is_evaluated(finished):
    workdir, result = finished
    where = {"data.dir": str(workdir.parent / "sets")}
    again = evaluation.evaluate_file(workdir / "distilled.safetensors", overrides=where)
    assert again["network"] == "perceptron"
    assert again["distilled_accuracies"] == result["distilled_accuracies"]


def test_it_is_planned_in_a_table(config, tmp_path):
    table = Table("one", "One cell", (Cell("row", "column", config),))
    ((name, state, _),) = (p for p in reproduce.plan(table, tmp_path) if p[0].startswith("run"))
    assert "shades-mean_images-gray" in name
    assert state == "to do"


def test_it_is_reported(finished, tmp_path):
    workdir, _ = finished
    document.write([workdir], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "3 images per class as gray" in text
    assert "real images per class and step" in text  # the help of the objective's option


def test_it_is_exported(finished, tmp_path):
    workdir, _ = finished
    set_ = gsdd_jax.load(workdir)
    exports.export(set_, tmp_path / "set.npz", "npz")
    np.testing.assert_array_equal(np.load(tmp_path / "set.npz")["labels"], [0, 0, 0, 1, 1, 1])


def test_each_computes_what_it_says(added):
    """Compares the network with NumPy; the objective falls, and so does DM under that network."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    data = matching.real_data(
        images,
        np.arange(40) % 2,
        2,
        transforms.Normalize(jax.numpy.full(3, 0.5), jax.numpy.full(3, 0.25)),
    )
    network = networks.build("perceptron", image_shape=(8, 8, 3), num_classes=2, width=32)
    params = network.init(jax.random.key(3))
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 3))
    expected = x.reshape(2, -1)
    for layer in params["body"].values():
        expected = np.maximum(expected @ layer["kernel"] + layer["bias"], 0)
    np.testing.assert_allclose(network.features(params, jax.numpy.float32(x)), expected, atol=1e-5)
    gray = parameterizations.build("gray", (8, 8, 3), ipc=3, images_per_class=1)
    for name, part in (("mean_images", 0.5), ("dm", 0.8)):
        objective = matching.build(
            name, network=network, num_classes=2, images_per_class=9, strategy="", batch_real=20
        )
        problem = distill.Problem(gray, objective, 2)
        start = gray.init(jax.random.key(0), jax.random.uniform(jax.random.key(1), (18, 8, 8, 3)))
        state = distill.start(problem, start, 0.01)
        _, losses = distill.run(problem, state, jax.random.key(2), data, None, 50)
        assert losses[-1] < part * losses[0]


def test_a_wrong_option_of_it_is_a_line(config):
    wrong = config.copy_and_resolve_references()
    wrong.matching.options.batch_syn = -1
    with pytest.raises(gsdd_jax.UsageError, match=r"batch_syn: expected an integer from 0 to"):
        distill_to(wrong, "nowhere")
    text = fields.describe(config)
    assert "synthetic images per class and step; 0: all" in text
    assert json.dumps(config.to_dict())
