"""The distilled set where there is no JAX: the same attributes and images, by NumPy."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from gsdd_jax.core.errors import located
from gsdd_jax.formats import base, file, kinds, labels
from gsdd_jax.formats.base import Stored
from gsdd_jax.formats.shapes import Float, Int
from gsdd_jax.formats.usable import Usable


@dataclasses.dataclass(frozen=True)
class DistilledSet(Usable):
    """What distillation produces; as `gsdd_jax.DistilledSet`, but that nothing is differentiated.

    Attributes:
      parameterization: how the images are stored; static settings only.
      params: what is stored, by name; in float32.
      labels, learning_rate, provenance, soft_labels, label_bits: as there.
      num_bytes: of the stored parameters and soft labels, which is what the budget counts.
    """

    parameterization: Stored
    params: dict[str, np.ndarray]
    labels: Int[np.ndarray, "m"]
    learning_rate: float
    provenance: dict[str, Any]
    soft_labels: Float[np.ndarray, "m k"] | None
    label_bits: int
    num_bytes: int

    @property
    def targets(self) -> Int[np.ndarray, "m"] | Float[np.ndarray, "m k"]:
        """What networks learn of each image: its class, or where the labels are soft, the
        probabilities of all classes."""
        return self.labels if self.soft_labels is None else labels.softmax(self.soft_labels)

    def images(
        self, height: int | None = None, width: int | None = None, resample: str = "bilinear"
    ) -> Float[np.ndarray, "m h w c"]:
        """Rendered images in the data set's [0, 1] space, not clipped; as with JAX, to 1e-5."""
        height, width = base.checked_size(self.parameterization, height, width, resample)
        return self.parameterization.decode(self.params, height, width, resample)


def load(path: str | os.PathLike) -> DistilledSet:
    """Reads what `gsdd_jax.save` wrote; raises UsageError as `gsdd_jax.load`."""
    found = file.read(path, lambda values: base.from_settings(values, kinds.BY_NAME))
    with located(path):
        params = found.kind.opened(found.arrays)
    return DistilledSet(
        found.kind,
        params,
        found.labels,
        found.learning_rate,
        found.provenance,
        found.soft_labels,
        found.label_bits,
        found.num_bytes,
    )
