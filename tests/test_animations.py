"""Tests the animated pictures of a report, read by Pillow."""

import base64
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence

from gsdd_jax import parameterizations
from gsdd_jax.formats.clips import folded
from gsdd_jax.report import animations, gallery
from gsdd_jax.report.events import Events
from gsdd_jax.report.source import Run


def run_of(clips, per_class=1):
    """Returns a run whose set has `per_class` clips [t, h, w, c] of each class."""
    _, frames, height, width, colors = clips.shape
    kind = parameterizations.build(
        "pixels", (height, width, frames * colors), ipc=per_class, images_per_class=per_class,
        frames=frames,
    )  # fmt: skip
    labels = np.repeat(np.arange(len(clips) // per_class), per_class)
    params = {"pixels": jnp.asarray(folded(np.float32(clips)))}
    set_ = parameterizations.stored(kind, params, labels, 0.1)
    return Run("a run", {}, {}, {}, Events({}, [], None), {0: set_}, None, {})


def decoded(url):
    kind, content = url.split(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as file:
        assert file.info["loop"] == 0
        frames = ImageSequence.Iterator(file)
        found = [(np.asarray(of.convert("RGB")), of.info["duration"]) for of in frames]
    assert all(duration == 125 for _, duration in found)
    return np.stack([pixels for pixels, _ in found])


def waves(count, frames, side, colors=3):
    k, t, y, x, c = np.ogrid[:count, :frames, :side, :side, :colors]
    return 0.5 + 0.4 * np.sin((y + 3 * t + 5 * k) / 4 + x / 8 + 0 * c)


@pytest.mark.parametrize("colors", [3, 1])
def test_the_first_clip_of_each_class_moves(colors):
    clips = waves(4, 5, 24, colors)
    found = animations.section(run_of(clips, per_class=2), 1)
    assert [name for name, _ in found] == ["class 0", "class 1"]
    for (_, url), expected in zip(found, clips[::2], strict=True):
        shown = decoded(url)
        assert shown.shape == (5, 24, 24, 3)
        assert np.abs(shown - 255 * expected).mean() < 6
        assert np.abs(shown - 255 * expected[::-1]).mean() > 30


@pytest.mark.parametrize("opacity", [True, False])
def test_clips_in_codes_are_chosen_whole(opacity):
    """Compares with the clips of the whole set, of which some have one Gaussian more."""
    kind = parameterizations.build(
        "video_quantized", (8, 8, 6), bytes_per_class=500, images_per_class=2, num_classes=2,
        frames=2, opacity=opacity,
    )  # fmt: skip
    assert len(set(kind.counts)) == 2
    params = kind.init(jax.random.key(0), jax.random.uniform(jax.random.key(1), (4, 8, 8, 6)))
    set_ = parameterizations.stored(kind, params, np.array([1, 0, 1, 0], np.int32), 0.1)
    some = gallery.chosen(set_, 1)
    assert some.labels.tolist() == [0, 1]
    expected = np.asarray(parameterizations.rendered(set_))[[1, 0]]
    assert np.abs(expected[0] - expected[1]).mean() > 0.05
    np.testing.assert_allclose(parameterizations.rendered(some), expected, atol=1e-5)
    assert gallery.gaussians(some) is None


def test_it_is_bounded():
    clips = waves(12, 40, 100)
    run = run_of(clips)
    found = animations.section(run, 1)
    assert [name for name, _ in found] == [f"class {k}" for k in range(10)]
    assert decoded(found[0][1]).shape == (32, 96, 96, 3)
    assert sum(len(url) for _, url in found) < 2_000_000
    assert len(animations.section(run, 4)) == 2 and len(animations.section(run, 20)) == 1
    assert animations.section(run_of(clips[:, :1, :8, :8]), 1) == []
