"""Tests exports, each format by an independent reader."""

import csv
import dataclasses
import io
import json
import os
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import gsdd_jax
from gsdd_jax import exports, parameterizations
from gsdd_jax.exports import webdataset
from gsdd_jax.formats import transforms

pytestmark = pytest.mark.usefixtures("quickly_compiled")

NAMES = ["sea otter", "café/../.."]  # not safe in a path
LOGITS = np.float32(8 / 3) * np.array([[3, 0]] * 3 + [[1, 2]] * 3, np.float32)
SOFT = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Returns a file of 3 images per class, with soft labels and some values beyond [0, 1]."""
    kind = parameterizations.build("pixels", (8, 6, 3), ipc=3, images_per_class=1)
    pixels = np.random.default_rng(0).uniform(-0.4, 1.6, (6, 8, 6, 3)).astype(np.float32)
    made = {
        "data": {"name": "mine", "class_names": NAMES},
        "transform": {"name": "normalize", "mean": MEAN, "std": STD},
    }
    labels = np.repeat(np.arange(2), 3)
    params = {"pixels": jnp.asarray(pixels)}
    path = tmp_path_factory.mktemp("work") / "distilled.safetensors"
    gsdd_jax.save(path, parameterizations.stored(kind, params, labels, 0.1, made, LOGITS, 2))
    return path


@pytest.fixture(scope="module")
def pictures(file):
    """Returns the images rounded to 8 bits."""
    return np.floor(255 * np.clip(np.float64(gsdd_jax.load(file).images()), 0, 1) + 0.5)


def test_png(file, pictures, tmp_path):
    line = exports.export(gsdd_jax.load(file), tmp_path / "out", "png")
    assert "6 images of 8x6x3 with soft labels, clipped to [0, 1] and rounded to 8 bits" in line
    assert "with soft labels" in line
    folders = sorted(path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert [path.name for path in folders] == ["0_sea_otter", "1_café_.._.."]
    files = [path for folder in folders for path in sorted(folder.iterdir())]
    assert [path.name for path in files] == [f"{i:05}.png" for i in range(6)]
    for path, expected in zip(files, pictures, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
    with open(tmp_path / "out" / "soft_labels.csv", newline="", encoding="utf-8") as table:
        head, *rows = csv.reader(table)
    assert head == ["file", *NAMES]
    assert [row[0] for row in rows] == [str(path.relative_to(tmp_path / "out")) for path in files]
    np.testing.assert_allclose(np.float64([row[1:] for row in rows]), SOFT, rtol=1e-6)
    mark = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (mark["format"], mark["distilled"]["data"]["name"]) == ("png", "mine")


def test_tfds(file, pictures, tmp_path):
    import tensorflow_datasets as tfds

    exports.export(gsdd_jax.load(file), tmp_path / "out", "tfds")
    builder = tfds.builder_from_directory(tmp_path / "out" / "distilled_set" / "1.0.0")
    assert builder.info.features["label"].names == NAMES
    found = list(tfds.data_source("distilled_set", split="train", data_dir=tmp_path / "out"))
    assert [example["label"] for example in found] == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(np.stack([example["image"] for example in found]), pictures)
    np.testing.assert_allclose([example["target"] for example in found], SOFT, rtol=1e-6)


def test_hf(file, pictures, tmp_path, monkeypatch):
    """Reads the folder by Hugging Face's own library, as the Hub does."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    exports.export(gsdd_jax.load(file), tmp_path / "out", "hf")
    found = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert found.features["label"].names == NAMES
    assert found["label"][:] == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal([np.asarray(image) for image in found["image"]], pictures)
    np.testing.assert_allclose(found["target"][:], SOFT, rtol=1e-6)
    assert (tmp_path / "out" / "distilled.safetensors").read_bytes() == file.read_bytes()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# Distilled mine" in card
    said = f"{gsdd_jax.load(file).num_bytes:,}"
    per_class = f"{gsdd_jax.load(file).num_bytes / 2:,.1f}"
    assert f"| bytes | {said}, {per_class} per class |" in card
    assert "| labels | soft, 2 bits per image and class |" in card


