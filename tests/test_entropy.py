"""Tests coding of integers to bytes and back."""

import numpy as np
import pytest

import gsdd_jax
from gsdd_jax.formats import entropy


def columns(count=6000):
    rng = np.random.default_rng(0)
    return {
        "uniform": (rng.integers(0, 64, count), 64),
        "peaked": (np.clip(np.rint(rng.normal(30, 2, count)), 0, 63).astype(int), 64),
        "gaps": (rng.choice([0, 7, 255], count, p=[0.9, 0.099, 0.001]), 256),
        "one": (np.full(count, 3), 4),
        "few bits": (rng.integers(0, 4, count), 4),
    }


def empirical(codes):
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    return -(shares * np.log2(shares)).sum()


@pytest.mark.parametrize("name", columns())
def test_one_column_in_as_many_bits_as_its_entropy(name):
    codes, levels = columns()[name]
    table = entropy.table(codes, levels)
    payload = entropy.encode([codes], [table])
    np.testing.assert_array_equal(entropy.decode(payload, [table], len(codes))[0], codes)
    expected = empirical(codes) * len(codes)
    assert 8 * len(payload) <= 1.003 * expected + 0.002 * len(codes) + 64
    assert 8 * len(payload) >= expected - 1
    assert ((table > 0) == (np.bincount(codes, minlength=levels) > 0)).all()


def test_all_columns_in_one_stream():
    codes, levels = zip(*columns().values(), strict=True)
    tables = [entropy.table(*pair) for pair in zip(codes, levels, strict=True)]
    payload = entropy.encode(codes, tables)
    for found, expected in zip(entropy.decode(payload, tables, 6000), codes, strict=True):
        np.testing.assert_array_equal(found, expected)
    alone = sum(len(entropy.encode([c], [t])) for c, t in zip(codes, tables, strict=True))
    assert len(payload) <= alone


def test_the_bytes_are_the_same_everywhere():
    codes = np.arange(40) ** 2 % 16
    table = entropy.table(codes, 16)
    assert table.tolist() == [28, 28, 0, 0, 28, 0, 0, 0, 0, 28, 0, 0, 0, 0, 0, 0]
    assert entropy.encode([codes], [table]).tobytes().hex() == "3218391b30307628291fffc2"


def test_frequencies_to_an_eighth_of_an_octave():
    counts = np.array([1, 2, 3, 100, 0, 5000])
    table = entropy.table(np.repeat(np.arange(6), counts), 6)
    assert table[4] == 0
    there = counts > 0
    ratios = 2.0 ** ((table[there].astype(int) - 1) / 8)
    np.testing.assert_allclose(ratios, counts[there], rtol=2 ** (1 / 16) - 1)


def test_a_frequency_beyond_the_table_takes_the_others_along(monkeypatch):
    """Uses a table to 100: beyond 255 there would be more codes than memory holds."""
    monkeypatch.setattr(entropy, "MOST", 100)
    table = entropy.table(np.repeat(np.arange(3), [1 << 20, 1 << 18, 1]), 3)
    assert table.tolist() == [100, 100 - 2 * 8, 1]


def test_damaged_bytes_are_refused_or_give_other_codes():
    (codes, levels), rng = columns()["peaked"], np.random.default_rng(1)
    table = entropy.table(codes, levels)
    payload = entropy.encode([codes], [table])
    refused = 0
    for _ in range(200):
        damaged = payload.copy()
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        try:
            found = entropy.decode(damaged, [table], len(codes))[0]
        except gsdd_jax.UsageError:
            refused += 1
        else:
            assert (found != codes).any()
    assert refused > 0


def test_other_bytes_of_the_same_codes_are_refused():
    """Changes bits of the last word, some of which decide no code."""
    (codes, levels), refused = columns()["peaked"], 0
    table = entropy.table(codes, levels)
    payload = entropy.encode([codes], [table])
    for bit in range(32):
        damaged = payload.copy()
        damaged[len(payload) - 4 + bit // 8] ^= 1 << bit % 8
        try:
            assert (entropy.decode(damaged, [table], len(codes))[0] != codes).any()
        except gsdd_jax.UsageError as error:
            refused += "are not what" in str(error)
    assert refused > 0


@pytest.mark.parametrize("size", [0, 3, 4, 400, -4, -1, 40_000])
def test_another_length_is_refused(size):
    codes, levels = columns()["peaked"]
    table = entropy.table(codes, levels)
    payload = entropy.encode([codes], [table])
    payload = np.append(payload, np.zeros(max(0, size - len(payload)), np.uint8))[:size]
    with pytest.raises(gsdd_jax.UsageError, match="codes: "):
        entropy.decode(payload, [table], len(codes))


def test_fixed_length_codes():
    rng, widths = np.random.default_rng(0), (2, 5, 8)
    codes = [rng.integers(0, 2**width, 13) for width in widths]
    text = "".join(f"{c:0{w}b}" for w, column in zip(widths, codes, strict=True) for c in column)
    text += "0" * (-len(text) % 8)
    expected = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    packed = entropy.pack(codes, widths)
    assert packed.tobytes() == expected
    assert len(packed) == entropy.packed_bytes(widths, 13)
    for found, column in zip(entropy.unpack(packed, widths, 13), codes, strict=True):
        np.testing.assert_array_equal(found, column)


def test_decoding_ends_soon_after_the_bytes_end():
    """Claims a hundred million answers of a bit each in eight bytes, and as many codes."""
    payload, asked = np.full(8, 7, np.uint8), 0
    decoder = entropy.AnswerDecoder(payload)
    with pytest.raises(gsdd_jax.UsageError, match="expected more bytes"):
        for _ in range(100_000):
            asked += 1
            decoder.code(np.full(1000, 0.5))
    assert asked < 5
    with pytest.raises(gsdd_jax.UsageError, match="expected more bytes"):
        entropy.decode(payload, 10**6 * [np.array([9, 9], np.uint8)], 100)
