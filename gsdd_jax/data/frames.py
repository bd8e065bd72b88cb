"""Frames of clips: which of them are taken, and how TFDS stores them."""

import contextlib
import types
import unittest.mock
from collections.abc import Iterator
from typing import Any

import numpy as np

from gsdd_jax.core.errors import UsageError, counted

LEAST = 2  # frames of a clip


def spread(count: int, frames: int) -> list[int]:
    """Returns the indices of `frames` of `count` frames, each in the middle of an equal part.

    A shorter clip repeats frames. Raises UsageError for fewer than `LEAST`.
    """
    if count < LEAST:
        raise UsageError(f"{counted(count, 'frame')}, expected a clip of {LEAST} or more")
    return [(2 * k + 1) * count // (2 * frames) for k in range(frames)]


def images_of(feature: Any) -> Any | None:
    """Returns the image feature of each frame if a TFDS feature stores clips, else None."""
    from tensorflow_datasets import features as kinds

    if not isinstance(feature, kinds.Sequence):  # Video is one
        return None
    return feature.feature if type(feature.feature) is kinds.Image else None


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Lets TFDS restore a Video feature, which asks TensorFlow only for a type of numbers."""
    from tensorflow_datasets.core.features import video_feature

    types_of_numpy = types.SimpleNamespace(as_dtype=np.dtype)
    stand_in = types.SimpleNamespace(dtypes=types_of_numpy)
    with unittest.mock.patch.object(video_feature, "tf", stand_in):
        yield
