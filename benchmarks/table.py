"""The table of a benchmark: rows are printed and written to a JSON file as they come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax

from gsdd_jax.core.files import write_json


def device() -> str:
    """Returns the device and the version of JAX that figures belong to."""
    first = jax.devices()[0]
    return f"{first.device_kind}, {first.platform}, jax {jax.__version__}"


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
        self.columns = [column.partition(":")[::2] for column in columns.split()]
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


def _shown(value: Any, style: str) -> str:
    if value is None:
        return "-"
    return f"{value / 2**20:,.1f}" if style == "MiB" else format(value, style)
