"""Which gsdd-jax this is: the installed version, and the commit of a checkout."""

from __future__ import annotations

import functools
import importlib.metadata
import pathlib
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).parent.parent.parent


def number() -> str:
    """The version alone: of a checkout its last tag's, or the one of before the first tag."""
    try:
        fallback = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools_scm"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):  # installed, not a checkout
        return importlib.metadata.version("gsdd-jax")
    tag = _git("describe", "--tags", "--abbrev=0", "--match=v[0-9]*") if _is_checkout() else ""
    return tag.removeprefix("v") or fallback["fallback_version"]


@functools.cache
def version() -> str:
    """The number; for a checkout also its commit, and whether its code differs from that.

    Such as 0.1.0, 0.1.0+g0123456789ab or 0.1.0+g0123456789ab.changed.
    """
    commit = _git("rev-parse", "HEAD") if _is_checkout() else ""
    if not commit:
        return number()
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "gsdd_jax", "xla_ops")
    return f"{number()}+g{commit[:12]}{'.changed' if changed else ''}"


def _is_checkout() -> bool:
    """Whether this is a repository's own code, and does not merely lie inside another's."""
    top = _git("rev-parse", "--show-toplevel")
    return bool(top) and pathlib.Path(top).resolve() == ROOT.resolve()


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
