"""The distilled set, and what programs get of it: images, arrays, tensors, records and batches."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import re
import reprlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from gsdd_jax.core import program
from gsdd_jax.core.errors import UsageError, counted, printable
from gsdd_jax.formats import entropy, transforms
from gsdd_jax.formats.arrays import namespace
from gsdd_jax.formats.base import Format, checked_size
from gsdd_jax.formats.labels import SOFT_LABELS, softmax
from gsdd_jax.formats.shapes import Float, Int
from gsdd_jax.formats.transforms import ZCA, Normalize

SPACES = ("training", "unit")
NAMES = ("normalize", "zca")
GO_ON = (
    f"go on with transform=PATH, a file that `{program.command('export --transform=PATH')}` wrote "
    "where the data are, with transform=IMAGES, the training images as bytes, or with space='unit' "
    "if your network wants [0, 1]"
)


class Arrays(NamedTuple):
    """A distilled set as arrays."""

    images: Float[np.ndarray, "m h w c"]  # float32
    targets: Int[np.ndarray, "m"] | Float[np.ndarray, "m k"]  # classes, or their probabilities


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DistilledSet:
    """What distillation produces, independent of the data set it came from; of NumPy alone.

    Attributes:
      format: how the images are stored; static settings only.
      arrays: what a file holds for it, by name; bfloat16 as float32.
      labels: the class of each image; each of 0 to K - 1 as often as the format's
        `images_per_class`.
      learning_rate: of the student, for training on this set.
      provenance: plain JSON values: how the set was made (config, versions, step, data).
      soft_labels: where they were learned: of each image a logit for every class, on the grid of
        `gsdd_jax.formats.labels`.
      label_bits: of the code of each; 0 without.
      source: the file that it was read from; empty where it was not.

    The arguments that its methods share:
      space: "training", transformed as the networks of the distillation saw them, or "unit", in
        [0, 1] and a little beyond.
      clip: whether the images are clipped to [0, 1]; in space "unit" alone.
      transform: of space "training"; as of `find_transform`.
      height, width, resample: as of `images`.
    """

    format: Format
    arrays: dict[str, np.ndarray]
    labels: Int[np.ndarray, "m"]
    learning_rate: float
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    soft_labels: Float[np.ndarray, "m k"] | None = None
    label_bits: int = 0
    source: str = ""

    @functools.cached_property
    def params(self) -> dict[str, np.ndarray]:
        """What is rendered, by name: `arrays`, of which codes are read. Raises UsageError for bytes
        that are no codes."""
        return self.format.unpack(self.arrays)

    def images(
        self, height: int | None = None, width: int | None = None, resample: str = "bilinear"
    ) -> Float[np.ndarray, "m h w c"]:
        """Rendered images in the data set's [0, 1] space, not clipped; float32.

        `gsdd_jax.parameterizations.images` renders the same by JAX, on any device.

        Args:
          height, width: in pixels, both or neither; None: the set's own.
          resample: "bilinear" or "nearest", for images that are stored at one size (pixels, idc).
            The others are rendered at the size that is asked for.

        Raises ValueError for a size or a resampling that there is not; UsageError where numbers of
        the set are so large that its images are not finite.
        """
        count = len(self.labels)
        height, width = checked_size(self.format, count, height, width, resample)
        with np.errstate(all="ignore"):  # what comes of it is checked
            found = np.asarray(self.format.decode(self.params, height, width, resample))
        return self.checked(found)

    def checked(self, images: Any) -> Any:
        """These images of it, in NumPy or JAX. Raises UsageError where they are not finite."""
        if not namespace(images).isfinite(images).all():
            raise UsageError(
                f"{self.source or repr(self)}: expected finite images, got others: its numbers are "
                "too large, as of a distillation that diverged"
            )
        return images

    @property
    def targets(self) -> Int[np.ndarray, "m"] | Float[np.ndarray, "m k"]:
        """What networks learn of each image: its class, or where the labels are soft, the
        probabilities of all classes."""
        return self.labels if self.soft_labels is None else softmax(self.soft_labels)

    @property
    def stored_bytes(self) -> dict[str, int]:
        """The bytes that the budget counts, by array; the class of each image is free."""
        sizes = self.format.stored_bytes(self.arrays, len(self.labels))
        if self.soft_labels is None:
            return sizes
        count = self.soft_labels.size
        return sizes | {SOFT_LABELS: entropy.packed_bytes([self.label_bits], count)}

    @property
    def num_bytes(self) -> int:
        """All `stored_bytes`."""
        return sum(self.stored_bytes.values())

    def __repr__(self) -> str:
        """One line: how many images, of what, in how many bytes."""
        kind, data = self.format, self.provenance.get("data")
        name = data.get("name") if isinstance(data, dict) else None
        size = "x".join(map(str, kind.image_shape))
        of = f", of {printable(name[:80])}" if isinstance(name, str) else ""
        return (
            f"DistilledSet({counted(len(self.labels), 'image')} of {size} as {kind.name}"
            f"{of}; {self.num_bytes} bytes)"
        )

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
        too; in NumPy. Raises UsageError as `find_transform`, and of it for images of 0 to 255."""
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
        shape = self.format.image_shape
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
        images = self.images(height, width, resample)
        images = np.clip(images, 0, 1) if clip else images
        if found is not None:
            apply = found.apply if isinstance(found, Normalize | ZCA) else found
            with np.errstate(all="ignore"):
                images = np.asarray(apply(images))
            self.checked(images)
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
        smaller where the set does not divide. Arguments and errors as of `numpy`; ValueError for
        fewer than one of either."""
        for name, value in (("batch_size", batch_size), ("epochs", epochs)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        images, targets = self.numpy(space, **options)
        return _batches(images, targets, batch_size, np.random.default_rng(seed), epochs)

    def _of_images(self, images, said) -> ZCA:
        shape = self.format.image_shape
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
        return transforms.fit_zca(images)

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
        """The transform by the data set on disk, by the room that reads those."""
        try:
            of_sets = importlib.import_module("gsdd_jax.data.of_sets")
        except ModuleNotFoundError as error:
            raise self._missing(
                f"without {error.name} it is not made from the data set on disk"
            ) from None
        try:
            return of_sets.transform(
                self._said()["name"], self.provenance, self._fingerprint(), data_dir
            )
        except UsageError as error:
            raise self._missing(str(error)) from None

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
