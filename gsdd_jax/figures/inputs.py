"""What figures are made from: distilled sets, work directories, and what was computed before."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gsdd_jax import artifact
from gsdd_jax.artifact import DistilledSet
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.files import read_object, write_json
from gsdd_jax.parameterizations.gaussian import Gaussian, Gaussians
from gsdd_jax.runs import workdir as workdirs


class Kept:
    """JSON values by name, on disk once they are set, for a figure that takes long."""

    def __init__(self, path: str | os.PathLike, identity: Mapping[str, Any]):
        """Raises UsageError for a file that is damaged, or of another `identity`."""
        self._path = pathlib.Path(path)
        identity = json.loads(json.dumps(identity))
        self._values: dict[str, Any] = {"identity": identity, "values": {}}
        if self._path.exists():
            self._values = read_object(self._path, "what a figure was drawn from so far")
            if self._values.get("identity") != identity or "values" not in self._values:
                raise UsageError(
                    f"{self._path}: of other inputs or settings; move it away, or give another "
                    "--out"
                )

    def get(self, name: str) -> Any | None:
        """What is kept under `name`, or None."""
        return self._values["values"].get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._values["values"][name] = value
        write_json(self._path, self._values)


def set_path(path: str | os.PathLike) -> pathlib.Path:
    """The distilled set that is meant by a file or by a work directory."""
    path = pathlib.Path(path)
    return path / "distilled.safetensors" if path.is_dir() else path


def digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def load_gaussians(path: str | os.PathLike) -> DistilledSet:
    """A set of Gaussians, as `as_gaussians` has it.

    Raises UsageError for a file that is no distilled set, or none of Gaussians.
    """
    set_ = artifact.load(path)
    if not isinstance(set_.parameterization, Gaussians):
        raise UsageError(
            f"{path}: expected a set of Gaussians, got one of {set_.parameterization.name}"
        )
    return as_gaussians(set_)


def as_gaussians(set_: DistilledSet) -> DistilledSet:
    """The same images by nine numbers a Gaussian, however its Gaussians are stored.

    Where images have different numbers of them, they are filled up with some of opacity 0.
    """
    kind = set_.parameterization
    offsets = kind.offsets(set_.params)
    if offsets is None:
        return set_
    seen = kind.seen(set_.params)
    bounds = np.asarray(offsets)
    slots = np.arange(np.diff(bounds).max())
    places = bounds[:-1, None] + slots
    there = places < bounds[1:, None]
    params = jax.tree.map(lambda a: a[np.minimum(places, len(a) - 1)], seen)
    params = dataclasses.replace(
        params,
        colors=jnp.where(there[..., None], params.colors, 0.0),  # where opacities are not used
        opacities=jnp.where(there, params.opacities, 0.0),
    )
    shared = {f.name: getattr(kind, f.name) for f in dataclasses.fields(Gaussians)}
    kind = Gaussian(**shared | {"num_gaussians": len(slots)}, bfloat16=False)
    return dataclasses.replace(set_, parameterization=kind, params=params)


def config_of(workdir: str | os.PathLike, data_dir: str | None) -> ConfigDict:
    """The config of a run's directory; `data_dir` replaces where its data lie."""
    path = pathlib.Path(workdir, "config.json")
    values = workdirs.dotted(read_object(path, "a run's config"))
    if data_dir is not None:
        values["data.dir"] = data_dir
    return workdirs.whole(values)


@contextlib.contextmanager
def building_from(where: str | os.PathLike) -> Iterator[None]:
    """Turns what is wrong with a file's config into a UsageError that names the file."""
    with located(where):
        try:
            yield
        except (AttributeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"not a config of this version ({reason})") from None


def names_of(paths: Sequence[str | os.PathLike]) -> list[str]:
    """A short name for each of several inputs: the last part that not all of them share."""
    parts = [pathlib.Path(path).absolute().parts for path in paths]
    parts = [p[:-1] if p[-1] == "distilled.safetensors" else p for p in parts]
    names = [pathlib.Path(p[-1]).stem for p in parts]
    if len(set(names)) < len(names):
        names = ["/".join(p[-2:]) for p in parts]
    return names
