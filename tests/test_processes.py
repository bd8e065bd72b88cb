"""Tests several processes that compute together, as commands on this machine."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from gsdd_jax.core import meeting, processes
from gsdd_jax.core.errors import UsageError
from gsdd_jax.tables import reproduce
from tests import several_processes
from tests.commands import ROOT, until
from tests.conftest import QUICKLY
from tests.several_processes import SETTINGS

CONFIG = ["--config=demo", *(f"--config.{name}={value}" for name, value in SETTINGS.items())]


def free_port():
    """Returns a free port whose successor is free, too."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture(scope="module")
def start():
    """Starts a command as several processes of two devices in all."""

    def started(module, count, *arguments):
        port = free_port()
        devices = f"--xla_force_host_platform_device_count={2 // count}"
        flags = f"{QUICKLY.get('XLA_FLAGS', '')} {devices}"
        environment = {**os.environ, **QUICKLY, "XLA_FLAGS": flags}
        together = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"]
        return [
            subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments), *together,
                 f"--process_id={index}"],
                cwd=ROOT, env={**environment, "JAX_PLATFORMS": "cpu"}, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for index in range(count)
        ]  # fmt: skip

    return started


def distilled(start, workdir):
    """Computes the table's first cell by two processes that hold the images."""
    return start("launch.distill", 2, *CONFIG, f"--workdir={workdir}")


def ended(running, patience=300):
    """Returns [(status, stdout, stderr)]."""
    return [
        (process.returncode, *output)
        for process, output in [(p, p.communicate(timeout=patience)) for p in running]
    ]


@pytest.fixture(scope="module")
def tables(tmp_path_factory, start):
    """Returns the folders of a table by one process of two devices, and by two."""
    folders = [tmp_path_factory.mktemp(f"by{count}") for count in (1, 2)]
    for count, folder in enumerate(folders, 1):
        (status, out, err), *others = ended(
            start("tests.several_processes", count, f"--root={folder}")
        )
        # What the first process refuses, all refuse; otherwise the others print nothing.
        line = f"{folder}/wrong/config.json: expected a run's config, a JSON object, got list"
        assert (status, err) == (2, f"error: {line}\n"), (out, others)
        assert others == [(status, "", err)] * (count - 1)
        assert "tiny 0/5 cells" in out
    return folders


def found(folder):
    return json.loads((folder / "tiny.json").read_text())["cells"]


def test_a_table_by_two_processes_is_that_by_one(tables):
    """Covers DM, and TM with its experts, with images read from disk."""
    for one, two in zip(*map(found, tables), strict=True):
        assert (one["row"], one["reason"]) == (two["row"], two["reason"])
        refused = one["row"] == "dm, of too many"
        assert refused == ("batch_syn: expected 0 (all) to 7 images per class" in one["reason"])
        assert len(one["accuracies"]) == (0 if refused else 1)
        for seed, accuracies in one["accuracies"].items():
            np.testing.assert_allclose(two["accuracies"][seed], accuracies, atol=1.0)


def test_sets_and_experts_by_two_processes_are_those_by_one(tables):
    below = lambda pattern: [path.relative_to(tables[0]) for path in tables[0].rglob(pattern)]
    epochs, sets = below("expert_*/*.npy"), below("distilled.safetensors")
    assert (len(epochs), len(sets)) == (3 * 2, 3)
    for path in epochs:
        one, two = (np.load(folder / path) for folder in tables)
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)
    for path in sets:
        # Sums are taken in another order, and what is stored of sets is rounded to bfloat16.
        arrays, others = (load_file(folder / path) for folder in tables)
        assert arrays.keys() == others.keys()
        for name in arrays:
            one, two = (some[name].astype(np.float32) for some in (arrays, others))
            np.testing.assert_allclose(two, one, rtol=2**-7, atol=1e-3)


