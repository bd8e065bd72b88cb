"""The store of expert trajectories: random access, and every way in which files can be wrong."""

import json
import os
import pathlib
import shutil
import zlib

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from gsdd_jax import UsageError
from gsdd_jax.storage import trajectories
from gsdd_jax.storage.trajectories import ExpertStore, Growing

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
    growing = Growing(directory, identity, expert)
    for row in ROWS[expert] if rows is None else rows:
        growing.append(row)
    growing.finish(10.0 * expert, 10.0 * expert + 1)


@pytest.fixture
def directory(tmp_path):
    for expert in range(EXPERTS):
        write(tmp_path, expert)
    return tmp_path


def refuses(directory, *words, identity=IDENTITY, num_experts=EXPERTS):
    with pytest.raises(UsageError) as caught:
        ExpertStore.open(directory, identity, num_experts)
    message = str(caught.value)
    assert "\n" not in message
    for word in (*words, str(directory)):
        assert word in message, message


def rewritten(path, change):
    """Changes tensors and header of a file, keeping it a valid safetensors file."""
    with safetensors.safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["gsdd_jax"])
    change(tensors, header)
    path.write_bytes(safetensors.numpy.save(tensors, {"gsdd_jax": json.dumps(header)}))


def test_random_access_equals_the_whole(directory):
    store = ExpertStore.open(directory, IDENTITY, EXPERTS)
    assert (len(store), store.epochs, store.num_parameters) == (EXPERTS, EPOCHS, SIZE)
    places = [(e, t) for e in range(EXPERTS) for t in range(EPOCHS + 1)]
    for place in np.random.default_rng(1).permutation(places * 2).tolist():
        row = store.parameters(*place)
        assert row.dtype == np.float32
        np.testing.assert_array_equal(row, ROWS[tuple(place)])
    train, test = store.accuracies()
    np.testing.assert_array_equal(train, [0, 10, 20])
    np.testing.assert_array_equal(test, [1, 11, 21])


def test_files_are_plain_safetensors_without_leftovers(directory):
    names = [f"expert_{e:05d}.safetensors" for e in range(EXPERTS)]
    assert sorted(os.listdir(directory)) == names
    for name, rows in zip(names, ROWS, strict=True):
        np.testing.assert_array_equal(
            safetensors.numpy.load_file(directory / name)["trajectory"], rows
        )
    with safetensors.safe_open(directory / names[1], framework="numpy") as file:
        header = json.loads(file.metadata()["gsdd_jax"])
    assert header["identity"] == IDENTITY
    assert header["expert"] == 1
    assert set(header["versions"]) == {"gsdd_jax", "jax"}


@pytest.mark.parametrize("place", [(EXPERTS, 0), (-1, 0), (0, EPOCHS + 1), (0, -1)])
def test_places_outside_are_refused(directory, place):
    with pytest.raises(IndexError, match="expected an expert from 0 to 2 and an epoch from 0 to 4"):
        ExpertStore.open(directory, IDENTITY, EXPERTS).parameters(*place)


def test_only_the_row_that_is_asked_for_is_read(tmp_path):
    size, epochs = 1 << 18, 63  # 64 MiB
    identity = {**IDENTITY, "num_parameters": size, "experts.epochs": epochs}
    write(tmp_path, 0, identity, np.zeros((epochs + 1, size), np.float32))
    statm, page = pathlib.Path("/proc/self/statm"), os.sysconf("SC_PAGE_SIZE")
    resident = lambda: int(statm.read_text().split()[1]) * page
    before = resident()
    row = ExpertStore.open(tmp_path, identity, 1).parameters(0, 40)
    assert row.shape == (size,)
    assert resident() - before < 16 << 20


def test_a_larger_store_serves_a_smaller_config(directory):
    assert len(ExpertStore.open(directory, IDENTITY, 2)) == 2


def test_an_empty_or_absent_store_is_refused(tmp_path):
    for directory in (tmp_path, tmp_path / "absent"):
        refuses(directory, "no experts, expected 3", "launch.train_experts")


def test_missing_experts_are_refused(directory):
    (directory / "expert_00001.safetensors").unlink()
    refuses(directory, "1 of 3 experts are missing", "expert 1", "launch.train_experts")
    refuses(directory, "3 of 5", "expert 1", num_experts=5)


def test_a_truncated_file_is_refused_at_every_length(directory):
    path = directory / "expert_00001.safetensors"
    content = path.read_bytes()
    for length in [*range(0, len(content), 13), len(content) - 1]:
        path.write_bytes(content[:length])
        refuses(directory, str(path), "truncated", "delete it")
    path.write_bytes(content + b"more")
    refuses(directory, str(path))


