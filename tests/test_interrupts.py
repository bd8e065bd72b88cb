"""Tests Ctrl-C in calls from Python."""

import gc
import signal
import types

import jax
import numpy as np
import pytest
from jax._src import lib

import gsdd_jax
from gsdd_jax.core import interrupts
from gsdd_jax.runs.progress import Progress


@pytest.fixture(autouse=True)
def handler():
    """Installs Python's own handler, as in a session."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def interrupted(*_):
    signal.raise_signal(signal.SIGINT)


def test_it_is_raised_at_once_outside_of_jax():
    with pytest.raises(KeyboardInterrupt), interrupts.delayed():
        interrupted()
        pytest.fail("not raised")


def test_none_is_lost_in_the_callback_of_jax(monkeypatch):
    """Interrupts the callback of the garbage collector, whose exceptions Python only prints."""
    reached = []

    def collect():  # called before and after a collection
        if not reached:
            reached.append("in the callback")
            interrupted()

    monkeypatch.setattr(lib, "_jax", types.SimpleNamespace(collect_garbage=collect))
    with pytest.raises(KeyboardInterrupt), interrupts.delayed():
        gc.collect(0)
        reached.append("after the callback")
        monkeypatch.undo()
        interrupts.check()
        reached.append("after the check")
    assert reached == ["in the callback", "after the callback"]


def test_a_second_one_is_raised_within_jax():
    reached = []

    def twice(_):
        interrupted()
        reached.append("after the first")
        interrupted()
        reached.append("after the second")

    with pytest.raises(KeyboardInterrupt), interrupts.delayed():
        jax.tree.map(twice, 0)
    assert reached == ["after the first"]


def test_one_without_a_check_is_raised_at_the_end():
    with pytest.raises(KeyboardInterrupt), interrupts.delayed():
        jax.tree.map(interrupted, 0)
        reached = True
    assert reached


def test_a_handler_of_the_program_is_left():
    mine = lambda *_: None
    signal.signal(signal.SIGINT, mine)
    with interrupts.delayed():
        assert signal.getsignal(signal.SIGINT) is mine
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_calls_end_after_the_step(monkeypatch):
    """Interrupts a step of an evaluation within JAX: it returns, and the call ends."""
    advance, reached = Progress.advance, []

    def within_jax(self, count, **values):
        reached.append("step")
        jax.tree.map(interrupted, 0)
        reached.append("after JAX")
        advance(self, count, **values)

    monkeypatch.setattr(Progress, "advance", within_jax)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    fields = {"network": {"options": {"width": 4, "depth": 1}}, "matching": {"strategy": "flip"}}
    of = images, np.arange(4) % 2
    with pytest.raises(KeyboardInterrupt):
        gsdd_jax.evaluate(of, *of, evaluate={"epochs": 60}, verbose=False, **fields)
    assert reached == ["step", "after JAX"]
