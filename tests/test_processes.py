"""Several processes that compute together, as commands on this machine."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import QUICKLY
from safetensors.numpy import load_file
from tiny import TINY

from gsdd_jax.core import processes
from gsdd_jax.core.errors import UsageError

ROOT = pathlib.Path(__file__).parent.parent
SETTINGS = TINY | {"evaluate.beside": "fitted", "distill.snapshot_every": 0}
CONFIG = ["--config=demo", *(f"--config.{name}={value}" for name, value in SETTINGS.items())]


def free_port():
    """With the next one free, too."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("", port + 1))
            except OSError:
                continue
            return port


def started(module, count, *arguments):
    """A command of so many processes, of two devices together."""
    port = free_port()
    flags = f"{QUICKLY.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={2 // count}"
    environment = {**os.environ, **QUICKLY, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    together = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"]
    return [
        subprocess.Popen(
            [sys.executable, "-m", f"launch.{module}", *map(str, arguments), *together,
             f"--process_id={index}"],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for index in range(count)
    ]  # fmt: skip


def distilled(workdir, count):
    return started("distill", count, *CONFIG, f"--workdir={workdir}")


def ended(running, patience=300):
    """[(status, stdout, stderr)]"""
    return [
        (process.returncode, *output)
        for process, output in [(p, p.communicate(timeout=patience)) for p in running]
    ]


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("two")
    first, second = ended(distilled(workdir, 2))
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert "test accuracy" in first[1]
    assert second[1:] == ("", "")  # it has nothing to say
    return workdir


def test_two_processes_make_what_one_does(by_two, tmp_path):
    """One of two devices."""
    assert ended(distilled(tmp_path, 1))[0][0] == 0
    one, two = (load_file(folder / "distilled.safetensors") for folder in (tmp_path, by_two))
    assert one.keys() == two.keys()
    for name, array in one.items():
        # Sums are taken in another order, and what is stored is rounded to bfloat16.
        np.testing.assert_allclose(
            two[name].astype(np.float32), array.astype(np.float32), rtol=2**-7, atol=1e-3
        )


def test_experts(tmp_path):
    """Three, of which each process trains some."""
    settings = [*CONFIG, "--config.experts.num_experts=3", "--config.experts.epochs=1"]
    for count in (1, 2):
        running = started(
            "train_experts", count, *settings, f"--config.experts.dir={tmp_path / str(count)}"
        )
        assert all(status == 0 for status, *_ in ended(running))
    for expert in range(3):
        one, two = (
            load_file(tmp_path / count / f"expert_{expert:05d}.safetensors") for count in "12"
        )
        np.testing.assert_allclose(two["trajectory"], one["trajectory"], rtol=1e-4, atol=1e-6)
        assert abs(two["test_accuracy"] - one["test_accuracy"]) < 0.5


def test_evaluation(by_two, tmp_path):
    found = []
    for count in (1, 2):
        result = tmp_path / f"{count}.json"
        running = started(
            "evaluate", count, f"--distilled={by_two / 'distilled.safetensors'}",
            f"--result={result}",
        )  # fmt: skip
        assert all(status == 0 for status, *_ in ended(running))
        found.append(json.loads(result.read_text())["distilled_accuracies"])
    np.testing.assert_allclose(found[1], found[0], atol=1.0)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_and_both_go_on(by_two, tmp_path, killed):
    running = distilled(tmp_path, 2)
    while not (tmp_path / "checkpoints" / "distill" / "2").exists():
        assert all(process.poll() is None for process in running)
        time.sleep(0.01)
    running[killed].send_signal(signal.SIGKILL)
    found = ended(running, patience=60)
    assert found[killed][0] == -signal.SIGKILL
    assert found[1 - killed][0] == processes.STATUS
    expected = f"error: process {killed}: ended early; {processes.AGAIN}\n"
    assert found[1 - killed][2] == expected
    assert not (tmp_path / "distilled.safetensors").exists()
    assert [status for status, *_ in ended(distilled(tmp_path, 2))] == [0, 0]
    for name in ("distilled.safetensors", "best.safetensors"):
        assert (tmp_path / name).read_bytes() == (by_two / name).read_bytes()
    assert (tmp_path / "evaluations.json").read_bytes() == (
        by_two / "evaluations.json"
    ).read_bytes()


def test_an_error_of_one_is_the_end_of_all(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    first, second = ended(distilled(tmp_path, 2))
    line = f"{tmp_path / 'config.json'}: expected a run's config, a JSON object, got list"
    assert first[0] == 2 and first[2] == f"error: {line}\n"
    assert second[0] == processes.STATUS
    assert second[2] == f"error: process 0: {line}; {processes.AGAIN}\n"


@pytest.mark.parametrize(
    "given, line",
    [
        (("a:1", 2, None), "--process_id: expected with the other two of --coordinator"),
        ((None, 2, 0), "--coordinator: expected with the other two"),
        (("a", 2, 0), "--coordinator: expected HOST:PORT of process 0, got 'a'"),
        (("a:x", 2, 0), "--coordinator: expected HOST:PORT"),
        (("a:65535", 2, 0), "--coordinator: expected HOST:PORT"),
        (("a:1", 0, 0), "--num_processes: expected at least 1, got 0"),
        (("a:1", 2, 2), "--process_id: expected 0 to 1, got 2"),
        (("a:1", 2, -1), "--process_id: expected 0 to 1, got -1"),
    ],
)
def test_flags_that_make_no_sense(given, line):
    with pytest.raises(UsageError, match=re.escape(line)):
        processes.place(*given)


def test_flags():
    assert processes.place(None, None, None) is None
    assert processes.place("[::1]:80", 2, 1) == ("::1", 80, 2, 1)


def met(monkeypatch, *visitors, patience=20.0):
    """What processes with these (number, index, task) say when they meet."""
    monkeypatch.setattr(processes, "MEETING", patience)
    port, said = free_port(), {}

    def come(place, count, index, task):
        try:
            peers = processes._meet(
                processes.Place("127.0.0.1", port - 1, count, index), port, task
            )
            said[place] = ""
            for line in peers._lines.values():
                line.socket.close()
        except UsageError as error:
            said[place] = str(error)

    threads = [
        threading.Thread(target=come, args=(place, *visitor))
        for place, visitor in enumerate(visitors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [said[place] for place in range(len(visitors))]


def test_processes_that_agree(monkeypatch):
    task = {"--workdir": "runs", "config.seed": 1}
    assert met(monkeypatch, (3, 1, task), (3, 0, task), (3, 2, task)) == ["", "", ""]


@pytest.mark.parametrize(
    "visitor, line",
    [
        ((2, 1, {"config.seed": 2}), "config.seed: process 0 has 1, process 1 2"),
        ((2, 1, {}), "config.seed: process 0 has 1, process 1 None; expected the same"),
        ((3, 1, {"config.seed": 1}), "--num_processes: process 0 was given 2, process 1 3"),
    ],
)
def test_processes_that_disagree(monkeypatch, visitor, line):
    """Both say so."""
    for said in met(monkeypatch, (2, 0, {"config.seed": 1}), visitor):
        assert said.startswith(line)


def test_one_place_taken_twice(monkeypatch):
    found = met(monkeypatch, (3, 0, {}), (3, 1, {}), (3, 1, {}))
    assert found == ["--process_id: 1 was given twice"] * 3


def test_processes_that_do_not_come(monkeypatch):
    alone = met(monkeypatch, (3, 0, {}), patience=0.3)
    assert alone == ["no word of process 1, 2 in 0 s"]
    (nobody,) = met(monkeypatch, (2, 1, {}), patience=0.3)
    assert re.match(r"--coordinator: no process 0 at 127.0.0.1:\d+ in 0 s \(", nobody)
