"""Expert trajectories on disk: one safetensors file an expert, memory-mapped, nothing pickled.

A directory holds `expert_00000.safetensors`, `expert_00001.safetensors`, ... An expert that is
still being trained is a `.partial` file: a line of JSON, then one record an epoch.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float32

from gsdd_jax.core import program
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import (
    check_regular,
    locked,
    open_regular,
    parse_json,
    write_atomically,
)
from gsdd_jax.storage import version

FORMAT = "gsdd-jax expert trajectory 1"
_HEADER = "gsdd_jax"  # one metadata entry: safetensors writes several in no fixed order
_LONGEST_HEADER = 1 << 16
_AGAIN = f"run `{program.command('train_experts')}` with this config"
_REPAIR = f"delete it and {_AGAIN}"

Identity = Mapping[str, Any]
"""What an expert is made of: setting -> JSON value, named as in a config ("network.name").

Among them are "experts.epochs" and "num_parameters", which give a trajectory its shape.
"""


@dataclasses.dataclass(frozen=True)
class ExpertStore:
    """Trajectories of several experts, read at random, never loaded whole.

    Attributes:
      directory: of the files.
      epochs: of every expert; a trajectory has one more set of parameters, the initial one.
      num_parameters: of the network.
    """

    directory: pathlib.Path
    epochs: int
    num_parameters: int
    _files: tuple[Any, ...] = dataclasses.field(repr=False)

    @classmethod
    def open(
        cls, directory: str | os.PathLike, identity: Identity, num_experts: int
    ) -> "ExpertStore":
        """The first `num_experts` experts of a directory, their headers checked.

        Raises:
          UsageError: no or too few experts; a file that is truncated, foreign, of another expert
            than its name says, without all epochs, or made with other settings than `identity`.
        """
        directory = pathlib.Path(directory)
        missing = [e for e in range(num_experts) if not file_of(directory, e).is_file()]
        if len(missing) == num_experts:
            raise UsageError(f"{directory}: no experts, expected {num_experts}; {_AGAIN}")
        if missing:
            raise UsageError(
                f"{directory}: {len(missing)} of {num_experts} experts are missing, the first is "
                f"expert {missing[0]}; {_AGAIN}"
            )
        files = tuple(_open(directory, identity, e) for e in range(num_experts))
        return cls(directory, identity["experts.epochs"], identity["num_parameters"], files)

    def __len__(self) -> int:
        return len(self._files)

    def parameters(self, expert: int, epoch: int) -> Float32[np.ndarray, "p"]:
        """The flat parameters of one expert after `epoch` epochs; only they are read.

        Raises:
          UsageError: they are damaged.
          IndexError: `expert` is not in [0, len(self)) or `epoch` not in [0, epochs].
        """
        if not (0 <= expert < len(self) and 0 <= epoch <= self.epochs):
            raise IndexError(
                f"expert {expert}, epoch {epoch}: expected an expert from 0 to {len(self) - 1} "
                f"and an epoch from 0 to {self.epochs}"
            )
        file = self._files[expert]
        row = file.get_slice("trajectory")[epoch]
        if file.get_slice("checksums")[epoch] != _checksum(row) or not np.isfinite(row).all():
            path = file_of(self.directory, expert)
            raise UsageError(f"{path}: the parameters of epoch {epoch} are damaged; {_REPAIR}")
        return row

    def accuracies(self) -> tuple[Float32[np.ndarray, "e"], Float32[np.ndarray, "e"]]:
        """Training and test accuracy of every expert after its last epoch, in percent."""
        return tuple(
            np.array([file.get_tensor(f"{split}_accuracy") for file in self._files])
            for split in ("train", "test")
        )


class Growing:
    """The trajectory of an expert in training: a file to which every epoch is appended.

    An epoch's record is its parameters and their CRC-32. What was being written when the process
    or the machine died is recognised by them, and by its length, and does not count.

    Attributes:
      expert: its index.
      rows: how many sets of parameters are there, the initial one included.
    """

    def __init__(self, directory: str | os.PathLike, identity: Identity, expert: int):
        """Raises UsageError for a file that was begun with other settings, or is none of these."""
        self.expert = expert
        self._directory = pathlib.Path(directory)
        self.path = partial_of(directory, expert)
        self._header = json.dumps(_header(identity, expert)).encode() + b"\n"
        self._identity = identity
        shape = (identity["num_parameters"],)
        self._record = np.dtype([("parameters", "<f4", shape), ("checksum", "<u4")])
        self._limit = identity["experts.epochs"] + 1
        self.rows = self._whole_rows() if self.path.exists() else 0

    def last(self) -> Float32[np.ndarray, "p"]:
        """The newest parameters."""
        return self._records()["parameters"][-1]

    def truncate(self, rows: int) -> None:
        """Forgets everything after the first `rows` sets of parameters."""
        self.rows = min(self.rows, rows)

    def append(self, parameters: Float32[np.ndarray, "p"]) -> None:
        """Adds the parameters of an epoch; they are on disk when this returns.

        Raises:
          ValueError: not the identity's number of parameters, or not finite.
          UsageError: the file cannot be written.
        """
        if (
            parameters.shape != self._record["parameters"].shape
            or not np.isfinite(parameters).all()
        ):
            raise ValueError(
                f"expert {self.expert}: got parameters of shape {parameters.shape}, expected "
                f"{self._record['parameters'].shape}, all finite"
            )
        record = np.array((parameters, _checksum(parameters)), self._record).tobytes()
        with _writing(self.path):
            if self.rows == 0:
                write_atomically(self.path, self._header + record)
            else:
                with open(self.path, "r+b") as file:
                    file.seek(len(self._header) + self.rows * self._record.itemsize)
                    file.truncate()
                    file.write(record)
                    file.flush()
                    os.fsync(file.fileno())
        self.rows += 1

    def finish(self, train_accuracy: float, test_accuracy: float) -> None:
        """Writes the expert's final file, atomically, and deletes this one.

        Raises:
          ValueError: an epoch is missing.
          UsageError: the file cannot be written.
        """
        if self.rows != self._limit:
            raise ValueError(
                f"expert {self.expert}: {self.rows} sets of parameters, expected {self._limit}"
            )
        records = self._records()
        arrays = {
            "trajectory": np.ascontiguousarray(records["parameters"]),
            "checksums": np.ascontiguousarray(records["checksum"]),
            "train_accuracy": np.array(train_accuracy, np.float32),
            "test_accuracy": np.array(test_accuracy, np.float32),
        }
        metadata = {_HEADER: json.dumps(_header(self._identity, self.expert))}
        path = file_of(self._directory, self.expert)
        with _writing(path):
            write_atomically(path, safetensors.numpy.save(arrays, metadata))
            self.path.unlink()

    def _records(self):
        return np.fromfile(self.path, self._record, self.rows, offset=len(self._header))

    def _whole_rows(self) -> int:
        with open_regular(self.path, "an expert in training") as file:
            line = file.readline(_LONGEST_HEADER)
            size = os.fstat(file.fileno()).st_size
        if line != self._header:
            try:
                found = parse_json(line)
            except ValueError:
                found = None
            _check_header(self.path, found, _header(self._identity, self.expert))
            raise UsageError(f"{self.path}: its first line is damaged; {_REPAIR}")
        self.rows = min((size - len(line)) // self._record.itemsize, self._limit)
        for row, record in enumerate(self._records()):
            if record["checksum"] != _checksum(record["parameters"]):
                return row
        return self.rows


def file_of(directory: str | os.PathLike, expert: int) -> pathlib.Path:
    """Returns the path of a finished expert."""
    return pathlib.Path(directory, f"expert_{expert:05d}.safetensors")


def partial_of(directory: str | os.PathLike, expert: int) -> pathlib.Path:
    """Returns the path of an expert in training."""
    return pathlib.Path(directory, f"expert_{expert:05d}.partial")


def is_finished(directory: str | os.PathLike, identity: Identity, expert: int) -> bool:
    """Whether an expert's final file is there.

    Raises:
      UsageError: it is, but is none, or was made with other settings.
    """
    if not file_of(directory, expert).exists():
        return False
    _open(directory, identity, expert)
    return True


@contextlib.contextmanager
def exclusive(directory: str | os.PathLike) -> Iterator[None]:
    """Makes the directory, keeps other processes from training experts in it, tidies it up.

    Raises:
      UsageError: it cannot be written, or another process has it.
    """
    directory = pathlib.Path(directory)
    with contextlib.ExitStack() as stack:
        with _writing(directory):
            taken = (
                f"{directory}: another process is training experts here; wait for it, or give "
                "another config.experts.dir"
            )
            stack.enter_context(locked(directory, taken))
        # Of a process that was killed while it wrote.
        for left_over in directory.glob(".expert_[0-9]*.*.*"):
            if left_over.is_file():
                left_over.unlink()
        yield


@contextlib.contextmanager
def _writing(path):
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written ({error.strerror}); make room or give another "
            "config.experts.dir"
        ) from None


def _checksum(parameters) -> int:
    return zlib.crc32(np.ascontiguousarray(parameters, "<f4"))


def _header(identity, expert) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "expert": expert,
        "identity": dict(identity),
        "versions": {"gsdd_jax": version.number(), "jax": jax.__version__},
    }


def _open(directory, identity, expert):
    """The opened file of an expert; only its header is read."""
    path = file_of(directory, expert)
    check_regular(path, "an expert")
    try:
        file = safetensors.safe_open(path, framework="numpy")
        header = parse_json((file.metadata() or {}).get(_HEADER, "null"))
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise UsageError(
            f"{path}: truncated, or no safetensors file ({error}); {_REPAIR}"
        ) from None
    expected = _header(identity, expert)
    # A finished trajectory is what it is, whichever version made it.
    _check_header(path, header, expected, with_versions=False)
    epochs, size = identity["experts.epochs"], identity["num_parameters"]
    shapes = {
        "trajectory": ("F32", [epochs + 1, size]),
        "checksums": ("U32", [epochs + 1]),
        "train_accuracy": ("F32", []),
        "test_accuracy": ("F32", []),
    }
    names = set(file.keys())
    for name, (dtype, shape) in shapes.items():
        found = "none"
        if name in names:
            view = file.get_slice(name)
            found = f"{view.get_dtype()} {view.get_shape()}"
        if found != f"{dtype} {shape}":
            raise UsageError(
                f"{path}: {name} is {found}, expected {dtype} {shape} for {epochs} epochs of "
                f"{size} parameters; {_REPAIR}"
            )
    return file


def _check_header(path, found, expected, with_versions=True) -> None:
    """Raises UsageError where a file's header is not the expected one, saying in what."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UsageError(f"{path}: not an expert's trajectory ({FORMAT}); {_REPAIR}")
    if found.get("expert") != expected["expert"]:
        raise UsageError(
            f"{path}: holds expert {found.get('expert')}, expected {expected['expert']} by its "
            f"name; give it its own name back, or {_REPAIR}"
        )
    for part in ("identity", "versions") if with_versions else ("identity",):
        old, new = found.get(part), expected[part]
        old = old if isinstance(old, dict) else {}
        for name in dict.fromkeys([*new, *old]):
            if old.get(name) != new.get(name):
                raise UsageError(
                    f"{path}: made with {name}={old.get(name)!r}, expected {new.get(name)!r}; give "
                    f"these experts another config.experts.dir, or {_REPAIR}"
                )
