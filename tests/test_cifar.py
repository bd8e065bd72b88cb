"""Tests that torchvision's CIFAR files become TFDS's sets, and that no code named in them runs."""

import pathlib
import pickle
import struct

import numpy as np
import pytest

from gsdd_jax import data
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import cifar

COUNT = 6  # images per file
CLASSES = {"cifar10": 10, "cifar100": 100}


def of_python_2(value) -> bytes:
    """Returns a pickle as Python 2 writes it by protocol 2: strings are bytes."""

    def text(value):
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    def of(value):
        match value:
            case dict():
                return b"}(" + b"".join(of(k) + of(v) for k, v in value.items()) + b"u"
            case list():
                return b"](" + b"".join(map(of, value)) + b"e"
            case np.ndarray():
                dtype = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR"
                dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
                empty = b"(cnumpy\nndarray\n(" + number(0) + b"t" + text(b"b") + b"tR"
                shape = b"(" + b"".join(map(number, value.shape)) + b"t"
                state = number(1) + shape + dtype + b"\x89" + text(value.tobytes())
                return b"cnumpy.core.multiarray\n_reconstruct\n" + empty + b"(" + state + b"tb"
            case int():
                return number(value)
        return text(value)

    return b"\x80\x02" + of(value) + b"."


def of_python_3(value) -> bytes:
    return pickle.dumps(value, protocol=4)


def fill(folder: pathlib.Path, name, pickled=of_python_2) -> dict[str, np.ndarray]:
    """Writes a few images in the files that torchvision unpacks; returns their arrays."""
    rng, made = np.random.default_rng(0), {"train": ([], []), "test": ([], [])}
    folder.mkdir()
    classes = CLASSES[name]
    names = [f"class {i}".encode() for i in range(classes)]
    if name == "cifar10":
        files = {f"data_batch_{i}": "train" for i in range(1, 6)} | {"test_batch": "test"}
        (folder / "batches.meta").write_bytes(pickled({b"label_names": names}))
    else:
        files = {"train": "train", "test": "test"}
        meta = {b"fine_label_names": names, b"coarse_label_names": names[:20]}
        (folder / "meta").write_bytes(pickled(meta))
    for file, split in files.items():
        pixels = rng.integers(0, 256, (COUNT, 3072), np.uint8)
        labels = rng.integers(0, classes, COUNT).tolist()
        values = {b"batch_label": b"one", b"data": pixels, b"filenames": [b"a.png"] * COUNT}
        if name == "cifar10":
            values[b"labels"] = labels
        else:
            values |= {b"fine_labels": labels, b"coarse_labels": [x // 5 for x in labels]}
        (folder / file).write_bytes(pickled(values))
        made[split][0].extend(pixels)
        made[split][1].extend(labels)
    return made


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(cifar, "NUM_IMAGES", {"train": 5 * COUNT, "test": COUNT})


@pytest.mark.parametrize("pickled", [of_python_2, of_python_3])
@pytest.mark.parametrize("name", CLASSES)
def test_the_data_set_of_tfds(tmp_path, name, pickled, monkeypatch):
    """Checks every image and label in the files' order; 1024 red values, then green, then blue."""
    if name == "cifar100":
        monkeypatch.setattr(cifar, "NUM_IMAGES", {"train": COUNT, "test": COUNT})
    made = fill(tmp_path / "files", name, pickled)
    result = cifar.prepare_cifar(tmp_path / "files", data_dir=tmp_path / "tfds")
    assert result.folder == tmp_path / "tfds" / name
    assert sum(result.train) == len(made["train"][0])
    dataset = data.load(name, data_dir=tmp_path / "tfds", cache_dir=tmp_path / "cache")
    assert dataset.class_names == tuple(f"class {i}" for i in range(CLASSES[name]))
    for split, (pixels, labels) in made.items():
        loaded = getattr(dataset, split)
        for image, row in zip(loaded.images, pixels, strict=True):
            for channel in range(3):
                plane = row[1024 * channel :][:1024].reshape(32, 32)
                np.testing.assert_array_equal(image[..., channel], plane)
        np.testing.assert_array_equal(loaded.labels, labels)
    with pytest.raises(UsageError, match="exists already"):
        cifar.prepare_cifar(tmp_path / "files", data_dir=tmp_path / "tfds")


class Hostile:
    """Runs code when it is unpickled."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


HOSTILE = {
    "a call": lambda out: pickle.dumps({b"data": Hostile(pathlib.Path.touch, (out,))}, 2),
    "os": lambda out: b"cos\nsystem\n(X" + struct.pack("<I", len(f"touch {out}"))
    + f"touch {out}".encode() + b"tR.",
    "by another way": lambda out: b"cnumpy\nndarray.__reduce__\n.",
    "numpy's own": lambda out: b"cnumpy\nload\n(S'x'\ntR.",
    "an object": lambda out: b"(S'x'\nios\nsystem\n.",
    "a place far away": lambda out: b"}r\xff\xff\xff\x7f.",  # 16 GB for the unpickler in C
    "nothing": lambda out: b"",
    "no dict": lambda out: pickle.dumps([1], 2),
    "another array": lambda out: of_python_2({b"data": np.zeros((COUNT, 3071), np.uint8)}),
}  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_file_of_cifar_is_one_line_and_runs_nothing(tmp_path, content):
    fill(tmp_path / "files", "cifar10")
    path, out = tmp_path / "files" / "data_batch_3", tmp_path / "run"
    path.write_bytes(content(out))
    with pytest.raises(UsageError, match=r"data_batch_3: expected ") as raised:
        cifar.prepare_cifar(tmp_path / "files", data_dir=tmp_path / "tfds")
    assert "\n" not in str(raised.value)
    assert not out.exists()
    assert not (tmp_path / "tfds").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({b"labels": [1] * (COUNT - 1)}, f"expected {COUNT} whole numbers as its labels"),
        ({b"labels": [10] * COUNT}, "expected numbers from 0 to 9 as its labels"),
        ({b"labels": [b"1"] * COUNT}, f"expected {COUNT} whole numbers as its labels"),
    ],
)
def test_labels_that_are_refused(tmp_path, values, message):
    fill(tmp_path / "files", "cifar10")
    values = {b"data": np.zeros((COUNT, 3072), np.uint8)} | values
    (tmp_path / "files" / "test_batch").write_bytes(of_python_2(values))
    with pytest.raises(UsageError, match=message):
        cifar.prepare_cifar(tmp_path / "files", data_dir=tmp_path / "tfds")


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--cifar: expected torchvision's folder cifar-10-batch"):
        cifar.prepare_cifar(tmp_path, data_dir=tmp_path / "tfds")
    fill(tmp_path / "files", "cifar10")
    (tmp_path / "files" / "data_batch_5").unlink()
    with pytest.raises(UsageError, match="data_batch_5: expected a file of CIFAR"):
        cifar.prepare_cifar(tmp_path / "files", data_dir=tmp_path / "tfds")


def test_a_set_that_is_not_there_is_said_with_both_ways_to_make_it(tmp_path):
    for name, folder in (("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")):
        with pytest.raises(UsageError) as raised:
            data.load(name, data_dir=tmp_path)
        assert "{" not in str(raised.value)
        for part in ("tfds build", "importlib_resources", "--cifar=FOLDER", folder):
            assert part in str(raised.value)
