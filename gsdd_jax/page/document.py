"""The page: its parts put together, and written."""

from __future__ import annotations

import os
import pathlib
import string
from collections.abc import Sequence

from gsdd_jax.core.files import write_atomically
from gsdd_jax.page import accuracy, comparison, curves, gallery, settings, storage
from gsdd_jax.page.markup import Markup, element, joined
from gsdd_jax.page.settings import Defaults
from gsdd_jax.page.source import Run, read_all

FOLDER = pathlib.Path(__file__).parent
NAME = "report.html"  # in a work directory


def write(
    workdirs: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    defaults: Defaults,
    per_class: int = 0,
) -> None:
    """Writes one HTML file about the runs of work directories, beside each other if several.

    Args:
      workdirs: at least one.
      out: the file.
      defaults: of configs.
      per_class: images a class in the file at every step; 0: as many as keep it small.

    Raises:
      UsageError: for a directory that is no work directory. Whatever one lacks is said in the page.
    """
    runs = read_all(list(workdirs))
    write_atomically(out, page(runs, defaults, per_class).encode())


def page(runs: Sequence[Run], defaults: Defaults, per_class: int = 0) -> str:
    """The HTML."""
    if len(runs) == 1:
        (run,) = runs
        title, subtitle = run.name, comparison.described(run)
        content = _run(run, 1, per_class, defaults, "run")
    else:
        title, subtitle = f"{len(runs)} runs", ", ".join(run.name for run in runs)
        content = [_section(*part) for part in comparison.sections(runs)]
        for i, run in enumerate(runs):
            head = element("span", run.name, element("small", comparison.described(run)))
            body = _run(run, len(runs), per_class, defaults, f"run{i}")
            content.append(
                element("details", element("summary", head), *body, class_="run", open=i == 0)
            )
    parts = {n: (FOLDER / n).read_text() for n in ("style.css", "script.js", "template.html")}
    return string.Template(parts["template.html"]).substitute(
        title=joined([title]),
        subtitle=joined([subtitle]),
        style=parts["style.css"],
        script=parts["script.js"],
        content=joined(content),
    )


def _run(
    run: Run, num_runs: int, per_class: int, defaults: Defaults, prefix: str
) -> list[Markup | None]:
    if run.last is None:
        images = [element("p", run.missing["sets"], class_="note")]
    else:
        share = gallery.share(run, num_runs, per_class)
        images = gallery.section(run, share, prefix)
    parts = [
        ("Accuracy", accuracy.section(run), None),
        ("Curves", curves.section([run]), None),
        ("Images", images, "gallery"),
        ("Bytes", storage.section(run), None),
        ("Config", settings.section(run, defaults), None),
        ("Provenance", settings.provenance(run), None),
    ]
    return [_section(heading, content, class_) for heading, content, class_ in parts]


def _section(heading: str, content: Sequence[Markup | None], class_: str | None = None) -> Markup:
    return element("section", element("h2", heading), *content, class_=class_)
