"""Images of several distilled sets, with targets among the classes of all."""

import reprlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats.clips import check_shape
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.labeler import ALONE
from gsdd_jax.formats.shapes import Float, Int


class Union(NamedTuple):
    images: Float[np.ndarray, "m *t h w c"]  # in [0, 1], as rendered
    targets: Int[np.ndarray, "m"] | Float[np.ndarray, "m k"]  # places in `classes`, or odds of them
    classes: tuple[str, ...]


def union(
    sets: Sequence[Any], images_of: Callable[[DistilledSet], Any] = DistilledSet.images
) -> Union:
    """Returns the images of all sets, with the classes in the order in which they first come.

    If a set has soft labels, targets are probabilities. A set says nothing about the classes that
    it does not have: their probability is 0.

    Args:
      images_of: renders a set.

    Raises UsageError, counting from 1, for a set without class names, with a labeler, or with
    images of another size than the first's.
    """
    classes = classes_of(sets)
    places = {name: place for place, name in enumerate(classes)}
    soft = any(of.soft_labels is not None for of in sets)
    images, targets = [], []
    for number, of in enumerate(sets, 1):
        first = sets[0].format.image_shape
        check_shape(of.format.image_shape, first, where=f"set {number}: ")
        if of.format.frames != (frames := sets[0].format.frames):
            raise UsageError(f"set {number}: expected frames={frames}, got {of.format.frames}")
        if of.labeler is not None:
            raise UsageError(f"set {number}: {ALONE}")
        own = np.array([places[name] for name in of.class_names])
        images.append(np.asarray(images_of(of)))
        if not soft:
            targets.append(own[of.labels])
            continue
        found = np.zeros((len(of.labels), len(classes)))
        found[:, own] = np.eye(len(own))[of.labels] if of.soft_labels is None else of.targets
        targets.append(found)
    dtype = np.float32 if soft else np.int32
    return Union(np.concatenate(images), np.concatenate(targets).astype(dtype), classes)


def classes_of(sets: Sequence[Any]) -> tuple[str, ...]:
    """Returns the names of all classes, in the order in which they first come.

    Raises UsageError for something else than a set, and for one without class names.
    """
    for number, of in enumerate(sets, 1):
        if not isinstance(of, DistilledSet):
            raise UsageError(f"set {number}: expected a distilled set, got {reprlib.repr(of)}")
        if of.class_names is None:
            raise UsageError(f"set {number}: expected class names, got none")
    return tuple(dict.fromkeys(name for of in sets for name in of.class_names))
