"""Finds undefined names.

    python tools/lint_names.py

ruff takes the shapes of jaxtyping, as in Float[Array, "m h w c"], for annotations in quotes, and
their axes for names (F821), so pyproject.toml leaves that rule out. This runs it and leaves out
what it finds in quotes within a subscript.
"""

import ast
import functools
import json
import pathlib
import subprocess
import sys

Place = tuple[int, int]  # line and column, from 1, in characters


def undefined(paths: list[str]) -> list[str]:
    """Returns a line for each undefined name in files and folders."""
    command = ["ruff", "check", "--select=F821", "--output-format=json", *paths]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)
    lines = []
    for found in json.loads(done.stdout):
        path, at = found["filename"], (found["location"]["row"], found["location"]["column"])
        if not any(start <= at < end for start, end in _shapes(path)):
            lines.append(f"{path}:{at[0]}:{at[1]}: {found['message']}")
    return lines


@functools.cache
def _shapes(path: str) -> list[tuple[Place, Place]]:
    """Returns the ranges of texts in subscripts of a module."""
    if not path.endswith(".py"):  # a notebook
        return []
    source = pathlib.Path(path).read_text(encoding="utf-8")
    lines = source.splitlines()
    place = lambda row, offset: (row, len(lines[row - 1].encode()[:offset].decode()) + 1)
    subscripts = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Subscript)]
    return [
        (place(text.lineno, text.col_offset), place(text.end_lineno, text.end_col_offset))
        for subscript in subscripts
        for text in ast.walk(subscript.slice)
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
    ]


if __name__ == "__main__":
    found = undefined(sys.argv[1:] or ["."])
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
