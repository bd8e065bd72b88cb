"""Tests the data layer, on the embedded set and on small TFDS sets made here."""

import dataclasses
import hashlib
import importlib.util
import json
import pathlib
import re
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

import gsdd_jax
from gsdd_jax import data
from gsdd_jax.core import errors
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data.dataset import channel_mean_std
from tests.own_pictures import damaged_tiff
from tests.tfds_sets import (
    NO_JSON_OBJECT,
    REPOSITORY,
    TEST_SEED,
    assert_is_tiny,
    load_tiny,
    png,
    prepare,
    prepare_tiny,
    random_images,
    run_python,
)

PACKAGE = pathlib.Path(gsdd_jax.__file__).parent
MINI = PACKAGE / "data" / "datasets" / "cifar10_mini"


# Sets to test with.


def places(tmp_path) -> dict[str, pathlib.Path]:
    return {"data_dir": tmp_path, "cache_dir": tmp_path / "cache"}


def made(tmp_path, name, images, *, train=1, test="test", load="", **options) -> data.Dataset:
    """Prepares images of one class, the first ones to train on, and loads them."""
    pairs = [(png(image), 0) for image in images]
    prepare(tmp_path, name, {"train": pairs[:train], test: pairs[train:]}, **options)
    return data.load(load or name, **places(tmp_path))


@pytest.fixture
def tiny(tmp_path):
    return prepare_tiny(tmp_path)


def usage_error(name, **kwargs) -> str:
    with pytest.raises(UsageError) as info:
        data.load(name, **kwargs)
    message = str(info.value)
    assert "\n" not in message
    return message


# The embedded set.


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    return data.load("cifar10_mini", cache_dir=tmp_path_factory.mktemp("mini"))


def test_mini_is_what_its_readme_says(mini):
    recorded = re.findall(
        r"\| (\w+) \| (\d+) \| `([0-9a-f]{64})` \|", (MINI / "README.md").read_text()
    )
    found = [
        (f"{split}_{part}", str(len(array)), hashlib.sha256(array.tobytes()).hexdigest())
        for split in ("train", "test")
        for part, array in dataclasses.asdict(getattr(mini, split)).items()
    ]
    assert sorted(found) == sorted(recorded)


def test_mini_constants(mini):
    assert (mini.name, mini.image_shape, mini.num_classes) == ("cifar10_mini", (32, 32, 3), 10)
    assert (mini.class_names[0], mini.class_names[9]) == ("airplane", "truck")
    assert mini.mean == (0.4914, 0.4822, 0.4465)
    assert mini.std == (0.2023, 0.1994, 0.2010)
    for split in (mini.train, mini.test):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        assert not split.images.flags.writeable


