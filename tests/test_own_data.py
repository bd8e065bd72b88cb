"""Tests data sets of custom pictures: reading, splitting, and refusals."""

import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import items, prepare
from tests.own_pictures import (
    CLASSES,
    ROOT,
    SIZE,
    damaged_tiff,
    files,
    fill,
    load,
    make,
    noise,
    only,
    refusal,
    save,
)

FOUR = "a/1.png", "a/2.png", "b/1.png", "b/2.png"

# Folders.


def test_a_folder_becomes_a_data_set(tmp_path):
    """Checks that every picture is stored once, unchanged; a tenth of each class tests."""
    made = fill(tmp_path / "pictures")
    result = make(tmp_path, tmp_path / "pictures")
    assert (result.class_names, result.image_shape) == (sorted(CLASSES), (SIZE, SIZE, 3))
    dataset = load(tmp_path)
    assert dataset.class_names == tuple(sorted(CLASSES)) == ("birnen", "kirschen", "äpfel")
    test = []
    for label, count in CLASSES.items():
        names = [name for name in made if name.startswith(label)]
        names.sort(
            key=lambda name: hashlib.sha256(f"{name.split('/')[0]}/{name}".encode()).digest()
        )
        test += names[: {12: 1, 6: 1, 2: 1}[count]]
    for split, names in (("train", sorted(set(made) - set(test))), ("test", sorted(test))):
        stored = getattr(dataset, split)
        np.testing.assert_array_equal(stored.images, np.stack([made[n] for n in names]))
        classes = [dataset.class_names[label] for label in stored.labels]
        assert classes == [name.split("/")[0] for name in names]
        assert sum(getattr(result, split)) == len(names)
    assert result.train == [5, 1, 11]
    assert dataset.train_counts == (5, 1, 11)


def test_test_pictures_of_their_own(tmp_path):
    fill(tmp_path / "pictures")
    half = make(tmp_path, tmp_path / "pictures", name="half", test_fraction=0.5)
    assert (half.train, half.test) == ([3, 1, 6], [3, 1, 6])
    made = fill(tmp_path / "others")
    for name in list(made)[:12]:  # a class without test pictures, and names in both
        (tmp_path / "others" / name).unlink()
    (tmp_path / "others" / "äpfel").rmdir()
    result = make(tmp_path, tmp_path / "pictures", test=tmp_path / "others")
    assert (result.train, result.test) == ([6, 2, 12], [6, 2, 0])
    (both,) = [note for note in result.notes if "too" in note]
    assert both.startswith("warning: 8 test pictures also to train on")
    assert both.endswith(
        "birnen/00.png = birnen/00.png, birnen/01.png = birnen/01.png, "
        "birnen/02.png = birnen/02.png and 5 more"
    )
    assert "no test pictures of the classes äpfel" in result.notes
    np.testing.assert_array_equal(load(tmp_path).test.labels, [0] * 6 + [1] * 2)


def test_what_is_no_picture_is_passed_over(tmp_path):
    folder = tmp_path / "pictures"
    fill(folder)
    (folder / "README.md").write_text("beside the classes")
    (folder / ".hidden").mkdir()
    for name in (".DS_Store", "._00.png", "Thumbs.db", "notes.txt", "more.txt"):
        (folder / "birnen" / name).write_text("no picture")
    save(noise(90, SIZE, SIZE, 3), folder / "birnen" / "deeper" / "still" / "one")  # no extension
    save(noise(91, SIZE, SIZE, 3), tmp_path / "elsewhere" / "linked.png")
    (folder / "birnen" / "link.png").symlink_to(tmp_path / "elsewhere" / "linked.png")
    (folder / "kirschen" / "all").symlink_to(tmp_path / "elsewhere")
    (folder / "kirschen" / "circle").symlink_to(folder / "kirschen")
    result = make(tmp_path, folder)
    counts = [a + b for a, b in zip(result.train, result.test, strict=True)]
    assert counts == [8, 3, 12]
    assert result.notes[0] == "files that are no pictures were left out: 1 .db, 1 .md, 2 .txt"


def test_a_picture_that_is_there_twice_is_named(tmp_path):
    """Finds duplicates under two labels or in both splits, by their pixels, however stored."""
    folder = only(tmp_path / "pictures", "a/0.png", "a/1.png", "b/2.png")
    Image.fromarray(noise(1, SIZE, SIZE, 3)).save(folder / "b" / "same.bmp")
    others = only(tmp_path / "others", "b/0.png", "a/1.png", "a/new.png")
    save(noise(7, SIZE, SIZE, 3), others / "a" / "new.png")
    result = make(tmp_path, folder, test=others)
    assert [note for note in result.notes if note.startswith("warning: ")] == [
        "warning: 2 pictures there under another label, too: a/1.png = b/same.bmp (a, b), "
        "a/0.png = b/0.png (a, b)",
        "warning: 2 test pictures also to train on, so the test accuracy is too high: "
        "a/1.png = a/1.png, a/0.png = b/0.png",
    ]


