"""Version of gsdd-jax: the installed version, and the commit of a checkout."""

import functools
import importlib.metadata
import pathlib
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).parent.parent.parent


def number() -> str:
    """Returns the version number; for a checkout that of its last tag, or the fallback."""
    try:
        fallback = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools_scm"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):  # installed, not a checkout
        return importlib.metadata.version("gsdd-jax")
    tag = _git("describe", "--tags", "--abbrev=0", "--match=v[0-9]*") if _is_checkout() else ""
    return tag.removeprefix("v") or fallback["fallback_version"]


@functools.cache
def version() -> str:
    """Returns the number; for a checkout also its commit, and whether its code has changed.

    Examples: 0.1.0, 0.1.0+g0123456789ab, 0.1.0+g0123456789ab.changed.
    """
    commit = _git("rev-parse", "HEAD") if _is_checkout() else ""
    if not commit:
        return number()
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "gsdd_jax", "xla_ops")
    return f"{number()}+g{commit[:12]}{'.changed' if changed else ''}"


def _is_checkout() -> bool:
    """Returns whether the code is its own repository, not a folder inside another one."""
    top = _git("rev-parse", "--show-toplevel")
    return bool(top) and pathlib.Path(top).resolve() == ROOT.resolve()


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
