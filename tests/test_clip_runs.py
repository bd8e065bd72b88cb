"""Tests runs of clips: fit, distillation by each objective, evaluation, report, exports."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import gsdd_jax
from gsdd_jax import data, exports
from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats.clips import folded, unfolded
from tests.moving_bars import FRAMES, clips

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SHORT = {
    "network": {"name": "minic3d", "options": {"width": 8}},
    "init": {"num_steps": 5},
    "matching": {"strategy": "color", "options": {"batch_real": 4}},
    "distill": {"num_steps": 4, "steps_per_call": 4, "snapshot_every": 4},
    "evaluate": {
        "num_networks": 1,
        "epochs": 2,
        "baselines": "random_real_dct,random_real_dct_labeler",
    },
}


def test_a_run_of_clips(tmp_path):
    """Fits, distills, evaluates, reports and exports clips."""
    found, labels = clips()
    test, run = clips(6, 1), tmp_path / "run"
    fields = SHORT | {"parameterization": {"name": "video_gaussian"}}
    of_run = dict(test=test, workdir=run, verbose=False, budget={"images_per_class": 2}, **fields)
    made = gsdd_jax.distill(found, labels, **of_run)
    assert made.images().shape == (4, FRAMES, 8, 8, 3)
    assert made.num_bytes <= 2 * 4 * 8 * 8 * 3 * FRAMES
    result = json.loads((run / "result.json").read_text())
    assert {"distilled_accuracy", "random_real_dct_accuracy"} <= result.keys()
    assert "random_real_dct_labeler_accuracy" not in result  # none of clips
    real = gsdd_jax.load(run / "random_real_dct.safetensors")
    assert real.images().shape[1:] == (FRAMES, 8, 8, 3) and real.num_bytes <= 2 * 4 * 8 * 8 * 12
    start = gsdd_jax.load(run / "snapshots" / "0.safetensors")
    assert (start.images() != made.images()).mean() > 0.9
    with Image.open(run / "contact_sheet.png") as sheet:
        assert sheet.size == (2 * (2 * FRAMES * 8 + 1), 2 * (2 * 8 + 1))
    loaded, page = gsdd_jax.load(run), (run / "report.html").read_text()
    assert "4×8×8×3" in page
    animated = re.findall(r'src="data:image/webp;base64,[^"]*" alt="([^"]*)"', page)
    assert animated == [f"A distilled clip of class {k}" for k in range(2)]
    accuracy = gsdd_jax.evaluate(loaded, *test, verbose=False)
    assert 0 <= accuracy <= 100 and accuracy.confusion.sum() == 6
    with pytest.raises(UsageError, match="test_images: expected 4 frames each, got 1"):
        gsdd_jax.evaluate(loaded, folded(test[0])[..., :3], test[1], verbose=False)
    images, _ = loaded.numpy()
    color = np.float32(data.from_arrays(found, labels, test).mean)
    spread = np.float32(data.from_arrays(found, labels, test).std)
    expected = (loaded.rendered() - color) / spread
    np.testing.assert_allclose(images, unfolded(expected, FRAMES), atol=1e-5)
    exports.export(loaded, tmp_path / "set.npz", "npz", space="unit")
    np.testing.assert_array_equal(np.load(tmp_path / "set.npz")["images"], loaded.images())
    with pytest.raises(UsageError, match=r"torch, mp4, .* for clips of 4 frames, got 'hf'"):
        exports.export(loaded, tmp_path / "set", "hf")


OBJECTIVES = {
    "dm": {"options": {"batch_real": 4}},
    "tm": {"options": {"syn_steps": 2, "expert_epochs": 1, "max_start_epoch": 1, "batch_syn": 0}},
    "frepo": {"options": {"batch_real": 8, "pool_size": 2}},
    "bptt": {"options": {"batch_real": 8, "syn_steps": 1, "max_start_step": 1}},
    "ncfm": {"options": {"batch_real": 8, "num_frequencies": 16}},
    "dc": {"options": {"batch_real": 4, "outer_loops": 2, "inner_loops": 1}},
}


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        *((objective, "video_gaussian") for objective in ("tm", "frepo", "bptt", "ncfm", "dc")),
        *((objective, "video_quantized") for objective in ("dm", "tm")),
    ],
)
def test_objectives_move_clips(tmp_path, objective, name):
    found, labels = clips()
    fields = {"evaluate": {"num_networks": 1, "epochs": 1, "baselines": ""}}
    fields |= {part: SHORT[part] for part in ("network", "init", "distill")}
    if objective in ("tm", "ncfm"):
        fields["experts"] = {"num_experts": 1, "epochs": 2}
    made = gsdd_jax.distill(
        found, labels, objective=objective, test=(), workdir=tmp_path, verbose=False,
        budget={"images_per_class": 2}, parameterization={"name": name},
        matching=OBJECTIVES[objective], **fields,
    )  # fmt: skip
    assert made.num_bytes <= 2 * 4 * 8 * 8 * 3 * FRAMES
    start = gsdd_jax.load(tmp_path / "snapshots" / "0.safetensors")
    moved = np.abs(start.images() - made.images())
    assert np.isfinite(moved).all() and (moved > 0).mean() > 0.5