def test_the_same_bytes_whatever_the_order_and_the_process(tmp_path):
    """Writes files in another order, reads by one thread, and changes the hash seed."""
    for folder, order in (("one", 1), ("two", -1)):
        fill(tmp_path / folder, order)
    make(tmp_path, tmp_path / "one")
    code = (
        "import concurrent.futures, functools, sys\n"
        "pool = concurrent.futures.ThreadPoolExecutor\n"
        "concurrent.futures.ThreadPoolExecutor = functools.partial(pool, max_workers=1)\n"
        "from gsdd_jax.data.prepare import prepare\n"
        f"prepare(sys.argv[1], 'mine', resolution={SIZE}, data_dir=sys.argv[2])\n"
    )
    arguments = [sys.executable, "-c", code, tmp_path / "two", tmp_path / "again"]
    subprocess.run(arguments, cwd=ROOT, check=True, env={**os.environ, "PYTHONHASHSEED": "1"})
    assert files(tmp_path / "again") == files(tmp_path / "tfds")


# Size and channels.


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ([28, 28, 28], 28), ([500, 31, 33], 32), ([500, 600, 31], 64), ([27, 300, 20, 20], 16),
        ([63, 64], 48), ([11, 11, 900], 11), ([3, 3], 8),
    ],
)  # fmt: skip
def test_the_side_is_by_the_median_of_the_shorter_sides(tmp_path, sides, expected):
    """Of two in the middle the smaller one counts; test pictures and damaged ones do not."""
    for i, side in enumerate(sides):
        save(np.full((side, side + 9 * (i % 2), 3), 9 * i, np.uint8), tmp_path / "p/a" / f"{i}.png")
    save(np.full((sides[0], 900), 7, np.uint8), tmp_path / "p/b/0.png")
    (tmp_path / "p" / "b" / "1.png").write_text("no picture")
    others = only(tmp_path / "others", *(f"a/{i}.png" for i in range(9)))
    result = make(tmp_path, tmp_path / "p", test=others, resolution=None, skip_broken=True)
    assert result.image_shape == (expected, expected, 3)
    median = sorted([*sides, sides[0]])[len(sides) // 2]
    assert result.notes[0].endswith(f"have shorter sides of at most {median} (--resolution)")


def grays(folder, colored=None):
    """Writes 40 gray pictures of every kind; gives one of them a single pixel of color."""
    for i in range(40):
        gray = Image.fromarray(noise(i, SIZE, SIZE))
        path = folder / "ab"[i % 2] / f"{i:02d}.{'jpg' if i % 4 == 1 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = gray.convert(["L", "RGB", "P", "RGBA"][i % 4])
        if i == colored:
            image = gray.convert("RGB")
            image.putpixel((3, 4), (9, 200, 7))
        image.save(path)


def test_gray_pictures_have_one_channel_and_the_same_bytes_as_by_the_flag(tmp_path):
    grays(tmp_path / "pictures")
    made = [
        make(tmp_path, tmp_path / "pictures", data_dir=tmp_path / name, gray=gray)
        for name, gray in (("one", None), ("two", True))
    ]
    assert made[0].image_shape == (SIZE, SIZE, 1)
    assert "one gray channel, since no picture has colors (--nogray)" in made[0].notes
    assert made[1].notes == []
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.parametrize("colored", [0, 23, 38])
def test_a_picture_with_colors_gives_three_channels(tmp_path, colored):
    """Finds the color in the first, in one between and in a test picture."""
    grays(tmp_path / "pictures", colored)
    names = ("one", None), ("two", False)
    made = [
        make(tmp_path, tmp_path / "pictures", data_dir=tmp_path / name, gray=gray)
        for name, gray in names
    ]
    (note,) = made[0].notes
    path = f"{'ab'[colored % 2]}/{colored:02d}.{'jpg' if colored % 4 == 1 else 'png'}"
    assert note == f"three channels, since {path} has colors (--gray)"
    assert files(tmp_path / "one") == files(tmp_path / "two")


# Damage.


def test_what_is_broken_is_named_or_left_out(tmp_path, monkeypatch):
    """Reads pictures of every kind of damage."""
    folder = tmp_path / "pictures"
    fill(folder)
    out = io.BytesIO()
    Image.fromarray(noise(7, 64, 64, 3)).save(out, "JPEG")
    (folder / "birnen" / "cut.jpg").write_bytes(out.getvalue()[:900])
    (folder / "birnen" / "empty.png").touch()
    (folder / "birnen" / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "birnen" / "text.gif").write_text("no picture")
    (folder / "birnen" / "gone.png").symlink_to(tmp_path / "nothing")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "birnen" / "float.tiff")
    Image.new("L", (300, 300)).save(folder / "birnen" / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)  # 300 x 300 is over twice that
    good, count = sum(CLASSES.values()), 7
    message = refusal(tmp_path, folder)
    assert message.startswith(f"{count} of {good + count} pictures cannot be read")
    named = [n for n in ("cut", "empty", "photo", "text", "gone", "float", "huge") if n in message]
    assert len(named) == 3
    assert "and 4 more" in message
    assert "--skip_broken" in message
    result = make(tmp_path, folder, skip_broken=True)
    assert sum(result.train) + sum(result.test) == good
    assert result.notes[1].startswith(f"{count} pictures cannot be read: birnen/")
    assert len(load(tmp_path).train.labels) == sum(result.train)


