"""A distilled set as a file: parameters, labels, learning rate, provenance; nothing pickled.

Soft labels are codes of a few bits, packed; the description says of how many. What of a file is
believed is in `portable.file`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from gsdd_jax import data, parameterizations
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.files import write_atomically
from gsdd_jax.data import transforms
from gsdd_jax.parameterizations.base import Parameterization, Params
from gsdd_jax.portable import base, file, labels
from gsdd_jax.portable import transforms as portable
from gsdd_jax.portable.base import Stored
from gsdd_jax.portable.file import DIGESTS, FORMAT, HEADER, PARAMETERIZATION, PROVENANCE
from gsdd_jax.portable.labels import LABEL_BITS, SOFT_LABELS
from gsdd_jax.portable.usable import Usable


@dataclasses.dataclass(frozen=True)
class DistilledSet(Usable):
    """What distillation produces, independent of the data set it came from.

    Attributes:
      parameterization: how the images are stored; static settings only.
      params: the stored values, in float32.
      labels: the class of each image; each of 0 to K - 1 as often as the parameterization's
        `images_per_class`.
      learning_rate: of the student, for training on this set.
      provenance: plain JSON values: how the set was made (config, versions, step, data).
      soft_labels: where they were learned: of each image a logit for every class, on the grid of
        `gsdd_jax.data.soft_labels`.
      label_bits: of the code of each; 0 without.
    """

    parameterization: Parameterization
    params: Params
    labels: Int[np.ndarray, "m"]
    learning_rate: float
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    soft_labels: Float[np.ndarray, "m k"] | None = None
    label_bits: int = 0

    @property
    def targets(self) -> Int[np.ndarray, "m"] | Float[Array, "m k"]:
        """What networks learn of each image: its class, or where the labels are soft, the
        probabilities of all classes."""
        return self.labels if self.soft_labels is None else jax.nn.softmax(self.soft_labels)

    def images(
        self, height: int | None = None, width: int | None = None, resample: str = "bilinear"
    ) -> Float[Array, "m h w c"]:
        """Rendered images in the data set's [0, 1] space, not clipped.

        Args:
          height, width: in pixels; None: the set's own.
          resample: "bilinear" or "nearest", for images that are stored at one size (pixels, idc).
            The others are rendered at the size that is asked for.

        Raises ValueError for a size or a resampling that there is not.
        """
        native = self.parameterization
        height, width = base.checked_size(native, len(self.labels), height, width, resample)
        return _render(native, self.params, height, width, resample)

    def decoded(
        self, height: int | None = None, width: int | None = None, resample: str = "bilinear"
    ) -> Float[np.ndarray, "m h w c"]:
        """As `images`, by NumPy: no device is started, whose memory another framework wants."""
        native = self.parameterization
        if type(native).decode is Stored.decode:  # one that only JAX knows to render
            return np.asarray(self.images(height, width, resample))
        height, width = base.checked_size(native, len(self.labels), height, width, resample)
        return native.decode(self._opened, height, width, resample)

    @functools.cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        """As a file of it has them; bfloat16 as float32."""
        arrays = self.parameterization.to_arrays(self.params)
        halves = lambda a: a.dtype == jnp.bfloat16
        return {n: np.asarray(a, np.float32 if halves(a) else None) for n, a in arrays.items()}

    @functools.cached_property
    def _opened(self) -> dict[str, np.ndarray]:
        """What `decode` takes."""
        return self.parameterization.opened(self._arrays)

    @functools.cached_property
    def num_bytes(self) -> int:
        """Of the stored parameters and soft labels, which is what the budget counts (the class of
        each image is free)."""
        arrays = self.parameterization.to_arrays(self.params)
        return base.num_bytes(arrays | _packed_labels(self))

    def _from_data(self, data_dir: str | os.PathLike | None) -> portable.Normalize | portable.ZCA:
        made_by = self.provenance.get("config")
        try:
            dataset = data.load(**_data_arguments(made_by), data_dir=data_dir)
        except UsageError as error:
            raise self._missing(str(error)) from None
        if dataset.fingerprint != self._fingerprint():
            raise self._missing(f"the {dataset.name} on this machine is another version")
        if self._said()["name"] == "normalize":
            return portable.Normalize(np.float32(dataset.mean), np.float32(dataset.std))
        mean, matrix = transforms.cached_whitening(dataset.train.images, dataset.fingerprint)
        return portable.ZCA(mean, matrix, dataset.image_shape)


class _Read(DistilledSet):
    """A set of a file, whose parameters are JAX's once they are asked for."""

    @functools.cached_property
    def params(self) -> Params:
        """As of any set."""
        return self.parameterization.from_arrays(
            {n: jnp.asarray(a) for n, a in self._arrays.items()}
        )


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))
def _render(parameterization, params, height, width, resample):
    return parameterization.render_at(params, height, width, resample)


