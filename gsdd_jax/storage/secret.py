"""Secret random bytes of a run, in its directory only: noise must not follow from public seeds."""

import hashlib
import os
import pathlib

import jax
import numpy as np
from jaxtyping import Array, Key

from gsdd_jax.core import processes
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import read_regular, write_atomically
from gsdd_jax.formats import file

NAME = "secret"
SIZE = 32  # bytes
MADE = file.NAME, "checkpoints/distill", "snapshots"  # by steps that were paid for


def mixed(key: Key[Array, ""], workdir: pathlib.Path, identity: str) -> Key[Array, ""]:
    """Returns a key that follows from `key`, the directory's secret, which is made if missing, and
    the `identity` of the run: noise of other settings or images is other noise.

    Of several processes, the first reads it for all. Raises UsageError for a damaged file, and for
    a missing one beside what steps have made.
    """
    content = processes.from_first(lambda: _secret(workdir / NAME))
    data = np.asarray(jax.random.key_data(key)).tobytes()
    found = hashlib.sha256(content + data + identity.encode()).digest()
    words = np.frombuffer(found, np.uint32)[: jax.random.key_data(key).size]
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))


def _secret(path: pathlib.Path) -> bytes:
    if not os.path.lexists(path):
        if any(os.path.lexists(path.parent / name) for name in MADE):
            raise UsageError(
                f"{path}: expected the secret of the run whose sets are in this directory; without "
                "it more steps cost more than they say: give another directory"
            )
        write_atomically(path, os.urandom(SIZE), mode=0o600)
    content = read_regular(path, "a run's secret", SIZE + 1)
    if len(content) != SIZE:
        raise UsageError(f"{path}: expected a secret of {SIZE} bytes, got {len(content)}")
    return content
