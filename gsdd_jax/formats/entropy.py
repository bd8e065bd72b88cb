"""Integers as bytes, entropy-coded or of fixed width."""

import contextlib
from collections.abc import Sequence

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats.shapes import Bool, Float, Int, UInt8

PER_OCTAVE = 8  # steps of a table entry per factor of two in frequency
MOST = 255
TAIL = 8  # bytes of the coder beyond the codes' bits
SPARE = 1.01, 256  # bits that are decoded: at most those of the bytes, by this factor, and more


def table(codes: Int[np.ndarray, "n"], levels: int) -> UInt8[np.ndarray, "levels"]:
    """Returns the frequency of each of `levels` codes in steps of 1/8 octave; 0: never.

    Rounding costs about 0.0005 bits per code.
    """
    counts = np.bincount(codes, minlength=levels).astype(np.float64)
    octaves = np.log2(counts, out=np.zeros(levels), where=counts > 0)
    scaled = np.rint(PER_OCTAVE * octaves) - max(0, np.rint(PER_OCTAVE * octaves.max()) - MOST + 1)
    return np.where(counts > 0, np.clip(scaled + 1, 1, MOST), 0).astype(np.uint8)


def encode(
    columns: Sequence[Int[np.ndarray, "_"]], tables: Sequence[UInt8[np.ndarray, "_"]]
) -> UInt8[np.ndarray, "bytes"]:
    """Range-codes all columns, one after the other, each by its table."""
    encoder = _coder().stream.queue.RangeEncoder()
    for codes, table_ in zip(columns, tables, strict=True):
        encoder.encode(np.ascontiguousarray(codes, np.int32), _model(table_))
    return _payload(encoder)


def decode(
    payload: UInt8[np.ndarray, "bytes"],
    tables: Sequence[UInt8[np.ndarray, "_"]],
    counts: int | Int[np.ndarray, "columns"],
) -> list[Int[np.ndarray, "_"]]:
    """Decodes `counts` codes of each column, or as many of every one: the inverse of `encode`.

    Raises UsageError for bytes that `encode` does not produce.
    """
    decoder, columns, bits = _decoder(payload), [], _bits(payload)
    for table_, count in zip(tables, np.broadcast_to(counts, len(tables)), strict=True):
        with _decoding():
            columns.append(decoder.decode(_model(table_), int(count)))
        bits = _left(bits, _probabilities(table_)[columns[-1]])
    if not np.array_equal(encode(columns, tables), payload):
        raise UsageError(f"codes: {len(payload)} bytes are not what their codes take")
    return columns


class AnswerEncoder:
    """Range-codes answers, yes or no, each by its own probability of yes."""

    def __init__(self):
        self._coder = _coder().stream.queue.RangeEncoder()
        self._model = _coder().stream.model.Bernoulli(perfect=False)

    def code(
        self, answers: Bool[np.ndarray, "n"], probabilities: Float[np.ndarray, "n"]
    ) -> Bool[np.ndarray, "n"]:
        """Codes answers and returns them."""
        self._coder.encode(answers.astype(np.int32), self._model, probabilities)
        return answers

    def payload(self) -> UInt8[np.ndarray, "bytes"]:
        return _payload(self._coder)


class AnswerDecoder:
    """Decodes the bytes of `AnswerEncoder`; raises UsageError for bytes that it does not write."""

    def __init__(self, payload: UInt8[np.ndarray, "bytes"]):
        self._payload, self._coder = payload, _decoder(payload)
        self._model = _coder().stream.model.Bernoulli(perfect=False)
        self._again, self._bits = AnswerEncoder(), _bits(payload)

    def code(self, probabilities: Float[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        """Returns the next answers."""
        with _decoding():
            answers = self._coder.decode(self._model, probabilities).astype(bool)
        self._bits = _left(self._bits, np.where(answers, probabilities, 1 - probabilities))
        return self._again.code(answers, probabilities)

    def check(self) -> None:
        """Raises UsageError unless the bytes are exactly those of the answers."""
        if not np.array_equal(self._again.payload(), self._payload):
            raise UsageError(f"codes: {len(self._payload)} bytes are not what their answers take")


def pack(
    columns: Sequence[Int[np.ndarray, "n"]], widths: Sequence[int]
) -> UInt8[np.ndarray, "bytes"]:
    """Packs codes in `widths` bits per column, most significant first; zeros fill the last byte."""
    flags = [
        (np.asarray(codes)[:, None] >> np.arange(width)[::-1]) & 1
        for codes, width in zip(columns, widths, strict=True)
    ]
    return np.packbits(np.concatenate([f.ravel() for f in flags]).astype(np.uint8))


def unpack(
    payload: UInt8[np.ndarray, "bytes"], widths: Sequence[int], count: int
) -> list[Int[np.ndarray, "n"]]:
    """Unpacks `count` codes per column from exactly their bytes: the inverse of `pack`."""
    flags = np.unpackbits(payload)
    ends = np.cumsum([count * width for width in widths])
    return [
        flags[end - count * width : end].reshape(count, width).astype(np.int32)
        @ (1 << np.arange(width)[::-1]).astype(np.int32)
        for end, width in zip(ends, widths, strict=True)
    ]


def packed_bytes(widths: Sequence[int], count: int) -> int:
    return -(-count * sum(widths) // 8)


def _bits(payload):
    factor, more = SPARE
    return factor * 8 * len(payload) + more


def _left(bits, probabilities):
    """Returns the bits left after symbols of these probabilities; raises UsageError below 0.

    The decoder itself goes on beyond its bytes.
    """
    bits += float(np.log2(np.maximum(probabilities, 2.0**-24)).sum())
    if bits < 0:
        raise UsageError("codes: expected more bytes, got fewer than so many codes take")
    return bits


def _payload(encoder):
    return np.frombuffer(encoder.get_compressed().astype("<u4").tobytes(), np.uint8)


def _decoder(payload):
    if len(payload) % 4:
        raise UsageError(f"codes: expected a multiple of 4 bytes, got {len(payload)}")
    words = np.frombuffer(payload.tobytes(), "<u4").astype(np.uint32)
    return _coder().stream.queue.RangeDecoder(words)


@contextlib.contextmanager
def _decoding():
    try:
        yield
    except (AssertionError, ValueError) as error:
        raise UsageError(f"codes: not the output of the encoder ({error})") from None


def _probabilities(table_):
    # Powers of two by table, because mathematics libraries round differently.
    parts = np.array([1 << 16, 71468, 77936, 84990, 92682, 101070, 110218, 120194], np.int64)
    place = table_.astype(np.int64) - 1
    whole = np.ldexp(parts[place % PER_OCTAVE].astype(np.float64), place // PER_OCTAVE)
    weights = np.where(table_ > 0, whole, 0.0)
    return weights / weights.sum()


def _model(table_):
    return _coder().stream.model.Categorical(_probabilities(table_), perfect=False)


def _coder():
    try:
        import constriction
    except ImportError:
        raise UsageError(
            "codes: entropy-coded, and constriction, which decodes them, is not installed; "
            "pip install constriction"
        ) from None
    return constriction
