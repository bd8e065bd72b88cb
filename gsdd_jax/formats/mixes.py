"""Mixtures of a set's images, each with a soft label of its own.

A mixture is an image with a rectangle of another image of the set in its place (CutMix, Yun et al.,
ICCV 2019). Which image and which rectangle follow from the number of the images alone, so that a
mixture takes the bytes of its label only. Mixtures are appended after the images: the i-th of each
round has the i-th image as its larger part.
"""

import reprlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats.arrays import namespace
from gsdd_jax.formats.shapes import Bool, Float, Int

MIXES = "mixes"  # name in a file
MOST = 64  # mixtures of each image
_UNIT = 256  # of positions and sides
AREAS = 26, 128  # least and most area of the rectangle, in 1/256 of the image's


class Round(NamedTuple):
    """One mixture of each image."""

    others: Int[np.ndarray, "m"]  # index of the image that gives its rectangle
    top: Int[np.ndarray, "m"]
    left: Int[np.ndarray, "m"]
    side: Int[np.ndarray, "m"]  # all in 1/256 of the image's sides

    def inside(self, height: int, width: int) -> Bool[np.ndarray, "m {height} {width} 1"]:
        """Returns which pixels have their center in the rectangle."""
        rows = _within(self.top, self.side, height)[:, :, None]
        return (rows & _within(self.left, self.side, width)[:, None, :])[..., None]


def rounds(num_images: int, mixes: int) -> Iterator[Round]:
    """Yields `mixes` rounds, the same on every machine and with every version of NumPy."""
    for number in range(mixes):
        drawn = np.random.Philox(key=number).random_raw(4 * num_images).reshape(4, num_images)
        others = np.argsort(drawn[0], kind="stable")
        least, most = AREAS
        area = least + (drawn[1] % np.uint64(most - least + 1)).astype(int)
        side = np.sqrt(area * _UNIT).astype(int)
        top, left = ((d % (_UNIT - side + 1).astype(np.uint64)).astype(int) for d in drawn[2:])
        yield Round(others, top, left, side)


def with_mixes(images: Float[Any, "m h w c"], mixes: int) -> Float[Any, "n h w c"]:
    """Returns the images and `mixes` mixtures of each, in NumPy or JAX."""
    if not mixes:
        return images
    xp = namespace(images)
    height, width = images.shape[1:3]
    mixed = [
        xp.where(one.inside(height, width), images[one.others], images)
        for one in rounds(len(images), mixes)
    ]
    return xp.concatenate([images, *mixed])


def parts(labels: Int[np.ndarray, "m"], mixes: int) -> Int[np.ndarray, "n p"]:
    """Returns the class of each part of the images and their mixtures, the larger part first.

    Without mixtures there is one part, else two; those of an image that is no mixture are equal.
    """
    if not mixes:
        return labels[:, None]
    others = [labels[one.others] for one in rounds(len(labels), mixes)]
    return np.stack([np.tile(labels, 1 + mixes), np.concatenate([labels, *others])], 1)


def check(mixes: Any) -> None:
    """Raises UsageError for an invalid number of mixtures of each image in a file."""
    if type(mixes) is not int or not 1 <= mixes <= MOST:
        raise UsageError(
            f"{MIXES}: expected an integer from 1 to {MOST}, got {reprlib.repr(mixes)}"
        )


def _within(first, size, count) -> Bool[np.ndarray, "m {count}"]:
    centers = (2 * np.arange(count) + 1) * (_UNIT // 2)
    return (first[:, None] * count <= centers) & (centers < (first + size)[:, None] * count)
