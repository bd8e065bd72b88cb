"""Tests distillations that begin with a finished set, or go on with more steps."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

import gsdd_jax
from gsdd_jax.config import default
from gsdd_jax.core.errors import UsageError
from gsdd_jax.runs.distill import fit_to
from gsdd_jax.runs.progress import Progress
from tests.test_arrays import FIELDS, FOLLOWING, OPTIONS, arrays

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SMALL = FIELDS | {"parameterization": {"name": "pixels"}, "init": {"images": "none"}}
TAUGHT = FOLLOWING | {
    "parameterization": {"name": "pixels", "options": {"dtype": "codes"}},
    "init": {"images": "none"},
    "matching": {"strategy": "flip", "options": OPTIONS | {"batch_syn": 0}},
    "labels.learned": True,
    "labels.learning_rate": 0.5,
    "data": {"transform": "normalize"},
}


def distilled(workdir, steps, objective="dm", eval_every=0, **more):
    fields = dict(SMALL if objective == "dm" else TAUGHT)
    fields["distill"] = FIELDS["distill"] | {"num_steps": steps, "eval_every": eval_every}
    fields = {g: v | more.pop(g, {}) if isinstance(v, dict) else v for g, v in fields.items()}
    return gsdd_jax.distill(
        *arrays(), 800, objective=objective, workdir=workdir, verbose=False, **fields | more
    )


def same(one, other):
    assert one.arrays.keys() == other.arrays.keys()
    for name, values in one.arrays.items():
        np.testing.assert_array_equal(values, other.arrays[name])
    assert one.learning_rate == other.learning_rate
    np.testing.assert_array_equal(one.targets, other.targets)


@pytest.mark.parametrize("objective", ["dm", "tm"])
def test_a_set_is_where_a_distillation_begins(tmp_path, objective):
    """Takes no step, and then some, from a set with learned labels and learning rate."""
    first = distilled(tmp_path / "first", 6, objective)
    place = tmp_path / "first" / "distilled.safetensors"
    start = {"init": {"set": str(tmp_path / "first")}}
    again = distilled(tmp_path / "again", 0, objective, **start)
    # Pixels are optimized as networks see them; codes are chosen again, labels are not.
    near = 1e-6 if objective == "dm" else 0.05
    np.testing.assert_allclose(again.images(), first.images(), atol=near)
    assert again.learning_rate == first.learning_rate
    np.testing.assert_array_equal(again.targets, first.targets)
    if objective == "tm":
        assert (
            again.learning_rate != 0.01
            and np.ptp(again.targets.argmax(1))
            and (np.unique(first.soft_labels).size > 2)
        )
    begun_with = {"sha256": hashlib.sha256(place.read_bytes()).hexdigest(), "step": 6}
    assert again.provenance["begun_with"] == begun_with == gsdd_jax.info(again)["begun_with"]
    assert "begun_with" not in first.provenance
    further = distilled(tmp_path / "further", 2, objective, **start)
    assert not np.array_equal(further.images(), again.images())
    gsdd_jax.save(place, dataclasses.replace(first, learning_rate=first.learning_rate * 2))
    with pytest.raises(UsageError, match="with other settings or other data"):
        distilled(tmp_path / "further", 2, objective, **start)


def test_sets_that_a_run_cannot_begin_with(tmp_path):
    first = distilled(tmp_path / "first", 0)
    names = tmp_path / "names.safetensors"
    data = first.provenance["data"]
    other = first.provenance | {"data": data | {"class_names": ["x", "y", "z"]}}
    gsdd_jax.save(names, dataclasses.replace(first, provenance=other))
    two = tmp_path / "two.safetensors"
    gsdd_jax.save(two, gsdd_jax.subset(first, [0, 1]))
    for path, more, message in (
        (tmp_path / "first", {"parameterization": {"options": {"dtype": "bfloat16"}}},
         "images_per_class: expected 2, as in this run, got 1"),
        (tmp_path / "first", {"parameterization": {"name": "idc"}},
         "name: expected 'idc', as in this run, got 'pixels'"),
        (names, {}, "class 0: expected '0', as in this run, got 'x'"),
        (two, {}, "classes: expected 3, as in this run, got 2"),
        (tmp_path / "gone", {}, "no such file or work directory"),
        (tmp_path / "run" / "own", {}, "expected a set outside the run's own directory"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=rf"^config.init.set: {path}\S*: {message}"):
            distilled(tmp_path / "run", 2, init={"set": str(path)}, **more)
        assert not (tmp_path / "run").exists()
    config = default()
    config.init.set = str(names)
    with pytest.raises(UsageError, match=r"config.init.set: expected none for a fit"):
        fit_to(config, tmp_path / "run")


@pytest.mark.parametrize("eval_every", [0, 2, 3])
def test_a_finished_run_goes_on_to_more_steps(tmp_path, eval_every):
    whole = distilled(tmp_path / "whole", 8, eval_every=eval_every)
    distilled(tmp_path / "grown", 4, eval_every=eval_every)
    shorter = json.loads((tmp_path / "grown" / "result.json").read_text())
    same(distilled(tmp_path / "grown", 8, eval_every=eval_every), whole)
    found = [tmp_path / name / "distilled.safetensors" for name in ("grown", "whole")]
    assert found[0].read_bytes() == found[1].read_bytes()
    results = [json.loads((path.parent / "result.json").read_text()) for path in found]
    assert results[0]["provenance"]["step"] == 8 != shorter["provenance"]["step"]
    assert results[0]["distilled_accuracies"] == results[1]["distilled_accuracies"]
    records = [json.loads((path.parent / "evaluations.json").read_text()) for path in found]
    if eval_every == 3:  # the last set of the shorter run is one more candidate
        records[0].pop("step 4")
    else:
        assert results[0] == results[1]
    assert records[0] == records[1]
    with pytest.raises(UsageError, match=r"config.distill.num_steps=8, not 4"):
        distilled(tmp_path / "grown", 4, eval_every=eval_every)


def test_an_interrupted_run_may_be_made_longer(tmp_path, monkeypatch):
    advance = Progress.advance

    def interrupted(self, count, **values):
        advance(self, count, **values)
        if "loss" in values and self._done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Progress, "advance", interrupted)
        distilled(tmp_path / "run", 4)
    same(distilled(tmp_path / "run", 6), distilled(tmp_path / "whole", 6))
