"""The distilled set as a file."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import gsdd_jax
from gsdd_jax import parameterizations
from gsdd_jax.files import write_atomically


def some_set(name="gaussian", **options):
    kind = parameterizations.build(name, (8, 8, 3), ipc=1, gpc=4, **options)
    params = kind.init(
        jax.random.key(1),
        jax.random.uniform(jax.random.key(0), (2 * kind.images_per_class, 8, 8, 3)),
    )
    params = kind.from_arrays(kind.to_arrays(params))
    labels = np.repeat(np.arange(2, dtype=np.int32), kind.images_per_class)
    return gsdd_jax.DistilledSet(kind, params, labels, 0.0123, {"note": "ä", "step": 3})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gaussian", {}),
        ("gaussian", {"opacity": False, "samples_per_side": 1}),
        ("gaussian", {"bfloat16": False, "prefilter": False}),
        ("pixels", {}),
    ],
)
def test_round_trip(tmp_path, name, options):
    distilled = some_set(name, **options)
    path = tmp_path / "set.safetensors"
    gsdd_jax.save(path, distilled)
    loaded = gsdd_jax.load(path)
    assert loaded.parameterization == distilled.parameterization
    assert loaded.provenance == distilled.provenance
    assert loaded.learning_rate == pytest.approx(0.0123)
    np.testing.assert_array_equal(loaded.labels, distilled.labels)
    assert loaded.labels.dtype == np.int32
    np.testing.assert_array_equal(loaded.images(), distilled.images())
    assert loaded.images().shape == (len(loaded.labels), 8, 8, 3)
    gsdd_jax.save(tmp_path / "again.safetensors", loaded)
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_the_file_holds_what_the_budget_counts(tmp_path):
    distilled = some_set()
    gsdd_jax.save(tmp_path / "set.safetensors", distilled)
    with safetensors.safe_open(tmp_path / "set.safetensors", framework="flax") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    count = distilled.parameterization.num_gaussians
    assert distilled.num_bytes == 8 * count * 9 * 2
    parameters = [t for n, t in tensors.items() if n not in ("labels", "learning_rate")]
    assert sum(t.size * t.dtype.itemsize for t in parameters) == distilled.num_bytes
    assert {t.dtype.name for t in parameters} == {"bfloat16"}
    # Rendered from the file's own numbers, without the package's parameterization.
    again = gsdd_jax.rasterize(
        *(tensors[n].astype(jnp.float32) for n in ("means", "cholesky", "colors", "opacities")),
        height=8,
        width=8,
    )
    np.testing.assert_array_equal(again, distilled.images())


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "set.safetensors"
    with pytest.raises(gsdd_jax.UsageError, match="no such file"):
        gsdd_jax.load(path)
    path.write_bytes(b"not a set at all")
    with pytest.raises(gsdd_jax.UsageError, match="not a readable safetensors file"):
        gsdd_jax.load(path)
    gsdd_jax.save(path, some_set())
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(gsdd_jax.UsageError, match="not a readable safetensors file"):
        gsdd_jax.load(path)
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(3)}))
    with pytest.raises(gsdd_jax.UsageError, match="not a distilled set"):
        gsdd_jax.load(path)
    with safetensors.safe_open(_write(path, whole), framework="numpy") as file:
        metadata = file.metadata()
    path.write_bytes(safetensors.numpy.save({"labels": np.zeros(3)}, metadata))
    with pytest.raises(gsdd_jax.UsageError, match="'learning_rate' is missing"):
        gsdd_jax.load(path)
    header = json.loads(metadata["gsdd_jax"])
    header["parameterization"]["name"] = "splines"
    metadata["gsdd_jax"] = json.dumps(header)
    path.write_bytes(safetensors.numpy.save({"labels": np.zeros(3)}, metadata))
    with pytest.raises(gsdd_jax.UsageError, match="expected one of gaussian, pixels"):
        gsdd_jax.load(path)


def _write(path, data):
    path.write_bytes(data)
    return path


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_import_is_quick_and_needs_no_tensorflow():
    """The time itself is no test's business; what makes it slow is."""
    code = (
        "import sys, gsdd_jax; heavy = {'tensorflow', 'tensorflow_datasets', 'flax', 'orbax', "
        "'matplotlib', 'tensorboardX'}; print(sorted(heavy & sys.modules.keys()))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=pathlib.Path(__file__).parent.parent,
    )  # fmt: skip
    assert out.stdout.strip() == "[]"
