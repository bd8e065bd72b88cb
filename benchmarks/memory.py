"""What programs need and what the device has."""

from __future__ import annotations

import jax


def needed(compiled: jax.stages.Compiled) -> int:
    """Bytes of a compiled program: its arguments, results and temporaries."""
    found = compiled.memory_analysis()
    return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes


def free() -> int:
    """Bytes of the device, or of the host where the device does not say."""
    stats = jax.devices()[0].memory_stats()
    if stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    with open("/proc/meminfo") as file:
        available = next(line for line in file if line.startswith("MemAvailable"))
    return int(available.split()[1]) * 2**10