@pytest.mark.parametrize("of", [{"data": [1], "transform": 5}, {"data": {"name": "a|b\n---\n<i>"}}])
def test_a_card_of_a_forged_provenance_is_a_card(file, tmp_path, of):
    set_ = dataclasses.replace(gsdd_jax.load(file), provenance=of)
    exports.export(set_, tmp_path / "out", "hf")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("\n---\n") == 1 and "<i>" not in card and "a|b" not in card


def test_webdataset(file, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "IN_A_SHARD", 4)
    for name in ("one", "two"):
        exports.export(gsdd_jax.load(file), tmp_path / name, "webdataset")
    shards = sorted((tmp_path / "one").glob("*.tar"))
    assert [shard.name for shard in shards] == ["shard-00000.tar", "shard-00001.tar"]
    index = 0
    for shard in shards:
        assert shard.read_bytes() == (tmp_path / "two" / shard.name).read_bytes()
        with tarfile.open(shard) as tar:
            members = tar.getmembers()
            for png, label, soft in zip(*(members[i::3] for i in range(3)), strict=True):
                names = [f"{index:05}.{kind}" for kind in ("png", "cls", "soft.npy")]
                assert [png.name, label.name, soft.name] == names
                values = np.load(io.BytesIO(tar.extractfile(soft).read()))
                np.testing.assert_allclose(values, SOFT[index], rtol=1e-6)
                image = Image.open(tar.extractfile(png))
                np.testing.assert_array_equal(np.asarray(image), pictures[index])
                assert int(tar.extractfile(label).read()) == index // 3
                index += 1
    assert index == 6


@pytest.mark.parametrize("space", [None, "training", "unit"])
def test_numbers(file, tmp_path, space):
    set_ = gsdd_jax.load(file)
    expected = set_.images()
    if space != "unit":
        expected = (expected - np.float32(MEAN)) / np.float32(STD)
    for to in ("npz", "torch"):
        line = exports.export(set_, tmp_path / to, to, space=space)
        assert ("in [0, 1] space" if space == "unit" else "as in training") in line
    with np.load(tmp_path / "npz", allow_pickle=False) as npz:
        found = dict(npz)
    tensors = safetensors.numpy.load_file(tmp_path / "torch")
    np.testing.assert_allclose(found["images"], expected, atol=1e-5)
    np.testing.assert_array_equal(tensors["images"], found["images"].transpose(0, 3, 1, 2))
    assert tensors["labels"].dtype == np.int64
    for arrays in (found, tensors):
        np.testing.assert_array_equal(arrays["labels"], [0, 0, 0, 1, 1, 1])
        np.testing.assert_allclose(arrays["targets"], SOFT, atol=1e-6)


def test_another_resolution(file, tmp_path):
    set_ = gsdd_jax.load(file)
    exports.export(set_, tmp_path / "out", "npz", space="unit", resolution=16)
    expected = jax.image.resize(set_.images(), (6, 16, 16, 3), "bilinear", antialias=False)
    np.testing.assert_allclose(np.load(tmp_path / "out")["images"], expected, atol=1e-5)


def test_the_transform(file, tmp_path):
    set_, path = gsdd_jax.load(file), tmp_path / "transform"
    assert "normalize transform" in exports.export_transform(set_, path)
    found, of = transforms.load(path, (8, 6, 3))
    np.testing.assert_allclose((found.mean, found.std), (MEAN, STD), rtol=1e-6)
    assert of["name"] == "normalize"
    np.testing.assert_array_equal(set_.numpy(transform=path).images, set_.numpy().images)


def refusal(*arguments, **options):
    with pytest.raises(gsdd_jax.UsageError) as raised:
        exports.export(*arguments, **options)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def test_what_is_refused(file, tmp_path):
    set_, path = gsdd_jax.load(file), tmp_path / "out"
    assert "to: expected one of npz, torch, hf, mp4, png" in refusal(set_, path, "jpeg")
    for to in ("png", "tfds", "webdataset"):
        assert "space: expected unit" in refusal(set_, path, to, space="training")
    assert "height: expected an integer" in refusal(set_, path, "npz", resolution=0)
    assert "space: expected one of" in refusal(set_, path, "npz", space="zca")
    assert not path.exists()


def export_again(set_, path, to):
    if to == "transform":
        exports.export_transform(set_, path, overwrite=True)
    else:
        exports.export(set_, path, to, overwrite=True)


