"""Settings that come from outside, a config or a file: their names, types and ranges."""

from __future__ import annotations

import dataclasses
import json
import reprlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gsdd_jax.core.errors import UsageError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

Limits = Mapping[str, tuple[int | float, int | float | None] | tuple[str, ...]]
"""Field -> the smallest and, where there is one, the largest value; of a text, its choices."""

MOST_INT = 2**31 - 1  # JAX counts in 32 bits
LEAST, MOST = 1e-30, 1e19  # of a number above 0: in float32, and so that its square is finite


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for what is none, for integers of more than 64
    bits and for what is nested too deeply."""
    try:
        value = json.loads(text, parse_int=_of_64_bits)
        json.dumps(value)  # deeper than reading it, as does whatever follows
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _of_64_bits(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"an integer of more than 64 bits, {reprlib.repr(digits)}")
    return int(digits)


def flat(config: ConfigDict) -> dict[str, Any]:
    """{dotted field: plain value}."""
    return dotted(json.loads(config.to_json()))


def dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict by dotted names; an empty one in it is a value."""
    out = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            out.update(dotted(value, f"{prefix}{name}."))
        else:
            out[prefix + name] = value
    return out


def check_names(kind: type, names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises UsageError for the names of `names` that are not among `known` settings."""
    if unknown := sorted(set(names) - set(known)):
        raise UsageError(
            f"{where}: unknown option {', '.join(map(reprlib.repr, unknown))}; "
            f"{kind.name} has {', '.join(sorted(known)) or 'none'}"
        )


def check_values(kind: type, values: Mapping[str, Any], limits: Limits, where: str) -> None:
    """Raises UsageError, naming the first field of `kind` whose value is not of its type and range.

    Without a limit an integer is at least 1, a number at least 0, and a text any that can be
    written; no integer is above `MOST_INT`, no number above `MOST`.
    """
    for field in dataclasses.fields(kind):
        if field.name in values:
            kind_of = field.type if isinstance(field.type, str) else field.type.__name__
            check_value(f"{where}{field.name}", kind_of, values[field.name], limits.get(field.name))


def check_value(name: str, kind: str, value: Any, limit: tuple[Any, ...] | None = None) -> None:
    """Raises UsageError, naming the field, for a value that is not of a kind ("bool", "int",
    "float" or "str") and within its limit, as `check_values`."""
    if expected := _unlike(kind, value, limit):
        raise UsageError(f"{name}: expected {expected}, got {reprlib.repr(value)}")


def _unlike(kind: str, value: Any, limit: tuple[Any, ...] | None) -> str | None:
    """What was expected, where `value` is something else."""
    # A bool is an int to Python, but not to whoever wrote one.
    if kind == "bool":
        return None if isinstance(value, bool) else "true or false"
    if kind == "str":
        if limit:
            right = isinstance(value, str) and value in limit
            return None if right else f"one of {', '.join(limit)}"
        return None if _is_text(value) else "text in UTF-8, without NUL"
    least, most = limit or ((1, None) if kind == "int" else (0, None))
    if kind == "int":
        most = MOST_INT if most is None else most
        expected, right = f"an integer from {least} to {most}", type(value) is int
    else:
        most = MOST if most is None else most
        expected, right = f"a number from {least:g} to {most:g}", type(value) in (int, float)
    return None if right and least <= value <= most else expected  # nor is NaN


def _is_text(value: Any) -> bool:
    """Whether it can be written to a file and name one."""
    try:
        return isinstance(value, str) and b"\0" not in value.encode()
    except UnicodeEncodeError:  # a lone surrogate, as of a path that is not UTF-8
        return False
