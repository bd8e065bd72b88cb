"""Data sets from arrays in memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.data import cache, rows, sources
from gsdd_jax.data.dataset import Dataset, Split, channel_mean_std
from gsdd_jax.data.items import Item, Labels, some
from gsdd_jax.data.split import TEST_FRACTION, divided

CHANNELS = (1, 3)


def from_arrays(
    images: Any,
    labels: Any,
    test: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """Makes a data set of arrays, the same as `launch.prepare` makes of them in a .npz file.

    Args:
      images: [n, h, w, c] or [n, h, w] of 1 or 3 channels: uint8, or numbers in [0, 1], which are
        rounded to 8 bits.
      labels: class of each image [n]: integers or texts.
      test: images and labels to test on. None: a tenth of each class, drawn by a hash of its
        images' indices, which is then not trained on.
      class_names: names in label order: labels are their indices, or the names. None: the
        different labels, in numerical or alphabetical order.
      name: name of the data set.

    Raises UsageError for other shapes, types and values, and for test labels without training
    images.
    """
    seen = Labels()
    train = _items("images", images, "labels", labels, class_names, seen)
    if test is None:
        train, held_out = divided(train, TEST_FRACTION)
    else:
        if not isinstance(test, tuple | list) or len(test) != 2:
            raise UsageError(f"test: expected (images, labels), got {type(test).__name__}")
        held_out = _items("test_images", test[0], "test_labels", test[1], class_names, seen)
    names = list(class_names or sources.class_names(train))
    if len(names) < 2:
        raise UsageError(f"labels: expected two classes or more, got {some(names) or 'none'}")
    arrays = dict(_arrays("train", train, names) | _arrays("test", held_out, names))
    shapes = [arrays[f"{part}_images"].shape[1:] for part in ("train", "test")]
    if shapes[0] != shapes[1]:
        raise UsageError(f"test: expected images of {shapes[0]}, got {shapes[1]}")
    mean, std = channel_mean_std(arrays["train_images"])
    return Dataset(
        name=name,
        train=Split(arrays["train_images"], arrays["train_labels"]),
        test=Split(arrays["test_images"], arrays["test_labels"]),
        num_classes=len(names),
        class_names=tuple(names),
        mean=mean,
        std=std,
        fingerprint=cache.fingerprint(arrays),
    )


def pixels(images: Any, name: str) -> UInt8[np.ndarray, "n h w c"]:
    """Returns images as bytes; see `from_arrays`. Errors begin with `name`."""
    images = _array(images, name)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in CHANNELS or 0 in images.shape:
        raise UsageError(
            f"{name}: expected [n, h, w] or [n, h, w, c] of 1 or 3 channels, got "
            f"{list(images.shape)}{sources.remedy(images)}"
        )
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind != "f":
        remedy = sources.remedy(images)
        raise UsageError(
            f"{name}: expected uint8, or numbers in [0, 1], got {images.dtype}{remedy}"
        )
    out = np.empty(images.shape, np.uint8)
    done = 0
    for piece in rows.pieces(images):
        if not (np.isfinite(piece).all() and piece.min() >= 0 and piece.max() <= 1):
            raise UsageError(
                f"{name}: expected uint8, or numbers in [0, 1], got {images.dtype} from "
                f"{np.nanmin(images):g} to {np.nanmax(images):g}"
            )
        out[done : done + len(piece)] = np.rint(255 * piece)
        done += len(piece)
    return out


def indices(
    labels: Any, name: str, class_names: Sequence[str], count: int
) -> Int32[np.ndarray, "{count}"]:
    """Returns the indices of labels that are indices already, or `class_names`."""
    labels, places = _flat(labels, name), {str(c): place for place, c in enumerate(class_names)}
    if len(places) < len(class_names):
        raise UsageError(f"class_names: expected different names, got {some(list(class_names))}")
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise UsageError(
            f"{name}: expected {counted(count, 'integer')} or text, one per image, got "
            f"{labels.dtype} {list(labels.shape)}"
        )
    if labels.dtype.kind == "U":
        if unknown := sorted(set(labels.tolist()) - places.keys()):
            raise UsageError(f"{name}: expected {some(list(places))}, got {some(unknown)}, too")
        return np.array([places[label] for label in labels.tolist()], np.int32)
    if count and not 0 <= labels.min() <= labels.max() < len(places):
        raise UsageError(
            f"{name}: expected 0 to {len(places) - 1}, got {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int32)


def _array(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:  # lists of different lengths, tensors of a GPU
        raise UsageError(f"{name}: expected an array ({error})") from None


def _flat(labels: Any, name: str) -> np.ndarray:
    labels = _array(labels, name)
    return labels[:, 0] if labels.shape[1:] == (1,) else labels


def _items(image_key, images, label_key, labels, class_names, seen: Labels) -> list[Item]:
    images, labels = pixels(images, image_key), _flat(labels, label_key)
    if class_names is not None:
        names = np.array([str(name) for name in class_names])
        labels = names[indices(labels, label_key, class_names, len(images))]
    arrays = {image_key: images, label_key: labels}
    return sources.of_arrays(arrays, image_key.removesuffix("images"), seen)


def _arrays(part: str, items: list[Item], names: list[str]) -> dict[str, np.ndarray]:
    places = {name: place for place, name in enumerate(names)}
    if unknown := sorted({item.label for item in items} - set(names)):
        raise UsageError(f"test: expected the classes of training, got {some(unknown)}, too")
    labels = np.array([places[item.label] for item in items], np.int32)
    images = np.stack([item.content for item in items])
    for array in (images, labels):
        array.flags.writeable = False
    return {f"{part}_images": images, f"{part}_labels": labels}
