"""The devices that JAX computes on, or one line that says why there are none."""

from __future__ import annotations

import jax

from gsdd_jax.core.errors import UsageError


def check() -> None:
    """Raises UsageError where JAX cannot start the platform that it was asked for."""
    try:
        jax.devices()
    except Exception as error:  # of a plugin that does not find its device: of any kind
        asked = jax.config.jax_platforms
        if not asked:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"JAX starts no device: {reason}") from None
        raise UsageError(
            f"JAX_PLATFORMS={asked}: JAX cannot start that here; there is {_others()}; unset "
            f"JAX_PLATFORMS, or set it to cpu{_CUDA if _asks_for_gpu(asked) else ''}"
        ) from None


_CUDA = "; a GPU takes its driver and JAX for CUDA, pip install 'jax[cuda13]'"


def _asks_for_gpu(asked: str) -> bool:
    return bool({"cuda", "gpu"} & set(asked.split(",")))


def _others() -> str:
    """What JAX finds where nothing is asked for."""
    try:
        jax.config.update("jax_platforms", None)
        return described(jax.device_count())
    except Exception:
        return "none"


def described(number: int) -> str:
    """The kind of as many devices, and their number where it is not one."""
    kinds = dict.fromkeys(device.device_kind for device in jax.local_devices())
    return ("" if number == 1 else f"{number} x ") + ", ".join(kinds)