def test_tool_takes_the_first_of_each_class(tmp_path, monkeypatch):
    images = random_images(2, 60, (32, 32, 3))
    labels = np.random.default_rng((TEST_SEED, 3)).permutation(np.arange(60) % 10)
    examples = {
        split: [
            (png(image), label, {"id": f"{split}_{i:05d}"})
            for i, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
        for split in ("train", "test")
    }
    features = {"id": tfds.features.Text(), "image": tfds.features.Image(shape=(32, 32, 3))}
    prepare(
        tmp_path / "tfds", "cifar10", examples, version="3.0.2", num_classes=10, features=features
    )
    spec = importlib.util.spec_from_file_location(
        "make_cifar10_mini", REPOSITORY / "tools" / "make_cifar10_mini.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, "IMAGES_PER_CLASS", {"train": 3, "test": 2})

    for output in ("first", "first", "second"):  # over its own output, and in another folder
        argv = ["tool", f"--data_dir={tmp_path / 'tfds'}", f"--output={tmp_path / output}"]
        monkeypatch.setattr(sys, "argv", argv)
        tool.main()
    first, second = (tmp_path / name / "cifar10_mini" for name in ("first", "second"))
    assert (first / "README.md").read_text() == (second / "README.md").read_text()

    for split, number in (("train", 3), ("test", 2)):
        # Place i is kept when fewer than `number` earlier places have its label.
        kept = [i for i in range(60) if (labels[:i] == labels[i]).sum() < number]
        for folder in (first, second):
            examples = list(tfds.builder_from_directory(folder / "1.0.0").as_data_source(split))
            assert [e["id"].decode() for e in examples] == [f"{split}_{i:05d}" for i in kept]
            np.testing.assert_array_equal([e["label"] for e in examples], labels[kept])
            np.testing.assert_array_equal([e["image"] for e in examples], images[kept])


# Reading any set.


def test_reads_a_set_in_file_order(tmp_path, tiny):
    _, images, labels = tiny
    dataset = load_tiny(tmp_path)
    assert_is_tiny(dataset, images, labels)
    assert dataset.num_classes == 3
    assert dataset.class_names == ("0", "1", "2")
    pixels = images[:7].astype(np.float64) / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, pixels.std((0, 1, 2)), rtol=1e-12)


def test_grayscale_keeps_one_channel(tmp_path):
    images = random_images(4, 4, (5, 5, 1))
    dataset = made(tmp_path, "gray", images, train=3, channels=1)
    np.testing.assert_array_equal(dataset.train.images, images[:3])
    assert dataset.image_shape == (5, 5, 1)
    assert len(dataset.mean) == len(dataset.std) == 1


def test_gray_files_in_a_color_set_become_color(tmp_path):
    gray = random_images(5, 2, (5, 5, 1))
    dataset = made(tmp_path, "mixed", gray)
    np.testing.assert_array_equal(dataset.train.images, np.repeat(gray[:1], 3, axis=-1))


def test_more_examples_than_one_chunk(tmp_path, monkeypatch, tiny):
    _, images, labels = tiny
    monkeypatch.setattr(data.decode, "CHUNK", 3)
    assert_is_tiny(load_tiny(tmp_path), images, labels)


def test_validation_stands_in_for_test(tmp_path):
    images = random_images(6, 3, (4, 4, 3))
    dataset = made(tmp_path, "val", images, train=2, test="validation")
    np.testing.assert_array_equal(dataset.test.images, images[2:])


def test_data_dir_from_the_environment(tmp_path, monkeypatch, tiny):
    _, images, labels = tiny
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    assert_is_tiny(data.load("tiny"), images, labels)
    assert list((tmp_path / "xdg" / "gsdd_jax").rglob("train_images.npy"))
    # The argument comes first, the home folder last.
    assert f"looked in {tmp_path / 'cifar100'}" in usage_error("cifar100", data_dir=tmp_path)
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    home = tmp_path / "tensorflow_datasets"
    assert f"looked in {home / 'cifar100'}" in usage_error("cifar100")


def test_configuration_and_version(tmp_path):
    images = random_images(7, 2, (4, 4, 3))
    for load in ("configured/small", "configured/small:1.0.0"):
        dataset = made(tmp_path, "configured", images, load=load, config="small")
        np.testing.assert_array_equal(dataset.train.images, images[:1])


# Resizing and cropping.


def resample(size_in: int, size_out: int) -> np.ndarray:
    """Returns weights [size_out, size_in] of linear interpolation, widened when shrinking."""
    scale = size_in / size_out
    centers = (np.arange(size_out) + 0.5) * scale
    distance = np.abs(np.arange(size_in) + 0.5 - centers[:, None])
    weights = np.maximum(0, 1 - distance / max(scale, 1))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("height", "width", "resolution", "resized", "corner"),
    [
        (30, 18, 9, (15, 9), (3, 0)),  # portrait, smaller
        (20, 41, 10, (10, 20), (0, 5)),  # landscape, smaller; 20.5 columns become 20
        (6, 8, 12, (12, 16), (0, 2)),  # larger
        (8, 8, 5, (5, 5), (0, 0)),  # square
        (5, 12, 5, (5, 12), (0, 4)),  # of half a pixel to the even side, as torchvision
    ],
)
def test_resolution(tmp_path, height, width, resolution, resized, corner):
    image = random_images(8, 1, (height, width, 3))[0]
    prepare(tmp_path, "sized", {"train": [(png(image), 0)], "test": [(png(image), 1)]})
    dataset = data.load("sized", resolution=resolution, **places(tmp_path))
    rows, columns = resample(height, resized[0]), resample(width, resized[1])
    expected = np.einsum("ri,cj,ijk->rck", rows, columns, image.astype(np.float64))
    top, left = corner
    expected = expected[top : top + resolution, left : left + resolution]
    assert dataset.image_shape == (resolution, resolution, 3)
    # Pillow rounds to whole levels twice, after each axis.
    np.testing.assert_allclose(dataset.train.images[0], expected, atol=1.05)


