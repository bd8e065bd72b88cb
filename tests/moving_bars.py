"""Clips of a bar that moves, for tests."""

import numpy as np

FRAMES = 4


def clips(count=12, seed=0):
    """Returns clips of a bar that moves to the right or downward, and these labels."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 60, (count, FRAMES, 8, 8, 3), np.uint8)
    labels = np.arange(count) % 2
    for k in range(FRAMES):
        found[labels == 0, k, :, 2 * k] += 180
        found[labels == 1, k, 2 * k] += 180
    return found, labels
