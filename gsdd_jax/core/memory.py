"""Compares sizes with the free memory before anything is allocated."""

import contextlib
import os
import pathlib
import sys

from gsdd_jax.core.errors import UsageError

_GROUP = pathlib.Path("/sys/fs/cgroup")  # limits of a container


def check(what: str, size: int, copies: int = 1, there: int | None = None) -> None:
    """Raises UsageError if something does not fit into memory.

    Args:
      copies: number of copies held at a time, the first included.
      there: free bytes; None: `available()`.
    """
    there = available() if there is None else there
    if size * copies > there:
        more = f" and up to {copies} times that while computing" if copies > 1 else ""
        raise UsageError(
            f"{what}: {shown(size)} of memory{more}, expected at most the {shown(there)} that are "
            "free"
        )


def exhausted(error: BaseException) -> str:
    """Returns the part of an error that reports missing memory; empty for other errors."""
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
        return ""
    said = str(error).partition("RESOURCE_EXHAUSTED:")[2] or str(error)
    first = " ".join(said.strip().partition("\n")[0].split())
    return f"out of memory ({first or type(error).__name__})"


def available() -> int:
    """Returns the bytes that this process may still allocate, within all limits that apply."""
    limits = [_of_the_machine(), sys.maxsize]
    with contextlib.suppress(OSError, ValueError):  # another system, no container, no limit
        limit, used = (int((_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        limits.append(limit - used)
    with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            used = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
            limits.append(limit - used * resource.getpagesize())
    return max(0, min(limits))


def _of_the_machine() -> int:
    try:
        import psutil
    except ImportError:  # optional: sets can be read without it
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else -1
        return pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else sys.maxsize
    return psutil.virtual_memory().available


def shown(size: int) -> str:
    unit, name = (2**30, "GiB") if size >= 2**30 else (2**20, "MiB")
    return f"{size / unit:,.1f} {name}" if size < 2**80 else f"more than {2**50:,} GiB"
