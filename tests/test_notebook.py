"""The notebooks' cells run from first to last, in their folder."""

import json
import pathlib
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("quickly_compiled")

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"


def run(name, monkeypatch, replaced):
    """The names that the notebook leaves; `replaced` text is another for the test."""
    cells = json.loads((NOTEBOOKS / name).read_text())["cells"]
    assert f"/notebooks/{name})" in "".join(cells[0]["source"])  # the badge opens this one
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)  # committed without them
    monkeypatch.chdir(NOTEBOOKS)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = {}
    for cell in cells:
        source = "".join(cell["source"])
        for text, other in replaced.items():
            source = source.replace(text, other)
        exec(compile(source, name, "exec"), names)
    return names


def test_the_quickstart_runs(tmp_path, monkeypatch):
    shorter = {"config.scale = 0.1": "config.scale = 0.02", '"notebook_run"': repr(str(tmp_path))}
    names = run("quickstart.ipynb", monkeypatch, shorter)
    assert names["psnr"].mean() > 20
    assert names["stored"].num_bytes // len(names["images"]) == 396  # as its text says
    assert names["values"][-1] < names["values"][0]
    assert np.isfinite(names["distilled"].images()).all()


def test_the_inside_of_a_set_is_shown(monkeypatch):
    pytest.importorskip("matplotlib").use("agg")
    names = run("inside_a_distilled_set.ipynb", monkeypatch, {})
    assert names["images"].shape == (300, 32, 32, 3)
    assert len(names["figure"].axes) == 20
    drawn = names["figure"].axes[10].patches  # of the first of ten images
    np.testing.assert_allclose(drawn[3].center, names["ellipses"].centres[0, 3])
    assert len(drawn) == 22
    # Without the large ones less is left of an image than without the small ones.
    large, small = (np.array(names["psnr"][order]) for order in ("large", "small"))
    assert (large < small).all() and (np.diff(small) < 0).all()
    assert names["large"].shape == (5, 128, 128, 3)
