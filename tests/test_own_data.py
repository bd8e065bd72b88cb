"""Own pictures become a data set: what is read, how it is divided, and what is refused."""

import hashlib
import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

import gsdd_jax
from configs import common, own
from gsdd_jax import data
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import pictures, prepare, sources
from gsdd_jax.runs import distill, workdir
from launch import cli

ROOT = pathlib.Path(__file__).parent.parent
SIZE = 8
CLASSES = {"äpfel": 12, "birnen": 6, "kirschen": 2}


def noise(seed, *shape) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")


def fill(folder, order=1) -> dict[str, np.ndarray]:
    """PNG files of the size of the data set, so that nothing is resampled; their pixels by name."""
    made = {}
    for label, count in CLASSES.items():
        for i in range(count):
            made[f"{label}/{i:02d}.png"] = noise(len(made), SIZE, SIZE, 3)
    for name in list(made)[::order]:
        save(made[name], folder / name)
    return made


def make(tmp_path, images, name="mine", **options):
    options = {"resolution": SIZE, "data_dir": tmp_path / "tfds"} | options
    return prepare.prepare(images, name, **options)


def load(tmp_path, name="mine", **options) -> data.Dataset:
    return data.load(name, data_dir=tmp_path / "tfds", cache_dir=tmp_path / "cache", **options)


def refusal(tmp_path, images, **options) -> str:
    """The one line; nothing of the data set is there after it."""
    with pytest.raises(UsageError) as raised:
        make(tmp_path, images, **options)
    message = str(raised.value)
    assert "\n" not in message
    root = tmp_path / "tfds"
    assert not root.exists() or not list(root.iterdir())
    return message


def files(folder) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


# What becomes of a folder.


def test_a_folder_becomes_a_data_set(tmp_path):
    """Every picture once, under its class, unchanged; a tenth of each class tests, by the hash."""
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
    made = fill(tmp_path / "others")
    for name in list(made)[:12]:  # a class without, and names that are in both
        (tmp_path / "others" / name).unlink()
    (tmp_path / "others" / "äpfel").rmdir()
    result = make(tmp_path, tmp_path / "pictures", test=tmp_path / "others")
    assert (result.train, result.test) == ([6, 2, 12], [6, 2, 0])
    assert "8 test pictures are training pictures, too: the same bytes" in result.notes
    assert "no test pictures of the classes äpfel" in result.notes
    np.testing.assert_array_equal(load(tmp_path).test.labels, [0] * 6 + [1] * 2)


def test_half_of_a_class_may_test(tmp_path):
    fill(tmp_path / "pictures")
    result = make(tmp_path, tmp_path / "pictures", test_fraction=0.5)
    assert (result.train, result.test) == ([3, 1, 6], [3, 1, 6])


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
    assert result.notes[0] == "files that are no pictures were left out: 1 .db, 2 .txt"


def test_the_same_bytes_whatever_the_order_and_the_process(tmp_path):
    """Files written in another order, read by one thread, under another seed of hashes."""
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


# Pictures of all kinds.


def stored(image_or_bytes, size=4, channels=3, **options) -> np.ndarray:
    """The square that is stored of a picture."""
    content = image_or_bytes
    if isinstance(content, Image.Image):
        out = io.BytesIO()
        content.save(out, **({"format": "PNG"} | options))
        content = out.getvalue()
    image, _ = pictures.decode(content, size)
    pixels = pictures.square(image, size, channels)
    with Image.open(io.BytesIO(pictures.encode(pixels))) as again:
        np.testing.assert_array_equal(np.asarray(again).reshape(pixels.shape), pixels)
    return pixels


def test_the_middle_is_kept_and_resampled(tmp_path):
    """A linear interpolation whose triangle is widened when it shrinks, of the square's pixels."""
    pixels = noise(1, 18, 31, 3)
    scale = 18 / 4
    distance = np.abs(np.arange(18) + 0.5 - (np.arange(4)[:, None] + 0.5) * scale)
    weights = np.maximum(0, 1 - distance / scale)
    weights /= weights.sum(1, keepdims=True)
    middle = pixels[:, 6 : 6 + 18].astype(float)
    expected = np.einsum("ri,cj,ijk->rck", weights, weights, middle)
    np.testing.assert_allclose(stored(Image.fromarray(pixels)), expected, atol=1.05)


