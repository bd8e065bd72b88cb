"""Tests data sets of one's own clips: video files, folders of frames, and what is refused."""

import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import clip_folders, pictures, prepare, videos
from gsdd_jax.formats.clips import unfolded
from tests import own_pictures
from tests.clip_sets import CLASSES, film, frame_folder, moving
from tests.own_pictures import ROOT, SIZE, load, noise, save

FRAMES = 4


def make(tmp_path, clips=None, name="mine", **options):
    options = {"frames": FRAMES} | options
    return own_pictures.make(tmp_path, clips or tmp_path / "clips", name, **options)


def refusal(tmp_path, clips=None, **options) -> str:
    options = {"frames": FRAMES} | options
    return own_pictures.refusal(tmp_path, clips or tmp_path / "clips", **options)


def fill(folder, count=3, frames=FRAMES):
    """Writes folders of frames, not to be resampled; returns clips by class and name."""
    clips, labels = moving(2 * count, frames, SIZE, SIZE)
    made = {}
    for i, (clip, label) in enumerate(zip(clips, labels, strict=True)):
        made[f"{CLASSES[label]}/{i}"] = clip
        frame_folder(folder / CLASSES[label] / str(i), clip)
    return made


def test_folders_of_frames_become_a_data_set(tmp_path):
    """Takes every third frame of twelve, in natural order, unchanged."""
    made = fill(tmp_path / "clips", 3, 12)
    made["across/more"] = made["across/0"][::-1]
    frame_folder(tmp_path / "clips/across/more", made["across/more"])
    save(noise(0, SIZE, SIZE, 3), tmp_path / "clips/across/.hidden/0.png")
    (tmp_path / "clips/across/0/notes.txt").write_text("")
    result = make(tmp_path)
    assert (result.image_shape, result.class_names) == ((FRAMES, SIZE, SIZE, 3), list(CLASSES))
    assert [sum(result.train), sum(result.test)] == [5, 2]
    assert "hidden folders and those of a system were passed over: 1 .hidden" in result.notes
    dataset = load(tmp_path)
    assert dataset.frames == FRAMES and dataset.class_names == CLASSES
    found = []
    for split in (dataset.train, dataset.test):
        clips = unfolded(split.images, FRAMES)
        for clip, label in zip(clips, split.labels, strict=True):
            (name,) = (n for n, of in made.items() if np.array_equal(of[1::3], clip))
            assert name.split("/")[0] == CLASSES[label]
            found.append(name)
    assert sorted(found) == sorted(made)


def test_frames_are_in_natural_order(tmp_path):
    names = ["a2.png", "a10.png", "a1.PNG", "b.png", "a01.png"]
    for name in names:
        save(noise(0, 2, 2, 3), tmp_path / name)
    found = [path.name for path in clip_folders.frames(tmp_path)]
    assert found == ["a1.PNG", "a01.png", "a2.png", "a10.png", "b.png"]


@pytest.mark.parametrize(
    ("extension", "codec", "format"),
    [
        (".mp4", "libx264", "yuv444p"),
        (".webm", "libvpx-vp9", "yuv444p"),
        (".avi", "mpeg4", "yuv420p"),
        (".mov", "mpeg4", "yuv420p"),
        (".mkv", "libx264", "yuv444p"),
        (".mpg", "mpeg2video", "yuv420p"),
        (".gif", "gif", "rgb8"),
    ],
)
def test_video_files_become_a_data_set(tmp_path, extension, codec, format):
    """Frames of flat colors are the colors, but for the codec's error."""
    colors = np.array([[250, 10, 10], [10, 240, 10], [20, 20, 250], [230, 230, 10]], np.uint8)
    clip = np.broadcast_to(colors.repeat(3, 0)[:, None, None], (12, 16, 32, 3))
    for name in ("across/1", "across/2", "down/1", "down/2"):
        film(tmp_path / "clips" / f"{name}{extension}", clip, codec, format)
    result = make(tmp_path)
    assert result.train == result.test == [1, 1] and result.image_shape == (FRAMES, SIZE, SIZE, 3)
    assert any("test clips also to train on" in note for note in result.notes)
    (found, *_) = unfolded(load(tmp_path).train.images, FRAMES)
    error = np.abs(np.float32(found) - colors[:, None, None])
    assert error.max() < (40 if extension == ".gif" else 12)


