"""What programs get of a distilled set: arrays, tensors, records and batches, transformed as in
training."""

from __future__ import annotations

import functools
import importlib
import os
import re
import reprlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats import transforms
from gsdd_jax.formats.base import Stored
from gsdd_jax.formats.shapes import Float, Int
from gsdd_jax.formats.transforms import ZCA, Normalize

SPACES = ("training", "unit")
NAMES = ("normalize", "zca")
GO_ON = (
    "go on with transform=PATH, a file that `python -m launch.export --transform=PATH` wrote where "
    "the data are, with transform=IMAGES, the training images as bytes, or with space='unit' if "
    "your network wants [0, 1]"
)


class Arrays(NamedTuple):
    """A distilled set as arrays."""

    images: Float[np.ndarray, "m h w c"]  # float32
    targets: Int[np.ndarray, "m"] | Float[np.ndarray, "m k"]  # classes, or their probabilities


class Usable:
    """The methods that every distilled set has.

    The arguments that they share:
      space: "training", transformed as the networks of the distillation saw them, or "unit", in
        [0, 1] and a little beyond.
      clip: whether the images are clipped to [0, 1]; in space "unit" alone.
      transform: of space "training"; as of `find_transform`.
      height, width, resample: as of `images`.
    """

    parameterization: Stored
    provenance: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """In the order of the labels; None where the file does not say."""
        data = self.provenance.get("data")
        names = data.get("class_names") if isinstance(data, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return None
        return tuple(names)

    @functools.cached_property
    def transform(self) -> Normalize | ZCA:
        """From float images [..., h, w, c] in [0, 1] to those that networks saw, for test images
        too; in NumPy. Raises UsageError as `find_transform`."""
        return self.find_transform()

    def find_transform(
        self,
        source: str | os.PathLike | np.ndarray | Callable | None = None,
        *,
        data_dir: str | os.PathLike | None = None,
    ) -> Normalize | ZCA | Callable:
        """The transform that the set was made with, checked against what its file says.

        Args:
          source: a file that `launch.export --transform` wrote; or the training images, uint8
            [n, h, w, c], in any order; or a transform, which is taken as it is. None: by the file
            alone, by a matrix that an earlier run on this machine kept, or, with JAX, by the data
            set on disk.
          data_dir: where TFDS keeps its sets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.

        Raises:
          UsageError: it cannot be had, or is another set's; the line says how to go on.
        """
        if callable(source):
            return source
        said, fingerprint = self._said(), self._fingerprint()
        shape = self.parameterization.image_shape
        described = transforms.from_description(said, shape[-1])
        if isinstance(source, np.ndarray):
            return described or self._of_images(source, said)
        if source is not None:
            found, of = transforms.load(source, shape)
            if not _same(of, self.transform_description()):
                raise UsageError(
                    f"{source}: the transform of another data set than this distilled set's, "
                    f"{reprlib.repr(of.get('name'))}; {GO_ON}"
                )
            return found
        if described is not None:
            return described
        kept = None
        if said["name"] == "zca" and fingerprint is not None:
            kept = transforms.kept(transforms.kept_at(fingerprint), fingerprint, shape)
        return kept if kept is not None else self._from_data(data_dir)

    def transform_description(self) -> dict[str, Any]:
        """What a file of this set's transform says that it is the transform of."""
        return self._said() | {"data_fingerprint": self._fingerprint()}

    def numpy(
        self,
        space: str = "training",
        *,
        clip: bool = False,
        transform: Any = None,
        height: int | None = None,
        width: int | None = None,
        resample: str = "bilinear",
    ) -> Arrays:
        """(images, targets) as NumPy arrays; see the class for the arguments.

        Raises UsageError where the transform cannot be had, ValueError for another space.
        """
        if space not in SPACES:
            raise ValueError(f"space: expected one of {', '.join(SPACES)}, got {space!r}")
        if clip and space == "training":
            raise ValueError(
                "clip: expected False with space='training', where the set was made unclipped"
            )
        found = None
        if space == "training":  # first: what cannot be had is said before anything is rendered
            found = self.transform if transform is None else self.find_transform(transform)
        images = np.asarray(self.images(height, width, resample))
        images = np.clip(images, 0, 1) if clip else images
        images = images if found is None else np.asarray(found(images))
        return Arrays(images, np.asarray(self.targets))

    def torch(self, space: str = "training", **options: Any) -> Any:
        """A `torch.utils.data.TensorDataset` of float32 images [m, c, h, w] and of classes (int64)
        or their probabilities (float32).

        Arguments and errors as of `numpy`; UsageError where PyTorch is not installed.
        """
        torch = _imported("torch")
        images, targets = self.numpy(space, **options)
        targets = targets.astype(np.int64 if targets.ndim == 1 else np.float32)
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        # Copies: arrays of a file may be read-only.
        return torch.utils.data.TensorDataset(torch.tensor(images), torch.tensor(targets))

    def grain(self, space: str = "training", **options: Any) -> Any:
        """A `grain.MapDataset` of {"image": float32 [h, w, c], "label": its class, or where the
        labels are soft, the probabilities of all [k]}, in the set's order.

        Arguments and errors as of `numpy`; UsageError where Grain is not installed.
        """
        grain = _imported("grain")
        images, targets = self.numpy(space, **options)
        return grain.MapDataset.range(len(images)).map(
            lambda i: {"image": images[i], "label": targets[i]}
        )

    def batches(
        self, batch_size: int, *, seed: int = 0, epochs: int = 1, space: str = "training",
        **options: Any,
    ) -> Iterator[Arrays]:  # fmt: skip
        """Batches of `epochs` passes over the set, each in another order; the last one of a pass is
        smaller where the set does not divide. Arguments and errors as of `numpy`."""
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        images, targets = self.numpy(space, **options)
        return _batches(images, targets, batch_size, np.random.default_rng(seed), epochs)

    def _of_images(self, images, said) -> ZCA:
        shape = self.parameterization.image_shape
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise UsageError(
                f"transform: expected the training images as bytes, uint8 [n, "
                f"{', '.join(map(str, shape))}], got {images.dtype} {list(images.shape)}"
            )
        if "images_sha256" not in said:
            raise UsageError(
                "transform: this set's file does not say of which images it is, because it is of "
                f"an earlier version; {GO_ON}"
            )
        if transforms.digest(images) != said["images_sha256"]:
            raise UsageError(
                f"transform: these {len(images)} images are not those that this set was made from; "
                f"{GO_ON}"
            )
        mean, matrix = transforms.whitening(images)
        return ZCA(mean.astype(np.float32), matrix.astype(np.float32), shape)

    def _said(self) -> dict[str, Any]:
        """What the file says of the transform; of older files their config's name of it."""
        said = self.provenance.get("transform")
        if said is None:
            config = self.provenance.get("config")
            name = config.get("data.transform") if isinstance(config, dict) else None
            said = {"name": name}
        if not isinstance(said, dict) or said.get("name") not in NAMES:
            raise UsageError(
                f"provenance.transform: expected normalize or zca, got {reprlib.repr(said)}; "
                f"{GO_ON}"
            )
        return said

    def _fingerprint(self) -> str | None:
        """Of the data that the set was made from."""
        data = self.provenance.get("data")
        found = data.get("fingerprint") if isinstance(data, dict) else None
        right = isinstance(found, str) and re.fullmatch("[0-9a-f]{64}", found)
        return found if right else None

    def _from_data(self, data_dir: str | os.PathLike | None) -> Normalize | ZCA:
        """The transform by the data set on disk, which takes what this room has not."""
        del data_dir
        raise self._missing("without JAX it is not made from the data set on disk")

    def _missing(self, reason: str) -> UsageError:
        name = self._said()["name"]
        data = self.provenance.get("data")
        of = data.get("name") if isinstance(data, dict) else None
        return UsageError(
            f"space='training' takes the {name} transform of {reprlib.repr(of)}, which is not in "
            f"the file: {reason}; {GO_ON}"
        )


def _imported(module: str) -> Any:
    """A library that need not be there."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(
            f"{module} is not installed; pip install {module}, or use .numpy(), which needs none"
        ) from None


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two descriptions are of one transform."""
    by = ("images_sha256", "data_fingerprint", "mean")
    return one.get("name") == other["name"] and any(
        one.get(key) is not None and one.get(key) == other.get(key) for key in by
    )


def _batches(images, targets, batch_size, rng, epochs) -> Iterator[Arrays]:
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            yield Arrays(images[chosen], targets[chosen])
