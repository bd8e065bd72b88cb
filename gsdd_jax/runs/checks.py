"""Ranges of a config's numbers, checked before anything is built."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax.errors import UsageError


def at_least(least: int, config: ConfigDict, fields: Iterable[str]) -> None:
    """Raises UsageError, naming the first field whose number is smaller."""
    for field in fields:
        value = _get(config, field)
        if not value >= least:
            raise UsageError(f"config.{field}: expected at least {least}, got {value}")


def positive(config: ConfigDict, fields: Iterable[str]) -> None:
    """Raises UsageError, naming the first field that is not a finite number above 0."""
    for field in fields:
        value = _get(config, field)
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(f"config.{field}: expected a positive number, got {value}")


def seeds(config: ConfigDict, fields: Iterable[str]) -> None:
    """Raises UsageError, naming the first field that is no seed: JAX takes 32 bits of it."""
    for field in fields:
        value = _get(config, field)
        if not 0 <= value < 2**32:
            raise UsageError(f"config.{field}: expected 0 to {2**32 - 1}, got {value}")


def _get(config: ConfigDict, field: str) -> Any:
    for part in field.split("."):
        config = config[part]
    return config