@pytest.mark.filterwarnings("default")  # as commands have it
def test_no_library_says_of_damage_what_a_line_says(tmp_path, capfd):
    folder = only(tmp_path / "pictures", *FOUR)
    (folder / "a" / "3.tiff").write_bytes(damaged_tiff())
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    damaged = b"Exif\0\0" + exif.tobytes()[6:-8]
    Image.new("RGB", (64, 64)).save(out, "JPEG", exif=damaged)
    (folder / "a" / "4.jpg").write_bytes(out.getvalue())
    print("before", file=sys.stderr)
    assert "1 of 6 pictures cannot be read: a/3.tiff" in refusal(tmp_path, folder)
    print("after", file=sys.stderr)
    assert capfd.readouterr() == ("", "before\nafter\n")


def test_a_class_of_nothing_but_broken_pictures_is_refused(tmp_path):
    fill(tmp_path / "pictures")
    for i in range(2):
        (tmp_path / "pictures" / "kirschen" / f"{i:02d}.png").write_text("no picture")
    message = refusal(tmp_path, tmp_path / "pictures", skip_broken=True)
    start, broken = message.split(": ")
    assert start == "no training picture is left in the classes kirschen"
    assert re.fullmatch(r"(kirschen/0[01].png \([^)]*\)(, )?){2} cannot be read", broken)


# Arrays.


GOOD = {"images": noise(5, 4, SIZE, SIZE, 3), "labels": np.array(["cat", "dog"] * 2)}


def marked(path, offset, value):
    """Yields the archive with a byte changed in every member's header, local and central."""
    content = bytearray(path.read_bytes())
    for signature, start in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + start + offset] = value
            at = content.find(signature, at + 1)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(0, 1, "is encrypted"), (2, 99, "compression"), (2, 14, "expected arrays by name")],
)
def test_archives_that_are_refused(tmp_path, offset, value, message):
    np.savez(tmp_path / "a.npz", **GOOD)
    marked(tmp_path / "a.npz", offset, value)
    line = refusal(tmp_path, tmp_path / "a.npz")
    assert line.startswith(f"{tmp_path / 'a.npz'}: expected arrays by name") and message in line


@pytest.mark.parametrize("shape", [(10**9, 32, 32, 3), (10**30,)])
def test_an_array_that_claims_more_than_there_is(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        with archive.open("labels.npy", "w") as file:
            np.save(file, GOOD["labels"])
        with archive.open("images.npy", "w") as file:
            fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, fields)
            file.write(bytes(1000))
    line = refusal(tmp_path, tmp_path / "a.npz")
    assert re.search(r"a\.npz: the array images: .* GiB of memory .* that are free$", line)


def test_a_folder_that_no_file_names(tmp_path):
    for path in ("a\udcff", "a\0b"):
        with pytest.raises(UsageError, match=r"^data_dir: expected text in UTF-8"):
            prepare.prepare(tmp_path, "mine", data_dir=tmp_path / path)


def test_names_of_files_are_shown_in_one_line():
    shown = items.some(["a\nb", "\x1b[2J", "c", "d"])
    assert shown == r"a\nb, \x1b[2J, c and 1 more"


