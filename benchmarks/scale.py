"""Steps of large experiments on 1 to 64 devices: what each device computes, keeps and sends.

Nothing is run: the steps are compiled for devices that this host is made to have, and read off the
compiled programs (`benchmarks.programs`, `benchmarks.hlo`). What that means in hours is
`benchmarks.plan`'s.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import write_json

DEVICES = (1, 2, 4, 8, 16, 32, 64)
ROOT = pathlib.Path(__file__).parent.parent


class Case(NamedTuple):
    """A config, and which of its steps are compiled."""

    config: str
    parts: tuple[str, ...] = ("distill",)


CASES = (
    Case("cifar10_tm_ipc1", ("distill", "fit", "experts", "evaluation")),
    Case("cifar10_dm_ipc1"),
    Case("imagenet_dc_ipc1"),
    Case("cifar100_tm_ipc50", ("distill", "fit", "experts", "evaluation")),
    Case("imagenet1k_tm_ipc1", ("distill", "fit", "experts", "evaluation")),
    Case("imagenet1k_dm_ipc1"),
    # Their steps are those of one image a class but for their sizes: `benchmarks.plan` has them.
    Case("imagenet1k_tm_ipc10", ("fit",)),
    Case("imagenet1k_tm_ipc50", ("fit",)),
)


def main(out: str | None, devices: str, configs: str) -> None:
    """Prints a table; writes its rows to `out` as JSON, as they come.

    Rows of other configs or numbers of devices that `out` has already stay.
    """
    counts = _numbers(devices) if devices else DEVICES
    cases = _chosen(configs)
    rows = _kept(out)
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    for case in cases:
        for row in compiled(case, counts):
            rows = [r for r in rows if _key(r) != _key(row)] + [row]
            print("| " + " | ".join(shown(row)) + " |", flush=True)
            if out:
                write_json(out, sorted(rows, key=_key))


COLUMNS = (
    *("config", "step", "devices", "GFLOP", "GB", "operations"),
    *("collectives", "MB in them", "arguments, GB", "temporary, GB"),
)


def shown(row: dict[str, Any]) -> list[str]:
    """A row of the table, each figure of one device."""
    calls = "; ".join(f"{count:.0f} {kind}" for kind, count in sorted(row["calls"].items()))
    return [
        *(row["config"], row["part"], str(row["devices"])),
        *(f"{row['products'] / 1e9:,.4g}", f"{row['bytes'] / 1e9:,.4g}"),
        *(f"{row['operations']:,.0f}", calls or "none", f"{sum(row['moved'].values()) / 1e6:,.4g}"),
        *(f"{row['arguments'] / 1e9:,.3g}", f"{row['temporary'] / 1e9:,.3g}"),
    ]


def compiled(case: Case, devices: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Its rows, from a process of its own: how many devices there are is settled before JAX is."""
    there = f"--xla_force_host_platform_device_count={max(devices)}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {there}",
        # Of the machine's code, not of XLA's program.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    asked = case.config, ",".join(case.parts), ",".join(map(str, devices))
    command = [sys.executable, "-m", "benchmarks.programs", *asked]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            yield json.loads(line)
        if process.wait():
            reason = process.stderr.read().strip().rpartition("\n")[2]
            raise UsageError(f"scale: {case.config}: {reason}")


def _numbers(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1 or max(counts) > DEVICES[-1]:
        raise UsageError(f"--devices: expected numbers from 1 to 64, by commas, got {text!r}")
    return counts


def _chosen(text: str) -> list[Case]:
    known = {case.config: case for case in CASES}
    chosen = [name for name in text.split(",") if name] or list(known)
    if unknown := [name for name in chosen if name not in known]:
        raise UsageError(
            f"--configs: expected some of {', '.join(known)}, by commas, got {unknown[0]!r}"
        )
    return [known[name] for name in chosen]


def _key(row: dict[str, Any]) -> tuple:
    return row["config"], row["part"], row["devices"]


def _kept(out: str | None) -> list[dict[str, Any]]:
    return json.loads(pathlib.Path(out).read_text()) if out and os.path.exists(out) else []