def test_gray_clips_short_clips_and_test_clips(tmp_path):
    for i in range(4):
        gray = noise(i, 3, SIZE, SIZE, 1).repeat(3, -1)
        frame_folder(tmp_path / "clips" / CLASSES[i % 2] / str(i), gray)
        frame_folder(tmp_path / "others" / CLASSES[i % 2] / str(i), gray[::-1])
    result = make(tmp_path, test=tmp_path / "others")
    assert (result.train, result.test) == ([2, 2], [2, 2])
    assert result.image_shape == (FRAMES, SIZE, SIZE, 1)
    assert "8 clips of fewer than 4 frames, which repeat (--frames)" in result.notes
    assert "one gray channel, since no clip has colors (--nogray)" in result.notes
    first = unfolded(load(tmp_path).train.images, FRAMES)[0]
    np.testing.assert_array_equal(first, noise(0, 3, SIZE, SIZE, 1)[[0, 1, 1, 2]])


def test_parts_lists_and_links(tmp_path):
    made = fill(tmp_path / "clips/train")
    frame_folder(tmp_path / "clips/test/across/t", made["across/0"])
    (tmp_path / "clips/test/down").mkdir()
    (tmp_path / "clips/test/down/t").symlink_to(tmp_path / "clips/train/down/1")
    result = make(tmp_path, name="parts")
    assert (result.train, result.test) == ([3, 3], [1, 1])
    rows = [f"clips/train/{name},{name.split('/')[0]}" for name in made]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    result = make(tmp_path, tmp_path / "list.csv", name="list")
    assert (result.train, result.test) == ([2, 2], [1, 1])


def test_the_size_follows_from_the_clips(tmp_path):
    for i in range(4):
        film(tmp_path / f"clips/{CLASSES[i % 2]}/{i}.mp4", np.zeros((2, 90, 46, 3)))
        frame_folder(tmp_path / f"clips/{CLASSES[i % 2]}/_{i}", noise(i, 2, 46, 99, 3))
    result = make(tmp_path, resolution=None)
    assert result.image_shape == (FRAMES, 32, 32, 3)
    (note,) = (note for note in result.notes if "--resolution" in note)
    assert "half of the training clips have shorter sides of at most 46" in note


def test_a_turned_video_is_upright(tmp_path):
    """A telephone stores a quarter turn in the track's header, as nine numbers."""
    clip = np.zeros((2, 16, 32, 3), np.uint8)
    clip[:, :, :16] = 255
    film(tmp_path / "a.mp4", clip)
    content = (tmp_path / "a.mp4").read_bytes()
    one, unit = 1 << 16, 1 << 30
    level = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, unit)
    turned = struct.pack(">9i", 0, one, 0, -one, 0, 0, 16 * one, 0, unit)
    at = content.index(level, content.index(b"tkhd"))
    (tmp_path / "a.mp4").write_bytes(content[:at] + turned + content[at + 36 :])
    (image,) = videos.frames(tmp_path / "a.mp4", [1])
    pixels = np.asarray(image)
    assert pixels.shape == (32, 16, 3)  # a quarter clockwise: what was at the left is at the top
    assert pixels[:14].min() > 200 and pixels[18:].max() < 50


def cut(path, part):
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])


def test_damaged_files_are_named(tmp_path):
    clip = noise(1, 40, 16, 16, 3)
    fill(tmp_path / "clips")
    folder = tmp_path / "clips/across"
    film(folder / "cut.mp4", clip, options={"movflags": "faststart"})
    film(folder / "cut.webm", clip, "libvpx-vp9", "yuv420p")
    film(folder / "moov.mov", clip)
    for name in ("cut.mp4", "cut.webm", "moov.mov"):
        cut(folder / name, 0.6)
    (folder / "text.avi").write_text("no video")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n")
    film(folder / "other.mp4", clip, "libvpx-vp9", "yuv420p", container="webm")
    frame_folder(folder / "still", clip[:1])
    frame_folder(folder / "broken", clip[:4])
    (folder / "broken/2.png").write_bytes(b"\x89PNG\r\n")
    broken = prepare.prepare(
        tmp_path / "clips", "rest", frames=FRAMES, resolution=SIZE, skip_broken=True,
        data_dir=tmp_path / "rest",
    )  # fmt: skip
    assert sum(broken.train + broken.test) == 6
    message = refusal(tmp_path)
    assert message.startswith("9 of 15 clips cannot be read: across/broken (no picture that can be")
    reasons = {}
    for name in (
        "cut.mp4",
        "cut.webm",
        "moov.mov",
        "text.avi",
        "empty.mp4",
        "list.mp4",
        "other.mp4",
    ):
        with pytest.raises(UsageError) as raised:
            videos.count(folder / name)
        reasons[name] = str(raised.value)
    assert "frames end after" in reasons.pop("cut.webm")
    assert all(reason.startswith("no video that can be read (") for reason in reasons.values())
    assert "across/still (1 frame, expected a clip of 2 or more)" in refusal(
        tmp_path, only_still(tmp_path)
    )


