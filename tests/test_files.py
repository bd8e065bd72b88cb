"""Tests foreign files: reading, locking, replacing and deleting, and optional conveniences."""

import os
import pathlib
import pwd
import signal
import subprocess
import sys
import warnings

import filelock
import pytest

from gsdd_jax import data
from gsdd_jax.core import errors, files, records, swap
from gsdd_jax.core.errors import InUseError, UsageError, UsageWarning
from gsdd_jax.data import prepared, sources
from gsdd_jax.formats import file, transforms
from gsdd_jax.report import events
from gsdd_jax.storage import checkpoint, workdir

ROOT = pathlib.Path(__file__).parent.parent
MARK, WHAT = "mark.json", "a thing of ours"


@pytest.fixture(autouse=True)
def soon():
    """Fails a test that waits for a FIFO."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits for a FIFO"))
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def tree(folder) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


# Reading.


def test_only_so_much_of_a_regular_file_is_read(tmp_path):
    (tmp_path / "three").write_bytes(b"abc")
    assert files.read_regular(tmp_path / "three", "a thing", 3) == b"abc"
    with pytest.raises(UsageError, match=r"three: expected a thing of at most 2 bytes, got 3$"):
        files.read_regular(tmp_path / "three", "a thing", 2)
    # Larger than any memory; refused by its size.
    with open(tmp_path / "vast", "wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(UsageError, match="at most 10 bytes, got 4,398,046,511,104"):
        files.read_regular(tmp_path / "vast", "a thing", 10)
    if os.path.exists("/proc/self/status"):  # reports 0 bytes
        with pytest.raises(UsageError, match="at most 10 bytes, got 11"):
            files.read_regular("/proc/self/status", "a thing", 10)


def test_what_is_no_regular_file_is_not_read(tmp_path, fifo):
    for path, kind in ((fifo, "FIFO"), ("/dev/zero", "device"), (tmp_path, "folder")):
        line = f"^{path}: expected a thing, got a {kind}, no regular file$"
        with pytest.raises(UsageError, match=line):
            files.read_regular(path, "a thing", 10)
    with pytest.raises(UsageError, match=r"expected a thing .*No such file"):
        files.read_regular(tmp_path / "absent", "a thing", 10)


def _expert(folder):
    from gsdd_jax.storage import trajectories

    index = trajectories.index_of(folder, 0)
    index.parent.mkdir()
    os.rename(folder / "fifo", index)
    trajectories.Trajectory(folder, {"experts.epochs": 1, "num_parameters": 1}, 0)


def _config(folder):
    os.rename(folder / "fifo", folder / "config.json")
    files.read_object(folder / "config.json", "a run's config")


def _evaluations(folder):
    os.rename(folder / "fifo", folder / "evaluations.json")
    workdir.evaluations(folder, "")


def _csv(folder):
    os.rename(folder / "fifo", folder / "list.csv")
    sources.find(folder / "list.csv")


def _npz(folder):
    os.rename(folder / "fifo", folder / "arrays.npz")
    sources.find(folder / "arrays.npz")


def _set(folder):
    file.load(folder / "fifo")


def _transform(folder):
    transforms.load(folder / "fifo", (2, 2, 1))


def _checkpoints(folder):
    (folder / "7").mkdir()
    os.rename(folder / "fifo", folder / "7" / "_METADATA")
    checkpoint.Checkpoints(folder, "")


def _features(folder):
    (folder / "mine" / "1.0.0").mkdir(parents=True)
    os.rename(folder / "fifo", folder / "mine" / "1.0.0" / "features.json")
    prepared.find("mine", "mine", folder)


def _default_configuration(folder):
    (folder / "mine" / ".config").mkdir(parents=True)
    os.rename(folder / "fifo", folder / "mine" / ".config" / "metadata.json")
    prepared.find("mine", "mine", folder)


READERS = [_expert, _config, _evaluations, _csv, _npz, _set, _transform,
           _checkpoints, _features, _default_configuration]  # fmt: skip


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_a_fifo_is_refused(tmp_path, fifo, read):
    with pytest.raises(UsageError, match="regular file"):
        read(tmp_path)


def test_a_fifo_where_a_file_is_a_convenience_counts_as_none(tmp_path, fifo):
    os.rename(fifo, tmp_path / "events.out.tfevents.1.somewhere")
    assert events.read(tmp_path) == events.Events({}, [], None)
    os.mkfifo(fifo)
    assert transforms.kept(fifo, "", (2, 2, 1)) is None


@pytest.mark.parametrize("read", [file.load, prepared.data_root, sources.find])
def test_a_name_that_no_file_system_has_is_a_line(read):
    with pytest.raises(UsageError, match=r"(too long|no such file)"):
        read("x" * 300)


def test_a_line_is_short_whatever_it_quotes():
    for quoted in ("x" * 10**6, "\x1b" * 10**6, str([0] * 10**5)):
        line = str(UsageError(f"field: expected a number, got {quoted}; see --help"))
        assert len(line) <= errors.LONGEST
        assert line.startswith("field: expected a number, got ") and line.endswith("; see --help")
        assert str(UsageError(line)) == line
    short = "x" * errors.LONGEST
    assert str(UsageError(short)) == short


# Writing.


def test_a_device_or_a_fifo_is_not_replaced(tmp_path, fifo):
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (fifo, tmp_path / "link", tmp_path):
        with pytest.raises(OSError, match="expected a regular file to replace") as raised:
            files.write_atomically(path, b"")
        assert raised.value.filename == str(path)
    assert fifo.is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["fifo", "link"]


@pytest.mark.parametrize("name", ["file/x", "file/a/x"])
def test_a_file_in_place_of_a_folder_is_named(tmp_path, name):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(NotADirectoryError) as raised:
        files.write_atomically(tmp_path / name, b"")
    assert raised.value.filename == str(tmp_path / "file")


def test_permissions_are_those_of_any_new_file(tmp_path, monkeypatch):
    """Checks that no permission is changed, which some file systems forbid."""

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(os, "fchmod", refuse)
    before = os.umask(0o027)
    try:
        files.write_atomically(tmp_path / "file", b"content")
    finally:
        os.umask(before)
    assert (tmp_path / "file").read_bytes() == b"content"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


# Locks.


def test_a_lock_follows_no_link_and_waits_for_nothing(tmp_path, fifo):
    mine = tmp_path / "thesis"
    mine.write_text("years of work")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".lock").symlink_to(mine)
    with pytest.raises(UsageError, match=r"\.lock: expected a regular file"):
        files.locked(folder, "").__enter__()
    assert mine.read_text() == "years of work"
    os.replace(fifo, folder / ".lock")
    with pytest.raises(UsageError, match=r"\.lock: expected a regular file"):
        files.locked(folder, "").__enter__()


def test_a_lock_that_is_there_keeps_its_content(tmp_path):
    (tmp_path / ".lock").write_text("of others")
    with files.locked(tmp_path, ""):
        pass
    assert (tmp_path / ".lock").read_text() == "of others"


def test_a_directory_is_locked_once(tmp_path):
    with (
        files.locked(tmp_path / "a", "taken"),
        files.locked(tmp_path / "b", "taken"),
        pytest.raises(InUseError, match=r"^taken$"),
        files.locked(tmp_path / "a", "taken"),
    ):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = "import os, sys; from gsdd_jax.core import files\n"
    code += "with files.locked(sys.argv[1], ''): print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as holder:
        holder.stdout.readline()
        with pytest.raises(InUseError), files.locked(tmp_path, "taken"):
            pass
        holder.kill()
    with files.locked(tmp_path, "taken"):
        pass


def test_where_there_are_no_locks_a_warning_says_so(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(filelock, "lock_descriptor", refuse)
    with pytest.warns(UsageWarning, match=f"{tmp_path}/.lock: .*No locks available"):
        lock = files.locked(tmp_path, "taken")
        lock.__enter__()
    lock.__exit__(None, None, None)


# Home.


def test_without_a_home_directory_nothing_is_cached(monkeypatch, tmp_path):
    for name in ("HOME", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)

    def unknown(_):
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.warns(UsageWarning, match="set XDG_CACHE_HOME"):
        assert files.cache_dir() is None
    with pytest.warns(UsageWarning, match="nothing is cached"):
        dataset = data.load("cifar10_mini")
    assert dataset.train.images.shape == (3000, 32, 32, 3)
    with warnings.catch_warnings(), pytest.raises(UsageError, match="TFDS_DATA_DIR"):
        warnings.simplefilter("ignore")
        data.load("mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_dir() == tmp_path / "gsdd_jax"


# Folders that are replaced.


def make(path, content):
    with swap.folder(path, MARK, {}, WHAT) as made:
        (made / "inner").mkdir()
        (made / "inner" / "file").write_text(content)


def test_a_folder_is_replaced_by_a_new_one(tmp_path):
    make(tmp_path / "a", "old")
    make(tmp_path / "a", "new")
    swap.check_ours(tmp_path / "a", MARK, WHAT)
    assert (tmp_path / "a" / "inner" / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "what",
    ["a folder", "a marked one", "an added file", "an added folder", "an edited file", "a link",
     "a file"],
)  # fmt: skip
def test_nothing_else_is_replaced(tmp_path, what):
    path = tmp_path / "a"
    if what == "a file":
        path.write_text("thesis")
    elif what == "a link":
        make(tmp_path / "elsewhere", "mine")
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "an added file":
        make(path, "old")
        (path / "inner" / "thesis").write_text("thesis")
    elif what == "an added folder":
        make(path, "old")
        (path / "mine" / "empty").mkdir(parents=True)
    elif what == "an edited file":
        make(path, "old")
        (path / "inner" / "file").write_text("ald")
    else:
        path.mkdir()
        (path / "thesis").write_text("thesis")
        if what == "a marked one":
            files.write_json(path / MARK, {"files": "thesis"})
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=f"(not (a file of )?|edited since ){WHAT}"):
        make(path, "new")
    assert tree(tmp_path) == before
    assert what != "an added folder" or (path / "mine" / "empty").is_dir()


def test_a_folder_without_its_files_is_replaced(tmp_path):
    make(tmp_path / "a", "old")
    (tmp_path / "a" / "inner" / "file").unlink()
    make(tmp_path / "a", "new")
    assert (tmp_path / "a" / "inner" / "file").read_text() == "new"


def test_a_large_file_is_known_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(swap, "EDITED", 2)
    make(tmp_path / "a", "old")
    make(tmp_path / "a", "new")
    (tmp_path / "a" / "inner" / "file").write_text("longer")
    with pytest.raises(UsageError, match="inner/file: edited since a thing of ours was written"):
        make(tmp_path / "a", "old")


def test_a_folder_with_the_name_of_the_one_beside_is_left(tmp_path):
    beside = tmp_path / ".a.replacing"
    (beside / "new").mkdir(parents=True)
    (beside / "new" / "thesis").write_text("thesis")
    with pytest.raises(UsageError, match="exists; move it away"):
        make(tmp_path / "a", "new")
    assert tree(beside) == {"new/thesis": "thesis"}
    swap.recover(tmp_path / "a")
    assert tree(beside) == {"new/thesis": "thesis"}


RENAMING = """
import errno, os, pathlib, signal, sys
from gsdd_jax.core import swap

