"""Sets up the libraries of a command before they compute."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import sys
import warnings
import zlib

from gsdd_jax.core.files import cache_dir

# Programs that compile faster, in seconds, are not cached.
LEAST_SECONDS = 0.2


def keep_freed_memory() -> None:
    """Lets glibc reuse what XLA's CPU backend frees instead of returning it to the kernel.

    Otherwise every call faults its temporaries in afresh, a quarter or more of a training step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another libc
        return
    one_arena, no_mmap, no_trim = (-8, 1), (-4, 0), (-1, -1)
    for option, value in (one_arena, no_mmap, no_trim):
        mallopt(option, value)


def keep_compiled_programs() -> None:
    """Enables JAX's compilation cache, unless the user chose one, before anything is compiled.

    Each kind of processor has its own folder: machines may share home directories. So have other
    XLA_FLAGS: for a GPU, XLA finds a tuned algorithm again whatever the flags then allow. Without a
    writable folder nothing is cached.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        cpu = pathlib.Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        kind = [line for line in cpu.splitlines() if line.startswith(("flags", "Features"))]
    except OSError:
        kind = []
    kind.append(os.environ.get("XLA_FLAGS", ""))
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    if (kept := cache_dir()) is None:
        return
    with contextlib.suppress(OSError):  # a folder that cannot be written
        folder = kept / "compiled" / f"{zlib.crc32(''.join(kind).encode()):08x}"
        # XLA's choices for a GPU, which JAX keeps there, need an existing folder.
        (folder / "xla_gpu_per_fusion_autotune_cache_dir").mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
    least = "jax_persistent_cache_min_compile_time_secs"
    if least.upper() not in os.environ:
        jax.config.update(least, LEAST_SECONDS)


def say_what_is_not_built() -> None:
    """Prints one line if the custom calls are not built for the devices that compute."""
    import jax

    from gsdd_jax.core import native

    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if platform in native.MODULES and platform not in native.PLATFORMS:
        print(
            f"note: the custom calls for {platform.upper()} are not built in {native.FOLDER}: "
            "jax.numpy and XLA compute instead, several times slower; `pip install .` in a checkout"
            " builds them, and `python -m gsdd_jax` shows what is built",
            file=sys.stderr,
            flush=True,
        )