def test_foreign_files_are_refused(directory):
    path = directory / "expert_00002.safetensors"
    path.write_bytes(b"not a safetensors file at all, but long enough to hold a header")
    refuses(directory, str(path), "no safetensors file")
    arrays = {"trajectory": ROWS[2]}
    for metadata in (None, {"gsdd_jax": "[1]"}, {"gsdd_jax": '{"format": "gsdd-jax other"}'}):
        path.write_bytes(safetensors.numpy.save(arrays, metadata))
        refuses(directory, str(path), "not an expert's trajectory")
    for text, reason in (("[" * 100000, "nested too deeply"), ("1" * 5000, "more than 64 bits")):
        path.write_bytes(safetensors.numpy.save(arrays, {"gsdd_jax": text}))
        refuses(directory, str(path), reason)


def test_swapped_files_are_refused(directory):
    a, b = (directory / f"expert_0000{e}.safetensors" for e in (0, 2))
    shutil.move(a, directory / "aside")
    shutil.move(b, a)
    shutil.move(directory / "aside", b)
    refuses(directory, str(a), "holds expert 2, expected 0")


@pytest.mark.parametrize("field", IDENTITY)
def test_other_settings_are_refused_by_name(directory, field):
    value = IDENTITY[field]
    other = value + "x" if isinstance(value, str) else value * 2
    words = f"made with {field}={value!r}, expected {other!r}"
    refuses(directory, words, identity={**IDENTITY, field: other})


def test_one_expert_with_other_settings_is_found(directory):
    (directory / "expert_00001.safetensors").unlink()
    write(directory, 1, {**IDENTITY, "network.options.width": 8})
    refuses(directory, "expert_00001.safetensors", "network.options.width=8, expected 4")


def test_a_setting_that_only_one_side_has_is_refused(directory):
    refuses(directory, "made with new=None, expected 1", identity={**IDENTITY, "new": 1})
    old = {k: v for k, v in IDENTITY.items() if k != "network.options.width"}
    refuses(directory, "made with network.options.width=4, expected None", identity=old)


@pytest.mark.parametrize("rows", [EPOCHS, EPOCHS + 2])
def test_missing_epochs_are_refused(directory, rows):
    path = directory / "expert_00000.safetensors"

    def change(tensors, header):
        del header
        tensors["trajectory"] = np.resize(tensors["trajectory"], (rows, SIZE))

    rewritten(path, change)
    refuses(directory, str(path), f"trajectory is F32 [{rows}, 7], expected F32 [5, 7]")


def test_a_missing_or_mistyped_tensor_is_refused(directory):
    path = directory / "expert_00000.safetensors"
    rewritten(path, lambda tensors, header: tensors.pop("test_accuracy"))
    refuses(directory, str(path), "test_accuracy is none")
    wide = lambda tensors, header: tensors.update(trajectory=tensors["trajectory"].astype("f8"))
    rewritten(path, wide)
    refuses(directory, str(path), "trajectory is F64")


def test_damaged_parameters_are_never_returned(directory):
    path = directory / "expert_00001.safetensors"

    def flip(tensors, header):
        tensors["trajectory"].view(np.uint32)[2, 3] ^= 1

    rewritten(path, flip)
    store = ExpertStore.open(directory, IDENTITY, EXPERTS)
    np.testing.assert_array_equal(store.parameters(1, 1), ROWS[1, 1])
    with pytest.raises(UsageError, match=r"expert_00001.*epoch 2 are damaged; delete it"):
        store.parameters(1, 2)


def test_parameters_that_are_not_finite_are_never_returned(directory):
    def change(tensors, header):
        tensors["trajectory"][4, 0] = np.nan
        tensors["checksums"][4] = zlib.crc32(tensors["trajectory"][4].tobytes())

    rewritten(directory / "expert_00001.safetensors", change)
    with pytest.raises(UsageError, match="epoch 4 are damaged"):
        ExpertStore.open(directory, IDENTITY, EXPERTS).parameters(1, 4)


# Trajectories that are still growing.


