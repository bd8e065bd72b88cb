"""Report of the installation: `python -m gsdd_jax`."""

from __future__ import annotations

import importlib
import os
import platform
import sys


def main() -> None:
    """Prints versions, custom calls, devices and data sets, one line each.

    If JAX finds no device, prints the reason to stderr and exits with status 2.
    """
    import jax

    from gsdd_jax.core import devices, native
    from gsdd_jax.core.errors import UsageError
    from gsdd_jax.data import prepared
    from gsdd_jax.storage.version import version

    built = dict.fromkeys(native.MODULES, "not built")
    for name in native.PLATFORMS:
        built[name] = "built"
    if "cpu" in native.PLATFORMS:
        built["cpu"] += f" for {importlib.import_module(native.MODULES['cpu']).instruction_set}"
    if "cuda" in native.PLATFORMS:
        built["cuda"] += f" for {importlib.import_module(native.MODULES['cuda']).architectures}"
    given = "TFDS_DATA_DIR" if os.environ.get("TFDS_DATA_DIR") else "by default; or TFDS_DATA_DIR"
    print(f"gsdd-jax {version()}, JAX {jax.__version__}, Python {platform.python_version()}")
    print(f"custom calls: CPU {built['cpu']}; CUDA {built['cuda']}; elsewhere jax.numpy")
    wrong = ""
    try:
        devices.check()
        print(f"devices: {devices.described(jax.device_count())} ({jax.default_backend()})")
    except UsageError as error:
        wrong = str(error)
    try:
        folder = prepared.data_root()
        sets = f"in {folder} ({given}): {', '.join(prepared.sets_in(folder)) or 'none'}"
    except UsageError as error:  # no home directory
        sets = str(error)
    print(f"data: cifar10_mini in the package; {sets}", flush=True)
    if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
