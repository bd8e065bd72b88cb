"""Dataclass fields set from outside: one declaration of default, range and help."""

import dataclasses
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gsdd_jax.core.errors import UsageError

MOST_INT = 2**31 - 1  # JAX's integers have 32 bits
SEED = (0, 2**32 - 1)  # and so have seeds
LEAST, MOST = 1e-30, 1e19  # positive numbers: in float32, with a finite square
POSITIVE = (LEAST, MOST)


class Shrink(NamedTuple):
    """Shrinking of a field by `config.scale`."""

    power: float  # the field is multiplied by scale ** power
    least: int


@dataclasses.dataclass(frozen=True)
class Meaning:
    """Declaration of a field, except its name, type and default."""

    help: str = ""  # one line
    least: int | float | None = None  # None: 1 for an integer, 0 for a number
    most: int | float | None = None  # None: `MOST_INT` or `MOST`
    choices: tuple[str, ...] = ()  # valid texts; empty: any
    automatic: bool = False  # whether 0 stands for a value that suits the data set
    shrink: Shrink | None = None


def field(
    default: Any,
    help: str,
    least: int | float | None = None,
    most: int | float | None = None,
    **more: Any,
) -> Any:
    """Declares a dataclass field with its `Meaning`; `...` as default makes it required."""
    metadata = {"meaning": Meaning(help, least, most, **more)}
    if default is ...:
        return dataclasses.field(metadata=metadata)
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def meaning(of: dataclasses.Field) -> Meaning:
    """Returns the meaning of a field, empty if undeclared."""
    return of.metadata.get("meaning", Meaning())


def options(kind: type) -> dict[str, dataclasses.Field]:
    """Returns the fields of a component that a config may set, without `kind.derived`."""
    return {f.name: f for f in dataclasses.fields(kind) if f.name not in kind.derived}


def defaults(kind: type) -> dict[str, Any]:
    """Returns the default of each option that has one."""
    of = {name: f.default for name, f in options(kind).items()}
    return {name: value for name, value in of.items() if value is not dataclasses.MISSING}


def check_options(kind: type, values: Mapping[str, Any], where: str) -> type:
    """Returns the class that the options choose: `kind`, or a variant of it.

    Raises UsageError for an unknown option, or a value out of its range.
    """
    if variant := getattr(kind, "variant", None):
        kind = variant(values)
    known = options(kind)
    if unknown := sorted(set(values) - set(known)):
        raise UsageError(
            f"{where}: unknown option {', '.join(map(reprlib.repr, unknown))}; "
            f"{kind.name} has {', '.join(sorted(known)) or 'none'}"
        )
    check_values(known.values(), values, f"{where}.")
    return kind


def check_values(known: Iterable[dataclasses.Field], values: Mapping[str, Any], where: str) -> None:
    """Raises UsageError, naming the field, for the first value of a wrong type or range.

    Without limits integers are from 1 to `MOST_INT`, numbers from 0 to `MOST`, texts any.
    """
    for of in known:
        if of.name in values:
            check(of, values[of.name], f"{where}{of.name}", automatic=True)


def check(of: dataclasses.Field, value: Any, name: str, automatic: bool = False) -> None:
    """Raises UsageError, naming the field, for a value of a wrong type or range.

    `automatic` permits 0 where the field is automatic.
    """
    said = meaning(of)
    kind = of.type if isinstance(of.type, str) else of.type.__name__
    limit = said.choices if said.choices else (said.least, said.most)
    check_value(name, kind, value, limit, automatic and said.automatic)


def check_value(
    name: str,
    kind: str,
    value: Any,
    limit: tuple[Any, ...] = (None, None),
    automatic: bool = False,
) -> None:
    """Raises UsageError, naming the field, for a value of a wrong kind or beyond its limit.

    Kinds: "bool", "int", "float", "str". Limits: least and largest number, or all valid texts.
    `automatic` permits the number 0, too.
    """
    expected = _unlike(kind, value, limit)
    if not expected or (automatic and not isinstance(value, bool) and value == 0):
        return
    expected = f"0 (automatic) or {expected}" if automatic else expected
    raise UsageError(f"{name}: expected {expected}, got {reprlib.repr(value)}")


def listed(name: str, text: str) -> list[str]:
    """Returns the entries of a comma-separated text; raises UsageError for empty or equal ones."""
    entries = [entry.strip() for entry in text.split(",")] if text.strip() else []
    for place, entry in enumerate(entries):
        if not entry or entry in entries[:place]:
            wrong = f"{reprlib.repr(entry)} twice" if entry else "an empty one"
            raise UsageError(f"{name}: expected different entries, comma-separated, got {wrong}")
    return entries


def _unlike(kind: str, value: Any, limit: tuple[Any, ...]) -> str | None:
    """Returns the expectation as text if `value` does not meet it, else nothing."""
    # A bool is an int in Python, but not in a config.
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
    return None if right and least <= value <= most else expected  # False for NaN


def _is_text(value: Any) -> bool:
    """Returns whether a text can be written to a file and used as a file name."""
    try:
        return isinstance(value, str) and b"\0" not in value.encode()
    except UnicodeEncodeError:  # a lone surrogate, from a path that is not UTF-8
        return False
