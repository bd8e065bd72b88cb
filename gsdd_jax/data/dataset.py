"""Complete data sets: found on disk, decoded once, cached, with the transform's constants.

`load` decodes both splits once, directly into .npy files of a cache, and later maps these files
into memory: it never holds more than a chunk.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import logging
from jaxtyping import Int32, UInt8

from gsdd_jax.core import files, memory
from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.fields import check_value
from gsdd_jax.data import cache, prepared, rows
from gsdd_jax.data.decode import RESIZES, decode_split, in_memory, size_text
from gsdd_jax.data.frames import LEAST, images_of
from gsdd_jax.formats.base import MAX_FRAMES, MAX_SIDE
from gsdd_jax.formats.clips import shown_shape
from gsdd_jax.formats.parts import class_indices
from gsdd_jax.formats.transforms import CIFAR10, IMAGENET

# ImageNet-1k classes of the six subsets; new labels are indices into the row.
IMAGENET_SUBSETS = {
    "nette": (0, 217, 482, 491, 497, 566, 569, 571, 574, 701),
    "woof": (193, 182, 258, 162, 155, 167, 159, 273, 207, 229),
    "fruit": (953, 954, 949, 950, 951, 957, 952, 945, 943, 948),
    "yellow": (309, 986, 954, 951, 987, 779, 599, 291, 72, 11),
    "meow": (281, 282, 283, 284, 285, 291, 292, 290, 289, 287),
    "squawk": (84, 130, 88, 144, 145, 22, 96, 9, 100, 89),
}

_MEAN_STD = {  # as the published code has them
    "cifar10": CIFAR10,
    "cifar10_mini": CIFAR10,
    "cifar100": CIFAR10,
    "imagenette": IMAGENET,
    "imagenet2012": IMAGENET,
    "tiny_imagenet": IMAGENET,
}


@dataclasses.dataclass(frozen=True)
class Split:
    """Read-only images in [0, 255], all of one size, and labels in [0, num_classes)."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A complete data set.

    Attributes:
        name: as given to `load`.
        train, test: splits. `test` is the set's "test" split, or "validation" if "test" is
            missing or, as in imagenet2012, has no labels.
        class_names: in label order.
        mean, std: per-channel constants of the normalization, for images in [0, 1]. Published
            for CIFAR (those of CIFAR-10 for both), Imagenette, ImageNet and Tiny ImageNet (those
            of ImageNet), otherwise computed from the training pixels.
        fingerprint: SHA-256, in hexadecimal, of the four arrays with their shapes. Equal
            fingerprints mean equal data; derived files are cached under it.
        frames: frames of every clip, whose channels hold them one after the other; 1: images.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    frames: int = 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Returns (height, width, channels) of every image."""
        return self.train.images.shape[1:]

    @property
    def shown_shape(self) -> str:
        """Frames of a clip, height, width and colors, for people."""
        return shown_shape(self.image_shape, self.frames)

    @property
    def train_counts(self) -> tuple[int, ...]:
        """Returns the number of training images per class."""
        counts = np.bincount(self.train.labels, minlength=self.num_classes)
        return tuple(counts.tolist())


def load(
    name: str,
    *,
    subset: str | None = None,
    resolution: int | None = None,
    resize: str = "crop",
    frames: int | None = None,
    classes: str | Sequence[str | int] = "",
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Dataset:
    """Loads a TFDS set of classified images (paper, appendix A.1.1) or clips.

    Args:
        name: "cifar10_mini", shipped with this package (300 training and 100 test images per
            CIFAR-10 class), or a set that TFDS prepared on this machine in array_record
            format: "cifar10", "cifar100", "imagenette/160px-v2", "imagenet2012", ...
        subset: one of `IMAGENET_SUBSETS`, for "imagenet2012" only. Keeps only its ten classes,
            labeled 0 to 9 in the order listed there.
        resolution: side of the square images, in pixels. None keeps the stored sizes.
        resize: bilinear, antialiased. "crop" resizes the shorter side, then cuts out the center.
            "squash" resizes both sides, whatever the shape, as the published ImageNet runs do.
        frames: frames of every clip, evenly spaced, at most 256; shorter clips repeat some. None
            keeps all.
        classes: those to keep, as for `only`.
        data_dir: folder of TFDS's sets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        cache_dir: folder of decoded arrays; default $XDG_CACHE_HOME/gsdd_jax, else
            ~/.cache/gsdd_jax. It may be deleted at any time, and is optional: if it cannot be
            written, nothing is cached.

    Raises:
        UsageError: the set is unknown, missing, damaged, in a format that needs TensorFlow, or
            not one of labeled 8-bit images or clips; its image sizes vary and no resolution is
            given, or its lengths of clips and no `frames`; `subset`, `resolution`, `frames` or
            `classes` is invalid.
    """
    base = name.split("/")[0].split(":")[0]
    if subset is not None and (base != "imagenet2012" or subset not in IMAGENET_SUBSETS):
        raise UsageError(
            f"no subset {subset!r} of data set {name!r}: imagenet2012 has"
            f" {', '.join(IMAGENET_SUBSETS)}, other sets have none"
        )
    if resolution is not None:
        check_value("resolution", "int", resolution, (1, MAX_SIDE))
    if frames is not None:
        check_value("frames", "int", frames, (LEAST, MAX_FRAMES))
    if resize not in RESIZES:
        raise UsageError(f"resize: expected one of {', '.join(RESIZES)}, got {resize!r}")

    builder = prepared.find(name, base, data_dir)
    image_key, label_key = prepared.feature_keys(builder, name)
    image, label = (builder.info.features[key] for key in (image_key, label_key))
    if frames is not None and images_of(image) is None:
        raise UsageError(f"frames: expected none for data set {name!r}, which has images")
    if reason := prepared.wrong_classes(builder, base, label_key):
        raise prepared.damaged(name, base, data_dir, builder.data_dir, reason)
    known = range(label.num_classes) if subset is None else IMAGENET_SUBSETS[subset]
    if max(known) >= label.num_classes:
        raise UsageError(
            f"subset {subset!r} needs the 1000 classes of ImageNet-1k, but {name!r} in"
            f" {builder.data_dir} has {label.num_classes}"
        )

    size = None if resolution is None else (resolution, resize)
    folder = files.cache_dir() if cache_dir is None else pathlib.Path(os.path.expanduser(cache_dir))
    if folder is not None:
        folder /= f"datasets/{base}-{cache.key(builder, subset, size, frames)}"
    arrays, info = (folder and cache.read(folder)) or _decode(
        builder,
        base,
        folder,
        image.shape[-1],
        lambda split: decode_split(builder, split, image_key, label_key, known, size, frames),
        lambda reason: prepared.damaged(name, base, data_dir, builder.data_dir, reason),
    )

    train_shape, test_shape = (arrays[f"{split}_images"].shape[1:] for split in ("train", "test"))
    if train_shape[:2] != test_shape[:2]:
        raise UsageError(
            f"the training images of data set {name!r} are {size_text(train_shape)}, its test"
            f" images {size_text(test_shape)}; give a resolution"
        )
    if train_shape != test_shape:
        lengths = [shape[-1] // image.shape[-1] for shape in (train_shape, test_shape)]
        raise UsageError(
            f"the training clips of data set {name!r} have {lengths[0]} frames, its test clips"
            f" {lengths[1]}; give how many to take"
        )
    mean, std = _MEAN_STD.get(base) or (tuple(info["mean"]), tuple(info["std"]))
    whole = Dataset(
        name=name,
        train=Split(arrays["train_images"], arrays["train_labels"]),
        test=Split(arrays["test_images"], arrays["test_labels"]),
        num_classes=len(known),
        class_names=tuple(label.names[index] for index in known),
        mean=mean,
        std=std,
        fingerprint=info["fingerprint"],
        frames=info.get("frames", 1),
    )
    return only(whole, classes)


@checked
def only(dataset: Dataset, classes: str | Sequence[str | int]) -> Dataset:
    """Returns the images of some classes, labeled in that order.

    Classes are names or indices, in a list, or in one text by commas; an empty text means all.

    The constants of the normalization stay those of the whole data set: sets of its parts can be
    merged. The fingerprint is that of the images and labels of these classes.

    Raises UsageError for unknown or repeated classes, and if memory cannot hold their images.
    """
    if isinstance(classes, str):
        if not classes:
            return dataset
        classes = list(map(str.strip, classes.split(",")))
    with located("config.data.classes"):
        chosen = class_indices(classes, dataset.class_names, dataset.num_classes)
    labels = np.full(dataset.num_classes, -1, np.int32)
    labels[chosen] = np.arange(len(chosen), dtype=np.int32)
    splits = {name: _only(getattr(dataset, name), labels) for name in ("train", "test")}
    arrays = {f"{n}_images": split.images for n, split in splits.items()}
    arrays |= {f"{n}_labels": split.labels for n, split in splits.items()}
    return dataclasses.replace(
        dataset,
        **splits,
        num_classes=len(chosen),
        class_names=tuple(dataset.class_names[i] for i in chosen),
        fingerprint=cache.fingerprint(arrays, dataset.frames),
    )


def untested(dataset: Dataset) -> Dataset:
    """Returns a data set without test images: nothing is evaluated."""
    images, labels = dataset.test.images[:0], dataset.test.labels[:0]
    return dataclasses.replace(dataset, test=Split(images, labels))


def with_public_constants(dataset: Dataset) -> Dataset:
    """Returns a data set whose constants of the normalization do not depend on its images: the
    published ones, or 1/2 and 1/4."""
    if (dataset.mean, dataset.std) in _MEAN_STD.values():
        return dataset
    channels = dataset.image_shape[-1]
    return dataclasses.replace(dataset, mean=channels * (0.5,), std=channels * (0.25,))


def _only(split: Split, labels: np.ndarray) -> Split:
    there = np.flatnonzero(labels[split.labels] >= 0)
    size = len(there) * split.images[:1].nbytes
    memory.check(f"config.data.classes: {len(there):,} images", size)
    found = rows.take(split.images, there), labels[split.labels[there]]
    for array in found:
        array.flags.writeable = False
    return Split(*found)


def _decode(
    builder, base, folder, channels, chunks_of, damaged
) -> tuple[dict[str, np.ndarray], dict]:
    """Returns (arrays, info) of both splits: mapped from the cache's `folder`, or in memory if
    there is no writable cache."""

    @contextlib.contextmanager
    def named():
        try:
            yield
        except (UsageError, ImportError):
            raise
        except Exception as error:  # PIL, array_record and TFDS raise anything on damage
            raise damaged(prepared.first_line(error)) from error

    def chunks(split):
        with named():
            yield from chunks_of(split)

    def describe(arrays):
        num_frames = arrays["train_images"].shape[-1] // channels
        mean, std = channel_mean_std(arrays["train_images"], num_frames)
        info = {"fingerprint": cache.fingerprint(arrays, num_frames), "mean": mean, "std": std}
        return info | ({"frames": num_frames} if num_frames > 1 else {})

    splits = prepared.splits(builder, base)
    with named():
        for split in splits.values():
            prepared.check_records(builder, split)
    try:
        if folder is not None:
            cache.write(folder, {name: chunks(split) for name, split in splits.items()}, describe)
            if (kept := cache.read(folder)) is not None:
                return kept
    except OSError as error:
        logging.warning("Decoded images are not cached: %s", error)
    arrays = {}
    for name, split in splits.items():
        arrays[f"{name}_images"], arrays[f"{name}_labels"] = in_memory(chunks(split))
    return arrays, describe(arrays)


def channel_mean_std(
    images: UInt8[np.ndarray, "n h w c"], frames: int = 1
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and standard deviation per channel, for pixels in [0, 1].

    Those of clips are per color, repeated for every frame. A deviation below one step of a byte
    is 1: where a channel is the same everywhere, a small one would enlarge its errors.
    """
    if frames > 1:
        pixels = images.reshape(*images.shape[:2], -1, images.shape[-1] // frames)
        return tuple(frames * of_color for of_color in channel_mean_std(pixels))
    counts = np.zeros((images.shape[-1], 256), np.int64)  # exact, however many pixels
    for piece in rows.pieces(images):
        for channel, count in enumerate(counts):
            count += np.bincount(piece[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    return tuple(mean.tolist()), tuple(np.where(std < 1 / 255, 1.0, std).tolist())