@pytest.mark.parametrize(("height", "width"), [(9, 30), (40, 12), (6, 5)])
def test_images_are_squashed_where_it_is_asked_for(tmp_path, height, width):
    """Scales both sides to the same length; nothing is cut off."""
    image = random_images(8, 1, (height, width, 3))[0]
    prepare(tmp_path, "sized", {"train": [(png(image), 0)], "test": [(png(image), 1)]})
    where = places(tmp_path)
    cropped = data.load("sized", resolution=6, **where)
    squashed = data.load("sized", resolution=6, resize="squash", **where)
    rows, columns = resample(height, 6), resample(width, 6)
    expected = np.einsum("ri,cj,ijk->rck", rows, columns, image.astype(np.float64))
    np.testing.assert_allclose(squashed.train.images[0], expected, atol=1.05)
    assert squashed.fingerprint != cropped.fingerprint
    assert "expected one of crop, squash, got 'fit'" in usage_error(
        "sized", resolution=6, resize="fit", **where
    )


def test_varying_sizes_need_a_resolution(tmp_path):
    images = [random_images(9, 1, shape)[0] for shape in ((4, 6, 3), (5, 4, 3))]
    pairs = [(png(image), 0) for image in images]
    prepare(tmp_path, "varied", {"train": pairs, "test": pairs[:1]})
    prepare(tmp_path, "apart", {"train": pairs[:1], "test": pairs[1:]})
    where = places(tmp_path)
    for name in ("varied", "apart"):
        message = usage_error(name, **where)
        assert "4x6" in message
        assert "5x4" in message
        assert "give a resolution" in message
        assert data.load(name, resolution=4, **where).image_shape == (4, 4, 3)
    assert "resolution: expected an integer from 1" in usage_error("varied", resolution=0, **where)


# The subsets of ImageNet.


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("tiny_imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("cifar100", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ],
)
def test_published_statistics(name, mean, std, tmp_path):
    """Tiny ImageNet has those of ImageNet, CIFAR-100 those of CIFAR-10."""
    pairs = [(png(np.full((4, 4, 3), 50 * label, np.uint8)), label) for label in range(3)]
    prepare(tmp_path, name, {"train": pairs, "test": pairs})
    for _ in range(2):  # decoded, then from the cache
        found = data.load(name, **places(tmp_path))
        assert (found.mean, found.std) == (mean, std)


@pytest.mark.parametrize("frames", [1, 2])
def test_a_channel_of_one_value_is_not_scaled(frames):
    """Divided by 0 it would be no number, and by a small one its errors would be large."""
    images = np.random.default_rng((TEST_SEED, 11)).integers(0, 256, (5, 4, 4, 2 * frames))
    images[..., 1::2] = 90
    mean, std = channel_mean_std(images.astype(np.uint8), frames)
    values = images[..., 0::2] / 255
    np.testing.assert_allclose(mean, frames * (values.mean(), 90 / 255))
    np.testing.assert_allclose(std, frames * (values.std(), 1))


