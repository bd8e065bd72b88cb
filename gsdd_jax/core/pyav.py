"""PyAV, which reads and writes video files: an optional package."""

from typing import Any

from gsdd_jax.core.errors import UsageError


def module() -> Any:
    """Returns PyAV, or raises UsageError if it is not installed."""
    try:
        import av
    except ImportError:
        raise UsageError(
            "PyAV, which reads and writes video files, is not installed; pip install "
            "'gsdd-jax[video]', or use folders of frames"
        ) from None
    return av
