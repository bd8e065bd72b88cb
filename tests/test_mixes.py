"""Tests mixtures: which parts they show, and their labels in a file."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import gsdd_jax
from gsdd_jax import parameterizations
from gsdd_jax.exports import hf
from gsdd_jax.formats import file, info, labels, mixes
from gsdd_jax.formats.pixels import Pixels


def test_a_mixture_has_a_square_of_another_image():
    images = np.random.default_rng(0).uniform(size=(7, 12, 16, 3)).astype(np.float32)
    found = mixes.with_mixes(images, 3)
    assert len(found) == 28
    np.testing.assert_array_equal(found[:7], images)
    for number, one in enumerate(mixes.rounds(7, 3)):
        assert sorted(one.others) == list(range(7))
        for i in range(7):
            area = (one.side[i] / 256) ** 2
            assert 0.09 < area <= 0.5 and one.top[i] + one.side[i] <= 256
            expected = images[i].copy()
            for row in range(12):
                for column in range(16):
                    y, x = (row + 0.5) / 12 * 256, (column + 0.5) / 16 * 256
                    if 0 <= y - one.top[i] < one.side[i] and 0 <= x - one.left[i] < one.side[i]:
                        expected[row, column] = images[one.others[i], row, column]
            np.testing.assert_array_equal(found[7 * (number + 1) + i], expected)
    np.testing.assert_array_equal(mixes.with_mixes(jnp.asarray(images), 3), found)


def test_the_choice_is_the_same_forever():
    """A file holds no word of it."""
    (_, one) = mixes.rounds(5, 2)
    found = [array.tolist() for array in one]
    assert found == KNOWN


KNOWN = [[3, 2, 0, 1, 4], [67, 54, 85, 88, 0], [118, 8, 49, 114, 77], [121, 86, 143, 128, 135]]


@pytest.fixture
def mixed():
    """Returns a set of pixels with two mixtures of each image, and random soft labels."""
    rng = np.random.default_rng(1)
    kind = Pixels(8, 8, 3, images_per_class=20)
    classes = np.repeat(np.arange(3, dtype=np.int32), 20)
    logits = labels.values(rng.integers(0, 4, (180, 3)), 3)
    arrays = {"pixels": rng.uniform(size=(60, 8, 8, 3)).astype(np.float32)}
    of_labels = {"soft_labels": logits, "label_bits": 3, "mixes": 2}
    return gsdd_jax.DistilledSet(kind, arrays, np.tile(classes, 3), 0.1, **of_labels)


def test_stored_images_alone_are_decoded_once(mixed):
    rendered = mixed.images()
    alone = mixed.without_mixes()
    assert alone.params is mixed.params
    np.testing.assert_array_equal(alone.images(), rendered[:60])


def test_a_file_keeps_their_labels(mixed, tmp_path):
    path = tmp_path / "set.safetensors"
    gsdd_jax.save(path, mixed)
    again = gsdd_jax.load(path)
    assert again.mixes == 2 and again.num_classes == 3 and again.class_counts == (20, 20, 20)
    np.testing.assert_array_equal(again.labels, mixed.labels)
    np.testing.assert_array_equal(again.soft_labels, mixed.soft_labels)
    np.testing.assert_array_equal(again.images(), mixes.with_mixes(mixed.arrays["pixels"], 2))
    stored = safetensors.numpy.load_file(path)
    assert len(stored["labels"]) == 60  # mixtures take the bytes of soft labels only
    assert again.num_bytes == 60 * 8 * 8 * 3 * 4 + stored["soft_labels"].nbytes
    assert "20 images per class of 8x8x3, and 2 mixtures of each" in info.text(info.info(again))
    assert "20 per class of 3 classes, 8x8x3, and 2 mixtures of each" in hf.card(again)
    np.testing.assert_array_equal(parameterizations.images(again), again.images())
    fewer = gsdd_jax.subset(again, images_per_class=19)
    assert fewer.mixes == 0 and len(fewer.labels) == 57
    kept = mixed.soft_labels[:60].reshape(3, 20, 3)[:, :19].reshape(57, 3)
    np.testing.assert_array_equal(fewer.soft_labels, kept)


def test_parts_of_an_image_have_their_own_frequencies():
    """The codes of two parts and of the others differ, and so the coder is told which is which."""
    rng = np.random.default_rng(2)
    parts = rng.integers(0, 10, (400, 2))
    codes = rng.integers(0, 2, (400, 10))
    codes[np.arange(400), parts[:, 1]] = 7
    codes[np.arange(400), parts[:, 0]] = 15
    logits = labels.values(codes, 4)
    one, two = (labels.pack(logits, 4, parts[:, :n], 10) for n in (1, 2))
    assert len(two) < 400 * 10 / 8 + 100 < len(one) < 400 * 10 / 2
    for payload, count in ((one, 1), (two, 2)):
        found = labels.unpack(payload, 4, parts[:, :count], 10)
        np.testing.assert_array_equal(found, logits)


@pytest.mark.parametrize(
    "header, message",
    [
        ({"mixes": 0}, "mixes: expected an integer from 1 to 64, got 0"),
        ({"mixes": 65}, "mixes: expected an integer from 1 to 64, got 65"),
        ({"mixes": True}, "mixes: expected an integer from 1 to 64, got True"),
        ({"label_bits": None}, "mixes: expected soft labels"),
        ({"mixes": 64}, "soft_labels: codes: not the output of the encoder"),
        ({"mixes": 1}, "soft_labels: "),
    ],
)
def test_what_a_file_must_not_say(mixed, tmp_path, header, message):
    path = tmp_path / "set.safetensors"
    gsdd_jax.save(path, mixed)
    there = json.loads(file.metadata(path)[file.HEADER]) | header
    there = {name: value for name, value in there.items() if value is not None}
    arrays, fields = safetensors.numpy.load_file(path), there.keys() - {"format", file.DIGESTS}
    there[file.DIGESTS] = file.digests(arrays, {name: there[name] for name in fields})
    path.write_bytes(safetensors.numpy.save(arrays, {file.HEADER: json.dumps(there)}))
    with pytest.raises(gsdd_jax.UsageError, match=message):
        gsdd_jax.load(path)


def test_implausible_mixtures_are_refused_before_they_are_drawn(tmp_path, monkeypatch):
    path, count = tmp_path / "set.safetensors", 300_000
    kind = Pixels(1, 1, 1, images_per_class=count // 2)
    arrays = {"pixels": np.zeros((count, 1, 1, 1), np.float32)}
    classes = np.repeat(np.arange(2, dtype=np.int32), count // 2)
    gsdd_jax.save(path, gsdd_jax.DistilledSet(kind, arrays, classes, 0.1))
    there = json.loads(file.metadata(path)[file.HEADER]) | {"mixes": 64, "label_bits": 3}
    arrays = safetensors.numpy.load_file(path) | {"soft_labels": np.ones(4000, np.uint8)}
    fields = there.keys() - {"format", file.DIGESTS}
    there[file.DIGESTS] = file.digests(arrays, {name: there[name] for name in fields})
    path.write_bytes(safetensors.numpy.save(arrays, {file.HEADER: json.dumps(there)}))
    monkeypatch.setattr(mixes, "rounds", None)
    with pytest.raises(gsdd_jax.UsageError, match="than 4,000 bytes for 39,000,000 codes"):
        gsdd_jax.load(path)


def test_other_labels_of_mixtures_are_refused(mixed, tmp_path):
    wrong = mixed.labels.copy()
    wrong[-1] = 0
    with pytest.raises(gsdd_jax.UsageError, match="labels: expected those of the images again"):
        gsdd_jax.save(tmp_path / "set", dataclasses.replace(mixed, labels=wrong))
