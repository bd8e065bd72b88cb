"""Report page: renders the sections and writes the file."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import check_ours, open_regular, write_atomically
from gsdd_jax.report import curves, gallery, results, tables
from gsdd_jax.report.source import Run, read_all

FOLDER = pathlib.Path(__file__).parent
NAME = "report.html"  # in a work directory
SITE = "gsdd-jax"  # in the title of every page
_HEAD = 1 << 14  # bytes of a page that include its title


def write(
    workdirs: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    defaults: tables.Defaults,
    per_class: int = 0,
) -> None:
    """Writes one HTML file about the runs of work directories; several are compared.

    Args:
      workdirs: at least one.
      out: the file.
      defaults: defaults of configs.
      per_class: images per class in the file at every step; 0: as many as keep it small.

    Raises:
      UsageError: not a work directory, or as `check_place`. The page tells what a run lacks.
    """
    import jinja2

    check_place(out)
    runs = read_all(list(workdirs))
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(FOLDER),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("template.html").render(
        runs=runs,
        site=SITE,
        config=lambda run: tables.config(run, defaults),
        curves=curves,
        gallery=lambda run: _gallery(run, len(runs), per_class),
        results=results,
        tables=tables,
    )
    # Lone surrogates in JSON are shown escaped.
    write_atomically(out, page.encode(errors="backslashreplace"))


def check_place(out: str | os.PathLike) -> None:
    """Raises UsageError if `out` cannot be written, or is a file other than a report."""
    check_ours(out, "an earlier report", _is_page)


def _is_page(path: pathlib.Path) -> bool:
    with open_regular(path, "a report") as file:
        return f" · {SITE}</title>".encode() in file.read(_HEAD)


def _gallery(run: Run, num_runs: int, per_class: int) -> dict[str, Any] | str:
    """Returns the gallery, or the reason that there is none, such as missing memory."""
    try:
        return gallery.section(run, num_runs, per_class)
    except UsageError as error:
        return str(error)
