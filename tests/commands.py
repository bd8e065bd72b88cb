"""Runs commands as separate processes, to be interrupted, or without importing everything again."""

import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time

PATIENCE = 300  # seconds
ROOT = pathlib.Path(__file__).parent.parent
SERVER = """
import gc, json, os, runpy, sys, warnings
import gsdd_jax.figures, gsdd_jax.report.document, gsdd_jax.runs.distill, gsdd_jax.runs.evaluation
import gsdd_jax.runs.experts, jax, tensorflow_datasets.core
gc.freeze()  # each child would look through all of this when it ends
gc.set_threshold(50_000)
for line in sys.stdin:
    module, arguments, out, err = json.loads(line)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fork copies no threads, so there must be none
        child = os.fork()
    if child == 0:
        for stream, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY), stream)
        sys.argv = ["-m", *arguments]
        runpy.run_module(f"launch.{module}", run_name="__main__", alter_sys=True)
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def start(module, *arguments, stdout=subprocess.PIPE):
    return subprocess.Popen(
        [sys.executable, "-m", f"launch.{module}", *map(str, arguments)],
        cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


def until(sign, *running):
    """Waits for a condition while processes run; fails if one of them ends first."""
    patience = time.monotonic() + PATIENCE
    while not sign():
        if any(p.poll() is not None for p in running) or time.monotonic() > patience:
            for process in running:
                process.kill()
            raise AssertionError([(p.communicate(), p.returncode) for p in running])
        time.sleep(0.01)


class Commands:
    """Runs a module with arguments and returns (exit status, stdout, stderr).

    A server imports what the commands do and forks for each of them, before any of JAX's threads
    exist: what the child is given, prints and ends with is what `python -m launch.NAME` would be
    and do.
    """

    def __init__(self):
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip

    def __call__(self, module, *arguments):
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            asked = module, list(map(str, arguments)), out.name, err.name
            self.server.stdin.write(json.dumps(asked) + "\n")
            self.server.stdin.flush()
            if not select.select([self.server.stdout], [], [], PATIENCE)[0]:
                self.server.kill()
                raise TimeoutError(f"launch.{module} took more than {PATIENCE} seconds")
            status = int(self.server.stdout.readline())
            return status, out.read().decode(), err.read().decode()

    def close(self):
        self.server.communicate()