def test_each_process_reads_what_its_devices_need(tables):
    """Counts images of DM, whose classes processes divide or not, and of experts."""
    for folder, count in zip(tables, (1, 2), strict=True):
        for process in range(count):
            kept = json.loads((folder / f"process_{process}.json").read_text())
            assert kept["read"] == [6 * 40 // count, 2 * 30, 2 * 3000 // count, 3000]


def test_what_the_first_process_cannot_lock_is_in_use_for_all(tables):
    for process in range(2):
        assert json.loads((tables[1] / f"process_{process}.json").read_text())["refused"]


def test_a_killed_process_ends_the_other_and_both_go_on(tables, start, tmp_path):
    """Kills the process that hosts JAX's service; compares with the streamed table's bytes."""
    running = distilled(start, tmp_path)
    until((tmp_path / "checkpoints" / "distill" / "2").exists, *running)
    running[0].send_signal(signal.SIGKILL)
    killed, other = ended(running, patience=60)
    assert (killed[0], other[0]) == (-signal.SIGKILL, processes.STATUS)
    assert other[2] == f"error: process 0: ended early; {processes.AGAIN}\n"
    assert not (tmp_path / "distilled.safetensors").exists()
    first, second = ended(distilled(start, tmp_path))
    assert (first[0], second) == (0, (0, "", ""))
    assert "test accuracy" in first[1]
    cell, *_ = several_processes.cells()
    reference = reproduce.Folder(tables[1]).workdir(cell.variant({}, 0))
    for name in ("distilled.safetensors", "best.safetensors", "evaluations.json"):
        assert (tmp_path / name).read_bytes() == (reference / name).read_bytes()


@pytest.mark.parametrize(
    "given, line",
    [
        (("a:1", 2, None), "--process_id: expected with the other two of --coordinator"),
        (("a", 2, 0), "--coordinator: expected HOST:PORT of process 0, got 'a'"),
        (("a:65535", 2, 0), "--coordinator: expected HOST:PORT"),
        (("a:" + "1" * 5000, 2, 0), "--coordinator: expected HOST:PORT"),
        (("a:1", 0, 0), "--num_processes: expected at least 1, got 0"),
        (("a:1", 2, 2), "--process_id: expected 0 to 1, got 2"),
    ],
)
def test_flags_that_make_no_sense(given, line):
    assert processes.place("[::1]:80", 2, 1) == ("::1", 80, 2, 1)
    with pytest.raises(UsageError, match=re.escape(line)):
        processes.place(*given)


def test_what_processes_are_told_is_all_that_they_have_to_agree_in():
    script = """
import json, runpy, sys
from launch import cli
cli.run = lambda *_, **more: (cli._parse_flags(sys.argv), print(json.dumps(cli._task())))
runpy.run_module("launch.distill", run_name="__main__", alter_sys=True)
"""
    given = ["--config.seed=7", "--workdir=there", "--coordinator=a:1", "--process_id=1"]
    command = [sys.executable, "-c", script, *given]
    task = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    assert {"gsdd-jax", "jax", "config.distill.num_steps"} <= task.keys()
    assert (task["config.seed"], task["--workdir"]) == (7, "there")
    assert not {"--coordinator", "--num_processes", "--process_id"} & task.keys()


def test_a_scheduler_that_says_no_number_is_a_line(monkeypatch):
    for wrong in ("many", "1" * 5000, "-2"):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", wrong)
        with (
            pytest.raises(UsageError, match="SLURM_STEP_NUM_TASKS: expected a number of pro"),
            processes.together(None, {}),
        ):
            pass


def parted(peers):
    for line in peers._lines.values():
        line.socket.close()
    return ""


def met(monkeypatch, *visitors, patience=20.0, then=parted, port=None, at_first=lambda: None):
    """Returns the output of processes (number, index, task) that meet, then do `then`.

    The others start after `at_first`, while the first one waits.
    """
    monkeypatch.setattr(processes, "MEETING", patience)
    port, said = port or free_port(), {}

    def come(place, count, index, task):
        try:
            here = processes.Place("127.0.0.1", port - 1, count, index)
            lines = meeting.meet(here, port, task, patience)
            said[place] = then(processes._Peers(here, lines))
        except UsageError as error:
            said[place] = str(error)

    threads = [
        threading.Thread(target=come, args=(place, *visitor))
        for place, visitor in enumerate(visitors)
    ]
    threads[0].start()
    at_first()
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    return [said[place] for place in range(len(visitors))]


@pytest.mark.parametrize(
    "visitor, line",
    [
        ((2, 1, {"config.seed": 2}), "config.seed: process 0 has 1, process 1 2"),
        ((2, 1, {}), "config.seed: process 0 has 1, process 1 None; expected the same"),
        ((3, 1, {"config.seed": 1}), "--num_processes: process 0 was given 2, process 1 3"),
    ],
)
def test_processes_that_disagree(monkeypatch, visitor, line):
    """Checks that both report the disagreement."""
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


def test_what_fails_in_all_is_told_from_what_fails_in_some(monkeypatch):
    def fails(peers):
        threading.Thread(target=peers.watch, daemon=True).start()
        said = [peers.all_failed(20.0) for _ in range(2)]
        if peers._here.index != 1:
            said.append(peers.all_failed(0.2))  # without process 1
        peers.refuse("")  # from here on processes may leave
        parted(peers)
        return said

    expected = [[True, True, False], [True, True], [True, True, False]]
    assert met(monkeypatch, (3, 0, {}), (3, 1, {}), (3, 2, {}), then=fails) == expected


STRANGERS = {
    "garbage": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "nothing": b"",
    "other JSON": b'{"a": [1, 2]}\n',
    "another number of fields": b"[1, 3]\n",
    "a bool for a number": b"[true, 3, {}]\n",
    "no task": b"[1, 3, []]\n",
    "an index that there is not": b"[7, 3, {}]\n",
    "deep": b"[" * 100_000 + b"\n",
    "digits": b"9" * 10_000 + b"\n",
}


def knocked(port, said):
    """Connects to a first process as soon as it waits."""
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=20)
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    connection.sendall(said)
    return connection


