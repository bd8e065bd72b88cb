"""Names commands in messages as the user starts them."""

import pathlib
import re

# Folder of `launch/`, `configs/` and `benchmarks/` in a wheel; a checkout has them at its top.
INSTALLED = pathlib.Path(__file__).parent.parent / "_commands"
MODULE, SCRIPT = "python -m launch.", "gsdd "

_prefix = SCRIPT if INSTALLED.is_dir() else MODULE


def started_by_script() -> None:
    """Makes messages name commands as `gsdd NAME` from now on."""
    global _prefix
    _prefix = SCRIPT


def command(text: str) -> str:
    """Prefixes `distill --workdir=runs/demo` by `gsdd` or `python -m launch.`."""
    return f"{_prefix}{text}"


def as_started(text: str) -> str:
    """Rewrites commands in a text, given as `launch.distill`, as the user starts them."""
    return text if _prefix == MODULE else re.sub(r"(python -m )?\blaunch\.(?=\w)", _prefix, text)
