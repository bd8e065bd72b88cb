"""A trajectory matching step and an expert's epoch by the precision of the network's products.

On a GPU at the flagship's shapes: `default` takes TF32 there. Otherwise tiny, to show that it runs.
"""

from __future__ import annotations

from typing import Any

import jax

from benchmarks import experts, tm_memory
from benchmarks.left_out import left_out
from benchmarks.turns import take_turns
from gsdd_jax.core.files import write_json
from gsdd_jax.training import distill

PRECISIONS = ("default", "bfloat16", "float32")


def main(out: str | None) -> None:
    """Prints a table; writes it to `out` as JSON after each row."""
    device = jax.devices()[0]
    on_gpu = device.platform == "gpu"
    syn_steps, width, num_batches = (60, 128, 20) if on_gpu else (2, 4, 1)
    print(f"{device.device_kind}, {device.platform}, jax {jax.__version__}; width {width}")
    print(f"{'precision':>10}{'tm step s':>11}{'temporary MiB':>15}{'images/s':>11}")
    rows = []
    for precision in PRECISIONS:
        with left_out(precision):
            rows.append(measure(precision, syn_steps, width, num_batches))
            print(
                f"{precision:>10}{rows[-1]['tm_step_seconds']:11.3f}"
                f"{rows[-1]['temporary_bytes'] / 2**20:15.0f}{rows[-1]['images_per_second']:11.0f}",
                flush=True,
            )
            if out:
                write_json(out, rows)


def measure(precision: str, syn_steps: int, width: int, num_batches: int) -> dict[str, Any]:
    """A row of the table, its step as a run has it: no activations kept."""
    problem, arguments = tm_memory.step(syn_steps, 0, precision=precision, width=width)
    compiled = distill.run.lower(problem, *arguments, 1).compile()
    seconds = tm_memory.timed(compiled, arguments)
    (epoch,) = take_turns(experts.epoch_of(1, width, num_batches, precision), seconds=2.0)
    return dict(
        precision=precision, width=width, syn_steps=syn_steps, tm_step_seconds=seconds,
        temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
        images_per_second=num_batches * experts.BATCH_SIZE / epoch,
    )  # fmt: skip
