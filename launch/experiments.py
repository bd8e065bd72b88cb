"""Finds the file that `--config` names: a file on disk or a shipped experiment."""

from __future__ import annotations

import difflib
import os
import pathlib
import re

import configs
from gsdd_jax import command
from gsdd_jax.core.errors import UsageError

SHIPPED = pathlib.Path(configs.__file__).parent
# Folders that are searched for a bare name.
ANYWHERE = (pathlib.Path("."), pathlib.Path("configs"))


def find(given: str) -> str:
    """Returns the path of the config `given`: a file, or a name in ./configs or among shipped ones.

    The text after a colon, a variant of the experiment, stays.

    Raises:
      UsageError: if there is none; the message has the nearest names.
    """
    given, colon, variant = given.partition(":")
    if place := _place(given):
        return f"{place}{colon}{variant}"
    known = [*titles(_path(given).parent), *titles(SHIPPED)]
    name = _path(given).name.removesuffix(".py")
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(dict.fromkeys(close))}?" if close else ""
    raise UsageError(f"{given}: no such file; {hint or '--config=configs/ lists the experiments'}")


def folder(given: str) -> pathlib.Path | None:
    """Returns the folder that `given` names, on disk or `configs`; None for an experiment.

    A work directory may have an experiment's name.
    """
    path = _path(given)
    if path.is_dir():
        return None if _place(given) else path
    return SHIPPED if path == pathlib.Path("configs") else None


def _path(given: str) -> pathlib.Path:
    return pathlib.Path(os.path.expanduser(given))


def _place(given: str) -> pathlib.Path | None:
    path = _path(given)
    places = [path]
    if path.parent in ANYWHERE:
        name = path.name.removesuffix(".py")
        places += [folder / f"{name}.py" for folder in (*ANYWHERE, SHIPPED)]
    return next((place for place in places if place.is_file()), None)


def variants(folder: pathlib.Path, name: str) -> list[str]:
    """Returns the variants of an experiment that its docstring lists in a table."""
    text = (folder / f"{name}.py").read_text(encoding="utf-8")
    return re.findall(r"^\| (\w+=\S+) \|", text, re.MULTILINE)


def titles(folder: pathlib.Path) -> dict[str, str]:
    """Returns the first docstring line of a folder's experiments, by name; no file is executed."""
    found = command.titles(folder, "get_config")
    found.pop("common", None)  # the fields of all of them
    return found
