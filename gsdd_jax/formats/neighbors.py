"""Planes of codes of a few bits, range-coded by the neighboring codes; without tables.

Probabilities are the frequencies so far, which the decoder counts as well.
"""

from collections.abc import Callable, Sequence

import numpy as np

from gsdd_jax.formats.entropy import AnswerDecoder, AnswerEncoder
from gsdd_jax.formats.shapes import Int, UInt8

# Rows, columns and channels back.
NEIGHBORS = ((0, 1, 0), (1, 0, 0), (1, 1, 0), (0, 0, 1))
KEPT = 2  # leading bits of a neighbor that count
CONTEXTS = 2 << KEPT * len(NEIGHBORS)  # of the first channel, and of others
LEAST = 2.0**-16  # probability of an answer


def encode(
    planes: Sequence[Int[np.ndarray, "m _ _ _"]], widths: Sequence[int]
) -> UInt8[np.ndarray, "bytes"]:
    """Codes the planes one after the other, each of codes of `widths` bits."""
    encoder = AnswerEncoder()
    for codes, width in zip(planes, widths, strict=True):
        _walk(np.asarray(codes, np.int32), width, encoder.code)
    return encoder.payload()


def decode(
    payload: UInt8[np.ndarray, "bytes"],
    shapes: Sequence[tuple[int, int, int, int]],
    widths: Sequence[int],
) -> list[Int[np.ndarray, "m _ _ _"]]:
    """Inverts `encode`; raises UsageError for bytes that `encode` does not produce."""
    decoder = AnswerDecoder(payload)
    planes = [
        _walk(np.zeros(shape, np.int32), width, lambda _, p: decoder.code(p))
        for shape, width in zip(shapes, widths, strict=True)
    ]
    decoder.check()
    return planes


def _walk(
    codes: Int[np.ndarray, "m h w c"], width: int, answer: Callable
) -> Int[np.ndarray, "m h w c"]:
    """Codes every bit as an answer, and returns the codes of the answers.

    `answer` gets the bits of `codes` and the probabilities of 1. The codes of a diagonal do not
    depend on each other and are coded together.
    """
    _, height, columns, channels = codes.shape
    known = np.pad(np.zeros_like(codes), [(0, 0)] + [(1, 0)] * 3)
    counts = np.zeros((CONTEXTS << width, 2), np.int64)  # of no and yes
    for channel in range(channels):
        for diagonal in range(height + columns - 1):
            y = np.arange(max(0, diagonal - columns + 1), min(height, diagonal + 1))
            x = diagonal - y
            truth = codes[:, y, x, channel].ravel()
            context = np.full_like(truth, channel > 0)
            for up, left, back in NEIGHBORS:
                of = known[:, y + 1 - up, x + 1 - left, channel + 1 - back].ravel()
                context = context << KEPT | of >> max(0, width - KEPT)
            found = np.ones_like(truth)  # a leading 1, then the bits so far
            for bit in reversed(range(width)):
                at = context << width | found
                no, yes = counts[at].T
                probabilities = (5 * yes + 2) / (5 * (no + yes) + 4)
                likely = np.clip(probabilities, LEAST, 1 - LEAST)
                said = answer((truth >> bit & 1).astype(bool), likely)
                np.add.at(counts, (at, said.astype(np.int32)), 1)
                found = found << 1 | said
            known[:, y + 1, x + 1, channel + 1] = (found - (1 << width)).reshape(-1, len(y))
    return known[:, 1:, 1:, 1:]
