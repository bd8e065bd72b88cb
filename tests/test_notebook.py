"""Runs the notebooks' cells from first to last, in their folder."""

import json
import pathlib
import sys

import matplotlib
import numpy as np
import pytest

from tests.tiny import save_few_of_shipped

pytestmark = pytest.mark.usefixtures("quickly_compiled")

# Shortened: most of the time would be compilation.
LITTLE = (
    "config.network.options.update(depth=1, width=4); config.matching.strategy = '';"
    "config.evaluate.num_networks = 2"
)
CHEAP = {"random_real_dct": "random_real"}  # without trials of sizes
NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"


def run(name, monkeypatch, replaced):
    """Returns the names that a notebook defines; `replaced` shortens its text."""
    cells = json.loads((NOTEBOOKS / name).read_text())["cells"]
    assert f"/notebooks/{name})" in "".join(cells[0]["source"])  # the badge opens this one
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)  # committed without them
    monkeypatch.chdir(NOTEBOOKS)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names, everything = {}, "".join("".join(cell["source"]) for cell in cells)
    assert all(text in everything for text in replaced)
    for cell in cells:
        source = "".join(cell["source"])
        for text, other in replaced.items():
            source = source.replace(text, other)
        exec(compile(source, name, "exec"), names)
    return names


def test_the_quickstart_runs(tmp_path, monkeypatch):
    shorter = {
        '"notebook_run"': repr(str(tmp_path)),
        "config.scale = 0.1": f"config.scale = 0.02; config.data.resolution = 8; {LITTLE}",
        **CHEAP,
    }
    names = run("quickstart.ipynb", monkeypatch, shorter)
    assert names["psnr"].mean() > 20
    assert names["stored"].num_bytes // len(names["images"]) == 396  # as its text says
    assert names["values"][-1] < names["values"][0]
    assert np.isfinite(names["distilled"].images()).all()


def test_the_inside_of_a_set_is_shown(tmp_path, monkeypatch):
    matplotlib.use("agg")
    save_few_of_shipped(tmp_path / "cifar10_tm_ipc1_cpu" / "distilled.safetensors")
    shorter = {
        '"..", "benchmarks", "results"': repr(str(tmp_path)),
        "[10, 25, 50, 75, 90]": "[10, 90]",
    }
    names = run("inside_a_distilled_set.ipynb", monkeypatch, shorter)
    assert names["images"].shape == (30, 32, 32, 3)
    assert len(names["figure"].axes) == 20
    drawn = names["figure"].axes[10].patches  # of the first of ten images
    np.testing.assert_allclose(drawn[3].center, names["ellipses"].centers[0, 3])
    assert len(drawn) == 22
    # Removing large ones loses more of an image than removing small ones.
    large, small = (np.array(names["psnr"][order]) for order in ("large", "small"))
    assert (large < small).all() and (np.diff(small) < 0).all()
    assert names["large"].shape == (5, 128, 128, 3)


def test_own_pictures_are_distilled(tmp_path, monkeypatch):
    few = {
        '"own_data_run"': repr(str(tmp_path)),
        "PER_CLASS = 100": "PER_CLASS = 8",
        "config.scale = 0.3": f"config.scale = 0.02; {LITTLE}",
        "EPOCHS = 100": "EPOCHS = 30",
        **CHEAP,
    }
    names = run("own_data.ipynb", monkeypatch, few)
    assert len(list(tmp_path.glob("pictures/*/*.jpg"))) == 80
    mine = names["mine"]
    assert len(mine.train.labels) == 70 and len(mine.test.labels) == 10
    everything = np.concatenate([mine.train.images, mine.test.images])
    assert (everything == names["picture"]).all((1, 2, 3)).any()
    distilled = names["distilled"]
    assert distilled.class_names == tuple(names["made"].class_names) == mine.class_names
    assert distilled.provenance["data"]["fingerprint"] == mine.fingerprint
    # The network has learned the set, and answers with a class.
    learned = names["predict"](names["network"], distilled.numpy().images)
    assert (learned == distilled.labels).mean() > 0.3
    assert 0 <= int(names["answer"]) < 10


def test_trajectory_matching_is_followed(tmp_path, monkeypatch):
    matplotlib.use("agg")
    smaller = {
        '"tm_run"': repr(str(tmp_path)),
        "else 0.1": f"else 0.01; config.data.resolution = 8; {LITTLE}",
        "config.experts.epochs, config.experts.learning_rate = 10,": (
            "config.experts.epochs, config.experts.learning_rate = 3,"
        ),
        "cifar10_tm.get_config()": "config",
        **CHEAP,
    }
    names = run("trajectory_matching.ipynb", monkeypatch, smaller)
    store, distilled = names["store"], names["distilled"]
    assert (len(store), store.epochs) == (2, 3) and (names["moved"] > 0).all()
    assert names["steps"] == [0, 5, 10]
    assert distilled.learning_rate != names["config"].matching.options.lr_init
    assert distilled.provenance["config"]["matching.name"] == "tm"
    result = names["result"]
    curve = [np.mean(names["curve"][step]["test"]) for step in names["steps"]]
    np.testing.assert_allclose(
        curve[::2], [result["fitted_accuracy"], result["distilled_accuracy"]], rtol=1e-5
    )
    assert all(part.seconds > 0 and part.bytes > 0 for part in names["costs"].values())
