"""Tests the store of expert trajectories: random access, and all kinds of wrong files."""

import hashlib
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from gsdd_jax import UsageError
from gsdd_jax.storage import trajectories
from gsdd_jax.storage.trajectories import ExpertStore, Trajectory

EPOCHS, SIZE, EXPERTS = 4, 7, 3
IDENTITY = {
    "data.name": "made_up",
    "data.fingerprint": "abc",
    "network.options.width": 4,
    "experts.epochs": EPOCHS,
    "experts.learning_rate": 0.01,
    "num_parameters": SIZE,
}
ROWS = np.random.default_rng(0).normal(size=(EXPERTS, EPOCHS + 1, SIZE)).astype(np.float32)


def write(directory, expert, identity=IDENTITY, rows=None):
    trajectory = Trajectory(directory, identity, expert)
    for row in ROWS[expert] if rows is None else rows:
        trajectory.append(row)
    trajectory.finish(10.0 * expert, 10.0 * expert + 1)


@pytest.fixture
def directory(tmp_path):
    for expert in range(EXPERTS):
        write(tmp_path, expert)
    return tmp_path


def refuses(directory, *words, identity=IDENTITY, num_experts=EXPERTS):
    with pytest.raises(UsageError) as caught:
        ExpertStore(directory, identity, num_experts)
    message = str(caught.value)
    assert "\n" not in message
    for word in (*words, str(directory)):
        assert word in message, message


def changed(directory, expert, **fields):
    """Changes fields of an index."""
    path = trajectories.index_of(directory, expert)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def files(directory):
    found = (p for p in pathlib.Path(directory).rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): p.read_bytes() for p in found}


# Finished trajectories.


def test_every_epoch_of_every_expert_in_any_order(directory):
    store = ExpertStore(directory, IDENTITY, EXPERTS)
    assert (len(store), store.epochs, store.num_parameters) == (EXPERTS, EPOCHS, SIZE)
    places = [(e, t) for e in range(EXPERTS) for t in range(EPOCHS + 1)]
    for place in np.random.default_rng(1).permutation(places * 2).tolist():
        row = store.parameters(*place)
        assert row.dtype == np.float32
        np.testing.assert_array_equal(row, ROWS[tuple(place)])
    np.testing.assert_array_equal(store.accuracies(), [[0, 10, 20], [1, 11, 21]])


def test_files_are_plain_npy_without_leftovers(directory):
    folder = directory / "expert_00001"
    names = [f"epoch_{epoch:04d}.npy" for epoch in range(EPOCHS + 1)]
    assert sorted(os.listdir(folder)) == [*names, "epochs.json"]
    for name, row in zip(names, ROWS[1], strict=True):
        np.testing.assert_array_equal(np.load(folder / name), row)
    index = json.loads((folder / "epochs.json").read_text())
    assert index["made_of"].items() >= {**IDENTITY, "expert": 1}.items()
    assert set(index["versions"]) == {"gsdd_jax", "jax"}


@pytest.mark.parametrize("place", [(EXPERTS, 0), (0, EPOCHS + 1), (0, -1)])
def test_places_outside_are_refused(directory, place):
    with pytest.raises(IndexError):
        ExpertStore(directory, IDENTITY, EXPERTS).parameters(*place)


def test_only_the_epoch_that_is_asked_for_is_read(directory):
    for path in (directory / "expert_00000").glob("*.npy"):
        if path.name != "epoch_0002.npy":
            path.unlink()
    row = ExpertStore(directory, IDENTITY, 1).parameters(0, 2)
    np.testing.assert_array_equal(row, ROWS[0, 2])


def test_a_larger_store_serves_a_smaller_config(directory):
    assert len(ExpertStore(directory, IDENTITY, 2)) == 2


def test_missing_experts_are_refused(directory):
    for absent in (directory / "absent", directory / "expert_00000"):
        refuses(absent, "3 of 3 experts are missing", "launch.train_experts")
    shutil.rmtree(directory / "expert_00001")
    Trajectory(directory, IDENTITY, 1).append(ROWS[1, 0])
    refuses(directory, "1 of 3 experts are missing", "expert 1", "launch.train_experts")
    refuses(directory, "3 of 5", "expert 1", num_experts=5)


def test_a_truncated_index_is_refused_at_every_length(directory):
    path = trajectories.index_of(directory, 1)
    content = path.read_bytes()
    for length in [*range(0, len(content) - 1, 13), len(content) - 2]:
        path.write_bytes(content[:length])
        refuses(directory, str(path), f"delete {path} and run")


