"""Runs the examples on a few real images per class in place of distilled ones; they learn."""

import runpy
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import data, parameterizations
from gsdd_jax.formats import transforms
from tests.commands import ROOT

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


@pytest.mark.parametrize("name", ["flax_nnx", "equinox_convnet", "keras_dataset"])
def test_example(few, name, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    if name != "flax_nnx":
        pytest.importorskip(name.partition("_")[0])
    monkeypatch.setattr(sys, "argv", [f"{name}.py", str(few), "--epochs=8"])
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    accuracy = float(capsys.readouterr().out.split()[2])
    assert accuracy > 14  # 10 by chance
