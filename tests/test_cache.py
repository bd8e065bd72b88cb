"""Tests the cache of decoded data sets."""

import io
import json
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from gsdd_jax import data
from tests.tfds_sets import (
    NO_JSON_OBJECT,
    REPOSITORY,
    assert_is_tiny,
    load_tiny,
    png,
    prepare,
    prepare_tiny,
    random_images,
    refuse_to_decode,
    run_python,
)


@pytest.fixture
def tiny(tmp_path):
    return prepare_tiny(tmp_path)


def cached_files(tmp_path) -> list[pathlib.Path]:
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_second_load_maps_the_cache(tmp_path, tiny, monkeypatch):
    _, images, labels = tiny
    first = load_tiny(tmp_path)
    assert [path.name for path in cached_files(tmp_path)] == [
        "info.json",
        "test_images.npy",
        "test_labels.npy",
        "train_images.npy",
        "train_labels.npy",
    ]
    monkeypatch.setattr(data.decode, "decode_image", refuse_to_decode)
    second = load_tiny(tmp_path)
    assert_is_tiny(second, images, labels)
    assert isinstance(second.train.images.base, np.memmap)
    assert not second.train.images.flags.writeable
    assert (second.mean, second.std) == (first.mean, first.std)
    assert second.fingerprint == first.fingerprint


def test_a_cache_is_not_believed(tmp_path, tiny, monkeypatch):
    """Damages the cache's files: the set stays the same, and the files are rewritten."""
    _, images, labels = tiny
    good = load_tiny(tmp_path)
    originals = {path: path.read_bytes() for path in cached_files(tmp_path)}
    info_path = next(path for path in originals if path.name == "info.json")
    info = json.loads(originals[info_path])

    def array(value):
        out = io.BytesIO()
        np.save(out, value, allow_pickle=value.dtype == object)
        return out.getvalue()

    wrong = [*NO_JSON_OBJECT, b'{"a":' * 10**5]
    for field in info:
        for value in (None, [0.5, 0.5, 0.6]):
            wrong.append(json.dumps({**info, field: value}).encode())
        wrong.append(json.dumps({k: v for k, v in info.items() if k != field}).encode())
    cases = [(info_path, content) for content in wrong]
    for path, original in originals.items():
        changed = original[:-8] + bytes(255 - byte for byte in original[-8:])
        cases += [(path, None), (path, changed)]
        if path.suffix == ".npy":
            stored = np.load(io.BytesIO(original))
            arrays = (stored[:-1], stored.T, stored.astype(np.int64), 0 * stored)
            cases += [(path, array(a)) for a in (*arrays, np.array([{}, None]))]
            lengths = (0, 5, 60, 128, len(original) - 1)
            cases += [(path, original[:length]) for length in lengths]
            cases += [(path, original[:20] + b"(" * 40 + original[60:]), (path, b"\x80\x04N.")]
    for path, content in cases:
        if content == originals[path]:
            continue
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        found = load_tiny(tmp_path)
        assert_is_tiny(found, images, labels)
        assert (found.mean, found.std) == (good.mean, good.std)
        assert found.fingerprint == good.fingerprint
        assert path.read_bytes() == originals[path]


def test_different_data_never_shares_a_cache(tmp_path, tiny):
    folder, images, labels = tiny
    whole = load_tiny(tmp_path)
    assert load_tiny(tmp_path, resolution=4).image_shape == (4, 4, 3)
    assert load_tiny(tmp_path, resolution=6).image_shape == (6, 6, 3)
    assert_is_tiny(load_tiny(tmp_path), images, labels)

    # The same name, sizes and number of bytes, but other pixels, elsewhere.
    pairs = [(png(image), int(label)) for image, label in zip(255 - images, labels, strict=True)]
    prepare(tmp_path / "other", "tiny", {"train": pairs[:7], "test": pairs[7:]})
    other = data.load("tiny", data_dir=tmp_path / "other", cache_dir=tmp_path / "cache")
    assert_is_tiny(other, 255 - images, labels)
    assert other.fingerprint != whole.fingerprint

    # The same set prepared again in the same place.
    for path in folder.iterdir():
        path.write_bytes((tmp_path / "other" / "tiny" / "1.0.0" / path.name).read_bytes())
    assert_is_tiny(load_tiny(tmp_path), 255 - images, labels)


def test_fingerprint_covers_pixels_labels_and_splits(tmp_path):
    a, b = (png(image) for image in random_images(13, 2, (4, 4, 3)))
    variants = {
        "base": {"train": [(a, 0), (b, 1)], "test": [(a, 0)]},
        "labels": {"train": [(a, 0), (b, 2)], "test": [(a, 0)]},
        "order": {"train": [(b, 1), (a, 0)], "test": [(a, 0)]},
        "split": {"train": [(a, 0)], "test": [(b, 1), (a, 0)]},
        "tested": {"train": [(a, 0), (b, 1)], "test": [(b, 0)]},
        "again": {"train": [(a, 0), (b, 1)], "test": [(a, 0)]},
    }
    found = {}
    for name, splits in variants.items():
        prepare(tmp_path, name, splits)
        found[name] = data.load(name, data_dir=tmp_path, cache_dir=tmp_path / "c").fingerprint
        assert re.fullmatch("[0-9a-f]{64}", found[name])
    assert found["again"] == found["base"]
    assert len(set(found.values())) == len(variants) - 1


def test_unwritable_cache_means_no_cache(tmp_path, tiny):
    _, images, labels = tiny
    (tmp_path / "cache").write_text("a file where the folder should be")
    dataset = load_tiny(tmp_path)
    assert_is_tiny(dataset, images, labels)
    assert not dataset.train.images.flags.writeable


LOAD_TINY = """
import sys
from gsdd_jax import data
print(data.load("tiny", data_dir=sys.argv[1], cache_dir=sys.argv[2]).fingerprint)
"""


def test_killed_while_writing_the_cache(tmp_path, tiny):
    """Kills just before the last file is renamed: the files so far are no cache."""
    _, images, labels = tiny
    killer = f"""
import os, signal, sys
replace, done = os.replace, []
def replace_or_die(*args):
    if len(done) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(replace(*args))
os.replace = replace_or_die
sys.argv = ["", {str(tmp_path / "tfds")!r}, {str(tmp_path / "cache")!r}]
"""
    assert run_python(killer + LOAD_TINY).returncode == -signal.SIGKILL
    named = [path for path in cached_files(tmp_path) if path.suffix in (".npy", ".json")]
    assert len(named) == 4
    assert_is_tiny(load_tiny(tmp_path), images, labels)


def test_processes_share_a_cache(tmp_path, tiny):
    _, images, labels = tiny
    arguments = [str(tmp_path / "tfds"), str(tmp_path / "cache")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOAD_TINY, *arguments],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    prints = {process.communicate()[0].strip() for process in processes}
    dataset = load_tiny(tmp_path)
    assert prints == {dataset.fingerprint}
    assert_is_tiny(dataset, images, labels)
    assert len(cached_files(tmp_path)) == 5  # no temporary file is left
