"""A trajectory matching step and an expert's epoch by precision of the network's products.

On a GPU at the flagship's shapes, where `default` takes TF32; elsewhere tiny, as a smoke test.
"""

from __future__ import annotations

from typing import Any

import jax

from benchmarks import steps
from benchmarks.measure import left_out, take_turns
from benchmarks.table import Table, device

PRECISIONS = ("default", "bfloat16", "float32")
COLUMNS = "precision tm_step_seconds:.3f temporary_bytes:MiB images_per_second:.0f"


def main(out: str | None) -> None:
    """Prints a table."""
    on_gpu = jax.default_backend() == "gpu"
    images, syn_steps, width, num_batches = (300, 60, 128, 20) if on_gpu else (20, 2, 4, 1)
    print(f"{device()}; width {width}")
    table = Table(out, COLUMNS)
    for precision in PRECISIONS:
        with left_out(precision):
            table.add(measure(precision, images, syn_steps, width, num_batches))


def measure(
    precision: str, images: int, syn_steps: int, width: int, num_batches: int
) -> dict[str, Any]:
    """Returns a row of the table; the step keeps no activations, as in a run."""
    settings, examples = dict(precision=precision, width=width), num_batches * steps.BATCH
    step = steps.timed_step(images, syn_steps, **settings)
    epoch = steps.expert_epoch(1, examples, **settings)[0]
    step_seconds, epoch_seconds = (take_turns(one.call, seconds=2.0)[0] for one in (step, epoch))
    return dict(
        precision=precision, width=width, syn_steps=syn_steps, tm_step_seconds=step_seconds,
        temporary_bytes=step.temporary, images_per_second=examples / epoch_seconds,
    )  # fmt: skip
