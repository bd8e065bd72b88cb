"""Distilled sets of this package, by name: `gsdd_jax.load("cifar10-12kB")`; see docs/zoo.md."""

import os
import pathlib

FOLDER = pathlib.Path(__file__).parent


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def find(name: str | os.PathLike) -> pathlib.Path | None:
    """Returns the file of a set, or None if there is none of that name."""
    name = os.fspath(name)
    return FOLDER / f"{name}.safetensors" if name in names() else None
