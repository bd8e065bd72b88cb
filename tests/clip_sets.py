"""Makes small sets of clips: TFDS sets, folders of frames, and video files."""

import io
import types
import unittest.mock

import av
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.features import feature, video_feature

from gsdd_jax import data
from gsdd_jax.core import records
from tests import own_pictures
from tests.tfds_sets import png

CLASSES = ("across", "down")


def moving(count, frames=4, height=8, width=8, seed=0):
    """Returns clips [n, t, h, w, 3] of a bar that moves to the right or downward, and labels."""
    rng = np.random.default_rng(seed)
    clips = rng.integers(0, 60, (count, frames, height, width, 3), np.uint8)
    labels = np.arange(count) % 2
    for k in range(frames):
        clips[labels == 0, k, :, k * width // frames] += 180
        clips[labels == 1, k, k * height // frames] += 180
    return clips, labels


def video(channels):
    return tfds.features.Video(shape=(None, None, None, channels))


def images(channels):
    return tfds.features.Sequence(tfds.features.Image(shape=(None, None, channels)))


def store(root, splits, feature_of=video, channels=3, labels=True, name="moves"):
    """Writes a set as TFDS does with TensorFlow, of {split: [(clip, label), ...]}."""
    numpy = types.SimpleNamespace(dtypes=types.SimpleNamespace(as_dtype=np.dtype))
    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)

    def example(clip, label):
        frames = [io.BytesIO(png(frame)) for frame in clip]
        return {"video": frames} | ({"label": int(label)} if labels else {})

    with (
        unittest.mock.patch.object(video_feature, "tf", numpy),
        unittest.mock.patch.object(feature, "tf", numpy),
    ):
        features = {"video": feature_of(channels)}
        if labels:
            features["label"] = tfds.features.ClassLabel(names=CLASSES)
        examples = {split: [example(*pair) for pair in pairs] for split, pairs in splits.items()}
        records.write(folder, name, features, examples, "")
    return folder


def load(tmp_path, name="moves", **options) -> data.Dataset:
    return own_pictures.load(tmp_path, name, **options)


def frame_folder(folder, clip):
    """Writes the frames of a clip as 0.png, 1.png, ..., 10.png."""
    folder.mkdir(parents=True)
    for k, frame in enumerate(clip):
        (folder / f"{k}.png").write_bytes(png(frame))


def film(path, clip, codec="libx264", pixels="yuv444p", container=None, options=None):
    """Writes a clip [t, h, w, 3] as a video file of ten frames per second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container, options=options or {}) as file:
        stream = file.add_stream(codec, rate=10)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = pixels
        for frame in clip:
            shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame, np.uint8), "rgb24")
            file.mux(stream.encode(shown))
        file.mux(stream.encode())
