"""A run's directory: bound to one config, with the records of its results."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax.core import processes
from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.core.fields import MOST
from gsdd_jax.core.files import check_path, locked, read_object, write_json
from gsdd_jax.core.trees import dotted, flat, unflat

# Fields that may differ between a run and its continuation, or its reader, with their defaults:
# the result does not depend on them.
OPERATIONAL = {
    "mesh.devices": 0,
    "mesh.groups": 0,
    "data.dir": "",
    "data.on_device": "auto",
    "distill.steps_per_call": 1,
    "distill.checkpoint_every": 1,
    "distill.snapshot_every": 0,
    "experts.dir": "",
    "init.dir": "",
    "init.set": "",  # a run's identity has the hash of its content
    "teacher.dir": "",
    "experts.at_once": 1,
}
# Fields of later versions, left out of records at these values: runs of earlier versions go on.
ADDED = {
    "data.classes": "",
    "data.frames": 0,
    "budget.split": "even",
    "labels.mixes": 0,
    "labels.weight_bits": 6,
    "labels.width": 16,
    "labels.top": 10,
}
STEPS = "distill.num_steps"  # may grow: a longer run begins with the steps of a shorter one
EVALUATIONS = "evaluations.json"
FOLDERS = ("checkpoints", "snapshots", "tensorboard")


@contextlib.contextmanager
def prepared(
    workdir: str | os.PathLike, config: ConfigDict, **made_of: Any
) -> Iterator[pathlib.Path]:
    """Makes the directory, binds it to `config` and keeps other processes out of it.

    Binds it to what the run is `made_of`, too: digests of inputs by their name in messages.

    Of several processes that compute together, the first does so for all. Raises UsageError if it
    cannot be written, belongs to another config, or another process runs in it.
    """
    check_path(workdir)
    workdir = pathlib.Path(workdir)
    with processes.held(lambda: _bound(workdir, config, made_of)):
        yield workdir


@contextlib.contextmanager
def _bound(workdir, config, made_of) -> Iterator[None]:
    taken = f"workdir: another process runs in {workdir}; wait for it, or give another directory"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(workdir, taken))
            _bind(workdir, config, made_of)
        except OSError as error:
            raise UsageError(f"workdir: cannot write to {workdir} ({error.strerror})") from None
        yield


def _bind(workdir, config, made_of) -> None:
    path = workdir / "config.json"
    for folder in FOLDERS:
        if (workdir / folder).exists() and not (workdir / folder).is_dir():
            raise UsageError(f"{workdir / folder}: expected a folder of this run, or nothing")
    inputs = workdir / "inputs.json"  # a run of an earlier version has none
    if not path.exists():
        write_json(inputs, dict(made_of))
        write_json(path, json.loads(config.to_json()))
    old, new = (ADDED | of for of in (dotted(read_object(path, "a run's config")), flat(config)))
    numbers = all(type(of.get(STEPS)) is int for of in (old, new))
    grows = numbers and old[STEPS] < new[STEPS]
    free = OPERATIONAL.keys() | ({STEPS} if grows else ())
    # Others follow from the scale and the names.
    decides = lambda field: (field != "scale" and not field.endswith(".name"), field)
    fields = sorted((old.keys() | new.keys()) - free, key=decides)
    compared = {f"config.{field}": (old.get(field), new.get(field)) for field in fields}
    there = read_object(inputs, "a run's inputs") if inputs.exists() else made_of
    compared |= {name: (there.get(name), value) for name, value in made_of.items()}
    changed = [
        f"{n}={before!r}, not {now!r}" for n, (before, now) in compared.items() if before != now
    ]
    if changed:
        more = f", and {counted(len(changed) - 1, 'other value')}" if changed[1:] else ""
        raise UsageError(
            f"workdir: {workdir} holds a run with {changed[0]}{more}; expected the same or another "
            "directory"
        )
    if grows:
        write_json(path, json.loads(unflat(old | {STEPS: new[STEPS]}).to_json()))


def snapshot_path(workdir: pathlib.Path, step: int) -> pathlib.Path:
    return workdir / "snapshots" / f"{step}.safetensors"


def snapshots(workdir: pathlib.Path) -> dict[int, pathlib.Path]:
    paths = workdir.glob("snapshots/*.safetensors")
    # As `snapshot_path` writes a step: int() and isdigit() accept other digits, too.
    found = {int(p.stem): p for p in paths if re.fullmatch("[0-9]{1,18}", p.stem)}
    return dict(sorted(found.items()))


def identity(config: ConfigDict, fingerprint: str, **more: str | None) -> str:
    """Returns a digest of everything that a run's steps depend on: its settings, its data and
    `more` that are not None; not their number."""
    more = {name: value for name, value in more.items() if value is not None}
    fields = decisive(config)
    fields.pop(STEPS, None)
    return digest({"data.fingerprint": fingerprint, **fields, **more})


def digest(fields: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of plain values by name, independent of their order."""
    return hashlib.sha256(json.dumps(dict(fields), sort_keys=True).encode()).hexdigest()


