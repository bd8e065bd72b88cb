"""Command `gsdd`: runs the modules of `launch/`, from a checkout or an installation.

    gsdd distill --config=demo --workdir=runs/demo

is `python -m launch.distill --config=demo --workdir=runs/demo`. A wheel has `launch/`, `configs/`
and `benchmarks/` in `gsdd_jax/_commands`, because their names are too common for site-packages.
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

gsdd COMMAND --help describes a command. `python -m gsdd_jax` shows what is installed."""


def main() -> None:
    """Runs the command named by the first argument with the other arguments."""
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
    sys.argv = ["-m", *arguments]  # as `python -m` while it looks for the module
    runpy.run_module(f"launch.{name}", run_name="__main__", alter_sys=True)


def commands() -> dict[str, str]:
    """Returns the first docstring line of each command, by name."""
    return titles(ROOT / "launch", "main")


def titles(folder: pathlib.Path, function: str) -> dict[str, str]:
    """Returns the first docstring line of each module that defines `function`; runs none."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):  # reported only if it is run
            continue
        if any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found
