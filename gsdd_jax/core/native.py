"""The bridge to the custom calls: registers what was built, and what all calls have in common.

`xla_ops/` builds one extension module per platform. Each holds the same targets, so one traced
`ffi_call` runs on whichever platform it is lowered for.
"""

from __future__ import annotations

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

FOLDER = pathlib.Path(__file__).parent.parent  # where they lie
MODULES = {"cpu": "gsdd_jax._native_cpu", "cuda": "gsdd_jax._native_cuda"}


def _register() -> tuple[tuple[str, ...], str | None]:
    built, wrong = [], None
    for platform, name in MODULES.items():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for target, handler in module.handlers.items():
            jax.ffi.register_ffi_target(
                target, handler, platform={"cpu": "cpu", "cuda": "CUDA"}[platform]
            )
        built.append(platform)
        if platform == "cpu":
            wrong = _wrong_instruction_set(module.instruction_sets)
    return tuple(built), wrong


def _wrong_instruction_set(supported: list[str]) -> str | None:
    wanted = os.environ.get("GSDD_CPU")
    if wanted is None or wanted.casefold() in (name.casefold() for name in supported):
        return None
    return f"GSDD_CPU: expected one of {', '.join(supported)} on this machine, got {wanted!r}"


# The platforms that the custom calls were built for, and what is wrong with the environment.
PLATFORMS, _WRONG = _register()


def check_environment() -> None:
    """Raises UsageError where GSDD_CPU names no instruction set of this machine."""
    if _WRONG:
        raise UsageError(_WRONG)


def runs_on(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether code for these architectures, as CMake names them, runs on a compute capability.

    Code runs on later devices of the same major number, and what has no suffix or "-virtual" is
    compiled by the driver for any later one. Names that are no numbers, such as "native", do.
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
    """Whether all CUDA devices of this machine, if any, run what was built; else it warns, once."""
    module = importlib.import_module(MODULES["cuda"])
    devices = {tuple(device) for device in module.capabilities()}
    lacking = sorted(d for d in devices if not runs_on(module.architectures, d))
    if lacking:
        names = ", ".join(f"{major}.{minor}" for major, minor in lacking)
        warnings.warn(
            f"gsdd_jax: the custom calls have no code for a GPU of compute capability {names} "
            f"(built for {module.architectures}; see BUILD.md): jax.numpy computes in their place",
            UsageWarning,
            stacklevel=2,
        )
    return not lacking


def where_built(native_call: Callable, otherwise: Callable, *operands: Any) -> Any:
    """`native_call` on the platforms that the calls were built for, `otherwise` on others.

    Which is decided when the computation is lowered for its device. Of CUDA the calls are built
    where all devices of this machine have code in them.
    """
    built = {
        platform: native_call
        for platform in PLATFORMS
        if platform != "cuda" or _every_device_has_code()
    }
    return lax.platform_dependent(*operands, default=otherwise, **built)


def like(array: Array, shape: tuple, dtype: Any = np.float32) -> Any:
    """The type of a call's result: under shard_map it varies over the same mesh axes as `array`."""
    kind = jax.typeof(array)
    if kind.manual_axis_type.empty:
        return jax.ShapeDtypeStruct(shape, dtype)
    return kind.update(shape=shape, dtype=np.dtype(dtype))


def vary_alike(arrays: Any) -> Any:
    """A pytree of arrays, under shard_map varying over the same mesh axes, as a custom call and
    custom derivatives want them."""
    axes_of = lambda array: jax.typeof(array).manual_axis_type.varying
    union = frozenset().union(*(axes_of(array) for array in jax.tree.leaves(arrays)))

    def vary(array):
        missing = union - axes_of(array)
        return lax.pcast(array, tuple(sorted(missing)), to="varying") if missing else array

    return jax.tree.map(vary, arrays)
