"""Tests pictures found in folders, lists and arrays, and refusals."""

import json

import numpy as np
import pytest

from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import sources
from tests.own_pictures import SIZE, fill, load, make, noise, only, refusal, save


def test_a_list_of_pictures(tmp_path):
    made = fill(tmp_path / "pictures")
    rows = "".join(f"x,pictures/{name},{name.split('/')[0]}\n" for name in reversed(made))
    (tmp_path / "list.csv").write_text("note,path,label\n" + rows, encoding="utf-8-sig")
    make(tmp_path, tmp_path / "list.csv", test=tmp_path / "pictures")
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.train.images, [made[name] for name in sorted(made)])
    np.testing.assert_array_equal(dataset.train.labels, dataset.test.labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "expected columns path (or file_name) and label by name in the first line, got nothing",
        ),
        ("a.png,cat\n", "label by name in the first line, got a.png,cat"),
        ("path,label,split\na.png,a,train\nb.png,b,later\n", "line 3: split: expected train, val"),
        ("path,label,split\na.png,a,test\nb.png,b,val\n", "split: expected train among its values"),
        ("path,label\nx/../a.png,a\na.png,b\n", "line 3: a.png is in line 2 already"),
        (
            "path,label\nb.png," + "1" * 5000 + "\na.png,2\n",
            "line 2: expected a class name of 1 to 255 ",
        ),
        ("path,label\na.png,cat\nb.png\n", "line 3: expected a path and a label"),
        ("path,label\na.png,cat\nb.png,cat\n", "expected two classes or more, got cat"),
        ("path,label\n", "expected two classes or more, got none"),
        ('path,label\na.png,"a\nb"\n', "expected a class name of 1 to 255 printable characters"),
        ("path,label\nnone.png,a\nb.png,b\nc.png,b\n", "3 of 3 pictures cannot be read: "),
    ],
)
def test_a_list_that_is_refused(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    assert message in refusal(tmp_path, tmp_path / "list.csv")


def test_arrays(tmp_path):
    images, labels = noise(3, 30, 5, 9, 4)[..., :3], np.arange(30) % 12
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    result = make(tmp_path, tmp_path / "a.npz", test_fraction=0.3, resolution=None, name="wide")
    assert result.image_shape == (8, 8, 3)  # the shorter side, but at least 8


def test_arrays_of_gray_images_with_test_images(tmp_path):
    images, labels = noise(4, 30, SIZE, SIZE), np.arange(30) % 12
    np.savez_compressed(
        tmp_path / "b.npz", images=images, labels=labels,
        test_images=images[::-1, ..., None], test_labels=labels[::-1],
    )  # fmt: skip
    result = make(tmp_path, tmp_path / "b.npz", resolution=None, gray=True)
    assert result.class_names == [str(i) for i in range(12)]  # 10 is after 9
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.train.images[..., 0], images)
    np.testing.assert_array_equal(dataset.test.images[..., 0], images[::-1])
    np.testing.assert_array_equal(dataset.train.labels, labels)
    np.testing.assert_array_equal(dataset.test.labels, labels[::-1])


def _in_parts(*names):
    """Writes arrays as MedMNIST has them."""
    made = {}
    for seed, name in enumerate(names):
        made[f"{name}_images"] = noise(seed, 4, SIZE, SIZE)
        made[f"{name}_labels"] = np.uint8([[0], [1], [0], [1]])
    return made