def only_still(tmp_path):
    fill(tmp_path / "stills")
    frame_folder(tmp_path / "stills/across/still", noise(1, 1, 8, 8, 3))
    return tmp_path / "stills"


@pytest.mark.parametrize(
    ("limit", "most", "message"),
    [
        ("FRAMES", 11, "more than 11 frames"),
        ("PIXELS", 255, "more than 255 pixels per frame"),
        ("ALL_PIXELS", 2000, "more than 2,000 pixels in all frames"),
        ("SECONDS", 1, "more than 1 seconds"),
    ],
)
def test_limits_of_a_video(tmp_path, monkeypatch, limit, most, message):
    film(tmp_path / "a.mp4", noise(0, 12, 16, 16, 3))
    assert videos.count(tmp_path / "a.mp4") == 12
    monkeypatch.setattr(videos, limit, most)
    with pytest.raises(UsageError, match=message):
        videos.count(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["across/0.png", "down/0.png"], "got clips that are in none: across, down"),
        (["0.png", "down/a/0.png"], "got 0.png next to others"),
        (["across/0.png", "across/a/0.png", "down/b/0.png"], "across: expected folders of frames"),
        (["across/0.png", "across/a.mp4", "down/b/0.png"], "across: expected folders of frames"),
        (["across/a/0.txt", "down/b/0.png"], "no clips in the class folders across"),
        (["across/a/0.png"], "expected two classes or more, got across"),
    ],
)
def test_layouts_that_are_refused(tmp_path, files, message):
    for name in files:
        save(noise(0, SIZE, SIZE, 3), tmp_path / "clips" / name)
    assert message in refusal(tmp_path)


def test_settings_that_are_refused(tmp_path, monkeypatch):
    fill(tmp_path / "clips")
    assert "--frames: expected 2 to 256 frames per clip, got 1" in refusal(tmp_path, frames=1)
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 8, 8, 3), np.uint8), labels=[0, 1])
    assert "gsdd_jax.distill(clips, labels) takes arrays" in refusal(tmp_path, tmp_path / "a.npz")
    film(tmp_path / "clips/across/a.mp4", noise(0, 4, 16, 16, 3))
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'gsdd-jax[video]'" in refusal(tmp_path)


def test_a_decoder_takes_no_memory_beyond_the_limit(tmp_path, monkeypatch):
    """The header of a file may state fewer pixels than its frames have."""
    film(tmp_path / "a.mp4", noise(0, 4, 16, 16, 3))
    monkeypatch.setattr(videos, "_check", lambda *_: None)
    assert videos.count(tmp_path / "a.mp4") == 4
    monkeypatch.setattr(videos, "PIXELS", 255)
    with pytest.raises(UsageError, match="no video that can be read"):
        videos.count(tmp_path / "a.mp4")


def test_transparent_parts_are_white(tmp_path):
    frames = [Image.new("P", (8, 8), k) for k in (0, 1)]
    for frame in frames:
        frame.putpalette([255, 0, 0, 0, 0, 255])
    folder = tmp_path / "clips/across"
    folder.mkdir(parents=True)
    options = dict(save_all=True, append_images=frames[1:], transparency=0, disposal=2)
    frames[0].save(folder / "a.gif", **options)
    first, second = (np.asarray(of) for of in videos.frames(folder / "a.gif", [0, 1]))
    assert first.shape == (8, 8, 4) and not first[..., 3].any()
    assert (second == (0, 0, 255, 255)).all()
    assert (pictures.square(Image.fromarray(first), 4, 3)[0] == 255).all()


def test_the_command_says_what_it_made_and_what_is_next(tmp_path):
    fill(tmp_path / "clips")
    flags = [f"--clips={tmp_path}/clips", "--name=mine", "--frames=3", "--resolution=8"]
    command = [sys.executable, "-m", "launch.prepare", *flags, f"--data_dir={tmp_path}/tfds"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *_, classes, made, following = done.stdout.splitlines()
    assert classes == "classes: across, down"
    assert made.endswith(
        "4 training and 2 test clips of 2 classes, 2 per class to train on, 3x8x8x3"
    )
    assert following.endswith(
        f"--config.data.name=mine --config.data.dir={tmp_path}/tfds --config.network.name=minic3d "
        "--config.parameterization.name=video_gaussian --workdir=runs/mine"
    )
