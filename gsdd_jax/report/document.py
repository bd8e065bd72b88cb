"""Report page: renders the sections and writes the file."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax.core import processes
from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import check_ours, open_regular, write_atomically
from gsdd_jax.data import Dataset
from gsdd_jax.report import animations, curves, gallery, results, tables
from gsdd_jax.report.source import Run, read_all
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.progress import Display

FOLDER = pathlib.Path(__file__).parent
NAME = "report.html"  # in a work directory
SITE = "gsdd-jax"  # in the title of every page
_HEAD = 1 << 14  # bytes of a page that include its title


def write(
    workdirs: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    per_class: int = 0,
) -> None:
    """Writes one HTML file about the runs of work directories; several are compared.

    The page tells what a run lacks. `per_class` is the number of images per class in the file at
    every step; 0: as many as keep it small. Raises UsageError for a folder that is no work
    directory, or as `check_place`.
    """
    import jinja2

    check_place(out)
    runs = read_all(list(workdirs))
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader(FOLDER), lstrip_blocks=True,
        trim_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    page = environment.get_template("template.html").render(
        runs=runs, site=SITE, curves=curves, results=results, tables=tables,
        gallery=lambda run: _gallery(run, len(runs), per_class),
    )  # fmt: skip
    # Lone surrogates in JSON are shown escaped.
    write_atomically(out, page.encode(errors="backslashreplace"))


@checked
def distill_with_report(
    config: ConfigDict,
    workdir: str | os.PathLike,
    display: Display | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Runs an experiment like `gsdd_jax.runs.distill.distill_to`, and writes its report.

    Raises like it, and if the directory has a file of the report's name that is none.
    """
    page = pathlib.Path(workdir, NAME)
    # A missing work directory is checked when it is made.
    processes.from_first(lambda: (os.path.lexists(page) and check_place(page)) or b"")
    result = distill_to(config, workdir, display, dataset)
    if processes.first():
        write([workdir], page)
    return result


def check_place(out: str | os.PathLike) -> None:
    """Raises UsageError if `out` cannot be written, or is a file other than a report."""
    check_ours(out, "an earlier report", _is_page)


def _is_page(path: pathlib.Path) -> bool:
    with open_regular(path, "a report") as file:
        return f" · {SITE}</title>".encode() in file.read(_HEAD)


def _gallery(run: Run, num_runs: int, per_class: int) -> dict[str, Any] | str:
    """Returns the gallery, or the reason that there is none, such as missing memory."""
    try:
        shown = gallery.section(run, num_runs, per_class)
        return shown | {"animations": animations.section(run, num_runs)}
    except UsageError as error:
        return str(error)