rename, path = os.rename, pathlib.Path(sys.argv[1])


def broken(old, new):
    if os.path.basename(old) == "new":
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.EIO, "Input/output error")
    if os.path.basename(old) == "old" and sys.argv[2] == "fail twice":
        raise OSError(errno.EIO, "Input/output error")
    rename(old, new)


os.rename = broken
try:
    with swap.folder(path, "mark.json", {}, "a thing of ours") as made:
        (made / "file").write_text("new")
except OSError as error:
    sys.exit(str(error))
"""


def interrupted(path, how):
    command = [sys.executable, "-c", RENAMING, str(path), how]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_swap_that_fails_leaves_the_old_one(tmp_path):
    make(tmp_path / "a", "old")
    before = tree(tmp_path)
    found = interrupted(tmp_path / "a", "fail")
    assert f"Input/output error: '{tmp_path / 'a'}'" in found.stderr
    assert tree(tmp_path) == before


@pytest.mark.parametrize("how", ["kill", "fail twice"])
@pytest.mark.parametrize("then", ["read", "write"])
def test_a_swap_that_is_killed_is_undone_by_the_next(tmp_path, how, then):
    make(tmp_path / "a", "old")
    before = tree(tmp_path)
    found = interrupted(tmp_path / "a", how)
    assert found.returncode == (-signal.SIGKILL if how == "kill" else 1)
    assert not (tmp_path / "a").exists()
    if how == "fail twice":  # the only copy is named and not deleted
        assert f"what was there is in {tmp_path / '.a.replacing' / 'old'}" in found.stderr
    if then == "read":
        swap.recover(tmp_path / "a")
        assert tree(tmp_path) == before
        return
    with pytest.raises(ZeroDivisionError), swap.folder(tmp_path / "a", MARK, {}, WHAT):
        1 / 0  # noqa: B018
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_text_that_names_no_file_is_a_line(tmp_path, name):
    with pytest.raises(UsageError, match="expected a path without NUL"):
        files.write_atomically(f"{tmp_path}/{name}", b"")
    with (
        pytest.raises(UsageError, match="expected a path without NUL"),
        files.locked(f"{tmp_path}/{name}", "taken"),
    ):
        pass
    assert not list(tmp_path.iterdir())


WRITERS = {
    "file": lambda path: files.write_atomically(path, b""),
    "place of a file": lambda path: files.check_ours(path, WHAT, lambda _: True),
    "folder": files.make_folder,
    "locked folder": lambda path: files.locked(path, "taken").__enter__(),
    "replaced folder": lambda path: make(path, ""),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_nothing_is_written_to_a_url(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    for url in ("s3://bucket/x", "Memory://x"):
        for path in (url, pathlib.Path(url)):
            with pytest.raises(UsageError, match=r"x: expected a path on this machine, got a URL"):
                write(path)
    assert not list(tmp_path.iterdir())


def test_a_data_set_in_a_folder_that_is_not_utf8_is_a_line(tmp_path):
    folder = tmp_path / "a\udcffb" / "1.0.0"
    folder.mkdir(parents=True)
    with pytest.raises(UsageError, match="the folder of the data set: expected text in UTF-8"):
        records.write(folder, "a", {}, {}, description="")


def test_checkpoints_where_no_folder_can_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("link")
    for place in (tmp_path / "file" / "checkpoints", tmp_path / "link"):
        with pytest.raises(UsageError, match=r"cannot hold checkpoints|expected"):
            checkpoint.Checkpoints(place, "")


def test_a_folder_that_cannot_be_written_is_named_by_its_own_name(tmp_path):
    """Checks the name in the error, also where writing fails without one, as on a full disk."""
    for name in ((), (str(tmp_path / ".made.replacing" / "new" / "a"),)):
        with (
            pytest.raises(OSError, match="full") as raised,
            swap.folder(tmp_path / "made", "mark.json", {}, "a folder"),
        ):
            raise OSError(28, "full", *name)
        assert raised.value.filename == str(tmp_path / "made")
    assert not (tmp_path / "made").exists()