def solid(mode, color):
    return Image.new(mode, (6, 4), color)


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (solid("L", 70), {}, (70, 70, 70)),
        (solid("1", 1), {}, (255, 255, 255)),
        (solid("RGBA", (200, 40, 0, 0)), {}, (255, 255, 255)),  # transparent lies on white
        (solid("RGBA", (200, 40, 0, 255)), {}, (200, 40, 0)),
        (solid("LA", (0, 255)), {}, (0, 0, 0)),
        (solid("CMYK", (0, 255, 255, 0)), {"format": "TIFF"}, (255, 0, 0)),
        (solid("RGB", (9, 90, 200)).quantize(), {}, (9, 90, 200)),  # a palette
        (solid("RGB", (9, 90, 200)), {"transparency": (9, 90, 200)}, (255, 255, 255)),
        (solid("I;16", 257 * 77), {}, (77, 77, 77)),
        (solid("I;16", 257 * 77), {"format": "TIFF"}, (77, 77, 77)),
    ],
    ids=lambda v: getattr(v, "mode", None),
)
def test_every_mode_becomes_colour(image, options, expected):
    np.testing.assert_array_equal(stored(image, **options), np.full((4, 4, 3), expected))


def test_of_an_animation_the_first_frame():
    frames = [solid("RGB", color) for color in ((250, 0, 0), (0, 250, 0))]
    pixels = stored(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(pixels, np.full((4, 4, 3), (250, 0, 0)))


def test_a_camera_held_sideways():
    """Orientation 6: what is stored left is shown on top."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = stored(Image.fromarray(pixels), size=8, exif=exif)
    assert (shown[:4] == 200).all() and (shown[4:] == 0).all()


def test_a_large_jpeg_is_what_all_of_it_would_give():
    x = np.linspace(0, 1, 1600)
    waves = np.stack([np.sin(9 * x)[:, None] * np.cos(7 * x), np.outer(x, x), 0 * np.outer(x, x)])
    pixels = np.uint8(127 + 120 * waves.transpose(1, 2, 0))
    whole = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(
        stored(Image.fromarray(pixels), size=32, format="JPEG", quality=95).astype(float),
        whole.astype(float), atol=4,
    )  # fmt: skip


def test_grey_has_one_channel(tmp_path):
    colour = solid("RGB", (255, 0, 0))
    assert stored(colour, channels=1).shape == (4, 4, 1)
    fill(tmp_path / "pictures")
    assert make(tmp_path, tmp_path / "pictures", grey=True).image_shape == (SIZE, SIZE, 1)
    dataset = load(tmp_path)
    assert dataset.image_shape == (SIZE, SIZE, 1)
    assert len(dataset.mean) == 1


# What is broken.


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """A folder with pictures of every kind of damage, and how many those are."""
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
    return folder, 7


def test_what_is_broken_is_named(tmp_path, damaged):
    folder, count = damaged
    message = refusal(tmp_path, folder)
    assert message.startswith(f"{count} of {sum(CLASSES.values()) + count} pictures cannot be read")
    named = [n for n in ("cut", "empty", "photo", "text", "gone", "float", "huge") if n in message]
    assert len(named) == 3
    assert "and 4 more" in message
    assert "--skip_broken" in message


def test_what_is_broken_is_left_out_where_that_is_asked_for(tmp_path, damaged):
    folder, count = damaged
    result = make(tmp_path, folder, skip_broken=True)
    assert sum(result.train) + sum(result.test) == sum(CLASSES.values())
    assert result.notes[0].startswith(f"{count} pictures cannot be read: birnen/")
    assert len(load(tmp_path).train.labels) == sum(result.train)


def test_a_class_of_nothing_but_broken_pictures_is_refused(tmp_path):
    fill(tmp_path / "pictures")
    for i in range(2):
        (tmp_path / "pictures" / "kirschen" / f"{i:02d}.png").write_text("no picture")
    message = refusal(tmp_path, tmp_path / "pictures", skip_broken=True)
    assert message == "no picture to train on is left of the classes kirschen"


# Lists and arrays.


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
        ("", "expected a first line that names the columns path and label, got nothing"),
        ("a.png,cat\n", "the columns path and label, got a.png,cat"),
        ("path;label\n", "the columns path and label, got path;label"),
        ("path,label\na.png,cat\nb.png\n", "line 3: expected a path and a label"),
        ("path,label\na.png,cat\n./a.png,dog\n", "line 3: a.png is in line 2 already"),
        ("path,label\na.png,cat\nb.png,cat\n", "expected two classes or more, got cat"),
        ("path,label\n", "expected two classes or more, got none"),
        ('path,label\na.png,"a\nb"\n', "expected a class name of 1 to 255 printable characters"),
        (f"path,label\na.png,{'1' * 5000}\n", "line 2: expected a class name of 1 to 255"),
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


def test_arrays_of_grey_images_with_test_images(tmp_path):
    images, labels = noise(4, 30, SIZE, SIZE), np.arange(30) % 12
    np.savez_compressed(
        tmp_path / "b.npz", images=images, labels=labels,
        test_images=images[::-1, ..., None], test_labels=labels[::-1],
    )  # fmt: skip
    result = make(tmp_path, tmp_path / "b.npz", resolution=None, grey=True)
    assert result.class_names == [str(i) for i in range(12)]  # 10 is after 9
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.train.images[..., 0], images)
    np.testing.assert_array_equal(dataset.test.images[..., 0], images[::-1])
    np.testing.assert_array_equal(dataset.train.labels, labels)
    np.testing.assert_array_equal(dataset.test.labels, labels[::-1])


GOOD = {"images": noise(5, 4, SIZE, SIZE, 3), "labels": np.array(["cat", "dog"] * 2)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GOOD["images"]}, "expected an array labels, got images"),
        (GOOD | {"images": GOOD["images"] / 255}, "images: expected uint8 [n, h, w] or"),
        (GOOD | {"images": GOOD["images"][..., :2]}, "got uint8 [4, 8, 8, 2]"),
        (GOOD | {"labels": GOOD["labels"][:3]}, "labels: expected 4 whole numbers or texts"),
        (GOOD | {"labels": np.arange(4.0)}, "got float64 [4]"),
        (GOOD | {"labels": np.array(["cat", None] * 2)}, "expected arrays by name, without obj"),
        (GOOD | {"test_images": GOOD["images"]}, "expected an array test_labels"),
        (
            GOOD | {"test_images": GOOD["images"], "test_labels": np.array(["cow"] * 4)},
            "--test: expected the classes of training, got cow, too",
        ),
    ],
)
def test_arrays_that_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    assert message in refusal(tmp_path, tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    assert "expected arrays by name" in refusal(tmp_path, tmp_path / "a.npz")


def marked(path, offset, value):
    """The archive with a byte of every member's header, here and in the directory, changed."""
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
        with pytest.raises(gsdd_jax.UsageError, match=r"^data_dir: expected text in UTF-8"):
            prepare.prepare(tmp_path, "mine", data_dir=tmp_path / path)


def test_names_of_files_are_shown_in_one_line():
    shown = sources.some(["a\nb", "\x1b[2J", "c", "d"])
    assert shown == r"a\nb, \x1b[2J, c and 1 more"
    found = sources.Found([], [], {".x\n\x1b": 2})
    assert sources.notes(found) == [r"files that are no pictures were left out: 2 .x\n\x1b"]


# What is refused.


def only(folder, *names):
    for i, name in enumerate(names):
        save(noise(i, SIZE, SIZE, 3), folder / name)
    return folder


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["a/1.png", "a/2.png"], {}, "expected two classes or more, got a"),
        (["1.png", "2.png"], {}, "expected one folder a class, got pictures that are in none: 1"),
        (["a/1.png", "b/1.png", "3.png"], {}, "pictures that are in none: 3.png"),
        (["train/a/1.png", "test/a/1.png"], {}, "are parts of a data set, expected classes"),
        (["a/1.png", "b/1.png"], {}, "no class has two pictures"),
        (["a/1.png", "b/1.png"], {"test_fraction": 0.0}, "--test_fraction: expected a number betw"),
        (["a/1.png", "b/1.png"], {"test_fraction": 1.0}, "--test_fraction: expected a number betw"),
        (
            ["a/1.png", "b/1.png"],
            {"resolution": 7, "test": "same"},
            "--resolution: expected 8 to 1024 pixels",
        ),
        (["a/1.png", "b/1.png"], {"name": "My-Set"}, "--name: expected small letters"),
        (["a/1.png", "b/1.png"], {"name": "../up"}, "--name: expected small letters"),
        (["a/1.png", "b/1.png"], {"name": "cifar10"}, "'cifar10' is a data set's already"),
        (["a/1.png", "b/1.png"], {"name": "cifar10_mini"}, "is a data set's already"),
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
    assert message in refusal(tmp_path, folder, **options)


