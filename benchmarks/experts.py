"""Throughput of 1, 2, 4 and 8 experts trained at once, in images per second.

All take turns in one run, so that a busy machine slows all; the ratio is the result.
"""

import jax

from benchmarks import steps
from benchmarks.measure import take_turns
from benchmarks.table import Table, device

AT_ONCE = (1, 2, 4, 8)
COLUMNS = "at_once images_per_s:.0f ratio:.2f"


def main(out: str | None) -> None:
    # Short on a CPU; on a GPU the published width, and enough batches to fill it.
    width, num_batches = (16, 4) if jax.default_backend() == "cpu" else (128, 10)
    print(f"{device()}; ConvNetD3, width {width}, 32 x 32, batch {steps.BATCH}, DSA")
    table, epochs, examples = Table(out, COLUMNS), [], num_batches * steps.BATCH
    for count in AT_ONCE:
        # Repeats all earlier counts, so that ratios compare times of the same turns.
        epochs.append(steps.expert_epoch(count, examples, width=width)[0].call)
        rates = [c * examples / s for c, s in zip(AT_ONCE, take_turns(*epochs), strict=False)]
        *table.rows, last = (
            dict(at_once=c, width=width, images_per_s=rate, ratio=rate / rates[0])
            for c, rate in zip(AT_ONCE, rates, strict=False)
        )
        table.add(last)
