"""Data sets from arrays in memory."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int32, UInt8

from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.data import cache, rows, sources
from gsdd_jax.data.dataset import Dataset, Split, channel_mean_std
from gsdd_jax.data.items import Item, Labels, some
from gsdd_jax.data.split import TEST_FRACTION, divided
from gsdd_jax.formats.base import MAX_FRAMES
from gsdd_jax.formats.clips import check_shape, folded

CHANNELS = (1, 3)
NUMBERS = "integers in 0 to 255 or floats in [0, 1]"


@checked
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
      images: [n, h, w, c] or [n, h, w] of 1 or 3 channels: integers in 0 to 255, or floats or
        bools in [0, 1], which are rounded to 8 bits. Integers other than uint8 are not all 0 or 1.
        Clips are [n, t, h, w, c], all of t frames.
      labels: class of each image [n]: integers, bools as 0 and 1, or texts.
      test: images and labels to test on; (): none. None: a tenth of each class, drawn by a hash of
        its images' indices, which is then not trained on.
      class_names: names in label order: labels are their indices, or the names. None: the
        different labels, in numerical or alphabetical order. Names that differ only in surrounding
        spaces or in the encoding of accents are equal.
      name: name of the data set.

    Raises UsageError for other shapes, types and values, for masked arrays, for test labels without
    training images, and for a single class, unless there are no test images.
    """
    seen, images = Labels(), _array(images, "images")  # a list is copied once
    names, frames = None, frames_of(images, "images")
    if class_names is not None:
        names = distinct(class_names, "class_names")
        _check_several(names, "class_names", test)
    train = _items("images", images, "labels", labels, names, seen)
    if test is None:
        train, held_out = divided(train, TEST_FRACTION)
    elif _is_empty(test):
        held_out = []
    else:
        if not isinstance(test, tuple | list) or len(test) != 2:
            raise UsageError(f"test: expected (images, labels), got {type(test).__name__}")
        test_images = _array(test[0], "test_images")
        held_out = _items("test_images", test_images, "test_labels", test[1], names, seen)
        check_frames(test_images, "test_images", frames)
    if names is None:
        names = sources.class_names(train)
        _check_several(names, "labels", test)
    arrays = _arrays("train", train, names)
    if held_out:
        arrays |= _arrays("test", held_out, names)
    else:
        arrays |= {f"test_{of}": arrays[f"train_{of}"][:0] for of in ("images", "labels")}
    expected, found = (arrays[f"{part}_images"].shape[1:] for part in ("train", "test"))
    check_shape(found, expected, frames, "test: ")
    mean, std = channel_mean_std(arrays["train_images"], frames)
    return Dataset(
        name=name,
        train=Split(arrays["train_images"], arrays["train_labels"]),
        test=Split(arrays["test_images"], arrays["test_labels"]),
        num_classes=len(names),
        class_names=tuple(names),
        mean=mean,
        std=std,
        fingerprint=cache.fingerprint(arrays, frames),
        frames=frames,
    )


def frames_of(images: Any, name: str) -> int:
    """Returns the frames of clips [n, t, h, w, c], else 1; raises UsageError for too many."""
    shape = _array(images, name).shape
    frames = shape[1] if len(shape) == 5 else 1
    if frames > MAX_FRAMES:
        raise UsageError(f"{name}: expected clips of 1 to {MAX_FRAMES} frames, got {frames}")
    return frames


def check_frames(images: Any, name: str, frames: int) -> None:
    """Raises UsageError for other than clips of `frames`, or images where it is 1."""
    if (found := frames_of(images, name)) != frames:
        raise UsageError(f"{name}: expected {counted(frames, 'frame')} each, got {found}")


def pixels(images: Any, name: str) -> UInt8[np.ndarray, "n h w c"]:
    """Returns images as bytes; see `from_arrays`. Errors begin with `name`.

    The frames of clips are channels, one after the other.
    """
    images = _array(images, name)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim not in (4, 5) or images.shape[-1] not in CHANNELS or 0 in images.shape:
        raise UsageError(
            f"{name}: expected [n, h, w], [n, h, w, c] or clips [n, t, h, w, c] of 1 or 3 "
            f"channels, got {list(images.shape)}{sources.remedy(images, layout=True)}"
        )
    if images.ndim == 5:
        images = folded(images)
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind not in "biu" and not jax.dtypes.issubdtype(images.dtype, np.floating):
        raise UsageError(f"{name}: expected {NUMBERS}, got {images.dtype}")
    out = np.empty(images.shape, np.uint8)
    done, largest = 0, 0
    for piece in rows.pieces(images):
        out[done : done + len(piece)], most = _bytes(piece, name)
        done, largest = done + len(piece), max(largest, most)
    if images.dtype.kind in "iu" and largest <= 1:
        raise UsageError(
            f"{name}: expected {NUMBERS}, got {images.dtype} of 0 and 1 only, which may be either; "
            "give images.astype(bool) if 1 is white, images.astype('uint8') if 255 is"
        )
    return out


