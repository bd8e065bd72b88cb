"""Data sets of some classes of another."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from gsdd_jax.core import memory
from gsdd_jax.core.errors import located
from gsdd_jax.data import cache, rows
from gsdd_jax.data.dataset import Dataset, Split
from gsdd_jax.formats.parts import class_indices


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
        fingerprint=cache.fingerprint(arrays),
    )


def _only(split: Split, labels: np.ndarray) -> Split:
    there = np.flatnonzero(labels[split.labels] >= 0)
    size = len(there) * split.images[:1].nbytes
    memory.check(f"config.data.classes: {len(there):,} images", size)
    found = rows.take(split.images, there), labels[split.labels[there]]
    for array in found:
        array.flags.writeable = False
    return Split(*found)
