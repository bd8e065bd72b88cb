"""Tests TFDS sets of clips: their frames and sizes, what is refused, and a run."""

import json

import numpy as np
import pytest

from gsdd_jax import data
from gsdd_jax.config import default
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import decode
from gsdd_jax.data.frames import spread
from gsdd_jax.formats.clips import unfolded
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.progress import Display
from tests.clip_sets import CLASSES, images, load, moving, store, video
from tests.tfds_sets import png, refuse_to_decode, run_python


def pairs(clips, labels):
    return list(zip(clips, labels, strict=True))


def stored(tmp_path, count=7, test=2, **options):
    clips, labels = moving(count)
    clips = clips[..., : options.get("channels", 3)]
    of = pairs(clips, labels)
    folder = store(tmp_path / "tfds", {"train": of[:-test], "test": of[-test:]}, **options)
    return folder, clips, labels


@pytest.mark.parametrize(("feature_of", "channels"), [(video, 3), (video, 1), (images, 3)])
def test_a_set_of_clips(tmp_path, monkeypatch, feature_of, channels):
    """The second time, nothing is decoded."""
    folder, clips, labels = stored(tmp_path, feature_of=feature_of, channels=channels)
    said = json.loads((folder / "features.json").read_text())
    kind = said["featuresDict"]["features"]["video"]["pythonClassName"].rsplit(".", 1)[-1]
    assert kind == ("Video" if feature_of is video else "Sequence")
    direct = data.from_arrays(clips[:5], labels[:5], (clips[5:], labels[5:]), class_names=CLASSES)
    for _ in range(2):
        dataset = load(tmp_path)
        assert (dataset.frames, dataset.class_names) == (4, CLASSES)
        np.testing.assert_array_equal(unfolded(dataset.train.images, 4), clips[:5])
        np.testing.assert_array_equal(unfolded(dataset.test.images, 4), clips[5:])
        np.testing.assert_array_equal(dataset.test.labels, labels[5:])
        assert (dataset.mean, dataset.std) == (direct.mean, direct.std)
        assert dataset.fingerprint == direct.fingerprint
        monkeypatch.setattr(decode, "decode_image", refuse_to_decode)
    few = load(tmp_path, classes="down")
    assert few.frames == 4 and few.fingerprint != dataset.fingerprint


def test_clips_of_several_lengths_and_sizes(tmp_path):
    """Each frame is resized as an image of an image set is."""
    long, short = moving(2, 9, 12, 8)[0], moving(2, 3, 8, 10)[0]
    train = pairs([*long, *short], [0, 1, 0, 1])
    store(tmp_path / "tfds", {"train": train, "test": train})
    dataset = load(tmp_path, frames=4, resolution=6)
    assert dataset.shown_shape == "4x6x6x3" and len(dataset.train.images) == 4
    for (clip, _), found in zip(train, unfolded(dataset.train.images, 4), strict=True):
        taken = clip[[1, 3, 5, 7] if len(clip) == 9 else [0, 1, 1, 2]]
        for frame, expected in zip(found, taken, strict=True):
            image = decode.decode_image(png(expected), 3, (6, "crop"))
            np.testing.assert_array_equal(frame, image)
    others = [load(tmp_path, frames=n, resolution=6).fingerprint for n in (4, 5)]
    assert others[0] == dataset.fingerprint != others[1]


@pytest.mark.parametrize("frames", range(2, 12))
def test_frames_are_the_middles_of_equal_parts(frames):
    for count in range(2, 40):
        middles = [(k + 0.5) * count / frames for k in range(frames)]
        expected = [next(i for i in range(count) if i <= at < i + 1) for at in middles]
        assert spread(count, frames) == expected
    assert spread(frames, frames) == list(range(frames))


def refusal(tmp_path, **options):
    with pytest.raises(UsageError) as raised:
        load(tmp_path, **options)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_what_is_refused(tmp_path):
    root, clips = tmp_path / "tfds", moving(4)[0]
    of = lambda *clips: pairs(clips, [0] * len(clips))
    store(root, {"train": of(clips[0]), "test": of(clips[1])}, labels=False, name="unlabeled")
    message = refusal(tmp_path, name="unlabeled")
    assert "has the features video: expected an image or a clip, and a class label" in message
    store(root, {"train": of(clips[0], clips[1][:3]), "test": of(clips[2])}, name="several")
    message = refusal(tmp_path, name="several")
    assert "different numbers of frames (4, 3, ...); give how many to take" in message
    store(root, {"train": of(clips[0]), "test": of(clips[1][:2])}, name="unlike")
    message = refusal(tmp_path, name="unlike")
    assert "training clips of data set 'unlike' have 4 frames, its test clips 2" in message
    store(root, {"train": of(clips[0]), "test": of(clips[1][:1])}, name="still")
    assert "data set 'still': 1 frame, expected a clip of 2 or more" in refusal(
        tmp_path, name="still"
    )
    store(
        root, {"train": of(np.zeros((257, 1, 1, 3), np.uint8))} | {"test": of(clips[0])}, name="l"
    )
    assert "clips of 257 frames, expected at most 256; give how" in refusal(tmp_path, name="l")
    assert "frames: expected an integer from 2 to 256" in refusal(tmp_path, frames=1)
    with pytest.raises(UsageError, match="expected none for data set 'cifar10_mini'"):
        data.load("cifar10_mini", frames=4)


def test_a_damaged_frame_is_named(tmp_path):
    folder, *_ = stored(tmp_path)
    record = next(folder.glob("*train*"))
    content = record.read_bytes()
    record.write_bytes(content.replace(b"IHDR", b"IHDX", 3))
    assert "data set 'moves'" in refusal(tmp_path) and "is damaged" in refusal(tmp_path)


LOAD = "from gsdd_jax import data; print(data.load('moves', data_dir={!r}, cache_dir={!r}).frames)"


def test_nothing_is_said_of_tensorflow(tmp_path):
    stored(tmp_path)
    done = run_python(LOAD.format(str(tmp_path / "tfds"), str(tmp_path / "cache")), check=True)
    assert done.stdout == "4\n" and "ensor" not in done.stderr


RUN = {
    "data.name": "moves",
    "data.frames": 3,
    "parameterization.name": "video_gaussian",
    "network.name": "minic3d",
    "network.options.width": 8,
    "budget.images_per_class": 4,
    "init.num_steps": 2,
    "matching.options.batch_real": 4,
    "matching.strategy": "",
    "distill.num_steps": 2,
    "evaluate.num_networks": 1,
    "evaluate.epochs": 1,
    "evaluate.baselines": "",
}


def test_a_run_by_name(quickly_compiled, tmp_path):
    stored(tmp_path, 12, 4)
    config = default()
    config.update_from_flattened_dict(RUN | {"data.dir": str(tmp_path / "tfds")})
    result = distill_to(config, tmp_path / "run", Display())
    assert 0 <= result["distilled_accuracy"] <= 100
