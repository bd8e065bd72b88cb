"""Tests the owner of a run's directory, and its errors."""

import json
import math
import multiprocessing

import pytest

from configs import common
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import write_atomically
from gsdd_jax.storage import workdir


def bind(path, **fields):
    config = common.get_config()
    config.update(fields)
    with workdir.prepared(path, config):
        pass


def refused(path, *parts):
    with pytest.raises(UsageError) as raised:
        bind(path)
    assert "\n" not in str(raised.value)
    assert all(part in str(raised.value) for part in parts), raised.value


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b"[" * 100_000], ids=repr)
def test_a_damaged_config_is_named(tmp_path, content):
    bind(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    refused(tmp_path, "config.json", "JSON object")


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard"])
def test_a_file_in_a_folders_place_is_named(tmp_path, name):
    (tmp_path / name).write_text("")
    refused(tmp_path, name, "expected a folder")


def hold(path, ready, done):
    with workdir.prepared(path, common.get_config()):
        ready.set()
        done.wait(30)


def test_one_process_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready, done))
    other.start()
    assert ready.wait(60)
    refused(tmp_path, "another process runs in")
    done.set()
    other.join()
    bind(tmp_path)


def test_records_belong_to_their_run(tmp_path):
    records = workdir.Records(tmp_path, "one")
    chosen = {"train": [11.0], "step": 3}
    records["distilled"] = {"test": [10.0], "confusion": [[3]], "learning_rate": 0.1} | chosen
    assert workdir.Records(tmp_path, "one").get("distilled")["test"] == [10.0]
    with pytest.raises(UsageError, match=r"evaluations.json: of a run .* another directory"):
        workdir.Records(tmp_path, "two")


@pytest.mark.parametrize(
    "content", [b"", b'{"identity": "one", "distilled": {"te', b"[]", b"3", b"\xff"], ids=repr
)
def test_damaged_records_are_named(tmp_path, content):
    (tmp_path / "evaluations.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"evaluations.json: expected a run's evaluations"):
        workdir.Records(tmp_path, "one")


@pytest.mark.parametrize(
    "record",
    [3, [], {}, {"test": [1.0]}]
    + [{"confusion": [[3]], "learning_rate": 0.1} | wrong for wrong in (
        {"test": [1.0], "learning_rate": 0}, {"test": [1.0], "learning_rate": math.nan},
        {"test": []}, {"test": ["a"]}, {"test": [1.0], "train": [1.0]},
        {"test": [1.0], "train": [1.0], "step": 2.5}, {"test": [1.0], "more": [1.0]},
        {"test": [1.0], "confusion": [3]}, {"test": [1.0], "confusion": []})],
    ids=repr,
)  # fmt: skip
def test_a_record_that_is_none_is_named(tmp_path, record):
    (tmp_path / "evaluations.json").write_text(json.dumps({"identity": "one", "fitted": record}))
    with pytest.raises(UsageError, match=r"evaluations.json: 'fitted' is no evaluation"):
        workdir.Records(tmp_path, "one")


def test_the_identity_is_what_results_depend_on():
    config, other = common.get_config(), common.get_config()
    other.distill.steps_per_call, other.data.dir = 7, "elsewhere"
    other.distill.snapshot_every, other.data.on_device = 3, "streamed"
    assert workdir.identity(config, "data") == workdir.identity(other, "data")
    assert workdir.identity(config, "data") != workdir.identity(config, "other data")
    other.seed = 1
    assert workdir.identity(config, "data") != workdir.identity(other, "data")


def test_a_recorded_config_is_whole_with_operational_fields():
    config = common.get_config()
    found = workdir.whole(workdir.decisive(config) | {"matching.options.batch_real": 3})
    config.update({name: found[name] for name in ("mesh", "data", "distill", "experts", "init")})
    config.matching.options.batch_real = 3
    assert found == config
    assert found.distill.snapshot_every == 0


def test_a_write_that_fails_names_what_is_in_its_way(tmp_path):
    (tmp_path / "folder").write_text("")
    with pytest.raises(NotADirectoryError) as raised:
        write_atomically(tmp_path / "folder" / "file", b"")
    assert raised.value.filename == str(tmp_path / "folder")


def test_one_changed_value_is_named_and_the_others_counted(tmp_path):
    """Names the scale and components first, which others follow."""
    bind(tmp_path)
    config = common.get_config()
    config.scale, config.seed, config.distill.learning_rate = 0.5, 1, 0.25
    with (
        pytest.raises(UsageError, match=r"with config\.scale=1\.0, not 0\.5, and 2 other values; "),
        workdir.prepared(tmp_path, config),
    ):
        pass
