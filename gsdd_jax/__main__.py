"""What is installed here: `python -m gsdd_jax`."""

from __future__ import annotations

import importlib
import os
import platform


def main() -> None:
    """Prints versions, custom calls, devices and data sets, a line each."""
    import jax

    from gsdd_jax.core import native
    from gsdd_jax.data import prepared
    from gsdd_jax.runs.version import version

    built = dict.fromkeys(native.MODULES, "not built")
    for name in native.PLATFORMS:
        built[name] = "built"
    if "cpu" in native.PLATFORMS:
        built["cpu"] += f" for {importlib.import_module(native.MODULES['cpu']).instruction_set}"
    if "cuda" in native.PLATFORMS:
        module = importlib.import_module(native.MODULES["cuda"])
        built["cuda"] += f" for {module.architectures}"
    devices = ", ".join(device.device_kind for device in jax.devices())
    folder = prepared.data_root()
    given = "TFDS_DATA_DIR" if os.environ.get("TFDS_DATA_DIR") else "by default; or TFDS_DATA_DIR"
    print(f"gsdd-jax {version()}, JAX {jax.__version__}, Python {platform.python_version()}")
    print(f"custom calls: CPU {built['cpu']}; CUDA {built['cuda']}; elsewhere jax.numpy")
    print(f"devices: {devices} ({jax.default_backend()})")
    print(f"data: cifar10_mini in the package; in {folder} ({given}): ", end="")
    print(", ".join(prepared.sets_in(folder)) or "none")


if __name__ == "__main__":
    main()