def decisive(config: ConfigDict) -> dict[str, Any]:
    """Returns the settings that a result depends on, flat, without operational ones."""
    added = ADDED.items()
    return {n: v for n, v in flat(config).items() if n not in OPERATIONAL and (n, v) not in added}


def whole(fields: Mapping[str, Any]) -> ConfigDict:
    """Returns the config of a run's recorded `fields`; operational ones default."""
    return unflat(OPERATIONAL | ADDED | dict(fields))


def evaluations(workdir: pathlib.Path, identity: str) -> dict[str, Any]:
    """Returns a run's records by name.

    Raises UsageError if the file is damaged, or belongs to a run with another `identity`.
    """
    path = workdir / EVALUATIONS
    if not path.exists():
        return {}
    values = read_object(path, "a run's evaluations")
    if values.pop("identity", None) != identity:
        raise UsageError(
            f"{path}: of a run with other settings or other data; move it away, or give another "
            "directory"
        )
    for name, record in values.items():
        if not _is_record(record):
            raise UsageError(
                f"{path}: {name!r} is no evaluation; delete the file to evaluate again"
            )
    return values


class Records:
    """Evaluations of a run by name; each is on disk once it is recorded."""

    def __init__(self, workdir: pathlib.Path, identity: str):
        """Reads existing records. Raises UsageError like `evaluations`."""
        self._path, self._identity = workdir / EVALUATIONS, {"identity": identity}
        read = lambda: json.dumps(evaluations(workdir, identity)).encode()
        self._values = json.loads(processes.from_first(read))

    def __setitem__(self, name: str, value: Any) -> None:
        self.replace(self._values | {name: value})

    def replace(self, values: Mapping[str, Any]) -> None:
        """Replaces all records."""
        self._values = dict(values)
        if processes.first():
            write_json(self._path, self._identity | self._values)

    def get(self, name: str) -> Any | None:
        return self._values.get(name)

    def starting_with(self, prefix: str) -> dict[str, Any]:
        return {name: v for name, v in self._values.items() if name.startswith(prefix)}


def _is_record(value) -> bool:
    """Returns whether `value` is an evaluation: {"test": accuracies, "confusion": counts,
    "learning_rate": number}, with "train" and "step" if sets are chosen by it."""
    if not isinstance(value, dict):
        return False
    if value.keys() - {"train", "step"} != {"test", "confusion", "learning_rate"}:
        return False
    rate = value["learning_rate"]
    if type(rate) not in (int, float) or not 0 < rate <= MOST:
        return False
    if ("train" in value) != ("step" in value) or type(value.get("step", 0)) is not int:
        return False
    return are_counts(value["confusion"]) and all(
        are_percentages(value[name]) for name in ("test", "train") if name in value
    )


def are_percentages(values: Any) -> bool:
    if not isinstance(values, list) or not values:
        return False
    return all(type(v) in (int, float) and 0 <= v <= 100 for v in values)


def are_counts(values: Any) -> bool:
    if not isinstance(values, list) or not values:
        return False
    square = all(isinstance(row, list) and len(row) == len(values) for row in values)
    return square and all(type(v) is int and 0 <= v < 2**31 for row in values for v in row)