def test_other_things_that_are_refused(tmp_path):
    folder = only(tmp_path / "pictures", "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    only(tmp_path / "others", "a/1.png", "c/1.png")
    assert "got c, too" in refusal(tmp_path, folder, test=tmp_path / "others")
    assert "no such file or folder" in refusal(tmp_path, tmp_path / "nowhere")
    assert "expected a folder, a .csv or" in refusal(tmp_path, folder / "a" / "1.png")
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").touch()
    assert "no pictures in the class folders empty" in refusal(tmp_path, folder)


# What is there stays whole.


def test_a_set_that_is_there_is_replaced_only_where_that_is_asked_for(tmp_path):
    folder = only(tmp_path / "pictures", "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    made = make(tmp_path, folder).folder
    before = files(made)
    with pytest.raises(UsageError, match="is there already; give another name, or --overwrite"):
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
    """SIGKILL before the last picture; the next attempt is not in the way of what it left."""
    fill(tmp_path / "pictures")
    code = (
        "import os, signal, sys\n"
        "from gsdd_jax.data import pictures, prepare\n"
        "encode, done = pictures.encode, []\n"
        "def encode_or_die(pixels):\n"
        f"    if len(done) == {sum(CLASSES.values()) - 1}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    done.append(1)\n"
        "    return encode(pixels)\n"
        "pictures.encode = encode_or_die\n"
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
    assert raised.value.filename.endswith("mine-train.array_record-00000-of-00001")
    assert not list((tmp_path / "tfds").iterdir())


def test_where_nothing_can_be_written(tmp_path):
    folder = only(tmp_path / "pictures", "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        make(tmp_path, folder, data_dir=tmp_path / "file")


# The starter config.


@pytest.mark.parametrize(
    ("shape", "num_classes", "smallest", "expected"),
    [
        # 682 Gaussians a class: 31 of 22; two equal batches, 200 steps
        ((32, 32, 3), 10, 400, (31, 0.1, 155, 100)),
        ((32, 32, 3), 2, 12, (12, 0.1, 24, 200)),  # no more than there are
        ((64, 64, 3), 10, 400, (62, 0.01, 207, 66)),  # 2730: 62 of 44
        ((128, 128, 3), 10, 400, (124, 0.01, 248, 40)),  # 10922: 124 of 88
        ((28, 28, 1), 10, 400, (11, 0.1, 110, 200)),  # 224 of seven numbers: 11 of 20
        ((32, 32, 3), 100, 400, (31, 0.1, 239, 30)),
        ((8, 8, 3), 2, 1, (1, 0.1, 2, 200)),
    ],
)
def test_settings_that_suit_a_data_set(shape, num_classes, smallest, expected):
    config = common.suited(own.get_config(), shape, num_classes, smallest)
    found = (
        config.budget.gpc,
        config.init.learning_rate,
        config.evaluate.batch_size,
        config.evaluate.epochs,
    )
    assert found == expected
    assert not common.is_open(config)


def test_what_is_given_prevails():
    config = own.get_config()
    config.budget.gpc, config.evaluate.batch_size = 7, 5
    before = workdir.flat(config)
    after = workdir.flat(common.suited(config, (32, 32, 3), 10, 400))
    differing = {name for name in before if before[name] != after[name]}
    assert differing == {"init.learning_rate", "evaluate.epochs"}
    assert workdir.flat(config) == before


def test_commands_decide_what_is_open_by_the_data_set(tmp_path, capsys):
    folder = only(tmp_path / "pictures", "a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png")
    make(tmp_path, folder, test=folder)
    config = own.get_config()
    with pytest.raises(UsageError, match=r"config\.data\.name: .* `python -m launch\.prepare`"):
        cli.experiment(config)
    config.data.name, config.data.dir = "mine", str(tmp_path / "tfds")
    config.evaluate.epochs = 7
    decided = cli.experiment(config)
    assert (decided.budget.gpc, decided.evaluate.epochs) == (2, 7)
    assert not common.is_open(decided)
    assert capsys.readouterr().out == (
        "for mine, of 2 classes of 2 training images or more: --config.budget.gpc=2 "
        "--config.init.learning_rate=0.1 --config.evaluate.batch_size=4\n"
    )
    config.scale = 0.01  # of what was decided
    assert cli.experiment(config).budget.gpc == 1
    assert cli.experiment(decided) == decided


def test_two_classes_one_of_a_single_grey_picture_distil(tmp_path, quickly_compiled):
    counts = {"many": 9, "one": 1}
    names = [f"{label}/{i}.png" for label, count in counts.items() for i in range(count)]
    folder = only(tmp_path / "pictures", *names)
    result = make(tmp_path, folder, test=folder, grey=True, resolution=16)
    assert result.train == [9, 1]
    config = own.get_config()
    config.data.name, config.data.dir = "mine", str(tmp_path / "tfds")
    config.network.options.width, config.init.num_steps, config.distill.num_steps = 4, 2, 2
    config.matching.strategy, config.evaluate.num_networks = "color", 1
    config.evaluate.epochs, config.evaluate.beside = 1, "random_real"
    config = common.suited(config, result.image_shape, 2, min(result.train))
    assert config.budget.gpc == 1
    distill.distill_to(config, tmp_path / "run")
    images = gsdd_jax.load(tmp_path / "run" / "distilled.safetensors").images()
    assert images.shape == (2, 16, 16, 1)
    assert np.isfinite(images).all()


def run(*arguments, tmp_path):
    env = {**os.environ, "TFDS_DATA_DIR": str(tmp_path / "tfds"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_command_says_what_it_made_and_what_is_next(tmp_path):
    fill(tmp_path / "pictures")
    flags = [f"--images={tmp_path}/pictures", "--name=mine", "--resolution=16"]
    status, out, err = run("launch.prepare", *flags, tmp_path=tmp_path)
    assert (status, "preparing" in out) == (0, False), err
    note, made, command = out.splitlines()
    assert note == "note: 20 pictures are smaller than that and were enlarged"
    assert made.endswith(
        "17 training and 3 test pictures of 3 classes, 1 to 11 a class to train on, 16x16x3"
    )
    expected = (
        "distil it: python -m launch.distill --config=configs/own.py --config.data.name=mine "
        "--workdir=runs/mine"
    )
    assert command == expected


def test_a_wrong_flag_is_one_line_and_status_2(tmp_path):
    status, out, err = run(
        "launch.prepare", f"--images={tmp_path}/none", "--name=mine", tmp_path=tmp_path
    )
    assert (status, out) == (2, "")
    assert err == f"error: {tmp_path}/none: no such file or folder\n"


def test_the_pictures_of_the_tutorial(tmp_path, monkeypatch):
    """What it writes, fewer of them, is what `prepare` takes; its numbers are those it says."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own_data.md").read_text(), re.S)
    assert '("pictures", mini.train, 40), ("others", mini.test, 100)' in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace("train, 40", "train, 3").replace("test, 100", "test, 2"), {})
    result = make(tmp_path, "runs/pictures", test="runs/others", resolution=32)
    assert (result.train, result.test, result.notes) == ([3] * 10, [2] * 10, [])
    assert "truck" in result.class_names