@pytest.mark.parametrize("to", ["npz", "torch", "transform"])
@pytest.mark.parametrize("what", ["the set", "arrays of mine", "a text", "a link", "a FIFO"])
def test_a_file_that_is_no_export_is_not_replaced(file, tmp_path, to, what):
    set_, path = gsdd_jax.load(file), tmp_path / "out"
    if what == "the set":
        path.write_bytes(file.read_bytes())
    elif what == "arrays of mine":
        with open(path, "wb") as out:
            np.savez(out, images=np.zeros(1), labels=np.zeros(1))
    elif what == "a text":
        path.write_text("years of work")
    elif what == "a link":
        exports.export_transform(set_, tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
    before = None if what == "a FIFO" else path.read_bytes()
    with pytest.raises(gsdd_jax.UsageError, match="not an earlier export"):
        export_again(set_, path, to)
    assert path.is_fifo() if before is None else path.read_bytes() == before
    assert path.is_symlink() == (what == "a link")


@pytest.mark.parametrize("to", ["npz", "torch", "transform"])
def test_a_file_that_is_an_export_is_replaced(file, tmp_path, to):
    for _ in range(2):
        export_again(gsdd_jax.load(file), tmp_path / "out", to)


@pytest.mark.parametrize("to", ["png", "npz"])
def test_nothing_is_overwritten_unless_it_is_asked_for(file, tmp_path, to, monkeypatch):
    set_, path = gsdd_jax.load(file), tmp_path / "out"
    exports.export(set_, path, to)
    before = content(path)
    assert "--overwrite" in refusal(set_, path, to)

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:  # a failed write leaves the old file
        patch.setattr("os.rename" if to == "png" else "os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            exports.export(set_, path, to, overwrite=True, resolution=4)
    assert content(path) == before
    exports.export(set_, path, to, overwrite=True, resolution=4)
    assert content(path) != before
    if to == "npz":
        with np.load(path) as arrays:
            assert sorted(arrays) == ["images", "labels", "targets"]
    # Only an earlier export is replaced, never another folder.
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("")
    assert "not an earlier export" in refusal(set_, mine, to, overwrite=True)
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("how", ["itself", "a symlink", "a hard link", "its export"])
def test_an_input_is_not_replaced(file, tmp_path, how):
    """Merges, cuts and exports a set to its own place, by another name for it, or around it."""
    place, given = tmp_path / "set", tmp_path / "given"
    place.write_bytes(file.read_bytes())
    if how == "itself":
        given = place
    elif how == "a symlink":
        given.symlink_to(place)
    elif how == "a hard link":
        given.hardlink_to(place)
    else:
        place.unlink()
        exports.export(gsdd_jax.load(file), place, "hf")
        given = place / "distilled.safetensors"
    before, of = content(tmp_path), gsdd_jax.load(given)
    with pytest.raises(gsdd_jax.UsageError, match=f"^{place}: expected another place than .*input"):
        if how == "its export":
            exports.export(of, place, "png", overwrite=True)
        else:
            exports.save(gsdd_jax.subset(of, ["1"]), place, True, [of])
    assert content(tmp_path) == before


def content(path):
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(file): file.read_bytes() for file in files if file.is_file()}


@pytest.mark.parametrize(
    "names",
    [["x", "x"], ["", "y"], ["a\nb", "c"], ["a", " b"], ["a\x1b", "b"]],
    ids=str,
)
def test_names_that_no_list_of_lines_holds(file, tmp_path, names):
    """Checks names that TFDS would silently change; the other formats number classes."""
    set_ = gsdd_jax.load(file)
    set_.provenance["data"]["class_names"] = names
    line = r"^provenance\.data\.class_names: expected 2 different names of printable characters"
    with pytest.raises(gsdd_jax.UsageError, match=line):
        exports.export(set_, tmp_path / "tfds", "tfds")
    assert not (tmp_path / "tfds").exists()
    exports.export(set_, tmp_path / "png", "png")
    assert len(list((tmp_path / "png").glob("*/*.png"))) == 6


def test_a_long_name_is_cut_where_a_file_system_would_refuse_it(file, tmp_path):
    set_ = gsdd_jax.load(file)
    set_.provenance["data"]["class_names"] = ["猫" * 100, "犬" * 100]
    exports.export(set_, tmp_path / "png", "png")
    folders = sorted(path.name for path in (tmp_path / "png").iterdir() if path.is_dir())
    assert folders == ["0_" + "猫" * 33, "1_" + "犬" * 33]
