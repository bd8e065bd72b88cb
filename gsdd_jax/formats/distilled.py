"""Distilled sets as images, arrays, tensors, records and batches."""

import dataclasses
import functools
import importlib
import os
import re
import reprlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from gsdd_jax.core import arguments, program
from gsdd_jax.core.errors import UsageError, counted, printable
from gsdd_jax.formats import clips, mixes, transforms
from gsdd_jax.formats.arrays import namespace
from gsdd_jax.formats.base import Format, checked_size
from gsdd_jax.formats.labeler import WEIGHTS, Labeler
from gsdd_jax.formats.labels import SOFT_LABELS, pack, softmax
from gsdd_jax.formats.shapes import Float, Int, UInt8
from gsdd_jax.formats.transforms import ZCA, Normalize, OfClips

SPACES = ("training", "unit")
NAMES = ("normalize", "zca")
CLASS_NAMES = "class_names"  # in the description of the data
GO_ON = (
    f"give transform=PATH, a file that `{program.command('export --transform=PATH')}` wrote "
    "where the data are, with transform=IMAGES, the training images as bytes, or with space='unit' "
    "if your network wants [0, 1]"
)


class Arrays(NamedTuple):
    images: Float[np.ndarray, "m *t h w c"]  # float32; clips have frames
    targets: Int[np.ndarray, "m"] | Float[np.ndarray, "m k"]  # classes, or class probabilities