def gone(connection):
    """Returns whether the other end has closed the connection."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("said", STRANGERS.values(), ids=STRANGERS)
def test_a_stranger_is_passed_over(monkeypatch, said, stays):
    """Connects a stranger that stays, or leaves after its first message."""
    port, connections = free_port(), []

    def come():
        connections.append(knocked(port, said))
        if not stays:
            connections[0].close()

    three = [(3, index, {"a": 1}) for index in range(3)]
    assert met(monkeypatch, *three, port=port, at_first=come) == ["", "", ""]
    connections[0].close()


def test_of_a_stranger_no_more_than_a_line_is_parsed(monkeypatch):
    port, connections, parsed = free_port(), [], []
    parse = lambda line: parsed.append(line) or json.loads(line)
    monkeypatch.setattr(meeting, "parse_json", parse)

    def come():
        connections.append(knocked(port, b"1\n" * 30_000))
        assert gone(connections[0])

    two = [(2, index, {}) for index in range(2)]
    assert met(monkeypatch, *two, port=port, at_first=come) == ["", ""]
    connections[0].close()
    assert len(parsed) - parsed.count(b"1") == 2  # what process 1 said, and the answer
    assert parsed.count(b"1") <= 1


def test_slow_ones_are_waited_for_beside_each_other(monkeypatch):
    """Sends more than is ever read, including the start of a true message."""
    port, connections = free_port(), []

    def come():
        for _ in range(300):
            connections.append(knocked(port, b'[1, 3, {"a"'))

    three = [(3, index, {"a": 1}) for index in range(3)]
    assert met(monkeypatch, *three, port=port, at_first=come) == ["", "", ""]
    assert all(map(gone, connections))  # the meeting is over for them, too
    for connection in connections:
        connection.close()


def test_an_endless_line_is_cut_off(monkeypatch):
    port = free_port()

    def come():
        with knocked(port, b"") as connection, pytest.raises(ConnectionError):
            for _ in range(64):  # far more than any buffers hold
                connection.sendall(b" " * meeting.LONGEST)
                time.sleep(0.01)

    two = [(2, index, {}) for index in range(2)]
    assert met(monkeypatch, *two, port=port, at_first=come) == ["", ""]


def test_one_that_leaves_before_all_have_come_may_come_again(monkeypatch):
    port = free_port()
    come = lambda: knocked(port, b'[1, 3, {"a": 1}]\n').close()
    three = [(3, index, {"a": 1}) for index in range(3)]
    assert met(monkeypatch, *three, port=port, at_first=come) == ["", "", ""]


@pytest.fixture
def leaving(monkeypatch):
    """Lets only a thread end where a process would end."""

    def leave(status):
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", leave)


def test_what_others_say_is_quoted(monkeypatch, leaving, capfd):
    """Checks that escape sequences of others are not written to the terminal."""
    other = {"a\x1b[2J": "\x1b]0;title\x07"}
    for said in met(monkeypatch, (2, 0, {}), (2, 1, other)):
        assert said == (
            r"a\x1b[2J: process 0 has None, process 1 '\x1b]0;title\x07'; expected the same"
        )

    peers = processes._Peers(processes.Place("127.0.0.1", 1, 2, 1), {})
    with pytest.raises(SystemExit, match=str(processes.STATUS)):
        peers._heard(0, "why\x1b[2J\nnot")
    expected = rf"error: process 0: why\x1b[2J\nnot; {processes.AGAIN}"
    assert capfd.readouterr().err == f"{expected}\n"


@pytest.mark.parametrize("index", range(3))
def test_of_one_that_ends_early_all_others_hear(index, monkeypatch, leaving, capfd):
    all_met = threading.Barrier(3)

    def ends(peers):
        all_met.wait(20)
        if peers._here.index != index:
            with pytest.raises(SystemExit, match=str(processes.STATUS)):
                peers.watch()
        return parted(peers)

    assert met(monkeypatch, (3, 0, {}), (3, 1, {}), (3, 2, {}), then=ends) == [""] * 3
    line = f"error: process {index}: ended early; {processes.AGAIN}\n"
    assert capfd.readouterr().err == 2 * line


@pytest.mark.parametrize(
    "answer, line",
    [
        (b"SSH-2.0-x\r\n", "a process ended before all were connected"),
        (b"[1]\n", "is not process 0"),
        (b" " * (2 << 20), "a process ended before all were connected"),
    ],
)
def test_what_answers_may_be_no_first_process(monkeypatch, answer, line):
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]

        def answered():
            with door.accept()[0] as connection, contextlib.suppress(ConnectionError):
                connection.sendall(answer)
                connection.recv(1 << 16)

        stranger = threading.Thread(target=answered)
        stranger.start()
        (said,) = met(monkeypatch, (2, 1, {}), port=port)
        stranger.join()
    assert line in said and "\n" not in said


def test_what_follows_the_answer_is_heard_later(monkeypatch):
    """Answers, and reports a failure in the same segment."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def answered():
            with door.accept()[0] as connection:
                connection.sendall(b'[""]\n["why"]\n')
                connection.recv(1 << 16)

        first = threading.Thread(target=answered)
        first.start()
        heard = []
        read = lambda peers: heard.extend(peers._lines[0].read()) or parted(peers)
        assert met(monkeypatch, (2, 1, {}), then=read, port=door.getsockname()[1]) == [""]
        first.join()
    assert heard == [["why"]]


def test_the_meeting_listens_at_the_coordinator_alone():
    with meeting.opened("127.0.0.1", 0) as door:
        assert door.getsockname()[0] == "127.0.0.1"
    with meeting.opened("localhost", 0) as door:
        assert door.getsockname()[0] in ("127.0.0.1", "::1")
