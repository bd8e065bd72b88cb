"""The command `gsdd`: starts the modules of `launch/`, in a checkout and where it is installed.

    gsdd distill --config=demo --workdir=runs/demo

is `python -m launch.distill --config=demo --workdir=runs/demo`. A wheel has `launch/`, `configs/`
and `benchmarks/` in `gsdd_jax/_commands`, for their names are too common for site-packages.
"""

from __future__ import annotations

import ast
import difflib
import pathlib
import runpy
import sys

from gsdd_jax.core import program
from gsdd_jax.core.program import INSTALLED

PACKAGE = pathlib.Path(__file__).parent
ROOT = INSTALLED if INSTALLED.is_dir() else PACKAGE.parent
USAGE = """usage: gsdd COMMAND --flag=value ...

{commands}

gsdd COMMAND --help says more of one, `python -m gsdd_jax` what is installed."""


def main() -> None:
    """Runs the command that the first argument names, with the others."""
    known = commands()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "-help", "--help", "-helpfull", "--helpfull"):
        width = max(map(len, known))
        print(USAGE.format(commands="\n".join(f"  {n:{width}}  {t}" for n, t in known.items())))
        return
    if name == "--version":
        from gsdd_jax.storage.version import version

        print(version())
        return
    name = name.replace("-", "_")
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else ""
        print(f"error: gsdd: expected one of {', '.join(known)}, got {name}{hint}", file=sys.stderr)
        sys.exit(2)
    program.started_by_script()
    sys.path.insert(0, str(ROOT))
    sys.argv = ["-m", *arguments]  # as Python has it while it looks for the module of `-m`
    runpy.run_module(f"launch.{name}", run_name="__main__", alter_sys=True)


def commands() -> dict[str, str]:
    """The first line of each module of `launch/` that has a `main`, by its name."""
    return titles(ROOT / "launch", "main")


def titles(folder: pathlib.Path, function: str) -> dict[str, str]:
    """The first line of each module in a folder that defines `function`, by its name; none is run,
    and one that is no Python is passed over."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):  # not ours to judge unless it is asked for
            continue
        if any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found