# Refusals.


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["a/1.png", "a/2.png"], {}, "expected two classes or more, got a"),
        (["a/1.png", "b/1.png", "3.png"], {}, "pictures that are in none: 3.png"),
        (["a/1.png", "b/1.png"], {}, "no class has a second picture"),
        (["a/1.png", "b/1.png"], {}, "no class has a second picture to test on"),
        (["a/1.png", "b/1.png"], {"test_fraction": 0.0}, "--test_fraction: expected a number betw"),
        (
            ["a/1.png", "b/1.png"],
            {"resolution": 7, "test": "same"},
            "--resolution: expected 8 to 1024 pixels",
        ),
        (["a/1.png", "b/1.png"], {"name": "My-Set"}, "--name: expected at most 100 small letters"),
        (["a/1.png", "b/1.png"], {"name": "cifar10"}, "'cifar10' is the name of a known data set"),
        (
            ["a/1.png", "b/1.png"],
            {"test": "same", "test_fraction": 0.1},
            "--test and --test_fraction: expected one of them",
        ),
    ],
)
def test_a_folder_that_is_refused(tmp_path, names, options, message):
    folder = only(tmp_path / "pictures", *names)
    options = options | ({"test": folder} if "test" in options else {})
    found = refusal(tmp_path, folder, **options)
    assert message in found and found.startswith("--test_fraction") <= ("test_fraction" in options)


def test_other_things_that_are_refused(tmp_path):
    folder = only(tmp_path / "pictures", *FOUR)
    only(tmp_path / "others", "a/1.png", "c/1.png")
    assert "got c, too" in refusal(tmp_path, folder, test=tmp_path / "others")
    assert "no such file or folder" in refusal(tmp_path, tmp_path / "nowhere")
    assert "expected a folder, a .csv, .tsv" in refusal(tmp_path, folder / "a" / "1.png")
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").touch()
    assert "no pictures in the class folders empty" in refusal(tmp_path, folder)


# Existing files stay intact.


@pytest.mark.parametrize("what", ["thesis", "added", "link"])
def test_only_what_was_made_here_is_replaced(tmp_path, what):
    folder = only(tmp_path / "pictures", *FOUR)
    mine = tmp_path / "tfds" / "mine"
    if what == "added":
        mine = make(tmp_path, folder).folder
        (mine / "1.0.0" / "thesis.tex").write_text("years of work")
    elif what == "link":
        (tmp_path / "tfds").mkdir()
        (tmp_path / "elsewhere").mkdir()
        mine.symlink_to(tmp_path / "elsewhere")
    else:
        mine.mkdir(parents=True)
        (mine / "thesis.tex").write_text("years of work")
    before = files(tmp_path)
    with pytest.raises(UsageError, match=r"a set that launch\.prepare made"):
        make(tmp_path, folder, overwrite=True)
    assert files(tmp_path) == before


def test_a_set_that_a_killed_swap_moved_away_is_found(tmp_path):
    """Checks that the next reader restores the set, even a reader that does not write."""
    made = make(tmp_path, only(tmp_path / "pictures", *FOUR))
    beside = tmp_path / "tfds" / ".mine.replacing"
    beside.mkdir()
    (beside / ".lock").touch()
    before = files(made.folder)
    made.folder.rename(beside / "old")
    assert load(tmp_path).num_classes == 2
    assert files(made.folder) == before
    assert not beside.exists()


def test_a_picture_that_is_no_regular_file_is_named(tmp_path):
    folder = only(tmp_path / "pictures", *FOUR)
    os.mkfifo(folder / "a" / "3.png")
    signal.alarm(60)  # a reader of a FIFO waits for its writer
    message = refusal(tmp_path, folder)
    signal.alarm(0)
    assert "a/3.png (expected a picture, got a FIFO, no regular file)" in message


def test_a_set_that_is_there_is_replaced_only_where_that_is_asked_for(tmp_path):
    folder = only(tmp_path / "pictures", *FOUR)
    made = make(tmp_path, folder).folder
    before = files(made)
    with pytest.raises(UsageError, match="exists already; give another name, or --overwrite"):
        make(tmp_path, folder)
    (folder / "a" / "3.png").write_text("no picture")
    with pytest.raises(UsageError, match="1 of 5 pictures cannot be read"):
        make(tmp_path, folder, overwrite=True)
    assert files(tmp_path / "tfds" / "mine") == before
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["mine"]
    first = load(tmp_path).fingerprint
    save(noise(9, SIZE, SIZE, 3), folder / "a" / "3.png")
    make(tmp_path, folder, overwrite=True)
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["mine"]
    assert load(tmp_path).fingerprint != first
    assert len(load(tmp_path).train.labels) == 3


