"""Memory that programs need, and that the device has."""

from __future__ import annotations

import jax


def needed(compiled: jax.stages.Compiled) -> int:
    """Returns the bytes of a compiled program: arguments, results and temporaries."""
    found = compiled.memory_analysis()
    return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes


def free() -> int:
    """Returns the free bytes of the device, or of the host if the device does not say."""
    stats = jax.devices()[0].memory_stats()
    if stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    with open("/proc/meminfo") as file:
        available = next(line for line in file if line.startswith("MemAvailable"))
    return int(available.split()[1]) * 2**10
