"""Checks the devices that JAX computes on."""

import jax
import psutil

from gsdd_jax.core.errors import UsageError


def check() -> None:
    """Raises UsageError if JAX cannot start the platform that it was asked for."""
    try:
        jax.devices()
    except Exception as error:  # a plugin without its device raises any type
        asked = jax.config.jax_platforms
        if not asked:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"JAX starts no device: {reason}") from None
        remedy = _CUDA if {"cuda", "gpu"} & set(asked.split(",")) else ""
        raise UsageError(
            f"JAX_PLATFORMS={asked}: JAX cannot start that here; there is {_others()}; unset "
            f"JAX_PLATFORMS, or set it to cpu{remedy}"
        ) from None


_CUDA = "; a GPU takes its driver and JAX for CUDA, pip install 'jax[cuda13]'"


def _others() -> str:
    try:
        jax.config.update("jax_platforms", None)
        return described(jax.device_count())
    except Exception:
        return "none"


def described(number: int) -> str:
    """Returns the kind of the devices, preceded by their number unless it is 1."""
    kinds = dict.fromkeys(device.device_kind for device in jax.local_devices())
    return ("" if number == 1 else f"{number} x ") + ", ".join(kinds)


def memory() -> int:
    """Returns the bytes of the device that computes."""
    return accelerator_memory() or psutil.virtual_memory().total


def accelerator_memory() -> int | None:
    """Returns the bytes of an accelerator that this process may use in all; None on a CPU."""
    stats = jax.local_devices()[0].memory_stats()
    return stats["bytes_limit"] if stats else None