def class_names_of(described: Any, num_classes: int) -> tuple[str, ...] | None:
    """Returns the class names in a description of data, one for each class, or None if unknown."""
    names = described.get(CLASS_NAMES) if isinstance(described, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if len(names) == num_classes else None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DistilledSet:
    """Result of a distillation in NumPy, independent of its data set.

    Attributes:
      format: static settings of the images' format.
      arrays: arrays of the format by name; bfloat16 as float32.
      labels: class of each image, from 0 to K - 1; on average `format.images_per_class` of each,
        without mixtures.
      learning_rate: the student's learning rate on this set.
      provenance: origin as plain JSON values (config, versions, step, data).
      soft_labels: learned logits on the grid of `gsdd_jax.formats.labels`, or None.
      label_bits: bits per soft-label code; 0 without soft labels.
      mixes: mixtures of each stored image, which follow these and have soft labels, too; see
        `gsdd_jax.formats.mixes`.
      labeler: labeler of all views of the images, or None; then there are no soft labels.
      source: file that the set was loaded from, or empty.

    Arguments shared by its methods:
      space: "training", transformed for the networks of the distillation, or "unit", about [0, 1].
      clip: whether images are clipped to [0, 1]; only in space "unit".
      transform: source of the transform for space "training"; see `find_transform`.
      height, width, resample: see `images`.
    """

    format: Format
    arrays: dict[str, np.ndarray]
    labels: Int[np.ndarray, "m"]
    learning_rate: float
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    soft_labels: Float[np.ndarray, "m k"] | None = None
    label_bits: int = 0
    mixes: int = 0
    labeler: Labeler | None = None
    source: str = ""

    @property
    def data(self) -> dict[str, Any]:
        """Description of the data set in the provenance; empty if unknown."""
        data = self.provenance.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def num_classes(self) -> int:
        return self.num_stored // self.format.images_per_class

    @property
    def num_stored(self) -> int:
        """Number of images without mixtures."""
        return len(self.labels) // (1 + self.mixes)

    def without_mixes(self) -> "DistilledSet":
        """Returns the set of the stored images."""
        if not self.mixes:
            return self
        count = self.num_stored
        soft = None if self.soft_labels is None else self.soft_labels[:count]
        found = dataclasses.replace(self, labels=self.labels[:count], soft_labels=soft, mixes=0)
        if (params := vars(self).get("params")) is not None:  # codes are decoded once
            vars(found)["params"] = params
        return found

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of images of each class, without mixtures."""
        stored = self.labels[: self.num_stored]
        return tuple(np.bincount(stored, minlength=self.num_classes).tolist())

    @functools.cached_property
    def params(self) -> dict[str, np.ndarray]:
        """Parameters of `format.decode`, by name. Raises UsageError for invalid codes."""
        return self.format.unpack(self.arrays)

    def images(
        self, height: int | None = None, width: int | None = None, resample: str = "bilinear"
    ) -> Float[np.ndarray, "m *t h w c"]:
        """Renders the images in the data set's [0, 1] space, unclipped; float32.

        Clips are [m, t, h, w, c].

        `gsdd_jax.parameterizations.images` renders them with JAX, on any device.

        Args:
          height, width: size in pixels, both or neither; None: the set's own.
          resample: "bilinear" or "nearest", for formats with one image size, such as pixels. Other
            formats render at the requested size.

        Raises:
          ValueError: invalid size or resampling.
          UsageError: the images do not fit into memory, or are not finite.
        """
        return clips.unfolded(self.rendered(height, width, resample), self.format.frames)

    def rendered(
        self, height: int | None = None, width: int | None = None, resample: str = "bilinear"
    ) -> Float[np.ndarray, "m h w c"]:
        """Renders as `images`; the frames of a clip are channels, one after the other."""
        count = len(self.labels)
        height, width = checked_size(self.format, count, height, width, resample)
        with np.errstate(all="ignore"):  # `checked` reports it
            found = np.asarray(self.format.rendered(self.params, height, width, resample))
        return self.checked(mixes.with_mixes(found, self.mixes))

    def checked(self, images: Any) -> Any:
        """Returns images of the set, in NumPy or JAX; raises UsageError if not finite."""
        if not np.asarray(namespace(images).isfinite(images)).all():
            raise UsageError(
                f"{self.source or repr(self)}: expected finite images, got others: its numbers are "
                "too large, as after a distillation that diverged"
            )
        return images

    @property
    def targets(self) -> Int[np.ndarray, "m"] | Float[np.ndarray, "m k"]:
        """Classes [m], or with soft labels class probabilities [m, k].

        A labeler's are of images in space "training", see `numpy`.
        """
        return self.labels if self.soft_labels is None else softmax(self.soft_labels)

    @property
    def stored_bytes(self) -> dict[str, int]:
        """Bytes that count toward the budget, by array; hard labels are free."""
        sizes = self.format.stored_bytes(self.arrays, self.num_stored)
        if self.labeler is not None:
            sizes |= {WEIGHTS: len(self.labeler.payload)}
        if self.soft_labels is None:
            return sizes
        return sizes | {SOFT_LABELS: len(self.packed_labels)}

    @property
    def label_bytes(self) -> int:
        """Bytes of soft labels and of a labeler."""
        return sum(self.stored_bytes.get(name, 0) for name in (SOFT_LABELS, WEIGHTS))

    @functools.cached_property
    def packed_labels(self) -> UInt8[np.ndarray, "bytes"]:
        """Soft labels as stored. Raises UsageError for logits not on the grid."""
        logits = np.asarray(self.soft_labels, np.float32)
        return pack(logits, self.label_bits, self.parts, self.num_classes)

    @property
    def parts(self) -> Int[np.ndarray, "m p"]:
        """Class of each part of each image: one, or two if the set has mixtures."""
        return mixes.parts(np.asarray(self.labels)[: self.num_stored].astype(int), self.mixes)

    @property
    def num_bytes(self) -> int:
        """Sum of `stored_bytes`."""
        return sum(self.stored_bytes.values())

    def __repr__(self) -> str:
        """Returns one line: number, size, format and bytes of the images."""
        kind, name = self.format, self.data.get("name")
        of = f", of {printable(name[:80])}" if isinstance(name, str) else ""
        return (
            f"DistilledSet({counted(len(self.labels), 'image')} of {kind.shown_shape} as "
            f"{kind.name}"
            f"{of}; {self.num_bytes} bytes)"
        )

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names in the order of the labels, one for each, or None if unknown."""
        return class_names_of(self.data, self.num_classes)

    @functools.cached_property
    def transform(self) -> Normalize | ZCA | OfClips:
        """Transform from float images [..., h, w, c] in [0, 1] to the networks' inputs, in NumPy.

        Clips are [..., t, h, w, c]. Also for test images. Raises UsageError as `find_transform`,
        and for images in 0 to 255.
        """
        found, frames = self._of_folded, self.format.frames
        return found if frames == 1 else OfClips(found, frames)

    @functools.cached_property
    def _of_folded(self) -> Normalize | ZCA:
        return self.find_transform()

    @arguments.checked  # a method is named `checked`
    def find_transform(
        self,
        source: str | os.PathLike | np.ndarray | Callable | None = None,
        *,
        data_dir: str | os.PathLike | None = None,
    ) -> Normalize | ZCA | Callable:
        """Returns the transform that the set was made with, checked against its file.

        That of clips takes images whose channels hold the frames (`formats.clips.folded`).

        Args:
          source: a file written by `launch.export --transform`; or the training images, uint8
            [n, h, w, c], in any order; or a transform, which is returned unchecked. None: from the
            set's own file, the matrix cache or, with JAX, the data set on disk.
          data_dir: directory of TFDS data sets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.

        Raises:
          UsageError: the transform is unavailable, or of another set; the message says what to do.
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
        """Returns the description that a file of this set's transform holds."""
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
        """Returns images and targets as NumPy arrays; see the class for arguments.

        In space "training", at the set's own size, targets are the probabilities of a labeler, if
        there is one. Views under augmentation get theirs by `labeler.probabilities`.

        Raises UsageError if the transform is unavailable, ValueError for invalid arguments.
        """
        if space not in SPACES:
            raise ValueError(f"space: expected one of {', '.join(SPACES)}, got {space!r}")
        if clip and space == "training":
            raise ValueError(
                "clip: expected False with space='training', where the set was made unclipped"
            )
        found = None
        if space == "training":  # fails before anything is rendered
            found = self._of_folded if transform is None else self.find_transform(transform)
        images = self.rendered(height, width, resample)
        images = np.clip(images, 0, 1) if clip else images
        if found is not None:
            apply = found.apply if isinstance(found, Normalize | ZCA) else found
            with np.errstate(all="ignore"):
                images = np.asarray(apply(images))
            self.checked(images)
        targets = np.asarray(self.targets)
        of_size = images.shape[1:] == self.format.image_shape
        if self.labeler is not None and found is not None and of_size:
            targets = self.labeler.probabilities(images)
        return Arrays(clips.unfolded(images, self.format.frames), targets)

    def torch(self, space: str = "training", **options: Any) -> Any:
        """Returns a `torch.utils.data.TensorDataset` of images [m, c, h, w] and targets.

        Clips are [m, t, c, h, w]. Images are float32, targets int64 classes or float32
        probabilities. Arguments and errors as `numpy`; UsageError without PyTorch.
        """
        torch = _imported("torch")
        images, targets = self.numpy(space, **options)
        targets = targets.astype(np.int64 if targets.ndim == 1 else np.float32)
        images = np.ascontiguousarray(np.moveaxis(images, -1, -3))
        # Copies, because arrays of a file may be read-only.
        return torch.utils.data.TensorDataset(torch.tensor(images), torch.tensor(targets))

    def grain(self, space: str = "training", **options: Any) -> Any:
        """Returns a `grain.MapDataset` of {"image": float32 [h, w, c], "label": target}, in order.

        Targets are classes or probabilities [k]. Arguments and errors as `numpy`; UsageError
        without Grain.
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
        """Returns batches of `epochs` passes over the set, each in a new order.

        The last batch of a pass may be smaller. Arguments and errors as `numpy`; ValueError for a
        `batch_size` or `epochs` below 1.
        """
        return batches(lambda: self.numpy(space, **options), batch_size, seed, epochs)

    def _of_images(self, images, said) -> ZCA:
        shape = self.format.image_shape
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise UsageError(
                f"transform: expected the training images as bytes, uint8 [n, "
                f"{', '.join(map(str, shape))}], got {images.dtype} {list(images.shape)}"
            )
        if "images_sha256" not in said:
            raise UsageError(
                "transform: the file of this set, of an earlier version, has no hash of its "
                f"training images; {GO_ON}"
            )
        if transforms.digest(images) != said["images_sha256"]:
            raise UsageError(
                f"transform: these {len(images)} images are not the training images of this set; "
                f"{GO_ON}"
            )
        return transforms.fit_zca(images)

    def _said(self) -> dict[str, Any]:
        """Returns the file's description of the transform; older files hold only its name."""
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
        found = self.data.get("fingerprint")
        right = isinstance(found, str) and re.fullmatch("[0-9a-f]{64}", found)
        return found if right else None

    def _from_data(self, data_dir: str | os.PathLike | None) -> Normalize | ZCA:
        try:
            of_sets = importlib.import_module("gsdd_jax.data.of_sets")
        except ModuleNotFoundError as error:
            reason = f"without {error.name} it is not made from the data set on disk"
            raise self._missing(reason) from None
        name = self._said()["name"]
        try:
            return of_sets.transform(name, self.provenance, self._fingerprint(), data_dir)
        except UsageError as error:
            raise self._missing(str(error)) from None

    def _missing(self, reason: str) -> UsageError:
        return UsageError(
            f"space='training' takes the {self._said()['name']} transform of "
            f"{reprlib.repr(self.data.get('name'))}, which is not in the file: {reason}; {GO_ON}"
        )


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(
            f"{module} is not installed; pip install {module}, or use .numpy(), which needs none"
        ) from None


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    by = ("images_sha256", "data_fingerprint", "mean")
    return one.get("name") == other["name"] and any(
        one.get(key) is not None and one.get(key) == other.get(key) for key in by
    )


def batches(
    arrays_of: Callable[[], Arrays], batch_size: int, seed: int, epochs: int
) -> Iterator[Arrays]:
    """Returns batches of `epochs` passes, each in a new order; the last of a pass may be smaller.

    Raises ValueError for a `batch_size` or `epochs` below 1, before `arrays_of` renders.
    """
    for name, value in (("batch_size", batch_size), ("epochs", epochs)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    return _batches(*arrays_of(), batch_size, np.random.default_rng(seed), epochs)


def _batches(images, targets, batch_size, rng, epochs) -> Iterator[Arrays]:
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            yield Arrays(images[chosen], targets[chosen])
