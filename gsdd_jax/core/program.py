"""Names a command in messages the way its reader starts it."""

from __future__ import annotations

import pathlib
import re

# Where a wheel has `launch/`, `configs/` and `benchmarks/`; a checkout has them beside the package.
INSTALLED = pathlib.Path(__file__).parent.parent / "_commands"
MODULE, SCRIPT = "python -m launch.", "gsdd "

_prefix = SCRIPT if INSTALLED.is_dir() else MODULE


def started_by_script() -> None:
    """Names commands as those of `gsdd` from now on."""
    global _prefix
    _prefix = SCRIPT


def command(text: str) -> str:
    """`distill --workdir=runs/demo` as a command: by `gsdd`, or by `python -m launch.`."""
    return f"{_prefix}{text}"


def as_started(text: str) -> str:
    """A text that names commands by their modules, `launch.distill`, with the names to take."""
    return text if _prefix == MODULE else re.sub(r"(python -m )?\blaunch\.(?=\w)", _prefix, text)
