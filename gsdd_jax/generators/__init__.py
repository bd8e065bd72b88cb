"""Pretrained generators of images, one file each, found by name; their weights are in files.

A file of weights is untrusted: arrays of float32 and the settings of a generator of this package.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gsdd_jax.core import kinds, memory
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.fields import check_values
from gsdd_jax.core.files import check_ours, check_regular, write_atomically
from gsdd_jax.formats import file
from gsdd_jax.generators.base import Generator

VARIABLE = "GSDD_GENERATORS"  # files of weights, separated as in PATH
HEADER = "gsdd_jax_generator"  # the only metadata entry of a file
WHAT = "weights of a generator, a .safetensors file"
_COPIES = 3  # memory of reading, relative to the file


class Trained(NamedTuple):
    """A generator, its weights, and the SHA-256 and bytes of their file."""

    generator: Generator
    weights: dict[str, np.ndarray]
    sha256: str
    num_bytes: int


def known() -> dict[str, type[Generator]]:
    return kinds.known(__name__, Generator)


def save(path: str | os.PathLike, generator: Generator, weights: Mapping[str, Any]) -> None:
    """Writes a generator's weights as one `.safetensors` file, atomically.

    Raises UsageError for weights that `load` would refuse, and if `path` is anything but weights to
    replace.
    """
    import safetensors.numpy

    check_place(path)
    path = os.path.expanduser(path)
    arrays = {name: np.array(array, np.float32, order="C") for name, array in weights.items()}
    with located(path):
        _check_shapes(generator, {name: ("F32", array.shape) for name, array in arrays.items()})
        _check_finite(arrays)
    settings = {"name": generator.name, **dataclasses.asdict(generator)}
    write_atomically(path, safetensors.numpy.save(arrays, {HEADER: json.dumps(settings)}))


def check_place(path: str | os.PathLike) -> None:
    """Raises UsageError if `path` cannot be written, or is anything but weights to replace."""
    check_ours(os.path.expanduser(path), WHAT, lambda path: HEADER in file.metadata(path))


def load(path: str | os.PathLike) -> Trained:
    """Reads a file of `save`.

    Raises UsageError, naming the file, if it is no such file, if its settings are invalid, or if an
    array has another shape or a number that is not finite.
    """
    path = pathlib.Path(os.path.expanduser(path))
    check_regular(path, WHAT)
    state = path.stat()
    return _loaded(path, state.st_mtime_ns, state.st_size, state.st_ino)


def given() -> list[pathlib.Path]:
    """Returns the files that the environment variable names."""
    return [pathlib.Path(p) for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]


def only() -> Trained:
    """Reads the only file that the environment variable names; raises UsageError for others."""
    paths = given()
    if len(paths) != 1:
        raise UsageError(
            f"generator: expected the path of one file of weights in {VARIABLE}, or weights=SHA-256"
            f" of one of them, got {len(paths)} paths"
        )
    return load(paths[0])


def find(sha256: str) -> Trained:
    """Returns weights by the SHA-256 of their file, one of those that the variable names.

    Files that are no weights are skipped. Raises UsageError if there is none; and for a text that
    is no SHA-256, since a set may hold any, before it reads a file.
    """
    if not re.fullmatch("[0-9a-f]{64}", sha256, re.ASCII):
        raise UsageError(
            "generator: weights: expected a SHA-256, 64 of 0123456789abcdef, got "
            f"{reprlib.repr(sha256)}"
        )
    skipped = []
    for path in given():
        try:
            if (found := load(path)).sha256 == sha256:
                return found
        except UsageError as error:
            skipped.append(str(error))
    more = f"; skipped: {'; '.join(skipped)}" if skipped else ""
    raise UsageError(
        f"generator: expected the file of weights with SHA-256 {sha256} among the paths in "
        f"{VARIABLE}, which names {len(given())}{more}"
    )


@functools.lru_cache(maxsize=4)
def _loaded(path: pathlib.Path, *state: int) -> Trained:
    import safetensors

    del state
    with located(path):
        memory.check("its weights", path.stat().st_size, _COPIES)
        content = path.read_bytes()
        try:
            with safetensors.safe_open(path, framework="numpy") as weights:
                header = (weights.metadata() or {}).get(HEADER, "null")
                slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
                shapes = {n: (s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}
            generator = _parsed(header)
            _check_shapes(generator, shapes)
            arrays = {
                name: np.frombuffer(found["data"], "<f4").reshape(found["shape"])
                for name, found in safetensors.deserialize(content)
            }
        except (safetensors.SafetensorError, OSError) as error:
            raise UsageError(f"expected {WHAT} ({' '.join(str(error).split())})") from None
        _check_finite(arrays)
    return Trained(generator, arrays, hashlib.sha256(content).hexdigest(), len(content))


def _parsed(text: str) -> Generator:
    """Returns the generator of untrusted settings."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UsageError(f"expected {WHAT}, with the metadata {HEADER}")
    kind = kinds.named(__name__, Generator, values.pop("name", None), "name")
    fields = dataclasses.fields(kind)
    names = [of.name for of in fields]
    if sorted(values) != sorted(names):
        raise UsageError(f"{HEADER}: expected {', '.join(names)}, got {', '.join(values)[:200]}")
    check_values(fields, values, f"generator {kind.name}: ")
    return kind(**values)


def _check_shapes(generator: Generator, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Raises UsageError for arrays of other names, types or shapes."""
    expected = {name: ("F32", tuple(shape)) for name, shape in generator.weight_shapes().items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UsageError(
                f"{name[:200]!r}: expected {expected.get(name, 'no such array')}, as generator "
                f"{generator.name} has, got {found.get(name, 'none')}"
            )


def _check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises UsageError for numbers that are not finite."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UsageError(f"{name!r}: expected finite numbers, got others")
