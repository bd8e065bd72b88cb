"""Expert trajectories on disk: a folder per expert, an .npy file per epoch, nothing pickled.

`expert_00000/epoch_0003.npy` holds the flat parameters after three epochs. `epochs.json` next to it
holds all that the expert is made of, the SHA-256 of each file, and the final accuracies. A file
counts once it is named there.
"""

import contextlib
import hashlib
import io
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from gsdd_jax.core import program
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import locked, read_object, read_regular, write_atomically, write_json
from gsdd_jax.storage import version

FORMAT = "gsdd-jax expert trajectory 2"
_NPY_HEADER = 128  # bytes before the numbers
_AGAIN = f"run `{program.command('train_experts')}` with this config"

Identity = Mapping[str, Any]
"""What an expert is made of: setting -> JSON value, named as in a config ("network.name").

Among them are "experts.epochs" and "num_parameters", which give a trajectory its shape.
"""


class Trajectory:
    """One expert's parameters after each epoch, the initial ones first.

    After the last epoch `accuracy` is in percent, on the training and the test set; None before.
    """

    def __init__(self, directory: str | os.PathLike, identity: Identity, expert: int):
        """Reads the files present. An unfinished trajectory ends before its first damaged epoch.

        Raises UsageError if the index is damaged, foreign, of another expert or other settings, or
        if other versions began the expert, which would end with other bits.
        """
        self.expert, self.accuracy = expert, None
        self._index = index_of(directory, expert)
        self._size, self._limit = identity["num_parameters"], identity["experts.epochs"] + 1
        self._made_of = {"format": FORMAT, "expert": expert, **identity}
        self._versions = {"gsdd_jax": version.number(), "jax": jax.__version__}
        self._digests: list[str] = []
        if os.path.lexists(self._index):
            self._read()

    @property
    def rows(self) -> int:
        """Number of sets of parameters, the initial one included."""
        return len(self._digests)

    def parameters(self, epoch: int) -> Float32[np.ndarray, "p"]:
        """Returns the flat parameters after `epoch` epochs, without reading others.

        Raises UsageError if they are damaged, IndexError if there are none.
        """
        if not 0 <= epoch < self.rows:
            raise IndexError(f"epoch {epoch}: expected an epoch from 0 to {self.rows - 1}")
        path, size = self._path(epoch), 4 * self._size
        what = f"an expert's parameters; {self._repair()}"
        content = read_regular(path, what, size + _NPY_HEADER)
        if hashlib.sha256(content).hexdigest() == self._digests[epoch] and len(content) >= size:
            row = np.frombuffer(content, "<f4", offset=len(content) - size)
            if np.isfinite(row).all():
                return row
        raise UsageError(f"{path}: the parameters of epoch {epoch} are damaged; {self._repair()}")

    def truncate(self, rows: int) -> None:
        """Forgets everything after the first `rows` sets of parameters."""
        del self._digests[rows:]

    def append(self, parameters: Float32[np.ndarray, "p"]) -> None:
        """Writes the parameters of an epoch to disk before returning.

        Raises ValueError if they are not finite or not as many as the identity says, UsageError if
        they cannot be written.
        """
        if parameters.shape != (self._size,) or not np.isfinite(parameters).all():
            raise ValueError(f"expert {self.expert}: expected {self._size} finite parameters")
        np.save(file := io.BytesIO(), parameters.astype("<f4"))
        with _writing(path := self._path(self.rows)):
            write_atomically(path, file.getvalue())
        self._digests.append(hashlib.sha256(file.getvalue()).hexdigest())
        self._write()

    def finish(self, train_accuracy: float, test_accuracy: float) -> None:
        """Adds the final accuracies; raises UsageError if they cannot be written."""
        self.accuracy = train_accuracy, test_accuracy
        self._write()

    def _path(self, epoch) -> pathlib.Path:
        return self._index.with_name(f"epoch_{epoch:04d}.npy")

    def _repair(self) -> str:
        return f"delete {self._index} and {_AGAIN}"

    def _write(self) -> None:
        index = {"made_of": self._made_of, "versions": self._versions, "accuracy": self.accuracy}
        with _writing(self._index):
            write_json(self._index, {**index, "sha256": self._digests})

    def _read(self) -> None:
        foreign = UsageError(f"{self._index}: not an expert's index; {self._repair()}")
        match read_object(self._index, f"an expert's index, or nothing; {self._repair()}"):
            case {
                "made_of": dict(made_of),
                "versions": dict(versions),
                "accuracy": None | [float(), float()] as accuracy,
                "sha256": list(digests),
            }:
                self._digests, self.accuracy = digests[: self._limit], accuracy
            case _:
                raise foreign
        expected = self._made_of
        if not accuracy:  # a finished trajectory is valid, whichever version made it
            made_of, expected = made_of | versions, expected | self._versions
        for name in dict.fromkeys([*expected, *made_of]):
            if made_of.get(name) != expected.get(name):
                raise UsageError(
                    f"{self._index}: made with {name}={made_of.get(name)!r}, expected "
                    f"{expected.get(name)!r}; give another config.experts.dir, or {self._repair()}"
                )
        if accuracy and len(digests) != self._limit:
            raise foreign
        for epoch in range(0 if accuracy else self.rows):
            try:
                self.parameters(epoch)
            except UsageError:
                return self.truncate(epoch)


