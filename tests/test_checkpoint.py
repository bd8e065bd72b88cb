"""Tests ownership of checkpoints, and recovery from damaged or unwritable ones."""

import json
import os
import shutil
import types

import jax.numpy as jnp
import numpy as np
import pytest

from gsdd_jax.core.errors import UsageError
from gsdd_jax.storage import checkpoint
from gsdd_jax.storage.checkpoint import Checkpoints


def state(value):
    return {"params": jnp.full(4, value), "step": jnp.int32(value)}


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path / "fit", "one")
    for step in (5, 10, 15):
        checkpoints.save(step, state(step))
    checkpoints.close()
    return tmp_path / "fit"


def halve(folder):
    for file in folder.rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)


def test_the_newest_is_restored_to_the_bit(saved):
    np.testing.assert_array_equal(Checkpoints(saved, "one").restore(state(0))["params"], 15)
    assert {path.name for path in saved.iterdir()} == {"10", "15"}


def test_one_is_due_a_minute_after_the_last(tmp_path, monkeypatch):
    seconds = [100.0]
    clock = types.SimpleNamespace(monotonic=lambda: seconds[-1])
    monkeypatch.setattr(checkpoint, "time", clock)
    checkpoints, due = Checkpoints(tmp_path / "fit", "one"), []
    for second in (159.0, 161.0, 222.0):
        seconds.append(second)
        due.append(checkpoints.is_due)
        if due[-1]:
            checkpoints.save(5 * len(due), state(5))
            due.append(checkpoints.is_due)
    assert due == [False, True, False, True, False]


def test_another_run_does_not_take_it(saved):
    with pytest.raises(
        UsageError,
        match=r"fit/15: the checkpoint of a run with other settings .* another directory",
    ):
        Checkpoints(saved, "two").restore(state(0))


def test_a_damaged_one_gives_way_to_the_one_before(saved):
    halve(saved / "15")
    said = []
    checkpoints = Checkpoints(saved, "one", said.append)
    assert checkpoints.restore(state(0))["step"] == 10
    assert len(said) == 1
    assert "fit/15: damaged" in said[0]
    assert said[0].endswith("resuming from step 10")
    checkpoints.save(15, state(16))  # in its place
    assert Checkpoints(saved, "one").restore(state(0))["step"] == 16


def flip(path):
    """Flips one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def rewrite(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def numbers(folder):
    """Returns the file that holds most of a checkpoint's numbers."""
    return max(folder.glob("state/ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    ("damage", "step"),
    [
        (lambda folder: flip(numbers(folder)), 10),
        (lambda folder: rewrite(folder / "run" / "metadata", identity="two"), 10),
        (lambda folder: rewrite(folder / "run" / "metadata", other=0), 10),
        (lambda folder: (folder / "run" / "metadata").write_text("[1]"), 10),
        # Orbax's other files are not needed.
        (lambda folder: rewrite(folder / "_CHECKPOINT_METADATA", metrics=35), 15),
        (lambda folder: rewrite(folder / "_CHECKPOINT_METADATA", item_handlers=3), 15),
        (lambda folder: rewrite(folder / "_CHECKPOINT_METADATA", custom_metadata=[]), 15),
        (lambda folder: (folder / "_CHECKPOINT_METADATA").write_text("["), 15),
    ],
)
def test_no_other_numbers_are_restored_than_were_saved(tmp_path, damage, step):
    draw = lambda step: {"params": np.random.default_rng(step).random((50, 40), np.float32)}
    checkpoints = Checkpoints(tmp_path, "one")
    for s in (10, 15):
        checkpoints.save(s, draw(s))
    checkpoints.close()
    damage(tmp_path / "15")
    said = []
    found = Checkpoints(tmp_path, "one", said.append).restore(draw(0))
    np.testing.assert_array_equal(found["params"], draw(step)["params"])
    assert len(said) == (step == 10)
    assert all("/15: damaged (" in s and s.endswith("resuming from step 10") for s in said)


@pytest.mark.parametrize("said", [{}, {"sha256": None}, {"sha256": []}], ids=str)
def test_a_checkpoint_without_digests_is_damaged(saved, said):
    path = saved / "15" / "run" / "metadata"
    assert set(json.loads(path.read_text())) == {"identity", "sha256"}
    path.write_text(json.dumps({"identity": "one"} | said))
    assert Checkpoints(saved, "one").restore(state(0))["step"] == 10


@pytest.mark.parametrize("step", ["3", "20"])
def test_a_folder_of_others_is_not_deleted(saved, step):
    (saved / step).mkdir()
    (saved / step / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=f"fit/{step}: not a checkpoint of a run; move it away"):
        Checkpoints(saved, "one")
    assert (saved / step / "notes.txt").read_text() == "mine"
    (saved / step / "notes.txt").unlink()  # remains of an interrupted deletion
    assert Checkpoints(saved, "one").restore(state(0))["step"] == 15


def test_where_none_is_whole_it_says_what_to_do(saved):
    halve(saved / "15")
    shutil.rmtree(saved / "10" / "state")
    with pytest.raises(UsageError, match="delete them to begin again") as raised:
        Checkpoints(saved, "one").restore(state(0))
    assert "fit/15: damaged" in str(raised.value)
    assert "fit/10: damaged" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_not_saved(saved, value):
    checkpoints = Checkpoints(saved, "one")
    with pytest.raises(UsageError, match=r"params.* not finite at step 20; .* is step 15"):
        checkpoints.save(20, state(20) | {"params": jnp.array([0.0, 0.0, value, 0.0])})
    assert Checkpoints(saved, "one").restore(state(0))["step"] == 15


def test_a_full_disk_is_one_line_and_keeps_the_last(saved, monkeypatch):
    checkpoints = Checkpoints(saved, "one")
    usage = shutil.disk_usage(saved)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UsageError, match=r"the disk is too full for the checkpoint of step 20"):
        checkpoints.save(20, state(20))
    assert Checkpoints(saved, "one").restore(state(0))["step"] == 15
