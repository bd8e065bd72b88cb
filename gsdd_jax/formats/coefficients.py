"""Quantized coefficients of 8 x 8 blocks as bytes, range-coded by context.

A coefficient is coded as answers: is it not zero, is it negative, is it beyond 1, 2, ... The
probability of yes is a logistic function of what is known: lower frequencies of the same and of the
neighboring blocks, the same frequency above and to the left, the planes before. The function's
weights, a byte each, are fitted to the set and stored with it.

Each coefficient is predicted by the conditional mean of a stationary Gaussian field, which has no
parameters to store. All that decides a probability is computed in whole numbers, exact in float64
and, for features, in float32, so that a file decodes on any machine.

Planes are walked with frequencies first, so that a frequency of all blocks lies together.

Checks of types would take most of the time of `no_type_check`'s functions, of which a set has
thousands of calls.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, no_type_check

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats.entropy import AnswerDecoder, AnswerEncoder
from gsdd_jax.formats.shapes import Bool, Float, Int, UInt8

SIDE = 8
COUNT = SIDE * SIDE
MOST = 4095  # a coefficient's largest size, and distance from its prediction
# Flat indices of the frequencies (vertical, horizontal), from low to high.
ZIGZAG = np.array(
    sorted(
        range(COUNT), key=lambda p: (sum(divmod(p, SIDE)), p if sum(divmod(p, SIDE)) % 2 else -p)
    )
)
RANK = np.argsort(ZIGZAG)
AROUND = ((0, -1), (-1, 0), (0, 1), (1, 0))  # neighbors of a block: rows and columns to them
BEFORE = ((0, -1), (-1, 0), (-1, -1))  # those coded earlier
BY_DIAGONAL = 16  # lowest frequencies; coded diagonal by diagonal of blocks, all others at once
PREDICTING = 12  # lowest frequencies; they predict others
# (vertical and horizontal distance to a lower frequency, its weight)
NEAR = ((1, 0, 2), (0, 1, 2), (1, 1, 1), (2, 0, 1), (0, 2, 1), (1, -1, 1), (-1, 1, 1))
# The field: correlation of adjacent pixels; variance of rounding, relative to that of pixels.
CORRELATION, NOISE = 0.95, 0.01
UNIT = 1024  # quantizer's step in predictions
UNARY = 20  # distances up to it are answers; the rest of larger ones are binary digits
BANDS = {"zero": 8, "negative": 6, "beyond": 4}  # frequencies by diagonal, the last ones together
WEIGHT, CENTER = 256, 128  # unit and offset of stored weights
RIDGE = 100.0  # penalty of squared weights in their fit
FITTED_TO = 10_000  # answers of one kind, at most
# Functions of whole numbers as tables: mathematics libraries round differently.
LOGS = np.rint(8 * np.log2(1 + np.arange(1 << 14) / 8)).astype(np.float32)
ODDS = 2047
PROBABILITIES = np.rint(65536 / (1 + np.exp(-np.arange(-ODDS, ODDS + 1) / WEIGHT))) / 65536

Answer = Callable[[tuple, Float[np.ndarray, "f n"], Bool[np.ndarray, "n"]], Bool[np.ndarray, "n"]]


def num_weights(num_planes: int) -> int:
    return sum(_lengths(num_planes).values())


def encode(
    planes: Sequence[Int[np.ndarray, "m _ _ 64"]],
) -> tuple[UInt8[np.ndarray, "bytes"], UInt8[np.ndarray, "weights"]]:
    """Returns the bytes of planes of blocks, and the weights that decode them."""
    planes = [np.moveaxis(np.asarray(plane, np.int32), -1, 0)[ZIGZAG] for plane in planes]
    asked: list[tuple[tuple, Int[np.ndarray, "f n"], Bool[np.ndarray, "n"]]] = []

    def collect(key, features, answers):
        asked.append((key, features.astype(np.int8), answers))  # every feature fits
        return answers

    _walk(planes, collect)
    seen: dict[tuple, list] = {}
    for key, features, answers in asked:
        seen.setdefault(key, []).append((features, answers))
    weights = [_fitted(seen.get(key), n) for key, n in _lengths(len(planes)).items()]
    stored = (np.concatenate(weights) + CENTER).astype(np.uint8)
    encoder, of_key = AnswerEncoder(), _by_key(stored, len(planes))
    for key, features, answers in asked:
        encoder.code(answers, _probabilities(features.astype(np.float32), of_key[key]))
    return encoder.payload(), stored


def decode(
    payload: UInt8[np.ndarray, "bytes"],
    weights: UInt8[np.ndarray, "weights"],
    shapes: Sequence[tuple[int, int, int]],
) -> list[Int[np.ndarray, "m _ _ 64"]]:
    """Returns planes of these shapes (images, rows and columns of blocks); inverts `encode`.

    Raises UsageError for bytes that `encode` does not produce.
    """
    planes = [np.zeros((COUNT, *shape), np.int32) for shape in shapes]
    decoder, of_key = AnswerDecoder(payload), _by_key(weights, len(planes))
    _walk(planes, lambda key, x, _: decoder.code(_probabilities(x, of_key[key])))
    decoder.check()
    return [np.ascontiguousarray(np.moveaxis(plane[RANK], 0, -1)) for plane in planes]


def _lengths(num_planes: int) -> dict[tuple, int]:
    """Returns the number of weights of each logistic function, by planes, question and band."""
    lengths = {"zero": 8, "negative": 2, "beyond": 10}
    more = {"zero": 2, "negative": 1, "beyond": 2}  # of the planes before
    return {
        (later, question, band): lengths[question] + later * more[question]
        for later in range(min(num_planes, 2))
        for question, bands in BANDS.items()
        for band in range(bands)
    }


def _by_key(weights, num_planes):
    lengths = _lengths(num_planes)
    parts = np.split(weights.astype(np.float32) - CENTER, np.cumsum(list(lengths.values()))[:-1])
    return dict(zip(lengths, parts, strict=True))


@no_type_check
def _probabilities(features, weights):
    # Products of whole numbers are exact; BLAS would use several threads for them, and be slower.
    at = np.einsum("f,fn->n", weights, features).astype(np.int32)
    return PROBABILITIES.take(at + ODDS, mode="clip")


def _fitted(seen, length) -> Float[np.ndarray, "{length}"]:
    """Fits weights by Newton's method; zeros where nothing was asked."""
    weights = np.zeros(length)
    if seen is None:
        return weights
    features, answers = (np.concatenate(part, -1) for part in zip(*seen, strict=True))
    every = max(1, len(answers) // FITTED_TO)
    x, y = np.array(features[:, ::every].T, np.float64, order="C"), answers[::every]
    for _ in range(6):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        curvature = (x * (p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(length)
        weights -= np.linalg.solve(curvature, x.T @ (p - y) + RIDGE * weights)
    return np.clip(np.rint(WEIGHT * weights), -CENTER, CENTER - 1)


def _walk(planes: list[Int[np.ndarray, "64 m _ _"]], answer: Answer) -> None:
    """Codes every coefficient, and writes the answers into the planes.

    `answer` gets the logistic function's key, the features, and the answers that follow from the
    planes: those of the encoder.
    """
    for i, plane in enumerate(planes):
        inside, known = np.zeros(plane.shape[1:], np.int32), None
        for k in range(COUNT):
            # Unknown coefficients of this plane and of later ones are not read.
            if k <= PREDICTING:
                known = np.concatenate(_shifted(plane[:k].astype(np.float64), ((0, 0), *AROUND)))
            context = _context(planes[:i], plane, inside, known, k)
            for at in _passes(*plane.shape[2:], k):
                _code(plane[k], k, context, at, answer)
            if k:
                inside += np.abs(plane[k])


class _Context(NamedTuple):
    """Numbers of all blocks known before a frequency is coded."""

    later: int  # whether there are planes before
    diagonal: int
    features: list[Float[np.ndarray, "m h w"]]
    predicted: Int[np.ndarray, "m h w"]  # by lower frequencies, in 1 / UNIT
    weights: Int[np.ndarray, "h w 3"]  # of the same frequency in blocks `BEFORE`
    other: Int[np.ndarray, "m h w"] | None  # same coefficient of the plane before, if alike


@no_type_check
def _context(before, plane, inside, known, k) -> _Context:
    """Returns the context of a frequency.

    Args:
      inside: sums of the sizes of lower frequencies, [m, h, w].
      known: lower frequencies of every block and of its neighbors, [f, m, h, w].
    """
    row, column = divmod(int(ZIGZAG[k]), SIDE)
    near = np.zeros_like(inside)
    for up, left, weight in NEAR:
        if 0 <= row - up < SIDE and 0 <= column - left < SIDE:
            rank = RANK[(row - up) * SIDE + column - left]
            if 0 < rank < k:
                near += weight * np.abs(plane[rank])
    features = [
        np.full(near.shape, 16, np.float32),
        np.full(near.shape, 4 * abs(row - column), np.float32),
        _log(8 * near),
        _log(8 * inside),
        _log(8 * sum(_shifted(near, AROUND))),
    ]
    other = None
    if before:
        around = slice(max(1, k - 3), k + 4)
        features.append(_log(8 * _pooled(np.abs(before[0][around]).sum(0), plane.shape[1:])))
        alike = len(before) > 1 and before[-1].shape == plane.shape
        other = before[-1][k] if alike else np.zeros_like(near)
        features.append(_log(8 * np.abs(other)))
    lower_weights, weights = _predictors(*near.shape[1:], k)
    flat = len(known), len(near), near[0].size
    of_block = lower_weights.reshape(flat[2], flat[0]).T.astype(np.float64, order="C")
    predicted = np.einsum("fmb,fb->mb", known.reshape(flat), of_block)
    predicted = predicted.reshape(near.shape).astype(np.int64)
    return _Context(int(bool(before)), row + column, features, predicted, weights, other)


@no_type_check
def _code(coded, k, context, at, answer) -> None:
    """Codes the blocks `at` of one frequency, [m, h, w]."""

    def ask(question, features, answers):
        band = min(context.diagonal, BANDS[question] - 1)
        return answer((context.later, question, band), np.stack(features), answers)

    predicted = context.predicted[at]
    differing = np.zeros_like(predicted)
    if k < BY_DIAGONAL:
        same = np.stack([x[at] for x in _shifted(coded, BEFORE)], -1)
        predicted = predicted + (same * context.weights[at[1:]]).sum(-1)
        differing = np.ptp(same, -1) if k == 0 else np.abs(same[..., :2]).sum(-1)
    # Means are coded as distances to their prediction. Others are mostly 0.
    origin = (predicted + UNIT // 2) // UNIT if k == 0 else np.zeros_like(predicted)
    truth = (coded[at] - origin).ravel()
    ahead = np.clip(predicted - UNIT * origin, -4 * UNIT, 4 * UNIT).ravel()
    features = [*(f[at] for f in context.features), _log(8 * differing)]
    features = np.stack([f.ravel() for f in features])
    size, log_size = np.abs(ahead) // (UNIT // 16), _log(np.abs(ahead) // (UNIT // 8))
    size = size.astype(np.float32)
    found = np.zeros_like(truth)
    there = ask("zero", [*features, size, log_size], truth != 0)
    where = np.flatnonzero(there)
    toward = (np.sign(ahead) * np.stack([size, log_size]))[:, where].astype(np.float32)
    signs = list(toward)
    if context.later:
        signs.append(np.float32(16) * np.clip(context.other[at].ravel()[where], -3, 3))
    sign = np.where(ask("negative", signs, truth[where] < 0), -1, 1)
    features = np.concatenate([features[:, where], sign.astype(np.float32) * toward])
    for reached in range(1, UNARY + 1):
        if not len(where):
            break
        found[where] = reached * sign
        count = [_log(np.int32(8 * reached - 8)), np.float32(16 * (reached == 1))]
        count = [np.broadcast_to(n, where.shape) for n in count]
        beyond = ask("beyond", [*features, *count], np.abs(truth[where]) > reached)
        where, sign, features = where[beyond], sign[beyond], features[:, beyond]
    if len(where):
        none = np.zeros((len(features) + 2, 1), np.float32)  # even odds
        even = lambda bits: ask("beyond", list(np.repeat(none, len(bits), 1)), bits)
        found[where] = sign * (UNARY + _number(np.abs(truth[where]) - UNARY, even))
    values = found.reshape(origin.shape) + origin
    if np.abs(values).max() > MOST:
        raise _too_large()
    coded[at] = values


@no_type_check
def _number(rest, even):
    """Codes numbers of at least 1: the count of binary digits, then all but the first."""
    more, active = np.zeros_like(rest), np.arange(len(rest))
    while len(active):
        if more[active[0]] > MOST.bit_length():
            raise _too_large()
        active = active[even(rest[active] >> (more[active] + 1) > 0)]
        more[active] += 1
    number = np.ones_like(rest)
    for place in range(more.max())[::-1]:
        has = np.flatnonzero(more > place)
        number[has] = 2 * number[has] + even(rest[has] >> place & 1 == 1)
    return number


def _too_large():
    return UsageError(f"codes: expected coefficients up to {MOST}, got a larger one")


def _passes(height, width, k) -> Iterator[tuple[Any, ...]]:
    """Yields indices [m, h, w] of the blocks that are coded at once."""
    if k >= BY_DIAGONAL:
        yield (...,)
        return
    rows, columns = np.indices((height, width))
    for diagonal in range(height + width - 1):
        yield slice(None), *np.nonzero(rows + columns == diagonal)


def _predictors(height, width, k):
    """Returns the weights of lower frequencies [h, w, 1 + 4, l], and of the same [h, w, 3]."""
    kinds, kind = _neighbors(height, width)
    split = len(AROUND)
    found = [_predictor(k, tuple(n[:split]), tuple(n[split:])) for n in kinds]
    return tuple(np.stack(part)[kind] for part in zip(*found, strict=True))


@functools.lru_cache(maxsize=4)  # of planes of the sizes of one set
def _neighbors(height, width):
    """Returns the combinations of existing neighbors, and that of each block [h, w]."""
    rows, columns = np.indices((height, width))
    there = [
        (rows + down >= 0) & (rows + down < height)
        & (columns + right >= 0) & (columns + right < width)
        for down, right in (*AROUND, *BEFORE)
    ]  # fmt: skip
    flat = np.stack(there, -1).reshape(-1, len(there))
    kinds, kind = np.unique(flat, axis=0, return_inverse=True)
    return kinds.tolist(), kind.reshape(height, width)


@functools.cache
def _predictor(k, around, before):
    """Returns the weights of a block for each combination of existing neighbors."""
    places = [(0, 0), *AROUND]
    lower = np.zeros((len(places), min(k, PREDICTING)), np.int64)
    same = np.zeros(len(BEFORE), np.int64)
    known = [(to, n) for to, here in zip(places, (True, *around), strict=True) if here
             for n in range(lower.shape[1])]  # fmt: skip
    known += [(to, k) for to, here in zip(BEFORE, before, strict=True) if here and k < BY_DIAGONAL]
    if not known:
        return lower, same
    at, of = np.array([to for to, _ in known]), np.array([n for _, n in known])
    apart = np.moveaxis(at - at[:, None], -1, 0) + 2
    between = _covariance()[*apart, of[:, None], of] + NOISE * np.eye(len(known))
    found = np.linalg.solve(between, _covariance()[*(at.T + 2), k, of])
    for (to, n), weight in zip(known, np.rint(UNIT * found), strict=True):
        if n == k:
            same[BEFORE.index(to)] = weight
        else:
            lower[places.index(to), n] = weight
    return lower, same


@functools.cache
def _covariance() -> Float[np.ndarray, "5 5 64 64"]:
    """Returns covariances of two blocks' coefficients, by the rows and columns between them."""
    rows, columns = np.divmod(np.arange(COUNT), SIDE)
    both = np.kron(cosines(), cosines())[ZIGZAG]
    found = np.empty((5, 5, COUNT, COUNT))
    for i, j in np.ndindex(5, 5):
        down, right = SIDE * (i - 2), SIDE * (j - 2)
        distance = np.hypot(rows + down - rows[:, None], columns + right - columns[:, None])
        found[i, j] = both @ CORRELATION**distance @ both.T
    return found


def cosines() -> Float[np.ndarray, "8 8"]:
    """Returns the orthonormal DCT-II vectors."""
    n = np.arange(SIDE)
    scale = np.sqrt(np.where(n == 0, 1, 2) / SIDE)
    return scale[:, None] * np.cos(np.pi / SIDE * np.outer(n, n + 0.5))


@no_type_check
def _log(x):
    return LOGS.take(x, mode="clip")


@no_type_check
def _shifted(x, places):
    """Returns the values of every block's neighbors at some places; 0 beyond the border."""
    *more, height, width = x.shape
    padded = np.zeros((*more, height + 2, width + 2), x.dtype)
    padded[..., 1:-1, 1:-1] = x
    return [
        padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        for down, right in places
    ]


def _pooled(x, shape):
    """Returns sums over the blocks that each block of a smaller plane covers."""
    count, height, width = shape[:3]
    down, right = -(-x.shape[1] // height), -(-x.shape[2] // width)
    after = (0, down * height - x.shape[1]), (0, right * width - x.shape[2])
    return np.pad(x, ((0, 0), *after)).reshape(count, height, down, width, right).sum((2, 4))
