"""Prints the rows of a benchmark as they come, and writes them to a JSON file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import JSON_LIMIT, check_ours, parse_json, read_regular, write_json


def device() -> str:
    """Returns the device and the version of JAX that figures belong to."""
    first = jax.devices()[0]
    return f"{first.device_kind}, {first.platform}, jax {jax.__version__}"


def check_place(out: str | os.PathLike, columns: str) -> None:
    """Raises UsageError where a table of such columns cannot be written, or would replace another
    file than an earlier one."""
    check_ours(out, "an earlier result of this benchmark", lambda path: bool(rows(path, columns)))


def rows(path: str | os.PathLike, columns: str) -> list[dict[str, Any]]:
    """Returns the rows of a file with such columns; none if it is no such table."""
    names = {name for name, _ in _parsed(columns)}
    try:
        found = parse_json(read_regular(path, "a table", JSON_LIMIT))
    except ValueError:
        return []
    found = found.get("rows") if isinstance(found, dict) else found
    is_row = lambda row: isinstance(row, dict) and names <= row.keys()
    return found if isinstance(found, list) and all(map(is_row, found)) else []


def chosen(flag: str, names: Sequence[str], known: Iterable[str]) -> list[str]:
    """Returns the names that a flag gives, by default all. Raises UsageError for others."""
    for name in filter(None, names):
        if name not in known:
            raise UsageError(f"--{flag}: expected some of {','.join(known)}, got {name!r}")
    return list(filter(None, names)) or list(known)


class Table:
    """Prints a heading, then a line per row; rewrites the file with each row.

    Args:
      out: a JSON file, or None.
      columns: keys to print, in order and separated by spaces, each with an optional format after
        a colon: "what seconds:.3f peak_bytes:MiB". MiB formats bytes. None is printed as "-".
      about: fields of the file next to "rows"; without it the file is the list of rows.
    """

    def __init__(self, out: str | None, columns: str, about: dict[str, Any] | None = None):
        self.out, self.about, self.rows = out, about, []
        self.columns = _parsed(columns)
        self._print(name for name, _ in self.columns)

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row."""
        self.rows.append(row)
        self._print(_shown(row[name], style) for name, style in self.columns)
        if self.out:
            rows = self.rows
            write_json(self.out, rows if self.about is None else self.about | {"rows": rows})

    def _print(self, cells: Iterable[str]) -> None:
        widths = [max(10, len(name)) for name, _ in self.columns]
        print(*map(str.rjust, cells, widths), flush=True)


def _parsed(columns: str) -> list[tuple[str, str]]:
    return [column.partition(":")[::2] for column in columns.split()]


def _shown(value: Any, style: str) -> str:
    if value is None:
        return "-"
    return f"{value / 2**20:,.1f}" if style == "MiB" else format(value, style)
