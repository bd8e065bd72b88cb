"""Runs the examples on a few real images per class in place of distilled ones; they learn."""

import ast
import collections
import dataclasses
import gzip
import importlib
import json
import re
import runpy
import subprocess
import sys
import tomllib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import gsdd_jax
from gsdd_jax import data, parameterizations
from gsdd_jax.formats import transforms
from tests.commands import ROOT

EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Returns a file of ten images per class of CIFAR-10."""
    mini = data.load("cifar10_mini", cache_dir=tmp_path_factory.mktemp("cache"))
    kind = parameterizations.build("pixels", mini.image_shape, ipc=10, images_per_class=1)
    chosen = np.argsort(mini.train.labels, kind="stable").reshape(10, -1)[:, :10].ravel()
    made = {
        "data": {"name": mini.name},
        "transform": transforms.describe("normalize", mini.mean, mini.std, mini.train.images),
    }
    params = {"pixels": jnp.asarray(mini.train.images[chosen] / np.float32(255))}
    labels = np.repeat(np.arange(10, dtype=np.int32), 10)
    path = tmp_path_factory.mktemp("set") / "few.safetensors"
    gsdd_jax.save(path, parameterizations.stored(kind, params, labels, 0.05, made))
    return path


def run(name, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


@pytest.mark.parametrize("name", ["flax_nnx", "equinox_convnet", "keras_dataset"])
def test_example(few, name, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    if name != "flax_nnx":
        pytest.importorskip(name.partition("_")[0])
    run(name, monkeypatch, str(few), "--epochs=8")
    accuracy = float(capsys.readouterr().out.split()[2])
    assert accuracy > 14  # 10 by chance


def test_what_federated_clients_compute(monkeypatch):
    """The parts of the Flower app that need no Flower."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "federated"))
    task = importlib.import_module("oneshot.task")
    with open(EXAMPLES / "federated" / "pyproject.toml", "rb") as file:
        config = tomllib.load(file)["tool"]["flwr"]["app"]["config"]
    config |= {"steps": 1, "fit-steps": 1, "width": 4, "bytes": 2000, "clients": 100}
    mini = data.load("cifar10_mini")
    images, labels = task.share(config, 3)
    there = {image.tobytes() for image in mini.train.images}
    assert len(images) == 15 * 2 and len(set(labels)) == 2
    assert all(image.tobytes() in there for image in images)
    limits = dict(most_bytes=2000 + 16_384, image_shape=mini.image_shape)
    found = gsdd_jax.federated.receive(
        task.distilled(config, 3), client="c", classes=list(set(labels)), **limits
    )
    assert found.num_bytes <= 2000 and set(found.class_names) == set(labels)
    first = task.first(config)
    arrays, count = task.trained(config, first, 3, 1, epochs=2)
    assert count == 30 and [a.shape for a in arrays] == [a.shape for a in first]
    assert any((a != b).any() for a, b in zip(arrays, first, strict=True))
    assert 0 <= task.accuracy(config, arrays) <= 100
    config |= {"split": "dirichlet", "clients": 10, "bytes": 24_000}
    real = collections.Counter(task.share(config, 0)[1].tolist())
    unequal = gsdd_jax.federated.receive(
        task.distilled(config, 0), client="c", classes=list(real), **limits | {"most_bytes": 50_000}
    )
    counts, images = dict(zip(unequal.class_names, unequal.class_counts, strict=True)), real.total()
    assert max(counts.values()) > 5 * min(counts.values())
    for name, count in counts.items():
        share = sum(counts.values()) * real[name] / images
        assert abs(count - max(1, share)) <= 0.1 * share + 1


def test_federated_results_are_kept_and_not_run_again(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(EXAMPLES / "federated"))
    keep = importlib.import_module("oneshot.results").keep
    compare = importlib.import_module("compare")
    path, missing = tmp_path / "federated.json", []

    def as_flower(command):
        settings = dict(tomllib.loads(command[-1].replace(" ", "\n")))
        assert command[:2] == ["flwr", "run"]
        missing.append(settings["method"])
        for number in range(settings.get("rounds", 1)):
            more = {"round": number + 1} if settings["method"] == "fedavg" else {}
            keep(settings, 10, [50.0, 60.0], **more)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", as_flower)
    monkeypatch.setattr(sys, "argv", ["compare.py", f"--results={path}"])
    compare.main()
    assert len(missing) == 3 * len(compare.ARMS) - 2 and missing.count("central") == 1
    cells = json.loads(path.read_text())["cells"]
    assert cells[0]["mean"] == 55 and abs(cells[0]["deviation"] - 50**0.5) < 1e-9
    assert {cell["row"] for cell in cells} >= {"codes by DM", "Gaussians by DM"}
    for wrong in ("", "[]", "{}", '{"cells": 3}'):
        (tmp_path / "wrong.json").write_text(wrong)
        with pytest.raises(SystemExit, match=r"wrong\.json: expected results of earlier runs"):
            keep({"results": str(tmp_path / "wrong.json")}, 10, [50.0])
    compare.main()
    assert len(cells) == len(json.loads(path.read_text())["cells"])


