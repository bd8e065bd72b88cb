"""The notebook's cells run from first to last, in an empty directory below the checkout's."""

import json
import pathlib
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("quickly_compiled")

NOTEBOOK = pathlib.Path(__file__).parent.parent / "notebooks" / "quickstart.ipynb"


def test_the_quickstart_runs(tmp_path, monkeypatch):
    cells = [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    assert not any(c["outputs"] for c in cells)  # committed without them
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = {}
    for cell in cells:
        source = "".join(cell["source"]).replace('"notebook_run"', repr(str(tmp_path)))
        source = source.replace("config.scale = 0.1", "config.scale = 0.02")
        exec(compile(source, str(NOTEBOOK), "exec"), names)
    assert names["psnr"].mean() > 20
    assert names["stored"].num_bytes // len(names["images"]) == 396  # as its text says
    assert names["values"][-1] < names["values"][0]
    assert np.isfinite(names["distilled"].images()).all()
