"""Tests the code version that a distilled set records."""

import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
SHOW = "from gsdd_jax.storage import version; print(version.version())"


def git(folder, *arguments):
    settings = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *settings, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def shown(folder):
    # Without site-packages, to ignore an installation.
    command = [sys.executable, "-S", "-c", SHOW]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_a_checkout_names_its_commit(tmp_path):
    (tmp_path / "gsdd_jax" / "storage").mkdir(parents=True)
    for name in ("__init__.py", "storage/__init__.py", "storage/version.py"):
        shutil.copy(ROOT / "gsdd_jax" / name, tmp_path / "gsdd_jax" / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    number = re.search(r'^fallback_version = "(.*?)"', (ROOT / "pyproject.toml").read_text(), re.M)[
        1
    ]
    assert shown(tmp_path) == number  # files without a repository
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert shown(tmp_path) == f"{number}+g{commit}"
    git(tmp_path, "tag", "v12.3.4")
    assert shown(tmp_path) == f"12.3.4+g{commit}"
    git(tmp_path, "tag", "-d", "v12.3.4")
    with open(tmp_path / "gsdd_jax" / "__init__.py", "a") as file:
        file.write("# changed\n")
    assert shown(tmp_path) == f"{number}+g{commit}.changed"
    # Inside a foreign repository, its commit is not used.
    inner = tmp_path / "inner"
    shutil.copytree(tmp_path / "gsdd_jax", inner / "gsdd_jax")
    shutil.copy(ROOT / "pyproject.toml", inner)
    assert shown(inner) == number
