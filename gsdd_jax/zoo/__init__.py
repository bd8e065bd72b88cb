"""Distilled sets of this package, by name: `gsdd_jax.load("cifar10-12kB")`; see docs/zoo.md."""

import pathlib
import re

FOLDER = pathlib.Path(__file__).parent


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def find(name: object) -> pathlib.Path | None:
    """Returns the file of a set, or None if there is none of that name."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        return None
    path = FOLDER / f"{name}.safetensors"
    return path if path.is_file() else None