def test_pictures_in_motion(monkeypatch, tmp_path):
    """Two gray squares as pictures: where they are seen says how they move."""
    for part, count in (("train", 80), ("t10k", 40)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 4:24, 10:18] = 100 if part == "train" else 200
        head = np.array([2051, count, 28, 28], ">i4").tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head, labels = np.array([2049, count], ">i4").tobytes(), np.arange(count, dtype=np.uint8)
        content = head + (labels % 10).tobytes()
        with gzip.open(tmp_path / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(content)
    arguments = str(tmp_path), str(tmp_path / "a.npz"), "--train=2", "--test=1"
    run("moving_fashion", monkeypatch, *arguments)
    file = np.load(tmp_path / "a.npz")
    images, labels = file["images"], file["labels"]
    assert images.shape == (80, 16, 64, 64, 1) and file["test_images"].shape[0] == 40
    assert len(set(labels)) == 40 and set(labels) == set(file["test_labels"])
    assert images.max() == 100 and file["test_images"].max() == 200
    row, column = np.indices((64, 64))
    shown = images[..., 0] / images.sum((2, 3, 4))[..., None, None]
    moved = {name: [] for name in ("right", "down", "turns", "zooms")}
    for label, clip in zip(labels, shown, strict=True):
        centers = [((row * f).sum(), (column * f).sum()) for f in clip[[0, -1]]]
        moved[label.split()[1]].append(np.subtract(*centers[::-1]))
    for name, there in moved.items():
        expected = {"right": (0, 1), "down": (1, 0)}.get(name, (0, 0))
        far = np.array(there) / 28  # pixels at a speed of 1
        assert (np.abs(far - expected) <= 0.31 * np.array(expected) + 0.1).all(), name
    run("moving_fashion", monkeypatch, str(tmp_path), str(tmp_path / "b.npz"), *arguments[2:])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    run("moving_fashion", monkeypatch, str(tmp_path), str(tmp_path / "frames"), *arguments[2:])
    for k, frame in enumerate(images[0]):
        with Image.open(tmp_path / "frames/train" / labels[0] / f"00000/{k:03}.png") as picture:
            np.testing.assert_array_equal(picture, frame[..., 0])
    assert len(list((tmp_path / "frames/test").glob("*/*/*.png"))) == 40 * 16
    for out in ("a.npz", "frames"):
        with pytest.raises(SystemExit, match=rf"^error: .*{out}: expected a new folder"):
            run("moving_fashion", monkeypatch, str(tmp_path), str(tmp_path / out), *arguments[2:])
    with pytest.raises(SystemExit, match=r"^error: .*no/train-images-idx3-ubyte: expected this"):
        run("moving_fashion", monkeypatch, str(tmp_path / "no"), str(tmp_path / "c.npz"))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + bytes(100))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(SystemExit, match=r"^error: .*train-labels-idx1-ubyte\.gz: Not a gzipped"):
        run("moving_fashion", monkeypatch, str(tmp_path), str(tmp_path / "c.npz"))


def test_a_missing_data_set_is_one_line(few, monkeypatch, tmp_path):
    """Runs examples on a set whose test images are not there: TFDS's, and those without JAX."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    set_ = gsdd_jax.load(few)
    made = set_.provenance | {"data": {"name": "cifar100"}}
    gsdd_jax.save(tmp_path / "few.safetensors", dataclasses.replace(set_, provenance=made))
    for path, told in ((tmp_path / "few.safetensors", "'cifar100' is not on disk"), ("no", "no: ")):
        with pytest.raises(SystemExit, match=f"^error: .*{told}"):
            run("flax_nnx", monkeypatch, str(path))
    monkeypatch.syspath_prepend(EXAMPLES)
    real_images = importlib.import_module("real_images")
    with pytest.raises(gsdd_jax.UsageError, match=r"^nothing: .* \(Dataset nothing not found\.\)"):
        real_images.of("nothing")


def test_each_names_the_packages_to_install():
    """Compares what the examples import, and what that imports of them, with their own line."""
    imported = {}
    for path in EXAMPLES.glob("*.py"):
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if hasattr(n, "names")]
        found = {getattr(n, "module", None) or alias.name for n in nodes for alias in n.names}
        imported[path.stem] = {name.partition(".")[0] for name in found}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    with_jax = {re.match(r"[\w-]+", name)[0].replace("-", "_") for name in project}
    for name, found in imported.items():
        if name == "real_images":
            continue
        (line,) = re.findall("^ *pip install (.*)$", (EXAMPLES / f"{name}.py").read_text(), re.M)
        named = {re.match(r"[\w.-]+", of)[0].replace("-", "_") for of in line.split()}
        named |= with_jax if "." in named else {"numpy"}  # of torch
        found = found.union(*(imported[of] for of in found & imported.keys()))
        needed = found - set(sys.stdlib_module_names) - imported.keys() - {"gsdd_jax"}
        assert needed <= named, name
