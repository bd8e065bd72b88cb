"""Inputs of figures: distilled sets, work directories, and cached results."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from gsdd_jax import parameterizations
from gsdd_jax.core import memory
from gsdd_jax.core.errors import UsageError, located, printable
from gsdd_jax.core.files import open_regular, read_object, write_json
from gsdd_jax.core.trees import dotted
from gsdd_jax.formats import file
from gsdd_jax.formats.base import Format
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.frame_gaussian import FrameGaussian
from gsdd_jax.formats.gaussian import Gaussians
from gsdd_jax.formats.video_gaussian import Moving
from gsdd_jax.parameterizations.base import Parameterization, Params
from gsdd_jax.parameterizations.gaussian import Gaussian
from gsdd_jax.parameterizations.video_gaussian import VideoGaussian
from gsdd_jax.rasterizer.gaussians import fields_of
from gsdd_jax.runs import evaluation
from gsdd_jax.storage import workdir as workdirs

LONGEST = 60  # characters of a name in a table


class Kept:
    """Stores JSON values by name on disk as they are computed, for slow figures."""

    def __init__(self, path: str | os.PathLike, identity: Mapping[str, Any]):
        """Reads existing values. Raises UsageError if damaged or of another `identity`."""
        self._path = pathlib.Path(path)
        identity = json.loads(json.dumps(identity))
        self._values: dict[str, Any] = {"identity": identity, "values": {}}
        if self._path.exists():
            self._values = read_object(self._path, "what a figure was drawn from so far")
            if self._values.get("identity") != identity or "values" not in self._values:
                raise UsageError(
                    f"{self._path}: of other inputs or settings; move it away, or give another "
                    "folder"
                )

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """Returns the value of `name`; computes and saves it if there is none yet."""
        values = self._values["values"]
        if values.get(name) is None:
            values[name] = compute()
            write_json(self._path, self._values)
        return values[name]


def digest(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with open_regular(path, "a distilled set") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def step_of(set_: DistilledSet) -> int:
    """Returns the step of the distillation that a set is of; 0 if its provenance has none."""
    step = set_.provenance.get("step")
    return step if type(step) is int else 0


def load_gaussians(path: str | os.PathLike) -> DistilledSet:
    """Loads a set of Gaussians as 6 + channels numbers each, however they are stored.

    Images with fewer Gaussians are padded with ones of opacity 0. Raises UsageError for a file
    that is no distilled set of Gaussians.
    """
    set_ = file.load(path).without_mixes()
    if set_.format.frames > 1:
        raise UsageError(f"{path}: expected images, got clips of {set_.format.frames} frames")
    if not of_images(set_.format):
        raise UsageError(f"{path}: expected a set of Gaussians, got one of {set_.format.name}")
    with located(path):
        return as_gaussians(set_)


def of_images(kind: Format) -> bool:
    """Returns whether images are sums of 2-D Gaussians that know no time."""
    timeless = isinstance(kind, Gaussians) and not isinstance(kind, Moving | FrameGaussian)
    return timeless and kind.frames == 1


def as_gaussians(set_: DistilledSet) -> DistilledSet:
    """Converts a set of Gaussians, or of clips of these, as `load_gaussians` does."""
    kind = parameterizations.of_format(set_.format)
    if isinstance(kind, Gaussian):
        return set_
    plain = VideoGaussian if isinstance(kind, Moving) else Gaussian
    flat, counts = one_after_the_other(set_)
    most, numbers = max(counts), plain.geometry_numbers + kind.colors
    memory.check(f"{most} Gaussians in each image", 4 * numbers * most * len(counts), 2)
    there = np.arange(most) < np.array(counts)[:, None]

    def filled(name, field):
        images = np.full((*there.shape, *field.shape[1:]), name == "extents", np.float32)
        images[there] = field
        return jnp.asarray(images)

    shared = {f.name: getattr(kind, f.name) for f in dataclasses.fields(Gaussians)}
    kind = plain(**shared | {"num_gaussians": most}, bfloat16=False)
    padded = {name: filled(name, field) for name, field in fields_of(flat).items()}
    return with_params(set_, kind, dataclasses.replace(flat, **padded))


def with_params(set_: DistilledSet, kind: Parameterization, params: Params) -> DistilledSet:
    return dataclasses.replace(
        set_, format=kind, arrays=jax.tree.map(np.asarray, kind.to_arrays(params))
    )


def one_after_the_other(set_: DistilledSet) -> tuple[Any, list[int]]:
    """Returns the stored Gaussians of all images as arrays [n, ...], and the count per image.

    Those of clips are `GaussianClips`.
    """
    kind, params = parameterizations.of(set_)
    stored, offsets = _stored(kind, params)
    fields = {f: np.asarray(a, np.float32) for f, a in fields_of(stored).items()}
    if offsets is None:
        counts = [kind.num_gaussians] * len(fields["means"])
        fields = {f: a.reshape(-1, *a.shape[2:]) for f, a in fields.items()}
    else:
        counts = np.diff(np.asarray(offsets)).tolist()
    return dataclasses.replace(stored, **fields), counts


@functools.partial(jax.jit, static_argnums=0)
def _stored(kind, params):
    return kind.quantized(params), kind.offsets(params)


def config_of(workdir: str | os.PathLike, data_dir: str | None) -> ConfigDict:
    """Returns the config of a run's directory; `data_dir` replaces its data's location."""
    path = pathlib.Path(workdir, "config.json")
    values = dotted(read_object(path, "a run's config"))
    if data_dir is not None:
        values["data.dir"] = data_dir
    return workdirs.whole(values)


@contextlib.contextmanager
def building_from(where: str | os.PathLike) -> Iterator[None]:
    """Turns errors in a file's config into a UsageError that names the file."""
    with located(where):
        try:
            yield
        except (AttributeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"not a config of this version ({reason})") from None


