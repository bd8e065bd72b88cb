"""Registers the custom calls that were built, and helps with calling them.

`xla_ops/` builds one extension module per platform. All modules hold the same targets, so one
traced `ffi_call` runs on the platform that it is lowered for.
"""

import functools
import importlib
import os
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jaxtyping import Array

from gsdd_jax.core.errors import UsageError, UsageWarning

FOLDER = pathlib.Path(__file__).parent.parent  # contains the modules
MODULES = {"cpu": "gsdd_jax._native_cpu", "cuda": "gsdd_jax._native_cuda"}


def _register() -> tuple[tuple[str, ...], str | None]:
    built, wrong = [], None
    for platform, name in MODULES.items():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for target, handler in module.handlers.items():
            name = {"cpu": "cpu", "cuda": "CUDA"}[platform]
            jax.ffi.register_ffi_target(target, handler, platform=name)
        built.append(platform)
        wanted, known = os.environ.get("GSDD_CPU"), getattr(module, "instruction_sets", None)
        if known and wanted is not None and wanted.casefold() not in map(str.casefold, known):
            wrong = f"GSDD_CPU: expected one of {', '.join(known)} on this machine, got {wanted!r}"
    return tuple(built), wrong


# Platforms of the custom calls that were built, and the error of a wrong GSDD_CPU.
PLATFORMS, _WRONG = _register()


def check_environment() -> None:
    """Raises UsageError if GSDD_CPU names an instruction set that this machine lacks."""
    if _WRONG:
        raise UsageError(_WRONG)


def runs_on(architectures: str, capability: tuple[int, int]) -> bool:
    """Returns whether code for these architectures runs on a device of a compute capability.

    Architectures are CMake's names, separated by commas. Code runs on later devices of the same
    major number. An architecture without suffix or with "-virtual" is compiled by the driver for
    any later one. Other names, such as "native", always run.
    """
    major, minor = capability
    for one in architectures.split(","):
        number, _, kind = one.partition("-")
        if not number.isdecimal():
            return True
        of, least = divmod(int(number), 10)
        if kind != "virtual" and of == major and least <= minor:
            return True
        if kind != "real" and (of, least) <= capability:
            return True
    return False


@functools.cache
def _every_device_has_code() -> bool:
    """Returns whether all CUDA devices of this machine can run the build; warns once if not."""
    module = importlib.import_module(MODULES["cuda"])
    devices = {tuple(device) for device in module.capabilities()}
    lacking = sorted(d for d in devices if not runs_on(module.architectures, d))
    if lacking:
        names = ", ".join(f"{major}.{minor}" for major, minor in lacking)
        warnings.warn(
            f"gsdd_jax: the custom calls have no code for a GPU of compute capability {names} "
            f"(built for {module.architectures}; see BUILD.md): jax.numpy computes instead",
            UsageWarning,
            stacklevel=2,
        )
    return not lacking


def where_built(native_call: Callable, otherwise: Callable, *operands: Any) -> Any:
    """Calls `native_call` on platforms with built calls, and `otherwise` elsewhere.

    The choice is made when the computation is lowered. CUDA counts as built if all devices of this
    machine have code.
    """
    built = {
        platform: native_call
        for platform in PLATFORMS
        if platform != "cuda" or _every_device_has_code()
    }
    return lax.platform_dependent(*operands, default=otherwise, **built)


def call(target: str, outputs: Any, *operands: Any, **attributes: Any) -> Any:
    """Calls a target, once under `vmap` too: its axes join the leading ones of the arrays."""
    return jax.ffi.ffi_call(target, outputs, vmap_method="broadcast_all")(*operands, **attributes)


def like(array: Array, shape: tuple, dtype: Any = np.float32) -> Any:
    """Returns the type of a call's result; in shard_map it varies over the mesh axes of `array`."""
    kind = jax.typeof(array)
    if kind.manual_axis_type.empty:
        return jax.ShapeDtypeStruct(shape, dtype)
    return kind.update(shape=shape, dtype=np.dtype(dtype))


def vary_alike(arrays: Any) -> Any:
    """Makes all arrays of a pytree vary over the same mesh axes in shard_map.

    Custom calls and custom derivatives require that.
    """
    axes_of = lambda array: jax.typeof(array).manual_axis_type.varying
    union = frozenset().union(*(axes_of(array) for array in jax.tree.leaves(arrays)))

    def vary(array):
        missing = union - axes_of(array)
        return lax.pcast(array, tuple(sorted(missing)), to="varying") if missing else array

    return jax.tree.map(vary, arrays)
