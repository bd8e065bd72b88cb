"""Custom data sets from pictures or clips: array_record files for TFDS, without TensorFlow.

Equal pictures give equal files on every machine.
"""

import collections
import concurrent.futures
import contextlib
import io
import os
import pathlib
import re
import reprlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import PIL
from tqdm import tqdm

from gsdd_jax.core import records, swap
from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.data import media, prepared, sources, survey
from gsdd_jax.data.items import FLAGS, Found, Item, some
from gsdd_jax.data.quiet import quietly
from gsdd_jax.data.split import TEST_FRACTION, divided
from gsdd_jax.data.twice import Twice
from gsdd_jax.exports import png

VERSION = "1.0.0"
SAMPLE = 16  # pictures that a set is taken for gray by
CHUNK = 256  # pictures decoded at once
FEW = 10  # times smaller than the largest class
MARK = "prepared.json"  # in the folder of every set made here
WHAT = "a set that launch.prepare made"


class Prepared(NamedTuple):
    folder: pathlib.Path
    class_names: list[str]
    train: list[int]  # pictures per class
    test: list[int]
    image_shape: tuple[int, ...]  # of clips with the number of frames
    notes: list[str]  # surprises for the user, one line each


def prepare(
    images: str | os.PathLike,
    name: str,
    *,
    test: str | os.PathLike | None = None,
    test_fraction: float | None = None,
    frames: int | None = None,
    resolution: int | None = None,
    gray: bool | None = None,
    depth: int | None = None,
    skip_broken: bool = False,
    overwrite: bool = False,
    data_dir: str | os.PathLike | None = None,
) -> Prepared:
    """Makes the data set `name`, for `data.load` and every config.

    Args:
        images: folder with one folder per class, a list or a .npz file (`sources.find`).
        name: at most 100 lower-case letters, digits and underscores, not a name of TFDS.
        test: test pictures, likewise.
        test_fraction: fraction of each class to test on, drawn by a hash of names, if there are
            no test pictures; default 0.1. Every class keeps one picture and, if it has two or
            more, gives at least one.
        frames: frames per clip, evenly spaced; a shorter clip repeats frames. None: `images` and
            `test` hold pictures, not clips.
        resolution: pixels per side; default: the median of the training pictures' shorter sides,
            rounded down to one of `survey.SIDES`.
        gray: one channel instead of three; default: whether no picture has colors.
        depth: bits used in gray 16-bit pictures, one of `pictures.DEPTHS`; by default derived
            from the largest value of all.
        skip_broken: skip unreadable pictures instead of refusing them.
        overwrite: replace a data set of that name that was made here.
        data_dir: folder of TFDS's sets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises UsageError for invalid settings, unreadable or too few pictures and a name that is taken,
    OSError if the set cannot be written. No new set is left then, and no old one is changed.
    """
    root = prepared.data_root(data_dir)
    _check_name(name, root, overwrite)
    kind = media.Pictures() if frames is None else media.Clips(frames)
    with quietly():
        found = sources.find(images, kind.noun)
    class_names = sources.class_names(found.train)
    if len(class_names) < 2:
        raise UsageError(
            f"{images}: expected two classes or more, got {some(class_names) or 'none'}"
        )
    train, test_items, notes = _splits(found, test, test_fraction, kind.noun)
    if unknown := sorted({item.label for item in test_items} - set(class_names)):
        where = f"the test {kind.noun}s of {FLAGS[kind.noun]}" if test is None else "--test"
        raise UsageError(f"{where}: expected the classes of training, got {some(unknown)}, too")
    size, depth, more = survey.settings(kind, resolution, depth, train, test_items)
    notes += more + sources.order_note(class_names)
    splits = {"train": train, "test": test_items}

    def written(gray: bool | None) -> _Reader:
        reader = _Reader(kind, class_names, size, gray, depth)
        if gray is None:
            reader.check_gray(train[:: -(-len(train) // SAMPLE)])
        with new_set(root, name, VERSION) as made:
            with quietly():
                examples = {s: reader.examples(s, items) for s, items in splits.items()}
                records.write(made, name, reader.features(), examples, "Made by launch.prepare.")
            reader.check(class_names, len(train) + len(test_items), skip_broken)
        return reader

    try:
        reader = written(gray)
        notes += [f"one gray channel, since no {kind.noun} has colors (--nogray)"] * (gray is None)
    except _Colored as colored:
        reader = written(False)
        notes.append(f"three channels, since {colored} has colors (--gray)")
    counts, notes = reader.counts, notes + reader.notes(class_names)
    shape = reader.shape if frames is None else (frames, *reader.shape)
    return Prepared(root / name, class_names, counts["train"], counts["test"], shape, notes)


@contextlib.contextmanager
def new_set(root: pathlib.Path, name: str, version: str) -> Iterator[pathlib.Path]:
    """Yields a folder for the files of the set `name`, which replaces an old one on exit. An error
    changes nothing."""
    with swap.folder(root / name, MARK, {"name": name}, WHAT) as folder:
        made = folder / version
        made.mkdir()
        yield made


def _check_name(name: str, root: pathlib.Path, overwrite: bool) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]{,99}", name):  # file names add to it
        raise UsageError(
            "--name: expected at most 100 small letters, digits and underscores, such as "
            f"my_pictures, got {reprlib.repr(name)}"
        )
    if name in prepared.known_names():
        raise UsageError(f"--name: {name!r} is the name of a known data set; give another name")
    check_free(root, name, overwrite)


def check_free(root: pathlib.Path, name: str, overwrite: bool) -> None:
    """Raises UsageError if something of that name exists and must not be replaced."""
    swap.recover(root / name)
    if not os.path.lexists(root / name):
        return
    if not overwrite:
        raise UsageError(f"--name: {root / name} exists already; give another name, or --overwrite")
    swap.check_ours(root / name, MARK, WHAT)


def _splits(
    found: Found, test: str | os.PathLike | None, test_fraction: float | None, noun: str
) -> tuple[list[Item], list[Item], list[str]]:
    ways = {
        "--test": test is not None,
        "--test_fraction": test_fraction is not None,
        f"the test {noun}s of {FLAGS[noun]}": bool(found.test),
    }
    if sum(ways.values()) > 1:
        raise UsageError(f"{' and '.join(w for w in ways if ways[w])}: expected one of them")
    if found.test:
        return found.train, found.test, found.notes
    if test is not None:
        with quietly():
            others = sources.find(test, noun)
        if others.test:
            raise UsageError(f"--test: {test} has parts for training and for testing, expected one")
        return found.train, others.train, found.notes + [f"--test: {n}" for n in others.notes]
    fraction = TEST_FRACTION if test_fraction is None else test_fraction
    if not 0 < fraction < 1:
        raise UsageError(f"--test_fraction: expected a number between 0 and 1, got {fraction}")
    return *divided(found.train, fraction), found.notes


class _Colored(Exception):
    """A picture or a clip, named, has colors in a set that was taken for gray."""


class _Stored(NamedTuple):
    files: list[bytes]  # PNG, of each frame
    short: int  # shorter side in pixels before resizing
    ignored: tuple[str, ...]  # invalid parts
    repeats: bool  # a clip that is too short
    colored: bool  # in a set that was taken for gray


class _Reader:
    """Decodes pictures or clips in several threads, in order, and collects notes for the user.

    With `gray=None` they are stored in one channel, of RGB: `_Colored` is raised for colors.
    """

    def __init__(
        self,
        kind: media.Pictures | media.Clips,
        class_names: list[str],
        size: int,
        gray: bool | None,
        depth: int,
    ):
        self.kind = kind
        self.labels = {name: place for place, name in enumerate(class_names)}
        self.shape = size, size, 3 if gray is False else 1
        self.gray, self.depth = gray, depth
        self.broken: list[str] = []
        self.enlarged = self.repeated = 0
        self.ignored: collections.Counter[str] = collections.Counter()
        self.twice = Twice(kind.noun)
        self.counts: dict[str, list[int]] = {}  # per class

    def features(self) -> dict[str, Any]:
        import tensorflow_datasets as tfds

        return {
            "file": tfds.features.Text(),
            self.kind.key: self.kind.feature(self.shape),
            "label": tfds.features.ClassLabel(names=list(self.labels)),
        }

    def examples(self, split: str, items: list[Item]) -> Iterator[dict[str, Any]]:
        """Yields examples of `features`; unreadable pictures are only recorded."""
        counts = self.counts[split] = [0] * len(self.labels)
        progress = tqdm(total=len(items), desc=f"preparing {split}", disable=None)
        with concurrent.futures.ThreadPoolExecutor() as pool, progress:
            at_once = max(1, CHUNK // self.kind.frames)
            for start in range(0, len(items), at_once):
                chunk = items[start : start + at_once]
                for item, found in zip(chunk, pool.map(self._read, chunk), strict=True):
                    if isinstance(found, str):
                        self.broken.append(f"{item.name} ({found})")
                        continue
                    if found.colored:
                        raise _Colored(item.name)
                    self.enlarged += found.short < self.shape[0]
                    self.repeated += found.repeats
                    self.ignored.update(found.ignored)
                    self.twice.add(b"".join(found.files), split, item)
                    label = self.labels[item.label]
                    counts[label] += 1
                    stored = self.kind.stored([io.BytesIO(file) for file in found.files])
                    yield {"file": item.name, self.kind.key: stored, "label": label}
                progress.update(len(chunk))

    def check_gray(self, items: list[Item]) -> None:
        """Raises `_Colored` for colors in some pictures, before any is written."""
        with quietly(), concurrent.futures.ThreadPoolExecutor() as pool:
            for item, found in zip(items, pool.map(self._read, items), strict=True):
                if not isinstance(found, str) and found.colored:
                    raise _Colored(item.name)

    def _read(self, item: Item) -> _Stored | str:
        """Returns an item as it is stored, or what is wrong with it."""
        try:
            read = self.kind.read(item, self.shape[0], 1 if self.gray else 3, self.depth)
            pixels = read.pixels[..., : self.shape[-1]]
            colored = self.gray is None and bool((read.pixels != pixels).any())
            files = [png.encode(frame) for frame in pixels.reshape(-1, *self.shape)]
            return _Stored(files, read.short, read.ignored, read.repeats, colored)
        except UsageError as error:
            return str(error).removeprefix(f"{item.content}: ")
        except OSError as error:
            return error.strerror or _plainly(error)
        except Exception as error:  # Pillow's readers raise anything on damage
            return _plainly(error)

    def check(self, class_names: list[str], total: int, skip_broken: bool) -> None:
        """Raises UsageError if pictures are unreadable, or a class or the test split is empty."""
        if self.broken and not skip_broken:
            raise UsageError(
                f"{len(self.broken):,} of {counted(total, self.kind.noun)} cannot be read: "
                f"{some(self.broken)}; "
                "repair or remove them, or skip them by --skip_broken"
            )
        unread = f": {some(self.broken)} cannot be read" if self.broken else ""
        if bare := _without(class_names, self.counts["train"]):
            of = f"no training {self.kind.noun} is left in the classes {some(bare)}"
            raise UsageError(f"{of}{unread}")
        if not any(self.counts["test"]):
            raise UsageError(f"no test {self.kind.noun} is left{unread}")

    def notes(self, class_names: list[str]) -> list[str]:
        notes, noun = [], self.kind.noun
        if self.broken:
            broken = counted(len(self.broken), noun)
            notes.append(f"{broken} cannot be read: {some(self.broken)}")
        if self.enlarged:
            notes.append(f"{counted(self.enlarged, noun)} smaller than that, enlarged")
        if self.repeated:
            short = f"of fewer than {counted(self.kind.frames, 'frame')}, which repeat (--frames)"
            notes.append(f"{counted(self.repeated, noun)} {short}")
        for flaw, count in sorted(self.ignored.items()):
            notes.append(f"{counted(count, noun)} with {flaw} that is damaged and was ignored")
        notes += self.twice.notes()
        if bare := _without(class_names, self.counts["test"]):
            notes.append(f"no test {noun}s of the classes {some(bare)}")
        return notes + _few(class_names, self.counts["train"], noun)


def _few(class_names: list[str], counts: list[int], noun: str) -> list[str]:
    of_class = zip(class_names, counts, strict=True)
    few = [f"{name} ({count})" for name, count in of_class if FEW * count <= max(counts)]
    if not few:
        return []
    return [
        f"few {noun}s of {some(few)}, where another class has {max(counts)}: a distilled set has "
        f"as many images of every class, and several of such a class start from one {noun}"
    ]


def _without(class_names: list[str], counts: list[int]) -> list[str]:
    return [name for name, count in zip(class_names, counts, strict=True) if not count]


def _plainly(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "no picture that can be read"
    return prepared.first_line(error)
