"""Lower bounds of a rasterizer's time: unavoidable work over the machine's rates.

docs/performance.md derives the model.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import best, repeated

# Vector instructions per sample-Gaussian pair. Forward: advance, compare, add, and a multiply-add
# per channel (three) for four samples. Backward: advance, two comparisons (cut and clip), five sums
# for two samples, and six multiply-adds for four.
FORWARD = 3 + 3 / 4
BACKWARD = 3 + 5 / 2 + 6 / 4


@dataclasses.dataclass(frozen=True)
class Machine:
    """Float32 instructions (multiply-adds), bytes and, on a GPU, exponentials per second."""

    multiply_adds: float
    bandwidth: float
    exponentials: float | None = None


# Upper limits of the data sheet: 132 multiprocessors at 1.98 GHz, each with 128 float32 lanes and
# 16 of special functions; HBM3 of 3.35 TB/s, or HBM3e of 4.8.
_HOPPER_CYCLES = 132 * 1.98e9
DATA_SHEETS = {
    name: Machine(128 * _HOPPER_CYCLES, bandwidth, 16 * _HOPPER_CYCLES)
    for name, bandwidth in (("NVIDIA H100 80GB HBM3", 3.35e12), ("NVIDIA H200", 4.8e12))
}


def machine_of(device: jax.Device, reached: Machine) -> Machine:
    """Returns the machine for bounds: the data sheet's, or the measured one."""
    return DATA_SHEETS.get(device.device_kind, reached)


def measure_machine() -> Machine:
    """Measures a machine by a float32 matrix product, and by adding one to an array."""
    on_gpu = jax.default_backend() == "gpu"
    size, length, times = (8192, 2**28, 20) if on_gpu else (2048, 2**26, 1)
    product = lambda a: jnp.matmul(a, a, precision="highest")
    increment = lambda x: x + 1
    if on_gpu:
        product, increment = repeated(product, times), repeated(increment, times)
    product_s = best(jax.jit(product), jnp.ones((size, size))) / times
    increment_s = best(jax.jit(increment), jnp.ones(length)) / times
    return Machine(size**3 / product_s, 2 * 4 * length / increment_s)


def count_pairs(means, cholesky, opacities, size: int, side: int = 2) -> int:
    """Counts sample points inside the exact supports, summed over Gaussians, in float64."""
    total = 0
    arrays = (np.asarray(a, float) for a in (means, cholesky, opacities))
    for u, raw, opacity in zip(*arrays, strict=True):
        l1, l2, l3 = raw[:, 0] + 0.5, raw[:, 1], raw[:, 2] + 0.5
        xx, xy, yy = l1**2 + 1 / 12, l1 * l2, l2**2 + l3**2 + 1 / 12
        cut = np.log(np.maximum(opacity, 1e-30) * 255)[:, None]
        y = (np.arange(size * side) + 0.5) / side - (size / 2 * (u[:, 1] + 1))[:, None]
        left = 2 * cut - y**2 / yy[:, None]
        half = np.sqrt(np.maximum(left, 0) * (xx - xy**2 / yy)[:, None])
        center = (size / 2 * (u[:, 0] + 1))[:, None] + (xy / yy)[:, None] * y
        # Sample points are at (k + 1/2) / side, k from 0 to size * side - 1.
        first = np.ceil((center - half) * side - 0.5).clip(0)
        last = np.floor((center + half) * side - 0.5).clip(None, size * side - 1)
        total += int(np.where(left >= 0, np.maximum(last - first + 1, 0), 0).sum())
    return total


def seconds(machine: Machine, measured: str, pairs: int, batch: int, count: int, size: int):
    """Returns the least seconds of a call, for arithmetic or bytes, whichever take longer."""
    parameters, image = 4 * 9 * batch * count, 4 * 3 * batch * size**2
    instructions, moved = FORWARD * pairs, parameters + image
    if measured == "both":
        instructions += BACKWARD * pairs
        moved += 2 * parameters + image
    return max(instructions / machine.multiply_adds, moved / machine.bandwidth)
