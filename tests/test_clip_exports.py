"""Tests exports of clips, each format by an independent reader."""

import csv
import io
import sys
import tarfile

import av
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import gsdd_jax
from gsdd_jax import exports, parameterizations
from gsdd_jax.data import prepare
from gsdd_jax.formats.clips import folded, unfolded
from tests.clip_sets import load

FRAMES, NAMES = 3, ["a b", "c"]
LOGITS = np.float32(8 / 3) * np.array([[3, 0]] * 2 + [[1, 2]] * 2, np.float32)
SOFT = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


def smooth(height, width, colors=3):
    """Returns clips of soft waves, which H.264 keeps well, some values beyond [0, 1]."""
    k, t, y, x, c = np.ogrid[:4, :FRAMES, :height, :width, :colors]
    return np.float32(0.5 + 0.6 * np.sin((y + 2 * t) / 6 + x / 8 + k + c))


def distilled(shown, soft=True):
    height, width, channels = folded(shown).shape[1:]
    kind = parameterizations.build(
        "pixels", (height, width, channels), ipc=2, images_per_class=1, frames=FRAMES
    )
    params, labels = {"pixels": jnp.asarray(folded(shown))}, np.repeat(np.arange(2), 2)
    said = {"data": {"class_names": NAMES}}
    labeled = (LOGITS, 2) if soft else ()
    return parameterizations.stored(kind, params, labels, 0.1, said, *labeled)


def in_8_bits(shown):
    return np.floor(255 * np.clip(np.float64(shown), 0, 1) + 0.5)


@pytest.mark.parametrize("colors", [3, 1])
def test_png_is_folders_of_frames(tmp_path, colors):
    """Reads them by Pillow, and as a data set of one's own clips."""
    shown = smooth(16, 16, colors)
    line = exports.export(distilled(shown), tmp_path / "out", "png")
    assert f"4 clips of 3x16x16x{colors} with soft labels, clipped to" in line
    for index, expected in enumerate(in_8_bits(shown)):
        folder = tmp_path / "out" / ["0_a_b", "1_c"][index // 2] / f"{index:05}"
        found = sorted(folder.iterdir())
        assert [path.name for path in found] == ["000.png", "001.png", "002.png"]
        pixels = np.stack([np.asarray(Image.open(path)) for path in found])
        np.testing.assert_array_equal(pixels.reshape(expected.shape), expected)
    with open(tmp_path / "out" / "soft_labels.csv", newline="", encoding="utf-8") as table:
        head, *rows = csv.reader(table)
    assert head == ["file", *NAMES] and [row[0] for row in rows][-1] == "1_c/00003"
    np.testing.assert_allclose(np.float64([row[1:] for row in rows]), SOFT, rtol=1e-6)
    options = dict(frames=FRAMES, resolution=16, data_dir=tmp_path / "tfds", test_fraction=0.5)
    prepare.prepare(tmp_path / "out", "again", **options)
    dataset = load(tmp_path, "again")
    assert dataset.class_names == ("0_a_b", "1_c")
    clips = [*unfolded(dataset.train.images, FRAMES), *unfolded(dataset.test.images, FRAMES)]
    order = sorted(clips, key=bytes)
    np.testing.assert_array_equal(order, sorted(np.uint8(in_8_bits(shown)), key=bytes))


@pytest.mark.parametrize(("size", "colors"), [((32, 48), 3), ((33, 47), 3), ((32, 32), 1)])
def test_mp4_by_pyav(tmp_path, size, colors):
    """Colors of even sides are stored at half of these, which costs most."""
    shown = smooth(*size, colors)
    for name in ("one", "two"):
        line = exports.export(distilled(shown, soft=False), tmp_path / name, "mp4")
        assert "rounded to 8 bits, compressed with loss" in line
    files = sorted((tmp_path / "one").glob("*/*.mp4"))
    assert [path.relative_to(tmp_path / "one").as_posix() for path in files] == [
        *("0_a_b/00000.mp4", "0_a_b/00001.mp4", "1_c/00002.mp4", "1_c/00003.mp4")
    ]
    for path, expected in zip(files, in_8_bits(shown), strict=True):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            assert stream.codec_context.name == "h264" and stream.average_rate == 8
            frames = np.stack([f.to_ndarray(format="rgb24") for f in file.decode(stream)])
        assert frames.shape == (FRAMES, *size, 3)
        assert np.abs(frames - expected).mean() < (6 if (size, colors) == ((32, 48), 3) else 2.5)
        assert np.abs(frames - expected[::-1]).mean() > 20  # in order


def test_tfds_without_tensorflow(tmp_path):
    import tensorflow_datasets as tfds

    shown = smooth(8, 10)
    exports.export(distilled(shown), tmp_path / "out", "tfds")
    found = list(tfds.data_source("distilled_set", split="train", data_dir=tmp_path / "out"))
    assert [example["label"] for example in found] == [0, 0, 1, 1]
    np.testing.assert_array_equal(np.stack([np.stack(e["video"]) for e in found]), in_8_bits(shown))
    np.testing.assert_allclose([example["target"] for example in found], SOFT, rtol=1e-6)


def test_webdataset(tmp_path):
    shown = smooth(8, 10)
    exports.export(distilled(shown, soft=False), tmp_path / "out", "webdataset")
    with tarfile.open(tmp_path / "out" / "shard-00000.tar") as tar:
        content = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}
    names = ["000.png", "001.png", "002.png", "cls"]
    assert list(content) == [f"{i:05}.{name}" for i in range(4) for name in names]
    for i, expected in enumerate(in_8_bits(shown)):
        frames = [Image.open(io.BytesIO(content[f"{i:05}.{name}"])) for name in names[:-1]]
        np.testing.assert_array_equal(np.stack([np.asarray(frame) for frame in frames]), expected)
        assert int(content[f"{i:05}.cls"]) == i // 2


def test_what_is_refused(tmp_path, monkeypatch):
    clips = distilled(smooth(8, 8), soft=False)
    with pytest.raises(
        gsdd_jax.UsageError, match="mp4, png, tfds, webdataset for clips of 3 frames"
    ):
        exports.export(clips, tmp_path / "out", "hf")
    kind = parameterizations.build("pixels", (8, 8, 3), ipc=2, images_per_class=1)
    labels = np.repeat(np.arange(2), 2)
    images = parameterizations.stored(kind, {"pixels": jnp.zeros((4, 8, 8, 3))}, labels, 0.1)
    with pytest.raises(gsdd_jax.UsageError, match="webdataset for images, got 'mp4'"):
        exports.export(images, tmp_path / "out", "mp4")
    exports.export(clips, tmp_path / "out", "mp4")
    with pytest.raises(gsdd_jax.UsageError, match="exists already"):
        exports.export(clips, tmp_path / "out", "mp4")
    with pytest.raises(gsdd_jax.UsageError, match="clips of 1 or 3 channels, got 4; png takes"):
        exports.export(distilled(smooth(8, 8, 4), soft=False), tmp_path / "four", "mp4")
    assert not (tmp_path / "four").exists()
    exports.export(clips, tmp_path / "out", "png", overwrite=True)
    assert not list((tmp_path / "out").glob("*/*.mp4"))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(gsdd_jax.UsageError, match=r"PyAV, .* is not installed"):
        exports.export(clips, tmp_path / "none", "mp4")
    assert not (tmp_path / "none").exists()
