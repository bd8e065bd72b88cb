"""The table of a benchmark: rows are printed and written to a JSON file as they come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax

from gsdd_jax.core.files import write_json


def device() -> str:
    """The device and the version of JAX that figures belong to."""
    first = jax.devices()[0]
    return f"{first.device_kind}, {first.platform}, jax {jax.__version__}"


class Table:
    """Prints a heading at once and a line for each row; writes all rows anew with each.

    Args:
      out: a JSON file, or None.
      columns: (heading, key of a row, format of its value, factor before it is printed); the last
        two may be left out. A value of None is printed as "-".
      about: what the file says beside its "rows"; without it the file is the list of rows.
    """

    def __init__(
        self, out: str | None, columns: Sequence[tuple], about: dict[str, Any] | None = None
    ):
        self.out, self.about, self.rows = out, about, []
        self.columns = [(*column, *("", 1)[len(column) - 2 :]) for column in columns]
        self._print(heading for heading, *_ in self.columns)

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row, which may have more values than are printed."""
        self.rows.append(row)
        values = ((row[key], style, factor) for _, key, style, factor in self.columns)
        self._print(
            "-" if value is None else format(value if factor == 1 else factor * value, style)
            for value, style, factor in values
        )
        if self.out:
            rows = self.rows
            write_json(self.out, rows if self.about is None else self.about | {"rows": rows})

    def _print(self, cells: Iterable[str]) -> None:
        widths = [max(9, len(heading)) for heading, *_ in self.columns]
        print(*map(str.rjust, cells, widths), flush=True)
