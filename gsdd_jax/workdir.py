"""A run's directory: bound to one config, and where its results are recorded."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax.errors import UsageError
from gsdd_jax.files import write_atomically

# What may differ between a run and its continuation, because the result does not depend on it,
# and what a reader of the result may take instead.
OPERATIONAL = {
    "data.dir": "",
    "distill.steps_per_call": 1,
    "distill.checkpoint_every": 1,
    "experts.dir": "",
    "experts.at_once": 1,
}


def prepare(workdir: str | os.PathLike, config: ConfigDict) -> pathlib.Path:
    """Makes the directory and binds it to `config`; raises UsageError where that cannot be."""
    if not str(workdir):
        raise UsageError("--workdir: expected a directory to write to, got an empty path")
    workdir = pathlib.Path(workdir)
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_atomically(path, (config.to_json(indent=2) + "\n").encode())
        written = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"--workdir: cannot write to {workdir} ({error.strerror})") from None
    except json.JSONDecodeError:
        raise UsageError(f"{path}: not a run's config; expected a new work directory") from None
    old, new = _flat(written), flat(config)
    for field in sorted(old.keys() | new.keys()):
        if field not in OPERATIONAL and old.get(field) != new.get(field):
            raise UsageError(
                f"--workdir: {workdir} holds a run with config.{field}={old.get(field)!r}, not "
                f"{new.get(field)!r}; expected the same config or another directory"
            )
    return workdir


def flat(config: ConfigDict) -> dict[str, Any]:
    """{dotted field: plain value}."""
    return _flat(json.loads(config.to_json()))


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    out = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            out.update(_flat(value, f"{prefix}{name}."))
        else:
            out[prefix + name] = value
    return out


def unflat(fields: Mapping[str, Any]) -> ConfigDict:
    """The inverse of `flat`."""
    config = ConfigDict()
    for name, value in fields.items():
        *parents, last = name.split(".")
        node = config
        for parent in parents:
            if parent not in node:
                node[parent] = ConfigDict()
            node = node[parent]
        node[last] = ConfigDict() if value == {} else value
    return config


def write_json(path: pathlib.Path, value: Any) -> None:
    """Atomically."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


class Records:
    """Evaluations of a run by name, in `evaluations.json`; each is on disk once it is recorded."""

    def __init__(self, workdir: pathlib.Path):
        self._path = workdir / "evaluations.json"
        self._values = json.loads(self._path.read_text()) if self._path.exists() else {}

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[name] = value
        write_json(self._path, self._values)

    def get(self, name: str) -> Any | None:
        """What was recorded under `name`, or None."""
        return self._values.get(name)

    def starting_with(self, prefix: str) -> dict[str, Any]:
        """All records whose name starts with `prefix`."""
        return {name: v for name, v in self._values.items() if name.startswith(prefix)}
