"""Tests the progress that a run prints."""

import io

import numpy as np
import pytest

from configs import demo
from gsdd_jax import data, matching, networks
from gsdd_jax.matching import dm
from gsdd_jax.runs import progress as report
from gsdd_jax.setup import cost


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    return now


def show(stream, clock):
    """Simulates 20 s of compilation and the first 10 steps, then 10 steps every 2 s."""
    progress = report.Progress("distill", 100, 0, stream)
    clock[0] = 20.0
    progress.advance(10, loss=3.0)
    for _ in range(9):
        clock[0] += 2.0
        progress.advance(10, loss=1.5)
    progress.close()
    return stream.getvalue()


def test_lines_say_that_it_compiles_and_do_not_count_it(clock):
    lines = show(io.StringIO(), clock).splitlines()
    assert lines[0] == "distill 0/100  compiling"
    assert lines[1] == "distill 10/100  loss 3"  # no rate is known yet
    assert lines[2] == "distill 60/100  loss 1.5  5 steps/s  00:08 left"
    assert lines[-1] == "distill 100/100  loss 1.5  5 steps/s  00:00 left"


def test_the_time_of_the_run_is_said_as_soon_as_a_step_is_timed(clock):
    stream = io.StringIO()
    progress = report.Progress("distill", 100, 0, stream, afterwards=50.0)
    for _ in range(10):
        clock[0] += 2.0
        progress.advance(10, loss=3.0)
    lines = stream.getvalue().splitlines()
    # Two seconds for ten steps: 80 are left and the time of 50 more.
    assert lines[1] == "distill 20/100  loss 3  5 steps/s  00:16 left, 00:26 of the run"
    assert lines[2].startswith("distill 70/100")  # ten seconds later, as before
    assert lines[-1].endswith("00:00 left, 00:10 of the run")


def test_neither_evaluations_nor_other_programs_are_taken_for_slow_steps(clock):
    """Simulates ten steps in 2 s, a one-minute evaluation, and a 30 s compilation."""
    stream = io.StringIO()
    progress = report.Progress("distill", 100, 0, stream, afterwards=80.0)
    for step in range(0, 90, 10):
        if step == 50:
            with progress.standing(afterwards=50.0):
                clock[0] += 60.0
        clock[0] += 2.0
        progress.advance(10, loss=3.0)
    for _ in range(2):
        clock[0] += 31.0
        progress.advance(5, loss=3.0)
        clock[0] -= 30.0  # compiled once
    lines = stream.getvalue().splitlines()
    assert lines[1] == "distill 20/100  loss 3  5 steps/s  00:16 left, 00:32 of the run"
    assert lines[-2].startswith("distill 95/100  loss 3  5 steps/s  00:01 left, 00:11 of the run")


def test_what_is_counted_is_called_by_its_name(clock):
    stream = io.StringIO()
    progress = report.Progress("evaluate", 30, 0, stream, unit="epoch")
    for _ in range(3):
        clock[0] += 20.0
        progress.advance(10)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "evaluate 0/30 epochs  compiling"
    assert lines[-1] == "evaluate 30/30 epochs  0.5 epochs/s  00:00 left"


def test_evaluations_are_counted_in_steps_of_distillation():
    """Counts a real image's forward pass as a third of a training step, in steps and in tests."""
    split = lambda n: data.Split(np.zeros((n, 1, 1, 3), np.uint8), np.zeros(n, np.int32))
    names, ones = tuple("abcdefghij"), (1.0, 1.0, 1.0)
    dataset = data.Dataset("some", split(3000), split(500), 10, names, ones, ones, "")
    config = demo.get_config()  # 150 epochs of 3 networks; 64 real images per class
    network = networks.build("convnet", image_shape=(8, 8, 3), num_classes=10, width=4)
    objective = matching.build(
        "dm", network=network, num_classes=10, images_per_class=30, strategy="", batch_real=64
    )
    config.evaluate.baselines = "fitted,random_real,random_real_uint8"
    tested, held_out = 500 / 3, 3000 / 3  # the second of the distilled set only
    trained = 150 * (300 + 300 + 10 + 40)
    expected = 3 * (trained + 4 * tested + held_out) / (640 / 3 + 300)
    assert cost.evaluations_in_steps(config, objective, dataset, 300) == pytest.approx(expected)
    # Every 60 of 200 steps the distilled set, at 60, 120 and 180: after 60 two of them are left.
    config.distill.eval_every = 60
    one = 3 * (150 * 300 + tested + held_out) / (640 / 3 + 300)
    for done, more in ((0, 3), (50, 3), (60, 2), (180, 0), (200, 0)):
        found = cost.evaluations_in_steps(config, objective, dataset, 300, done)
        assert found == pytest.approx(expected + more * one)
    config.distill.eval_every = 0
    config.evaluate.baselines = ""
    expected = 3 * (150 * 300 + tested + held_out) / 300
    mine = dm.DistributionMatching(network, 10, batch_real=0)
    assert matching.Matching.work(mine, 10, 300) == (
        300,
        300,
    )  # the default of an objective without its own estimate
    assert cost.evaluations_in_steps(config, mine, dataset, 300) == pytest.approx(expected)


def test_a_bar_says_that_it_compiles_and_does_not_count_it(clock, monkeypatch):
    bars = []

    class Bar(report.tqdm):
        def __init__(self, *arguments, **settings):
            bars.append(self)
            super().__init__(*arguments, **settings | {"dynamic_ncols": False, "ncols": 100})
            self._time = lambda: clock[0]

    monkeypatch.setattr(report, "tqdm", Bar)
    shown = show(Terminal(), clock)
    assert "compiling]" in shown
    bar = bars[0]
    assert (bar.n, bar.initial, bar.start_t) == (100, 10, 20.0)


def test_a_phase_that_is_over_shows_nothing():
    stream = io.StringIO()
    report.Progress("fit", 20, 20, stream).close()
    assert stream.getvalue() == ""
