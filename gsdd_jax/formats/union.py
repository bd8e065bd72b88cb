"""Images of several distilled sets, with targets among the classes of all."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats.distilled import Arrays, DistilledSet


def union(
    sets: Sequence[DistilledSet],
    classes: Sequence[str],
    images_of: Callable[[DistilledSet], Any] = DistilledSet.images,
) -> Arrays:
    """Returns the images of all sets in [0, 1], and their targets.

    Targets are indices into `classes`, or probabilities of these if a set has soft labels. A set
    says nothing about the classes that it does not have: their probability is 0.

    Args:
      sets: sets of one image size, with class names.
      classes: names of the classes, those of the sets among them.
      images_of: renders a set.

    Raises UsageError for a set without class names, or with one that is not in `classes`.
    """
    places = {name: place for place, name in enumerate(classes)}
    soft = any(of.soft_labels is not None for of in sets)
    images, targets = [], []
    for of in sets:
        if missing := [name for name in of.class_names or ("",) if name not in places]:
            raise UsageError(
                f"{of!r}: expected classes among {', '.join(classes)}, got {missing[0]!r}"
            )
        own = np.array([places[name] for name in of.class_names])
        images.append(np.asarray(images_of(of)))
        if not soft:
            targets.append(own[of.labels])
            continue
        found = np.zeros((len(of.labels), len(classes)), np.float32)
        known = np.eye(of.num_classes)[of.labels] if of.soft_labels is None else of.targets
        found[:, own] = known
        targets.append(found)
    dtype = np.float32 if soft else np.int32
    return Arrays(np.concatenate(images), np.concatenate(targets).astype(dtype))