def _bytes(images, name) -> tuple[np.ndarray, Any]:
    """Returns images as numbers in 0 to 255, and the largest as it was given."""
    dtype = images.dtype
    if whole := dtype.kind in "iu":
        low, high = images.min(), images.max()
    else:
        images = images.astype(np.promote_types(dtype, np.float32), copy=False)
        if wrong := images.size - np.isfinite(images).sum():
            raise UsageError(
                f"{name}: expected {NUMBERS}, got {counted(wrong, 'number')} not finite"
            )
        low, high = images.min(), images.max()
    if low < 0 or high > (255 if whole else 1):
        remedy = ""
        if not whole and low >= 0 and high <= 255:
            remedy = "; divide them by 255, or give images.round().astype('uint8')"
        raise UsageError(
            f"{name}: expected {NUMBERS}, got {dtype} from {low:g} to {high:g}{remedy}"
        )
    return images if whole else np.rint(255 * images), high


def distinct(class_names: Sequence[str], name: str) -> list[str]:
    """Returns class names in their canonical spelling; raises UsageError, naming equal ones."""
    names = [Labels().name(text, f"{name}[{i}]") for i, text in enumerate(class_names)]
    if repeated := [text for i, text in enumerate(names) if text in names[:i]]:
        raise UsageError(f"{name}: expected different names, got {some(repeated)} again")
    return names


def indices(
    labels: Any, name: str, class_names: Sequence[str], count: int
) -> Int32[np.ndarray, "{count}"]:
    """Returns the indices of labels that are indices already, or `distinct` class names."""
    labels, places = _flat(labels, name), {text: i for i, text in enumerate(class_names)}
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise UsageError(
            f"{name}: expected {counted(count, 'integer')} or text, one per image, got "
            f"{labels.dtype} {list(labels.shape)}"
        )
    if labels.dtype.kind == "U":
        texts = [Labels().name(text, f"{name}[{i}]") for i, text in enumerate(labels.tolist())]
        if unknown := sorted(set(texts) - places.keys()):
            raise UsageError(f"{name}: expected {some(list(places))}, got {some(unknown)}, too")
        return np.array([places[text] for text in texts], np.int32)
    if count and not 0 <= labels.min() <= labels.max() < len(places):
        raise UsageError(
            f"{name}: expected 0 to {len(places) - 1}, got {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int32)


def _is_empty(test: Any) -> bool:
    return isinstance(test, tuple | list) and len(test) == 0


def texts(labels: Any, name: str) -> list[str]:
    """Returns the class names of labels as `from_arrays` takes them; errors begin with `name`."""
    labels = _flat(labels, name)
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise UsageError(
            f"{name}: expected integers or texts [n], got {labels.dtype} {list(labels.shape)}"
        )
    return [Labels().name(str(label), f"{name}[{i}]") for i, label in enumerate(labels)]


def _check_several(class_names: list[str], name: str, test: Any) -> None:
    if len(class_names) < (1 if _is_empty(test) else 2):
        found = f"only {some(class_names)}" if class_names else "none"
        raise UsageError(f"{name}: expected two classes or more, got {found}")


def _array(values: Any, name: str) -> np.ndarray:
    parts = values if isinstance(values, list | tuple) else [values]
    if any(np.ma.is_masked(part) for part in parts):
        raise UsageError(f"{name}: expected an array without a mask; fill it: {name}.filled(0)")
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:  # lists of different lengths, tensors of a GPU
        raise UsageError(f"{name}: expected an array ({error})") from None


def _flat(labels: Any, name: str) -> np.ndarray:
    labels = _array(labels, name)
    if labels.dtype == object:  # of a column of pandas
        if all(isinstance(label, str) for label in labels.flat):
            labels = labels.astype(str)
        elif all(_is_integer(label) for label in labels.flat):
            labels = labels.astype(np.int64)
    elif labels.dtype == bool:
        labels = labels.astype(np.int64)
    return labels[:, 0] if labels.shape[1:] == (1,) else labels


def _is_integer(label: Any) -> bool:
    """Returns whether an object is an integer, and no bool."""
    is_int = isinstance(label, int | np.integer) and not isinstance(label, bool)
    return is_int and abs(int(label)) < 2**63


def _items(image_key, images, label_key, labels, class_names, seen: Labels) -> list[Item]:
    frames = frames_of(images, image_key)
    images, labels = pixels(images, image_key), _flat(labels, label_key)
    if class_names is not None:
        labels = np.array(class_names)[indices(labels, label_key, class_names, len(images))]
    arrays = {image_key: images, label_key: labels}
    return sources.of_arrays(arrays, image_key.removesuffix("images"), seen, frames)


def _arrays(part: str, items: list[Item], names: list[str]) -> dict[str, np.ndarray]:
    places = {name: place for place, name in enumerate(names)}
    if unknown := sorted({item.label for item in items} - set(names)):
        raise UsageError(f"test: expected the classes of training, got {some(unknown)}, too")
    labels = np.array([places[item.label] for item in items], np.int32)
    images = np.stack([item.content for item in items])
    for array in (images, labels):
        array.flags.writeable = False
    return {f"{part}_images": images, f"{part}_labels": labels}
