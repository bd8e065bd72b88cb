"""Fields of a dataclass that come from outside: default, range and help, declared in one place."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gsdd_jax.core.errors import UsageError

MOST_INT = 2**31 - 1  # JAX counts in 32 bits
LEAST, MOST = 1e-30, 1e19  # of a number above 0: in float32, and so that its square is finite
POSITIVE = (LEAST, MOST)


class Shrink(NamedTuple):
    """How a copy of an experiment at `config.scale` shrinks a field."""

    power: float  # of the scale, by which the field is multiplied
    least: int


@dataclasses.dataclass(frozen=True)
class Meaning:
    """All that is declared of a field beside its name, type and default."""

    help: str = ""  # one line
    least: int | float | None = None  # None: 1 for an integer, 0 for a number
    most: int | float | None = None  # None: `MOST_INT` or `MOST`
    choices: tuple[str, ...] = ()  # of a text
    automatic: bool = False  # whether 0 is replaced by a value that suits the data set
    shrink: Shrink | None = None


def field(
    default: Any,
    help: str,
    least: int | float | None = None,
    most: int | float | None = None,
    **more: Any,
) -> Any:
    """A field of a dataclass with its `Meaning`; `...` as default makes it a required one."""
    metadata = {"meaning": Meaning(help, least, most, **more)}
    if default is ...:
        return dataclasses.field(metadata=metadata)
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def meaning(of: dataclasses.Field) -> Meaning:
    """The meaning of a field; of one that declares none, an empty one."""
    return of.metadata.get("meaning", Meaning())


def options(kind: type) -> dict[str, dataclasses.Field]:
    """The fields of a component that a config may set: all but those of `kind.derived`."""
    return {f.name: f for f in dataclasses.fields(kind) if f.name not in kind.derived}


def defaults(kind: type) -> dict[str, Any]:
    """The default of each option of a component that has one."""
    of = {name: f.default for name, f in options(kind).items()}
    return {name: value for name, value in of.items() if value is not dataclasses.MISSING}


def check_options(kind: type, values: Mapping[str, Any], where: str) -> None:
    """Raises UsageError for a value that is no option of `kind`, or out of its range."""
    known = options(kind)
    if unknown := sorted(set(values) - set(known)):
        raise UsageError(
            f"{where}: unknown option {', '.join(map(reprlib.repr, unknown))}; "
            f"{kind.name} has {', '.join(sorted(known)) or 'none'}"
        )
    check_values(known.values(), values, f"{where}.")


def check_values(known: Iterable[dataclasses.Field], values: Mapping[str, Any], where: str) -> None:
    """Raises UsageError, naming the first of some fields whose value is not of its type and range.

    Without a limit an integer is at least 1, a number at least 0, and a text any that can be
    written. No integer is above `MOST_INT`, no number above `MOST`.
    """
    for of in known:
        if of.name in values:
            check(of, values[of.name], f"{where}{of.name}")


def check(of: dataclasses.Field, value: Any, name: str) -> None:
    """Raises UsageError, naming the field, for a value that is not of its type and range."""
    said = meaning(of)
    kind = of.type if isinstance(of.type, str) else of.type.__name__
    limit = said.choices if said.choices else (said.least, said.most)
    check_value(name, kind, value, limit)


def check_value(name: str, kind: str, value: Any, limit: tuple[Any, ...] = (None, None)) -> None:
    """Raises UsageError, naming the field, for a value that is not of a kind ("bool", "int",
    "float" or "str") and within its limit: the least and the largest number, or all texts."""
    if expected := _unlike(kind, value, limit):
        raise UsageError(f"{name}: expected {expected}, got {reprlib.repr(value)}")


def _unlike(kind: str, value: Any, limit: tuple[Any, ...]) -> str | None:
    """What was expected, where `value` is something else."""
    # A bool is an int to Python, but not to whoever wrote one.
    if kind == "bool":
        return None if isinstance(value, bool) else "true or false"
    if kind == "str":
        if any(limit):
            right = isinstance(value, str) and value in limit
            return None if right else f"one of {', '.join(limit)}"
        return None if _is_text(value) else "text in UTF-8, without NUL"
    least, most = limit
    if kind == "int":
        least, most = 1 if least is None else least, MOST_INT if most is None else most
        expected, right = f"an integer from {least} to {most}", type(value) is int
    else:
        least, most = 0 if least is None else least, MOST if most is None else most
        expected, right = f"a number from {least:g} to {most:g}", type(value) in (int, float)
    return None if right and least <= value <= most else expected  # nor is NaN


def _is_text(value: Any) -> bool:
    """Whether it can be written to a file and name one."""
    try:
        return isinstance(value, str) and b"\0" not in value.encode()
    except UnicodeEncodeError:  # a lone surrogate, as of a path that is not UTF-8
        return False
