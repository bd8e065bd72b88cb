"""A trajectory matching step and an expert's epoch by precision of the network's products.

On a GPU at the flagship's shapes, where `default` takes TF32; elsewhere tiny, as a smoke test.
"""

import jax

from benchmarks import steps
from benchmarks.measure import left_out, take_turns
from benchmarks.table import Table, device

PRECISIONS = ("default", "bfloat16", "float32")
COLUMNS = "precision tm_step_seconds:.3f temporary_bytes:MiB images_per_second:.0f"


def main(out: str | None) -> None:
    on_gpu = jax.default_backend() == "gpu"
    images, syn_steps, width, num_batches = (300, 60, 128, 20) if on_gpu else (20, 2, 4, 1)
    print(f"{device()}; width {width}")
    table = Table(out, COLUMNS)
    for precision in PRECISIONS:
        settings, examples = dict(precision=precision, width=width), num_batches * steps.BATCH
        with left_out(precision):
            step = steps.timed_step(images, syn_steps, **settings)
            epoch = steps.expert_epoch(1, examples, **settings)[0]
            seconds = [take_turns(one.call, seconds=2.0)[0] for one in (step, epoch)]
            row = settings | dict(syn_steps=syn_steps, temporary_bytes=step.temporary)
            table.add(
                row | dict(tm_step_seconds=seconds[0], images_per_second=examples / seconds[1])
            )