def accuracy(values: Sequence[float] | Float[np.ndarray, "s"]) -> dict[str, float]:
    """Returns the mean and the standard deviation of networks' accuracies, as columns of a CSV."""
    summary = evaluation.summary("test", values)
    return {"accuracy": summary["test_accuracy"], "std": summary["test_std"]}


def labels_of(kinds: Sequence[str], paths: Sequence[str | os.PathLike]) -> list[str]:
    """Returns a label per input: its kind, or the end of its path if two share a kind."""
    return list(kinds) if len(set(kinds)) == len(kinds) else names_of(paths)


def names_of(paths: Sequence[str | os.PathLike]) -> list[str]:
    """Returns a short name per input: the last part of its path, or two if ambiguous."""
    parts = [pathlib.Path(path).absolute().parts for path in paths]
    parts = [p[:-1] if p[-1] == file.NAME else p for p in parts]
    names = [pathlib.Path(p[-1]).stem for p in parts]
    return names if len(set(names)) == len(names) else ["/".join(p[-2:]) for p in parts]


def cells(
    path: str | os.PathLike, table: str, described: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the finished cells of a table that `launch.reproduce` wrote to `path`, as JSON: what
    `described` says of each, its accuracy and deviation. It gets the names of row and column as
    printable texts of at most `LONGEST` characters.

    Raises UsageError, naming the `table`, for another file, or if there are none.
    """
    expected = f"{path}: expected the {table} table's JSON"
    given = read_object(path, "a table").get("cells")
    if not isinstance(given, list):
        raise UsageError(f"{expected}, with a list of cells")
    rows, seen = [], set()
    for number, cell in enumerate(given):
        try:
            names = _names(cell)
            if cell["mean"] is None:
                continue
            of = described(cell | names)
            if (place := tuple(of.items())) in seen:
                raise ValueError(f"the second one of {names['row']}, {names['column']}")
            seen.add(place)
            numbers = {"accuracy": cell["mean"], "std": cell["deviation"]}
            rows.append(of | {name: _percent(value) for name, value in numbers.items()})
        except KeyError as error:
            raise UsageError(f"{expected}; cell {number}: no field {error}") from None
        except (IndexError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{expected}; cell {number}: {error}") from None
    if not rows:
        raise UsageError(f"{path}: no cell of this table was run")
    return rows


def _names(cell: Any) -> dict[str, str]:
    """Returns the printable names of a cell's row and column; raises ValueError for others."""
    if not isinstance(cell, dict):
        raise ValueError(f"expected an object, got {reprlib.repr(cell)}")
    for name in ("row", "column"):
        if not isinstance(cell[name], str):
            raise ValueError(f"{name}: expected a text, got {reprlib.repr(cell[name])}")
    return {name: printable(cell[name])[:LONGEST] for name in ("row", "column")}


def _percent(value: Any) -> float:
    """Returns a number of 0 to 100 as a float, None as 0; raises ValueError for others."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise ValueError(f"expected percent from 0 to 100, got {reprlib.repr(value)}")
    return float(value)