@pytest.mark.parametrize(
    "text",
    [
        *("not JSON", "[1]", "{}", '{"format": "other"}', "[" * 100000, "1" * 5000),
        '{"made_of": [], "versions": {}, "accuracy": null, "sha256": []}',
        '{"made_of": {}, "versions": {}, "accuracy": [1.0, "2"], "sha256": []}',
        '{"made_of": {}, "versions": {}, "accuracy": null, "sha256": {}}',
    ],
)
def test_foreign_indices_are_refused_and_kept(directory, text):
    path = trajectories.index_of(directory, 2)
    path.write_text(text)
    refuses(directory, str(path), "an expert's index", f"delete {path} and run")
    assert path.read_text() == text


def test_swapped_experts_are_refused(directory):
    a, b = (directory / f"expert_0000{e}" for e in (0, 2))
    a.rename(directory / "aside")
    b.rename(a)
    (directory / "aside").rename(b)
    refuses(directory, str(a), "made with expert=2, expected 0")


@pytest.mark.parametrize("field", IDENTITY)
def test_other_settings_are_refused_by_name(directory, field):
    value = IDENTITY[field]
    other = value + "x" if isinstance(value, str) else value * 2
    words = f"made with {field}={value!r}, expected {other!r}"
    refuses(directory, words, identity={**IDENTITY, field: other})


def test_one_expert_with_other_settings_is_found(directory):
    shutil.rmtree(directory / "expert_00001")
    write(directory, 1, {**IDENTITY, "network.options.width": 8})
    refuses(directory, "expert_00001", "network.options.width=8, expected 4")


def test_a_setting_that_only_one_side_has_is_refused(directory):
    refuses(directory, "made with new=None, expected 1", identity={**IDENTITY, "new": 1})
    old = {k: v for k, v in IDENTITY.items() if k != "network.options.width"}
    refuses(directory, "made with network.options.width=4, expected None", identity=old)


@pytest.mark.parametrize("rows", [EPOCHS, EPOCHS + 2])
def test_a_wrong_number_of_epochs_is_refused(directory, rows):
    changed(directory, 0, sha256=["0" * 64] * rows)
    refuses(directory, f"{trajectories.index_of(directory, 0)}: not an expert's index")


def _flip(content):
    content[-5] ^= 1


def _header(content):
    content[20] ^= 1


@pytest.mark.parametrize("damage", [_flip, _header, lambda c: c.pop(), lambda c: c.extend(c), None])
def test_damaged_parameters_are_never_returned(directory, damage):
    path = directory / "expert_00001" / "epoch_0002.npy"
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage:
        damage(content)
        path.write_bytes(content)
    store = ExpertStore(directory, IDENTITY, EXPERTS)
    np.testing.assert_array_equal(store.parameters(1, 1), ROWS[1, 1])
    with pytest.raises(UsageError, match=rf"^{path}: .*delete .*expert_00001/epochs.json and run"):
        store.parameters(1, 2)


@pytest.mark.parametrize("row", [np.full(SIZE, np.nan, np.float32), np.zeros(1, np.float32)])
def test_what_the_index_names_is_not_returned_if_it_cannot_be(directory, row):
    path = directory / "expert_00001" / "epoch_0004.npy"
    path.write_bytes(row.tobytes())
    digest = hashlib.sha256(row.tobytes()).hexdigest()
    sha256 = json.loads(trajectories.index_of(directory, 1).read_text())["sha256"]
    changed(directory, 1, sha256=[*sha256[:4], digest])
    with pytest.raises(UsageError, match="epoch 4 are damaged"):
        ExpertStore(directory, IDENTITY, EXPERTS).parameters(1, 4)


# Unfinished trajectories.


class Killed(BaseException):
    """Ends a run: nobody catches this exception."""