def test_subset_keeps_and_relabels_only_its_classes(tmp_path):
    subset = data.IMAGENET_SUBSETS["fruit"]
    rng = np.random.default_rng((TEST_SEED, 10))

    def examples(labels):
        pairs = []
        for label in labels:
            if label in subset:
                pixels = np.full((4, 4, 3), [label // 256, label % 256, 0], np.uint8)
                pairs.append((png(pixels), label))
            else:
                pairs.append((b"not an image: never to be decoded", label))
        return pairs

    labels = {
        "train": rng.permutation([*subset, *subset, 0, 217, 944, 955, 999]).tolist(),
        "validation": rng.permutation([*subset, 0, 946]).tolist(),
        "test": [-1, -1],
    }
    prepare(
        tmp_path,
        "imagenet2012",
        {split: examples(split_labels) for split, split_labels in labels.items()},
        num_classes=1000,
    )
    dataset = data.load("imagenet2012", subset="fruit", **places(tmp_path))
    assert dataset.num_classes == 10
    assert dataset.class_names == tuple(str(label) for label in subset)
    assert dataset.mean == (0.485, 0.456, 0.406)
    assert dataset.std == (0.229, 0.224, 0.225)
    for split, source in ((dataset.train, "train"), (dataset.test, "validation")):
        kept = [label for label in labels[source] if label in subset]
        pixels = split.images[:, 0, 0].astype(int)
        np.testing.assert_array_equal(pixels[:, 0] * 256 + pixels[:, 1], kept)
        np.testing.assert_array_equal(split.labels, [subset.index(label) for label in kept])


def test_the_six_subsets_are_the_fields():
    """Compares WordNet ids, through TFDS's own table of the 1000 classes."""
    labels = pathlib.Path(tfds.__file__).parent / "datasets" / "imagenet2012" / "labels.txt"
    wordnet_ids = labels.read_text().split()
    expected = {
        "nette": "n01440764 n02102040 n02979186 n03000684 n03028079 n03394916 n03417042 n03425413"
        " n03445777 n03888257",
        "woof": "n02096294 n02093754 n02111889 n02088364 n02086240 n02089973 n02087394 n02115641"
        " n02099601 n02105641",
        # pineapple, banana, strawberry, orange, lemon, pomegranate, fig, bell pepper, cucumber,
        # Granny Smith
        "fruit": "n07753275 n07753592 n07745940 n07747607 n07749582 n07768694 n07753113 n07720875"
        " n07718472 n07742313",
        # bee, lady's slipper, banana, lemon, corn, school bus, honeycomb, lion, garden spider (the
        # black and gold one), goldfinch
        "yellow": "n02206856 n12057211 n07753592 n07749582 n12144580 n04146614 n03530642 n02129165"
        " n01773157 n01531178",
        # tabby, tiger cat, Persian, Siamese, Egyptian cat, lion, tiger, jaguar, snow leopard, lynx
        "meow": "n02123045 n02123159 n02123394 n02123597 n02124075 n02129165 n02129604 n02128925"
        " n02128757 n02127052",
        # peacock, flamingo, macaw, pelican, king penguin, bald eagle, toucan, ostrich, black swan,
        # cockatoo
        "squawk": "n01806143 n02007558 n01818515 n02051845 n02056570 n01614925 n01843383 n01518878"
        " n01860187 n01819313",
    }
    for name, classes in data.IMAGENET_SUBSETS.items():
        assert [wordnet_ids[index] for index in classes] == expected.pop(name).split()
    assert not expected


def test_subset_out_of_place(tmp_path):
    assert "nette, woof" in usage_error("imagenet2012", subset="dogs", data_dir=tmp_path)
    assert "'cifar10_mini'" in usage_error("cifar10_mini", subset="nette", cache_dir=tmp_path)


# Errors: one line, what to do.


def test_not_on_disk_names_the_command(tmp_path):
    folder = tmp_path / "with space"
    message = usage_error("cifar10", data_dir=folder)
    assert f"looked in {folder / 'cifar10'}" in message
    assert f"`tfds build cifar10 --file_format=array_record --data_dir='{folder}'`" in message
    assert "manual" not in message
    message = usage_error("imagenette/160px-v2", data_dir=tmp_path)
    assert "`tfds build imagenette/160px-v2 --file_format=array_record" in message
    assert "`tfds build imagenette/full-size-v2 " in usage_error("imagenette", data_dir=tmp_path)
    assert str(tmp_path / "downloads/manual") in usage_error("imagenet2012", data_dir=tmp_path)


def test_unknown_names(tmp_path):
    assert "did you mean" in usage_error("cifar11", data_dir=tmp_path)
    assert "cifar10" in usage_error("cifar11", data_dir=tmp_path)
    for name in ("", "../tiny", "no such set", "cifar10_mini/other"):
        assert "unknown data set" in usage_error(name, data_dir=tmp_path)
    assert "160px-v2" in usage_error("imagenette/161px", data_dir=tmp_path)
    assert "File name too long" in usage_error("cifar10", data_dir=tmp_path / ("x" * 300))


def test_tfrecord_names_the_conversion(tmp_path, tiny):
    folder, _, _ = tiny
    for file in folder.glob("*array_record*"):
        file.rename(folder / file.name.replace("array_record", "tfrecord"))
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    message = usage_error("tiny", data_dir=tmp_path / "tfds", cache_dir=tmp_path / "cache")
    assert "tfrecord" in message
    assert f"`tfds convert_format --dataset_version_dir={folder}" in message
    assert "--out_file_format=array_record`" in message


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Returns the files of a set whose classes have names."""
    pairs = [(png(image), i) for i, image in enumerate(random_images(14, 2, (4, 4, 3)))]
    features = {
        "image": tfds.features.Image(shape=(4, 4, 3)),
        "label": tfds.features.ClassLabel(names=["cat", "dog"]),
    }
    both = {"train": pairs, "test": pairs}
    folder = prepare(tmp_path_factory.mktemp("named"), "named", both, features=features)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def damage_to(tmp_path, files) -> str:
    """Returns the one-line error that refuses a set with these files."""
    folder = tmp_path / "named" / "1.0.0"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    message = usage_error("named", **places(tmp_path))
    assert str(folder.parent) in message
    assert message.count("--name=named --overwrite") == 1
    return message.replace(f"{folder}/", "")


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_a_damaged_description_is_named(tmp_path, named, file):
    others = {name: content for name, content in named.items() if name != file}
    assert f"damaged ({file}: " in damage_to(tmp_path, others)
    for content in [*NO_JSON_OBJECT, named[file][:-1], named[file][: len(named[file]) // 2]]:
        assert f"damaged ({file}: " in damage_to(tmp_path, {**others, file: content})


def changes_of(tree, wrong):
    """Yields copies of a JSON object, each with one field, at any depth, deleted or wrong."""
    for key, value in tree.items():
        yield {k: v for k, v in tree.items() if k != key}
        yield from ({**tree, key: w} for w in wrong)
        if isinstance(value, dict):
            yield from ({**tree, key: changed} for changed in changes_of(value, wrong))


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_a_description_with_wrong_fields_is_no_traceback(tmp_path, named, file):
    """Expects a one-line error or an unchanged set, since some fields do not matter."""
    prepared = tmp_path / "named" / "1.0.0"
    prepared.mkdir(parents=True)
    for name, content in named.items():
        (prepared / name).write_bytes(content)
    where = places(tmp_path)
    good, refused = data.load("named", **where), 0
    for changed in changes_of(json.loads(named[file]), (None, [], {}, "x", 3, "-1", [1])):
        (prepared / file).write_text(json.dumps(changed))
        try:
            found = data.load("named", **where)
        except UsageError as error:
            assert len(str(error).splitlines()) == 1
            assert str(prepared.parent) in str(error) or "'named'" in str(error)
            refused += 1
        else:
            assert (found.fingerprint, found.class_names) == (good.fingerprint, good.class_names)
    assert refused > 30


@pytest.mark.parametrize("field", ["image", "label"])
def test_a_field_of_any_length_is_a_short_line(tmp_path, named, field):
    """Expects a one-line error, or the set with another name for the field."""
    longer = named["features.json"].replace(f'"{field}"'.encode(), b'"' + b"x" * 10**5 + b'"')
    prepared = tmp_path / "named" / "1.0.0"
    prepared.mkdir(parents=True)
    for name, content in {**named, "features.json": longer}.items():
        (prepared / name).write_bytes(content)
    try:
        data.load("named", **places(tmp_path))
    except UsageError as error:
        assert len(str(error)) <= errors.LONGEST and "'named'" in str(error)


def test_damaged_class_names_are_named(tmp_path, named):
    for content in (b"", b"cat", b"cat\ncat\n", b"cat\ndog\nemu\n", b"\xff\xfe\n\x80\n"):
        message = damage_to(tmp_path, {**named, "label.labels.txt": content})
        assert "damaged (label.labels.txt: " in message


def test_the_embedded_set_has_its_class_names(tmp_path, monkeypatch):
    copied = tmp_path / "cifar10_mini" / "1.0.0"
    shutil.copytree(MINI / "1.0.0", copied)
    (copied / "label.labels.txt").unlink()
    monkeypatch.setattr(data.prepared, "EMBEDDED", tmp_path)
    message = usage_error("cifar10_mini", cache_dir=tmp_path / "cache")
    assert f"{copied}/label.labels.txt: " in message
    assert "install gsdd-jax again" in message


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_record_file_is_named(tmp_path, named, split):
    file = f"named-{split}.array_record-00000-of-00001"
    others = {name: content for name, content in named.items() if name != file}
    assert f"damaged ({file}: " in damage_to(tmp_path, others)
    whole = named[file]
    for length in (0, 1, 1000, len(whole) // 2 - 1, len(whole) // 2, len(whole) - 1):
        assert f"damaged ({file}: " in damage_to(tmp_path, {**others, file: whole[:length]})
    for count in ("1", "3"):
        info = json.loads(named["dataset_info.json"])
        next(s for s in info["splits"] if s["name"] == split)["shardLengths"] = [count]
        text = json.dumps(info).encode()
        message = damage_to(tmp_path, {**named, "dataset_info.json": text})
        assert f"{file}: expected {count} examples, got 2" in message


def test_no_library_says_of_a_damaged_image_what_a_line_says(tmp_path, capfd):
    pairs = [(png(image), 0) for image in random_images(12, 2, (64, 64, 1))]
    both = {"train": [*pairs, (damaged_tiff(), 1)], "test": pairs}
    prepare(tmp_path, "torn", both, channels=1, num_classes=2)
    capfd.readouterr()
    message = usage_error("torn", **places(tmp_path))
    assert "data set 'torn'" in message and "is damaged" in message
    assert capfd.readouterr().err == ""


def test_sets_that_are_not_image_classification(tmp_path):
    where = places(tmp_path)
    pairs = [(png(image), 0) for image in random_images(12, 2, (4, 4, 3))]
    image = tfds.features.Image(shape=(4, 4, 3))
    number = tfds.features.Scalar(np.int64)
    label = tfds.features.ClassLabel(num_classes=2)

    both = {"train": pairs[:1], "test": pairs[1:]}
    prepare(tmp_path, "unlabeled", both, features={"image": image, "label": number})
    assert "class label" in usage_error("unlabeled", **where)
    prepare(tmp_path, "hidden", {"train": pairs[:1], "test": [(pairs[0][0], -1)]})
    assert "without a label" in usage_error("hidden", **where)
    prepare(tmp_path, "trainonly", {"train": pairs})
    assert "test or validation" in usage_error("trainonly", **where)
    deep = tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16)
    prepare(tmp_path, "deep", both, features={"image": deep, "label": label})
    assert "uint16" in usage_error("deep", **where)


# No TensorFlow.


def test_tensorflow_is_never_imported(tmp_path):
    """Replaces TensorFlow by a module that ends the process when imported."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("import os; os._exit(77)")
    run = run_python(f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from gsdd_jax import UsageError, data
assert "tensorflow_datasets" not in sys.modules, "gsdd_jax.data is slow to import"
mini = data.load("cifar10_mini", resolution=16, cache_dir={str(tmp_path / "cache")!r})
for name in ("imagenet2012", "no_such_set"):
    try:
        data.load(name, data_dir={str(tmp_path)!r})
    except UsageError:
        pass
""")
    assert run.returncode == 0, run.stderr