class ExpertStore:
    """Trajectories of several finished experts, read at random, never loaded whole."""

    def __init__(self, directory: str | os.PathLike, identity: Identity, num_experts: int):
        """Opens the first `num_experts` experts of a directory; reads only their indices.

        Raises UsageError if one is not finished, or as `Trajectory`.
        """
        self.directory, self.epochs = pathlib.Path(directory), identity["experts.epochs"]
        self.num_parameters = identity["num_parameters"]
        self._experts = [Trajectory(directory, identity, e) for e in range(num_experts)]
        missing = [trajectory.expert for trajectory in self._experts if not trajectory.accuracy]
        if missing:
            raise UsageError(
                f"{directory}: {len(missing)} of {num_experts} experts are missing, the first is "
                f"expert {missing[0]}; {_AGAIN}"
            )

    def __len__(self) -> int:
        return len(self._experts)

    def parameters(self, expert: int, epoch: int) -> Float32[np.ndarray, "p"]:
        """Returns an expert's parameters, as `Trajectory.parameters`."""
        return self._experts[expert].parameters(epoch)

    def accuracies(self) -> Float32[np.ndarray, "2 e"]:
        """Training and test accuracy of every expert after its last epoch, in percent."""
        return np.array([trajectory.accuracy for trajectory in self._experts], np.float32).T


def index_of(directory: str | os.PathLike, expert: int) -> pathlib.Path:
    return pathlib.Path(directory, f"expert_{expert:05d}", "epochs.json")


def is_finished(directory: str | os.PathLike, expert: int) -> bool:
    """Returns whether an expert's index has its accuracies; checks nothing else."""
    with contextlib.suppress(UsageError):
        return bool(read_object(index_of(directory, expert), "an index").get("accuracy"))
    return False


@contextlib.contextmanager
def exclusive(directory: str | os.PathLike) -> Iterator[None]:
    """Makes the directory, keeps other processes from training experts in it, tidies it up.

    Raises UsageError if it cannot be written, or another process has it.
    """
    taken = f"{directory}: another process trains experts here; wait, or give another directory"
    with contextlib.ExitStack() as stack:
        with _writing(directory):
            stack.enter_context(locked(directory, taken))
        # Left by a process that was killed while writing.
        for left_over in pathlib.Path(directory).glob("expert_[0-9]*/.epoch*.*.*"):
            if left_over.is_file():
                left_over.unlink()
        yield


@contextlib.contextmanager
def _writing(path):
    try:
        yield
    except OSError as error:
        reason = f"cannot be written ({error.strerror})"
        raise UsageError(f"{path}: {reason}; free some space or give another directory") from None
