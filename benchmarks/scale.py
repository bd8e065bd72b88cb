"""Steps of large experiments on 1 to 64 devices: what each device computes, keeps and sends.

Nothing is run. Steps are compiled for simulated devices (`benchmarks.programs`) and counted
(`benchmarks.hlo`); `benchmarks.plan` converts them to hours.
"""

from __future__ import annotations

import jax

from benchmarks import programs
from benchmarks.table import Table, rows
from configs import load
from gsdd_jax.core.errors import UsageError
from gsdd_jax.ops import conv

DEVICES = (1, 8, 64)
CONFIGS = (
    "cifar100_tm:ipc=50",
    *(f"imagenet1k_{name}:ipc={ipc}" for name in ("dm", "tm") for ipc in (1, 50)),
)
COLUMNS = (
    "config part devices flops:.4g bytes:.4g operations:,.0f sent:.3g arguments:.3g temporary:.3g"
)


def main(out: str | None, devices: str, configs: str) -> None:
    """Prints a table; rows of `out` with other configs or numbers of devices are kept."""
    counts, names = numbers(devices), chosen(configs)
    as_on_gpus(max(counts))
    table = Table(out, COLUMNS)
    table.rows = rows(out, COLUMNS) if out else []
    for name in names:
        config = load(name)
        steps = [step for step in programs.STEPS if step != "experts" or "_tm" in name]
        for row in programs.rows(config, counts, steps):
            row = {"config": name} | row
            table.rows = [other for other in table.rows if key(other) != key(row)]
            table.add(row)
        jax.clear_caches()


def as_on_gpus(count: int) -> None:
    """Simulates `count` devices on this host, with the programs of GPUs.

    Convolutions are XLA's own; norms, pooling and the rasterizer are custom calls. Call it before
    JAX is used.
    """
    conv._form = lambda *_: "lax"  # a CPU takes Winograd's transforms or its own calls
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)
    # Skips passes on the processor's code, not on XLA's program.
    jax.config.update("jax_disable_most_optimizations", True)


def numbers(text: str) -> list[int]:
    """Returns numbers of devices. Raises UsageError for others than 1 to 64."""
    try:
        counts = [int(part) for part in text.split(",")] if text else list(DEVICES)
    except ValueError:
        counts = [0]
    if min(counts) < 1 or max(counts) > max(DEVICES):
        raise UsageError(f"--devices: expected numbers from 1 to 64, by commas, got {text!r}")
    return counts


def chosen(text: str) -> list[str]:
    """Returns names of configs, or all if none is named."""
    names = [name for name in text.split(",") if name] or list(CONFIGS)
    if unknown := [name for name in names if name not in CONFIGS]:
        raise UsageError(
            f"--configs: expected some of {', '.join(CONFIGS)}, by commas, got {unknown[0]!r}"
        )
    return names


def key(row: dict) -> tuple:
    """Returns the fields that identify a row."""
    return row["config"], row["part"], row["devices"]