def save(path: str | os.PathLike, distilled: DistilledSet) -> None:
    """Writes one `.safetensors` file, atomically: a reader sees the old file or the new one.

    Raises UsageError for whatever `load` would refuse, so that no such file comes to be.
    """
    import safetensors.flax

    with located(path):
        arrays = {n: np.asarray(a) for n, a in _stored(distilled).items()}
        try:
            # What JSON makes of them (a tuple becomes a list) is what the digests are of.
            parts = {
                PARAMETERIZATION: parameterizations.settings(distilled.parameterization),
                PROVENANCE: distilled.provenance,
            }
            if SOFT_LABELS in arrays:
                parts[LABEL_BITS] = distilled.label_bits
            parts = json.loads(json.dumps(parts))
            digests = file.digests(arrays, parts)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"{PROVENANCE}: expected plain JSON values ({error})") from None
        file.check_shapes(
            parameterizations.from_settings(parts[PARAMETERIZATION]),
            parts.get(LABEL_BITS, 0),
            {n: (str(a.dtype), a.shape) for n, a in arrays.items()},
        )
        file.check_values(distilled.parameterization, arrays)
        file.check_object(PROVENANCE, parts[PROVENANCE])
    header = {"format": FORMAT, **parts, DIGESTS: digests}
    metadata = {HEADER: json.dumps(header, sort_keys=True)}
    content = safetensors.flax.save({n: jnp.asarray(a) for n, a in arrays.items()}, metadata)
    write_atomically(path, content)


def load(path: str | os.PathLike) -> DistilledSet:
    """Reads what `save` wrote.

    Raises:
      UsageError: the file is missing, truncated or foreign; its description is incomplete, makes
        no sense or contradicts its arrays; a number is not finite; a part is not what its digest
        says. One line that names the file and the field.
    """
    found = file.read(path, parameterizations.from_settings)
    fields = {f.name for f in dataclasses.fields(DistilledSet)} - {"parameterization", "params"}
    values = {name: getattr(found, name) for name in fields}
    set_ = object.__new__(_Read)
    values |= {"parameterization": found.kind, "num_bytes": found.num_bytes}
    set_.__dict__.update(values, _arrays=found.arrays)
    with located(path):
        set_._opened  # noqa: B018, codes that are none are refused here
    return set_


def _stored(distilled: DistilledSet) -> dict[str, Any]:
    """All arrays of the file. What cannot be stored as it is stays as it is, to be refused."""
    arrays = dict(distilled.parameterization.to_arrays(distilled.params))
    classes = np.asarray(distilled.labels)
    if classes.dtype.kind in "iu" and np.array_equal(classes, classes.astype(np.int32)):
        classes = classes.astype(np.int32)
    with np.errstate(over="ignore"):
        rate = np.asarray(distilled.learning_rate).astype(np.float32)
    named = {file.LABELS: classes, file.LEARNING_RATE: rate}
    return arrays | named | _packed_labels(distilled)


def _packed_labels(distilled: DistilledSet) -> dict[str, UInt8[np.ndarray, "bytes"]]:
    """The array of the soft labels, where there are any; raises UsageError as `labels.pack`."""
    if distilled.soft_labels is None:
        return {}
    expected = file.labels_shape(distilled.parameterization, len(distilled.labels))
    logits = np.asarray(distilled.soft_labels, np.float32)
    return {SOFT_LABELS: labels.pack(logits, distilled.label_bits, expected)}


def _data_arguments(config: Any) -> dict[str, Any]:
    """Of `data.load`, by the config that made a set."""
    config = config if isinstance(config, dict) else {}
    name, subset, resize = (config.get(f"data.{n}", "") for n in ("name", "subset", "resize"))
    side = config.get("data.resolution", 0)
    texts = all(isinstance(value, str) for value in (name, subset, resize))
    if not texts or not name or type(side) is not int:
        raise UsageError("provenance.config does not say which data the set was made from")
    return {
        "name": name,
        "subset": subset or None,
        "resolution": side or None,
        "resize": resize or "crop",  # as older sets, which lack the field, mean it
    }
