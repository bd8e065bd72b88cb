"""Interrupts runs, and compares what they leave."""

import itertools

import pytest

FILES = ("distilled.safetensors", "result.json")


def interrupted_once(monkeypatch, module, name, call, run):
    """Runs twice: the first time, an interruption comes in place of the `call`-th `module.name`."""
    really, calls = getattr(module, name), itertools.count(1)

    def interrupted(*arguments):
        if next(calls) == call:
            raise KeyboardInterrupt
        return really(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, name, interrupted)
        run()
    run()


def check_same_bytes(one, other):
    """Compares the set and the result in two work directories."""
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