@pytest.mark.parametrize(
    ("names", "test", "note"),
    [
        (("train", "val", "test"), "test", "to test on; left out: val_images"),
        (("train", "val"), "val", "train_images are to train on, val_images to test on"),
        (("train", "test"), "test", None),
    ],
)
def test_arrays_of_medmnist(tmp_path, names, test, note):
    arrays = _in_parts(*names)
    np.savez(tmp_path / "medmnist.npz", **arrays)
    result = make(tmp_path, tmp_path / "medmnist.npz", resolution=None, gray=True)
    assert [n for n in result.notes if "to train on" in n and n.endswith(note or "?")] == (
        [result.notes[0]] if note else []
    )
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.train.images[..., 0], arrays["train_images"])
    np.testing.assert_array_equal(dataset.test.images[..., 0], arrays[f"{test}_images"])
    np.testing.assert_array_equal(dataset.train.labels, [0, 1, 0, 1])
    (tmp_path / "tfds").rename(tmp_path / "elsewhere")
    np.savez(tmp_path / "both.npz", images=noise(9, 4, SIZE, SIZE), **arrays)
    assert "expected arrays images and labels, and test_" in refusal(
        tmp_path, tmp_path / "both.npz"
    )


GOOD = {"images": noise(5, 4, SIZE, SIZE, 3), "labels": np.array(["cat", "dog"] * 2)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GOOD["images"]}, "expected an array labels, got images"),
        (GOOD | {"images": GOOD["images"] / 255}, "images: expected uint8 [n, h, w] or"),
        (
            GOOD | {"images": GOOD["images"].transpose(0, 3, 1, 2) / np.float32(255)},
            "got float32 [4, 3, 8, 8]; convert them: images.transpose(0, 2, 3, 1), then (255 * ima",
        ),
        (GOOD | {"images": GOOD["images"].astype(int)}, "images.astype('uint8') where they are 0"),
        (GOOD | {"images": GOOD["images"][..., :2]}, "got uint8 [4, 8, 8, 2]"),
        (GOOD | {"labels": GOOD["labels"][:3]}, "labels: expected 4 whole numbers or texts"),
        (GOOD | {"labels": np.arange(4.0)}, "got float64 [4]"),
        (GOOD | {"labels": np.array(["cat", None] * 2)}, "expected arrays by name, without obj"),
        (GOOD | {"test_images": GOOD["images"]}, "expected an array test_labels"),
        (
            GOOD | {"test_images": GOOD["images"], "test_labels": np.array(["cow"] * 4)},
            "the test pictures of --images: expected the classes of training, got cow, too",
        ),
    ],
)
def test_arrays_that_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    assert message in refusal(tmp_path, tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    assert "expected arrays by name" in refusal(tmp_path, tmp_path / "a.npz")


def test_an_array_without_labels_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", GOOD["images"])
    assert "expected labels, too: np.savez(" in refusal(tmp_path, tmp_path / "a.npy")


# Lists of other programs.

ROWS = [(f"{c}/{i}.png", c) for c in ("cat", "dog") for i in range(2)]


def written(header, separator, rows=ROWS, **encoding) -> bytes:
    lines = [header, *(separator.join(row) for row in rows), "", separator, ""]
    return "\r\n".join(lines).encode(encoding.get("encoding", "utf-8"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", written("Path, LABEL ", ", ")),
        ("a.csv", written("path;label", ";")),
        ("a.tsv", written("path\tlabel", "\t")),
        ("a.csv", written("path,label", ",", encoding="utf-16")),
        ("a.csv", written("path,label", ",", [(p.replace("/", "\\"), c) for p, c in ROWS])),
        ("metadata.csv", written("file_name,label", ",")),
        ("metadata.jsonl", "".join(
            json.dumps({"label": c, "file_name": p}) + "\n" for p, c in ROWS
        ).encode()),
    ],
    ids=["capitals", "semicolons", "tabs", "utf-16", "backslashes", "hub", "hub's json"],
)  # fmt: skip
def test_lists_as_others_write_them(tmp_path, name, content):
    """Finds the same pictures and classes; the Hub's list is given by its folder."""
    only(tmp_path, *(path for path, _ in ROWS))
    (tmp_path / name).write_bytes(content)
    found = sources.find(tmp_path if name.startswith("metadata") else tmp_path / name)
    assert [(item.name, item.label) for item in found.train] == ROWS
    assert all(item.content.is_file() for item in found.train)
    assert (found.test, found.notes) == ([], [])


@pytest.mark.parametrize(
    "text", ["[1]\n", "{\n", '{"path": "a", "label": [1]}\n', '{"path": "a"}\n']
)
def test_lines_of_json_that_are_refused(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(UsageError, match=r"a\.jsonl: (line 1: )?expected|line 1: label: expected"):
        sources.find(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("values", "train", "test", "note"),
    [
        (("train", "Test", "val"), "0", "1", "test for testing; left out: validation (1)"),
        (("training", "validation", "dev", "train"), "03", "12", "validation for testing"),
        (("train",) * 4, "0123", "", None),
    ],
)
def test_a_column_split_is_honoured(tmp_path, values, train, test, note):
    rows = "".join(f"{i}.png,c,{value},x\n" for i, value in enumerate(values))
    (tmp_path / "a.csv").write_text("path,label,split,extra\n" + rows)
    found = sources.find(tmp_path / "a.csv")
    assert "".join(item.name[0] for item in found.train) == train
    assert "".join(item.name[0] for item in found.test) == test
    expected = [f"column split: train is for training, {note}"] if note else []
    assert found.notes == [*expected, "columns that were not used: extra"]


# Parts that are not classes.


@pytest.mark.parametrize(
    ("names", "train", "test", "left_out"),
    [
        (["train/a/1", "train/b/2", "test/a/3"], "12", "3", None),
        (["training_set/a/1", "training_set/b/2", "test_set/a/3"], "12", "3", None),
        (["seg_train/seg_train/a/1", "seg_train/seg_train/b/2", "seg_test/seg_test/b/3",
          "seg_pred/seg_pred/4"], "12", "3", "seg_pred (1 picture)"),
        (["Train/a/1", "Train/b/2", "val/a/3"], "12", "3", None),
        (["train/a/1", "train/b/2", "val/a/3", "test/a/4", "test/b/5", "all/train/a/6"], "12", "45",
         "all (1 picture), val (1 picture)"),
        (["train2017/a/1", "val2017/a/2", "unlabeled/3"], "1", "2", "unlabeled (1 picture)"),
        (["trainSet/a/1", "trainSet/b/2"], "12", "", None),
        (["a/train/1", "b/train/2", "a/test/3", "a/valid/4"], "12", "3", "valid (1 picture)"),
        # Classes.
        (["train/1", "bus/2", "background/3"], "321", "", None),
        (["test strip/1", "dev board/2", "plate/3"], "231", "", None),
        (["valid/1", "invalid/2"], "21", "", None),
        (["test_positive/1", "test_negative/2"], "21", "", None),
    ],
)  # fmt: skip
def test_parts_are_told_from_classes(tmp_path, names, train, test, left_out):
    only(tmp_path, *(f"{name}.png" for name in names))
    found = sources.find(tmp_path)
    number = lambda items: "".join(item.content.stem for item in items)
    assert (number(found.train), number(found.test)) == (train, test)
    if left_out:
        assert found.notes[0].endswith(f"left out: {left_out}")
    labels = {item.label for item in found.train}
    assert labels <= {"a", "b", *(name.split("/")[0] for name in names if name.count("/") == 1)}


@pytest.mark.parametrize(
    "names",
    [
        ["train/1", "test/2"],  # without classes
        ["train/1", "test/2", "cat/3"],
        ["images_background/Greek/a/1", "images_evaluation/Greek/a/2"],  # no training part
        ["train_1/a/1", "train_2/a/2"],
        ["train/a/1", "test/a/2", "eval/a/3"],
        ["a/train/1", "a/test/2", "b/3"],
        ["a/train/x/1", "a/test/x/2", "b/train/x/1"],
        ["a/x/train/1", "a/x/test/2", "b/3"],
        ["train/a/train/1", "train/a/val/2", "train/b/3", "test/a/4"],
    ],
)
def test_parts_that_are_not_clear_are_refused(tmp_path, names):
    only(tmp_path, *(f"{name}.png" for name in names))
    with pytest.raises(UsageError, match=r"are parts of a data set, .* by --images and another by"):
        sources.find(tmp_path)


def test_a_folder_around_the_parts_is_named(tmp_path):
    only(tmp_path, "xray/train/a/1.png", "xray/test/a/2.png")
    with pytest.raises(UsageError, match=r"its only folder xray has parts .*--images=.*xray"):
        sources.find(tmp_path)


# Other files among pictures.


def test_folders_of_systems_are_passed_over_at_any_depth(tmp_path):
    kept = ["a/1.png", "a/deeper/2.png", "b/3.png"]
    passed = ["@eaDir/1.png", "a/@eaDir/1.jpg/x.png", "a/deeper/#recycle/2.png", ".git/x.png",
              "b/$RECYCLE.BIN/3.png", "__MACOSX/a/1.png", "lost+found/x.png", "b/.thumbs/3.png",
              "System Volume Information/x.png"]  # fmt: skip
    only(tmp_path, *kept, *passed)
    found = sources.find(tmp_path)
    assert [item.name for item in found.train] == kept
    assert found.notes == [
        "hidden folders and those of a system were passed over: 1 #recycle, 1 $RECYCLE.BIN, "
        "1 .git, 1 .thumbs, 2 @eaDir, 1 System Volume Information, 1 __MACOSX, 1 lost+found",
        "1 picture in folders of a class's folder, taken for the class: a/deeper/2.png",
    ]


def test_files_without_an_extension_are_pictures_where_they_begin_as_such(tmp_path):
    only(tmp_path, "a/picture", "b/1.png")
    for name in ("LICENSE", "README", "Makefile", "empty"):
        (tmp_path / "a" / name).write_text("P is no picture\n" * (name != "empty"))
    found = sources.find(tmp_path)
    assert [item.name for item in found.train] == ["a/picture", "b/1.png"]
    assert found.notes == ["files that are no pictures were left out: 4 without an extension"]


# Labels.


def test_files_that_are_no_pictures_are_counted_wherever_they_lie(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"):
        save(noise(0, 8, 8, 3), tmp_path / name)
    for name in ("README", "notes.txt", "train/README", "train/a/Thumbs.db"):
        (tmp_path / name).write_text("no picture")
    (note,) = [n for n in sources.find(tmp_path).notes if "no pictures" in n]
    assert note.endswith("left out: 1 .db, 1 .txt, 2 without an extension")


def test_labels_that_look_the_same_are_one_class_and_it_is_said(tmp_path):
    nfc, nfd = "\u00e9", "e\u0301"
    rows = f'1.png,{nfc}\n2.png,{nfd}\n3.png,"a "\n4.png,a\n5.png,b\n'
    (tmp_path / "a.csv").write_text("path,label\n" + rows, encoding="utf-8")
    found = sources.find(tmp_path / "a.csv")
    assert sources.class_names(found.train) == ["a", "b", nfc]
    assert [note.partition("class, ")[2] for note in found.notes] == [r"é: 'e\u0301', '\xe9'"]
    only(tmp_path / "p", f"{nfc}/1.png", f"{nfd}/2.png", "a/3.png", "a /4.png")
    assert len(sources.find(tmp_path / "p").notes) == 2


@pytest.mark.parametrize(
    ("labels", "ordered"),
    [
        (["10", "9", "0"], ["0", "9", "10"]),
        (["0.0", "10.0", "2.5"], ["0.0", "2.5", "10.0"]),
        (["1", "-1", "-10"], ["-10", "-1", "1"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["1" * 200, "2"], ["2", "1" * 200]),
    ],
)
def test_labels_that_are_numbers_are_in_their_order(tmp_path, labels, ordered):
    (tmp_path / "a.csv").write_text(
        "path,label\n" + "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels))
    )
    names = sources.class_names(sources.find(tmp_path / "a.csv").train)
    assert names == ordered
    assert bool(sources.order_note(names)) == (ordered != sorted(labels))
