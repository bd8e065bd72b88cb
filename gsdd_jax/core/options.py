"""Settings of a dataclass that come from outside, a config or a file: names, types and ranges."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from gsdd_jax.core.errors import UsageError

Limits = Mapping[str, tuple[int | float, int | float | None] | tuple[str, ...]]
"""Field -> the smallest and, where there is one, the largest value; of a text, its choices."""


def check_names(kind: type, names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises UsageError for the names of `names` that are not among `known` settings."""
    if unknown := sorted(set(names) - set(known)):
        raise UsageError(
            f"{where}: unknown option {', '.join(map(reprlib.repr, unknown))}; "
            f"{kind.name} has {', '.join(sorted(known)) or 'none'}"
        )


def check_values(kind: type, values: Mapping[str, Any], limits: Limits, where: str) -> None:
    """Raises UsageError, naming the first field of `kind` whose value is not of its type and range.

    Without a limit an integer is at least 1, a number finite and at least 0, and a text any.
    """
    for field in dataclasses.fields(kind):
        if field.name in values:
            kind_of = field.type if isinstance(field.type, str) else field.type.__name__
            expected = _unlike(kind_of, values[field.name], limits.get(field.name))
            if expected:
                value = reprlib.repr(values[field.name])
                raise UsageError(f"{where}{field.name}: expected {expected}, got {value}")


def _unlike(kind: str, value: Any, limit: tuple[Any, ...] | None) -> str | None:
    """What was expected, where `value` is something else."""
    # A bool is an int to Python, but not to whoever wrote one.
    if kind == "bool":
        return None if isinstance(value, bool) else "true or false"
    if kind == "str":
        if limit:
            right = isinstance(value, str) and value in limit
            return None if right else f"one of {', '.join(limit)}"
        return None if isinstance(value, str) else "text"
    least, most = limit or ((1, None) if kind == "int" else (0, None))
    if kind == "int":
        expected = (
            f"an integer from {least} to {most}" if most else f"an integer of at least {least}"
        )
        right = type(value) is int
    else:
        expected = f"a finite number of at least {least:g}"
        right = type(value) in (int, float) and math.isfinite(value)
    return None if right and least <= value <= (math.inf if most is None else most) else expected
