"""Shares of classes of unequal size in the images of a set."""

import math
from collections.abc import Sequence

import numpy as np

# Name -> weight of a class by its number of training images.
SPLITS = {"even": np.ones_like, "sqrt": np.sqrt, "proportional": np.array}


def counts(sizes: Sequence[int], num_images: int, split: str) -> tuple[int, ...]:
    """Returns the number of images of each class, `num_images` of all, by largest remainder.

    Each class gets at least one. Of equal remainders, those of the first classes are rounded up.

    Args:
      sizes: training images of each class, at least 1; at most `num_images` classes.
      num_images: images of all classes.
      split: "even", "sqrt" or "proportional": the weights of the classes are equal, the square
        roots of their sizes, or their sizes.
    """
    weights = SPLITS[split](np.asarray(sizes, np.float64))
    found = np.ones(len(weights), int)
    larger = np.arange(len(weights))  # classes whose share is at least 1
    while len(larger):
        left = num_images - (len(weights) - len(larger))
        # `fsum` is exact: shares are the same on every machine.
        shares = left * weights[larger] / math.fsum(weights[larger])
        if (enough := shares >= 1).all():
            whole = np.floor(shares).astype(int)
            first = np.argsort(whole - shares, kind="stable")[: left - whole.sum()]
            whole[first] += 1
            found[larger] = whole
            break
        larger = larger[enough]
    return tuple(found.tolist())
