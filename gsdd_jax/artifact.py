"""A distilled set as a file: parameters, labels, learning rate, provenance; nothing pickled."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gsdd_jax import parameterizations
from gsdd_jax.errors import UsageError
from gsdd_jax.files import write_atomically
from gsdd_jax.parameterizations.base import Parameterization, Params

FORMAT = "gsdd-jax distilled set 1"
HEADER = "gsdd_jax"  # one metadata entry: safetensors writes several in no fixed order
LABELS, LEARNING_RATE = "labels", "learning_rate"


@dataclasses.dataclass(frozen=True)
class DistilledSet:
    """What distillation produces, independent of the data set it came from.

    Attributes:
      parameterization: how the images are stored; static settings only.
      params: the stored values, in float32.
      labels: the class of each image.
      learning_rate: of the student, for training on this set.
      provenance: plain JSON values: how the set was made (config, versions, step, data).
    """

    parameterization: Parameterization
    params: Params
    labels: Int[np.ndarray, "m"]
    learning_rate: float
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def images(self) -> Float[Array, "m h w c"]:
        """Rendered images in the data set's [0, 1] space, not clipped."""
        return _render(self.parameterization, self.params)

    @property
    def num_bytes(self) -> int:
        """Of the stored parameters, which is what the budget counts (labels are free)."""
        arrays = self.parameterization.to_arrays(self.params)
        return sum(a.size * a.dtype.itemsize for a in arrays.values())


@functools.partial(jax.jit, static_argnums=0)
def _render(parameterization, params):
    return parameterization.render(params)


def save(path: str | os.PathLike, distilled: DistilledSet) -> None:
    """Writes one `.safetensors` file, atomically: a reader sees the old file or the new one."""
    import safetensors.flax

    arrays = distilled.parameterization.to_arrays(distilled.params)
    arrays[LABELS] = jnp.asarray(distilled.labels, jnp.int32)
    arrays[LEARNING_RATE] = jnp.float32(distilled.learning_rate)
    header = {
        "format": FORMAT,
        "parameterization": parameterizations.settings(distilled.parameterization),
        "provenance": distilled.provenance,
    }
    metadata = {HEADER: json.dumps(header, sort_keys=True)}
    write_atomically(path, safetensors.flax.save(arrays, metadata))


def load(path: str | os.PathLike) -> DistilledSet:
    """Reads what `save` wrote. Raises UsageError for a missing, truncated or foreign file."""
    import safetensors
    import safetensors.flax

    path = pathlib.Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected a distilled set (.safetensors)")
    try:
        with safetensors.safe_open(path, framework="flax") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: not a readable safetensors file ({error})") from None
    if header.get("format") != FORMAT:
        raise UsageError(f"{path}: not a distilled set; expected a file written by gsdd_jax.save")
    parameterization = parameterizations.from_settings(header["parameterization"])
    try:
        labels = np.asarray(arrays.pop(LABELS))
        learning_rate = float(arrays.pop(LEARNING_RATE))
        params = parameterization.from_arrays(arrays)
    except KeyError as error:
        raise UsageError(f"{path}: the array {error} is missing from this distilled set") from None
    return DistilledSet(parameterization, params, labels, learning_rate, header["provenance"])