def test_killed_at_any_write_it_goes_on_to_the_same_files(tmp_path, monkeypatch):
    """Kills twice per epoch, before and after the rename, and last after the accuracies."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole, 1)
    replace, calls = os.replace, []

    def killing(at, before):
        def replaced(*paths):
            calls.append(paths)
            if len(calls) == at and before:
                raise Killed
            replace(*paths)
            if len(calls) == at:
                raise Killed

        return replaced

    for at in range(1, 2 * EPOCHS + 4):
        for before in (True, False):
            shutil.rmtree(cut, ignore_errors=True)
            calls.clear()
            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", killing(at, before))
                with pytest.raises(Killed):
                    write(cut, 1)
            again = Trajectory(cut, IDENTITY, 1)
            assert again.rows == min((at - before) // 2, EPOCHS + 1)
            for epoch in range(again.rows):
                np.testing.assert_array_equal(again.parameters(epoch), ROWS[1, epoch])
            for row in ROWS[1, again.rows :]:
                again.append(row)
            again.finish(10.0, 11.0)
            assert files(cut) == files(whole)


@pytest.mark.parametrize("epoch", range(EPOCHS + 1))
def test_epochs_count_up_to_the_first_damaged_one(tmp_path, epoch):
    trajectory = Trajectory(tmp_path, IDENTITY, 0)
    for row in ROWS[0]:
        trajectory.append(row)
    path = tmp_path / "expert_00000" / f"epoch_{epoch:04d}.npy"
    content = bytearray(path.read_bytes())
    _flip(content)
    for damage in (path.unlink, lambda: path.write_bytes(content), lambda: path.write_bytes(b"")):
        damage()
        assert Trajectory(tmp_path, IDENTITY, 0).rows == epoch


def test_truncating_forgets_later_epochs(tmp_path):
    trajectory = Trajectory(tmp_path, IDENTITY, 0)
    for row in ROWS[0]:
        trajectory.append(row)
    trajectory.truncate(2)
    np.testing.assert_array_equal(trajectory.parameters(1), ROWS[0, 1])
    trajectory.append(ROWS[1, 0])
    again = Trajectory(tmp_path, IDENTITY, 0)
    assert again.rows == 3
    np.testing.assert_array_equal(again.parameters(2), ROWS[1, 0])


def test_a_growing_trajectory_belongs_to_its_settings_and_versions(tmp_path):
    Trajectory(tmp_path, IDENTITY, 0).append(ROWS[0, 0])
    with pytest.raises(UsageError, match=r"00000.*: made with network.options.width=4, expected 8"):
        Trajectory(tmp_path, {**IDENTITY, "network.options.width": 8}, 0)
    changed(tmp_path, 0, versions={"jax": "0.0", "gsdd_jax": "0"})
    with pytest.raises(UsageError, match=r"made with gsdd_jax='0', expected"):
        Trajectory(tmp_path, IDENTITY, 0)
    write(tmp_path, 1)  # a finished one does not
    changed(tmp_path, 1, versions={"jax": "0.0", "gsdd_jax": "0"})
    assert Trajectory(tmp_path, IDENTITY, 1).accuracy == [10.0, 11.0]


def test_what_must_not_be_stored_is_refused(tmp_path):
    trajectory = Trajectory(tmp_path, IDENTITY, 0)
    for bad in (ROWS[0, 0, :-1], np.full(SIZE, np.inf, np.float32)):
        with pytest.raises(ValueError, match="expert 0: expected 7 finite parameters"):
            trajectory.append(bad)
    assert not files(tmp_path)


def test_an_expert_is_finished_by_its_accuracies(tmp_path):
    assert not trajectories.is_finished(tmp_path, 0)
    Trajectory(tmp_path, IDENTITY, 0).append(ROWS[0, 0])
    assert not trajectories.is_finished(tmp_path, 0)
    write(tmp_path, 0, rows=ROWS[0, 1:])
    assert trajectories.is_finished(tmp_path, 0)


def test_one_process_trains_in_a_directory(tmp_path):
    directory = tmp_path / "new" / "store"
    with (
        trajectories.exclusive(directory),
        pytest.raises(UsageError, match="another process"),
        trajectories.exclusive(directory),
    ):
        pass
    folder = directory / "expert_00000"
    (folder / ".epochs.mine.d").mkdir(parents=True)
    for name in (".epoch_0003.npy.k1ll3d", ".epochs.json.k1ll3d", ".mine.npy.too"):
        (folder / name).write_bytes(b"half")
    with trajectories.exclusive(directory):
        assert set(os.listdir(folder)) == {".epochs.mine.d", ".mine.npy.too"}


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match="cannot be written"),
        trajectories.exclusive(tmp_path / "file" / "store"),
    ):
        pass
    with pytest.raises(UsageError, match="cannot be written"):
        Trajectory(tmp_path / "file", IDENTITY, 0).append(ROWS[0, 0])