def test_killed_on_the_way_there_is_no_data_set(tmp_path):
    """Kills before the last picture; the leftovers do not hinder the next attempt."""
    fill(tmp_path / "pictures")
    code = (
        "import os, signal, sys\n"
        "from gsdd_jax.data import prepare\n"
        "from gsdd_jax.exports import png\n"
        "encode, done = png.encode, []\n"
        "def encode_or_die(pixels):\n"
        f"    if len(done) == {sum(CLASSES.values()) - 1}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    done.append(1)\n"
        "    return encode(pixels)\n"
        "png.encode = encode_or_die\n"
        f"prepare.prepare(sys.argv[1], 'mine', resolution={SIZE}, data_dir=sys.argv[2])\n"
    )
    arguments = [sys.executable, "-c", code, tmp_path / "pictures", tmp_path / "tfds"]
    assert subprocess.run(arguments, cwd=ROOT).returncode == -signal.SIGKILL
    assert [path.name[0] for path in (tmp_path / "tfds").iterdir()] == ["."]
    with pytest.raises(UsageError, match=r"unknown data set 'mine'.*python -m launch\.prepare"):
        load(tmp_path)
    make(tmp_path, tmp_path / "pictures")
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["mine"]
    assert len(load(tmp_path).test.labels) == 3


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    np.savez(tmp_path / "a.npz", images=noise(6, 400, 32, 32, 3), labels=np.arange(400) % 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # the set takes 1.2 MB
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            make(tmp_path, tmp_path / "a.npz", resolution=32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.filename == str(tmp_path / "tfds" / "mine")
    assert not list((tmp_path / "tfds").iterdir())


def test_where_nothing_can_be_written(tmp_path):
    folder = only(tmp_path / "pictures", *FOUR)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        make(tmp_path, folder, data_dir=tmp_path / "file")


def test_the_command_says_what_it_made_and_what_is_next(tmp_path):
    fill(tmp_path / "pictures")
    flags = [f"--images={tmp_path}/pictures", "--name=mine", "--resolution=16"]
    env = {**os.environ, "TFDS_DATA_DIR": str(tmp_path / "tfds"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "launch.prepare", *flags]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    channels, note, few, classes, made, command = done.stdout.splitlines()
    assert channels == "note: three channels, since birnen/00.png has colors (--gray)"
    assert note == "note: 20 pictures smaller than that, enlarged"
    assert few.startswith("note: few pictures of kirschen (1), where another class has 11")
    assert classes == "classes: birnen, kirschen, äpfel"
    assert made.endswith(
        "17 training and 3 test pictures of 3 classes, 1 to 11 per class to train on, 16x16x3"
    )
    expected = (
        "distill it: python -m launch.distill --config=configs/own.py --config.data.name=mine "
        "--workdir=runs/mine"
    )
    assert command == expected


def test_the_pictures_of_the_tutorial(tmp_path, monkeypatch):
    """Runs the tutorial's script and `prepare` on fewer pictures, and checks its numbers."""
    code, *_ = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "own_data.md").read_text(), re.S
    )  # the later ones need these pictures
    assert '("pictures", mini.train, 40), ("others", mini.test, 100)' in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace("train, 40", "train, 3").replace("test, 100", "test, 2"), {})
    result = make(tmp_path, "runs/pictures", test="runs/others", resolution=32)
    assert (result.train, result.test) == ([3] * 10, [2] * 10)
    assert result.notes == ["three channels, since airplane/000.jpg has colors (--gray)"]
    assert "truck" in result.class_names


def test_tiny_imagenet_is_made_of_its_archive(tmp_path):
    """Runs the document's commands on folders and a list as in the archive."""
    text = (ROOT / "docs" / "own_data.md").read_text()
    (awk,) = re.findall(r"^(awk .*?val\.csv)$", text, re.DOTALL | re.MULTILINE)
    root = tmp_path / "tiny-imagenet-200"
    (root / "val" / "images").mkdir(parents=True)
    listed = ["n02", "n01", "n02"]
    for wnid in sorted(set(listed)):
        (root / "train" / wnid / "images").mkdir(parents=True)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
        for i in range(3):
            picture = Image.new("RGB", (64, 64), (40 * i, 80, 90))
            picture.save(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
    for i in range(len(listed)):
        Image.new("L", (64, 64), 50 * i).save(root / "val" / "images" / f"val_{i}.JPEG")
    (root / "val" / "val_annotations.txt").write_text(
        "".join(f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n" for i, wnid in enumerate(listed))
    )
    subprocess.run(["sh", "-c", awk], cwd=tmp_path, check=True)
    made = prepare.prepare(
        root / "train", "tiny_imagenet", test=root / "val" / "val.csv", data_dir=tmp_path / "sets"
    )
    assert made.class_names == ["n01", "n02"] and made.image_shape == (64, 64, 3)
    assert (made.train, made.test) == ([3, 3], [1, 2])