def test_a_growing_trajectory_cut_at_any_byte_goes_on_to_the_same_file(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole, 1)
    growing = Growing(cut, IDENTITY, 1)
    for row in ROWS[1]:
        growing.append(row)
    content = growing.path.read_bytes()
    header = content.index(b"\n") + 1
    record = 4 * SIZE + 4
    assert len(content) == header + (EPOCHS + 1) * record
    for length in range(header, len(content) + 1):
        growing.path.write_bytes(content[:length])
        again = Growing(cut, IDENTITY, 1)
        assert again.rows == (length - header) // record
        if again.rows:
            np.testing.assert_array_equal(again.last(), ROWS[1, again.rows - 1])
        for row in ROWS[1, again.rows :]:
            again.append(row)
        assert growing.path.read_bytes() == content
    again.finish(10.0, 11.0)
    name = "expert_00001.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert os.listdir(cut) == [name]


def test_records_count_up_to_the_first_damaged_one(tmp_path):
    growing = Growing(tmp_path, IDENTITY, 0)
    for row in ROWS[0]:
        growing.append(row)
    content = growing.path.read_bytes()
    header = content.index(b"\n") + 1
    for place in range(header, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 0x40
        growing.path.write_bytes(damaged)
        assert Growing(tmp_path, IDENTITY, 0).rows == (place - header) // (4 * SIZE + 4)
    # A file whose end was allocated but never written.
    growing.path.write_bytes(content[: header + 2 * (4 * SIZE + 4)] + b"\1" * 200)
    assert Growing(tmp_path, IDENTITY, 0).rows == 2


def test_truncating_forgets_later_epochs(tmp_path):
    growing = Growing(tmp_path, IDENTITY, 0)
    for row in ROWS[0]:
        growing.append(row)
    growing.truncate(2)
    np.testing.assert_array_equal(growing.last(), ROWS[0, 1])
    growing.append(ROWS[1, 0])
    again = Growing(tmp_path, IDENTITY, 0)
    assert again.rows == 3
    np.testing.assert_array_equal(again.last(), ROWS[1, 0])


def test_a_growing_trajectory_belongs_to_its_settings(tmp_path):
    growing = Growing(tmp_path, IDENTITY, 0)
    growing.append(ROWS[0, 0])
    with pytest.raises(
        UsageError, match=r"00000.partial: made with network.options.width=4, expected 8"
    ):
        Growing(tmp_path, {**IDENTITY, "network.options.width": 8}, 0)
    content = growing.path.read_bytes()
    growing.path.rename(trajectories.partial_of(tmp_path, 1))
    with pytest.raises(UsageError, match=r"00001.partial: holds expert 0, expected 1"):
        Growing(tmp_path, IDENTITY, 1)
    growing.path.write_bytes(content.replace(b'"jax": "', b'"jax": "0'))
    with pytest.raises(UsageError, match=r"made with jax='0\d+"):
        Growing(tmp_path, IDENTITY, 0)
    for foreign in (b"", b"\x80\x02]q\x00.", content[:20], b"[]\n", b"[" * 60000):
        growing.path.write_bytes(foreign)
        with pytest.raises(UsageError, match="not an expert's trajectory"):
            Growing(tmp_path, IDENTITY, 0)


def test_what_must_not_be_stored_is_refused(tmp_path):
    growing = Growing(tmp_path, IDENTITY, 0)
    for bad in (ROWS[0, 0, :-1], np.full(SIZE, np.inf, np.float32)):
        with pytest.raises(ValueError, match="expert 0: got parameters of shape"):
            growing.append(bad)
    growing.append(ROWS[0, 0])
    with pytest.raises(ValueError, match="expert 0: 1 sets of parameters, expected 5"):
        growing.finish(1.0, 1.0)


def test_a_finished_file_is_checked_before_it_counts(tmp_path):
    assert not trajectories.is_finished(tmp_path, IDENTITY, 0)
    write(tmp_path, 0)
    assert trajectories.is_finished(tmp_path, IDENTITY, 0)
    with pytest.raises(UsageError, match=r"made with network.options.width=4, expected 8"):
        trajectories.is_finished(tmp_path, {**IDENTITY, "network.options.width": 8}, 0)


def test_one_process_trains_in_a_directory(tmp_path):
    directory = tmp_path / "new" / "store"
    with (
        trajectories.exclusive(directory),
        pytest.raises(UsageError, match="another process"),
        trajectories.exclusive(directory),
    ):
        pass
    (directory / ".expert_00000.partial.k1ll3d").write_bytes(b"half")
    (directory / ".expert_00001.partial.mine").mkdir()
    with trajectories.exclusive(directory):
        assert set(os.listdir(directory)) == {".lock", ".expert_00001.partial.mine"}


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match="cannot be written"),
        trajectories.exclusive(tmp_path / "file" / "store"),
    ):
        pass
    with pytest.raises(UsageError, match="cannot be written"):
        Growing(tmp_path / "file", IDENTITY, 0).append(ROWS[0, 0])
