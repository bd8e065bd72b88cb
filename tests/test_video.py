"""Tests clips: their layout, Gaussians in space and time, and other ways to store them."""

import dataclasses
import itertools
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

import gsdd_jax
from gsdd_jax import data, federated, parameterizations
from gsdd_jax.core import memory
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import augment
from gsdd_jax.formats import base
from gsdd_jax.formats.clips import folded, unfolded
from gsdd_jax.rasterizer.clips import GaussianClips
from gsdd_jax.runs.contact_sheet import contact_sheet
from tests.dense import dense
from tests.moving_bars import FRAMES, clips

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def built(name="video_gaussian", ipc=1, images_per_class=2, **options):
    sizes = dict(ipc=ipc, images_per_class=images_per_class, frames=FRAMES)
    return parameterizations.build(name, (8, 8, 3 * FRAMES), **sizes, **options)


def drawn(kind, count=2, seed=0):
    """Returns parameters of Gaussians that move, fade, and are nowhere clipped."""
    rng, shape = np.random.default_rng(seed), (count, kind.num_gaussians)
    arrays = {
        "means": rng.uniform(-0.8, 0.8, (*shape, 2)),
        "times": rng.uniform(0, 1, shape),
        "velocities": rng.normal(0, 1, (*shape, 2)),
        "cholesky": rng.normal(0.5, 0.5, (*shape, 3)),
        "extents": rng.uniform(0.2, 1, shape),
        "colors": rng.normal(0.4, 0.5, (*shape, kind.colors)),
        "opacities": rng.uniform(0.3, 0.9, shape),
    }
    return {name: np.float32(array) for name, array in arrays.items()}


def in_float64(arrays, clip, frames=FRAMES):
    """Renders one clip frame by frame, Gaussian by Gaussian: images and uncertain pixels."""
    shown, near = [], []
    of = {name: np.asarray(array[clip], np.float64) for name, array in arrays.items()}
    for frame in range(frames):
        tau, means, opacities = (frame + 0.5) / frames, [], []
        for n in range(len(of["times"])):
            since = tau - of["times"][n]
            means.append(of["means"][n] + of["velocities"][n] * since)
            fading = np.exp(-((since / of["extents"][n]) ** 2) / 2)
            opacities.append(of["opacities"][n] * fading)
        parameters = np.array(means), of["cholesky"], of["colors"], np.array(opacities)
        image, uncertain, _ = dense(parameters, 8, 8)
        shown.append(image)
        near.append(uncertain)
    return np.array(shown), np.array(near)


def test_frames_are_channels_one_after_the_other():
    found, labels = clips()
    images = folded(found)
    assert images.shape == (12, 8, 8, 12)
    for frame, color in itertools.product(range(FRAMES), range(3)):
        np.testing.assert_array_equal(images[..., 3 * frame + color], found[:, frame, ..., color])
    np.testing.assert_array_equal(unfolded(jnp.asarray(images), FRAMES), found)
    made = data.from_arrays(found, labels, (found[:4] / 255, labels[:4]))
    np.testing.assert_array_equal(made.train.images, images)
    np.testing.assert_array_equal(made.test.images, images[:4])
    assert (made.frames, made.image_shape, made.shown_shape) == (4, (8, 8, 12), "4x8x8x3")
    np.testing.assert_allclose(made.mean, np.tile((found / 255).mean((0, 1, 2, 3)), 4))
    np.testing.assert_allclose(made.std, np.tile((found / 255).std((0, 1, 2, 3)), 4))
    assert data.only(made, [1]).frames == 4
    assert data.from_arrays(found[:, 0], labels).frames == 1
    gray, color = found[:, :3, ..., :1], np.moveaxis(found[:, :3, ..., 0], 1, -1)
    assert np.array_equal(folded(gray), color)
    two = [data.from_arrays(of, labels).fingerprint for of in (gray, color)]
    assert two[0] != two[1]


@pytest.mark.parametrize(
    ("images", "test", "message"),
    [
        (clips()[0], clips()[0][:, :2], r"test_images: expected 4 frames each, got 2"),
        (clips()[0], clips()[0][:, 0], r"test_images: expected 4 frames each, got 1"),
        (clips()[0][..., :2], None, "of 1 or 3 channels, got .12, 4, 8, 8, 2."),
        (clips()[0][..., 0], None, r"got \[12, 4, 8, 8\].*; gray clips are images\[..., None\]$"),
        (np.moveaxis(clips()[0], -1, 2), None, r"them: images.transpose\(0, 1, 3, 4, 2\)$"),
        (clips()[0], clips()[0][:, :, :4], r"of \(4, 8, 8, 3\), got \(4, 4, 8, 3\)"),
        (np.zeros((12, 257, 1, 1, 1)), None, "clips of 1 to 256 frames, got 257"),
    ],
)
def test_clips_that_are_refused(images, test, message):
    labels = clips()[1]
    with pytest.raises(UsageError, match=message):
        data.from_arrays(images, labels, None if test is None else (test, labels))


@pytest.mark.parametrize("opacity", [True, False])
def test_every_frame_in_float64(opacity):
    kind = built(bfloat16=False, opacity=opacity)
    arrays = drawn(kind)
    if not opacity:
        del arrays["opacities"]
    params = kind.from_arrays(arrays)
    images = np.asarray(jax.jit(kind.render)(params))
    by_numpy = kind.decode(kind.unpack(jax.tree.map(np.asarray, kind.to_arrays(params))), 8, 8)
    arrays = arrays | {"opacities": np.asarray(params.opacities)}
    for clip in range(2):
        expected, near = in_float64(arrays, clip)
        assert near.mean() < 0.1 and expected.std((0, 1, 2)).min() > 0.05
        moved = np.abs(expected[0] - expected[-1]).mean()
        assert moved > 0.05  # or the frames would be one image
        for found in (images, by_numpy):
            difference = np.abs(unfolded(found[clip], FRAMES) - expected)[~near]
            assert difference.max() < 2e-5


@pytest.mark.parametrize("opacity", [True, False])
def test_codes_of_every_frame_in_float64(opacity):
    """Rounds the columns to their grids here, of a clip of 15 Gaussians and one of 14."""
    kind = built("video_quantized", luma=False, opacity=opacity)
    kind = dataclasses.replace(kind, num_gaussians=29)
    many = drawn(built(bfloat16=False)).items()
    arrays = {name: array.reshape(-1, *array.shape[2:])[:29] for name, array in many}
    real = jnp.asarray(np.random.default_rng(0).random((2, 8, 8, 12)), jnp.float32)
    params = jax.jit(kind.init)(jax.random.key(0), real)
    params = dataclasses.replace(params, gaussians=kind.built(jax.device_put(arrays)))
    names = ["means", "cholesky", "colors", "opacities", "times", "velocities", "extents"]
    bits = np.repeat([7, 5, 5, 4, 5, 5, 4], [2, 3, 3, 1, 1, 2, 1])
    columns = arrays | {"extents": np.log(np.float64(arrays["extents"]))}
    columns = np.concatenate([np.float64(columns[n]).reshape(29, -1) for n in names], 1)
    if not opacity:
        bits, columns = np.delete(bits, 8), np.delete(columns, 8, 1)
    low, most = np.float64(params.low), 2.0**bits - 1
    step = (np.float64(params.high) - low) / most
    columns = low + step * np.clip(np.floor((columns - low) / step + 0.5), 0, most)
    if not opacity:
        columns = np.insert(columns, 8, 1.0, 1)
    rounded = dict(zip(names, np.split(columns, np.cumsum([2, 3, 3, 1, 1, 2]), 1), strict=True))
    rounded["extents"] = np.exp(rounded["extents"])
    for name in ("opacities", "times", "extents"):
        rounded[name] = rounded[name][:, 0]
    images = np.asarray(jax.jit(kind.render)(params))
    by_numpy = kind.decode(kind.unpack(kind.packed(params)), 8, 8)
    for clip, part in enumerate((slice(15), slice(15, None))):
        expected, near = in_float64({n: a[None, part] for n, a in rounded.items()}, 0)
        assert near.mean() < 0.1 and np.abs(expected[0] - expected[-1]).mean() > 0.05
        for found in (images, by_numpy):
            difference = np.abs(unfolded(found[clip], FRAMES) - expected)[~near]
            assert difference.max() < 1e-4


def test_a_ragged_batch_of_clips_is_each_clip_alone():
    """Compares images and gradients; the last Gaussians are of no clip."""
    arrays = {n: a[0, :12] for n, a in drawn(built(bfloat16=False), 1).items()}
    gaussians = GaussianClips(**jax.device_put(arrays), frames=FRAMES, height=8, width=8)
    bounds, weights = (0, 5, 6, 9), np.random.default_rng(0).random((3, 8, 8, 12))

    def together(g):
        return g.render(8, 8, offsets=jnp.array(bounds))

    def alone(g):
        parts = [slice(*ends) for ends in itertools.pairwise(bounds)]
        clips_ = [jax.tree.map(lambda a, part=part: a[None, part], g) for part in parts]
        return jnp.concatenate([clip.render(8, 8) for clip in clips_])

    images, expected = (np.asarray(jax.jit(f)(gaussians)) for f in (together, alone))
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert expected.std() > 0.05
    found, expected = (
        jax.jit(jax.grad(lambda g, f=f: (weights * f(g)).sum()))(gaussians)
        for f in (together, alone)
    )
    for name in arrays:
        of, reference = np.asarray(getattr(found, name)), np.asarray(getattr(expected, name))
        np.testing.assert_allclose(of, reference, rtol=1e-4, atol=1e-5, err_msg=name)
        assert not of[9:].any() and of[:9].any()


@pytest.mark.parametrize("opacity", [True, False])
def test_gaussians_of_each_frame_in_float64(opacity):
    kind, rng = built("frame_gaussian", bfloat16=False, opacity=opacity), np.random.default_rng(0)
    shape = (2, FRAMES, kind.num_gaussians)
    arrays = {
        "means": rng.uniform(-0.8, 0.8, (*shape, 2)),
        "cholesky": rng.normal(0.5, 0.5, (*shape, 3)),
        "colors": rng.normal(0.4, 0.5, (*shape, 3)),
        "opacities": rng.uniform(0.3, 0.9, shape) if opacity else np.ones(shape),
    }
    arrays = {name: np.float32(array) for name, array in arrays.items()}
    stored = {name: arrays[name] for name in kind.shapes()}
    images = np.asarray(jax.jit(kind.render)(kind.from_arrays(stored)))
    by_numpy = kind.decode(kind.unpack(stored), 8, 8)
    for clip, frame in itertools.product(range(2), range(FRAMES)):
        expected, uncertain, _ = dense([np.float64(a[clip, frame]) for a in arrays.values()], 8, 8)
        for found in (images, by_numpy):
            difference = np.abs(unfolded(found, FRAMES)[clip, frame] - expected)[~uncertain]
            assert difference.max() < 2e-5


def test_fields_of_space_and_time_in_float64():
    kind = built("ddif", layer_width=6)
    params = kind.init(jax.random.key(0), jnp.zeros((2, 8, 8, 12)))
    found = unfolded(np.asarray(kind.render(params)), FRAMES)
    of = {name: np.asarray(array[1], np.float64) for name, array in params.items()}
    for k, i, j in [(0, 0, 0), (1, 2, 5), (3, 7, 6)]:
        x = np.array([2 * k / 3 - 1, 2 * i / 7 - 1, 2 * j / 7 - 1])
        x = np.sin(30 * (x @ of["weights_0"] + of["biases_0"]))
        x = np.sin(10 * (x @ of["weights_1"] + of["biases_1"]))
        expected = x @ of["weights_2"] + of["biases_2"]
        np.testing.assert_allclose(found[1, k, i, j], expected, atol=1e-4)


def test_every_image_meets_every_motion_in_float64():
    """A memory's clips are one correlation of its images, and of its gray clips, with a kernel."""
    kind, rng = built("static_dynamic", 3), np.random.default_rng(0)
    assert kind.images_per_class == 8
    real = np.float32(rng.random((16, 8, 8, 12)))
    params = kind.init(jax.random.key(0), jnp.asarray(real))
    params |= {n: jnp.asarray(np.float32(rng.normal(size=params[n].shape)))
               for n in ("memories", "kernel", "bias")}  # fmt: skip
    found = unfolded(np.asarray(kind.render(params)), FRAMES)
    assert found.shape == (16, FRAMES, 8, 8, 3) and params["memories"].shape == (4, 8, 8, 14)
    for clip in range(16):
        memory = np.asarray(params["memories"][clip // 4], np.float64)
        image, motion = divmod(clip % 4, 2)
        inputs = np.zeros((FRAMES, 8, 8, 4))
        inputs[..., :3] = memory[..., 3 * image : 3 * image + 3]
        inputs[..., 3] = np.moveaxis(memory[..., 6 + 4 * motion : 10 + 4 * motion], -1, 0)
        for color in range(3):
            kernel = np.asarray(params["kernel"][..., color], np.float64)
            planes = [scipy.ndimage.correlate(inputs[..., n], kernel[..., n], mode="constant")
                      for n in range(4)]  # fmt: skip
            expected = sum(planes) + float(params["bias"][color])
            np.testing.assert_allclose(found[clip, ..., color], expected, atol=1e-4)


@pytest.mark.parametrize("colors", [3, 1])
def test_planes_of_a_clip_are_those_of_its_frames(tmp_path, colors):
    """In order: the first color of all frames, then the next one; a file keeps their codes."""
    sizes, rng = dict(images_per_class=3, num_classes=2), np.random.default_rng(0)
    real = np.float32(rng.random((6, FRAMES, 16, 16, colors)).cumsum(2) / 16)
    of_clips = parameterizations.build(
        "dct", (16, 16, colors * FRAMES), frames=FRAMES, ipc=1, step=20.0, **sizes
    )
    of_images = parameterizations.build("dct", (16, 16, colors), ipc=FRAMES, step=20.0, **sizes)
    whole = of_clips.init(jax.random.key(0), jnp.asarray(folded(real)))
    for frame in range(FRAMES):
        alone = of_images.init(jax.random.key(0), jnp.asarray(real[:, frame]))
        for color in range(colors):
            found = whole[f"plane_{color * FRAMES + frame}"]
            np.testing.assert_allclose(found, alone[f"plane_{color}"], atol=1e-4)
        shown = unfolded(np.asarray(of_clips.render(whole)), FRAMES)[:, frame]
        np.testing.assert_allclose(shown, of_images.render(alone), atol=1e-5)
    labels = np.repeat(np.arange(2, dtype=np.int32), 3)
    path = tmp_path / "set.safetensors"
    gsdd_jax.save(path, parameterizations.stored(of_clips, whole, labels, 0.1, {}))
    loaded = gsdd_jax.load(path).images()
    np.testing.assert_allclose(
        loaded, unfolded(np.asarray(of_clips.render(whole)), FRAMES), atol=1e-5
    )


def test_memories_begin_as_real_clips_in_gray():
    kind = built("static_dynamic", 3)
    gray = np.random.default_rng(0).random((16, FRAMES, 8, 8, 1)).repeat(3, -1)
    real = folded(np.float32(gray))
    params = kind.init(jax.random.key(0), jnp.asarray(real))
    shown = np.asarray(kind.render(params))
    for block in range(len(real) // 4):
        for own in (0, 3):  # an image with its own motion
            np.testing.assert_allclose(shown[4 * block + own], real[4 * block + own], atol=1e-6)


def test_gradients_are_finite_differences_in_float64():
    kind = dataclasses.replace(built(bfloat16=False), num_gaussians=5)
    arrays, rng = drawn(kind, seed=3), np.random.default_rng(4)
    weights = rng.normal(size=(2, FRAMES, 8, 8, 3))

    def loss(params):
        return (unfolded(kind.render(params), FRAMES) * weights).sum()

    gradient = jax.jit(jax.grad(loss))(kind.from_arrays(arrays))
    for name, array in arrays.items():
        direction, sides = rng.normal(size=array.shape), []
        for step in (1e-6, -1e-6):
            there = arrays | {name: array.astype(np.float64) + step * direction}
            sides.append(sum((in_float64(there, i)[0] * weights[i]).sum() for i in range(2)))
        expected = (sides[0] - sides[1]) / 2e-6
        found = (np.asarray(getattr(gradient, name), np.float64) * direction).sum()
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3), name


def test_thirteen_numbers_of_the_budget():
    kind, gray = built(), parameterizations.build(
        "video_gaussian", (8, 8, FRAMES), ipc=1, images_per_class=2, frames=FRAMES, bfloat16=False
    )  # fmt: skip
    assert kind.num_gaussians == 4 * 8 * 8 * 3 * FRAMES // (2 * 13 * 2)
    assert gray.num_gaussians == 4 * 8 * 8 * FRAMES // (4 * 11 * 2)
    arrays = kind.to_arrays(kind.from_arrays(drawn(kind)))
    assert sum(kind.stored_bytes(arrays, 2).values()) == 2 * kind.num_gaussians * 26
    with pytest.raises(UsageError, match="at least 26 bytes per class for 1 image"):
        built(images_per_class=1, bytes_per_class=25)
    with pytest.raises(UsageError, match="extents: expected positive numbers, got 0"):
        kind.check_arrays({"extents": np.zeros(3)})


def test_it_starts_from_the_mean_frame_and_stays_in_time():
    kind, (found, _) = built(bfloat16=False), clips(2)
    real = jnp.asarray(folded(found) / 255, jnp.float32)
    params = jax.jit(kind.init)(jax.random.key(0), real)
    mean, means = found.mean(1) / 255, np.asarray(params.means)
    for clip, n in itertools.product(range(2), range(kind.num_gaussians)):
        column, row = np.floor((means[clip, n] + 1) * 4).astype(int)
        np.testing.assert_allclose(params.colors[clip, n], mean[clip, row, column], atol=1e-6)
    assert np.ptp(params.times) > 0.9 and not params.velocities.any()
    away = dataclasses.replace(params, times=params.times * 3 - 1, extents=-params.extents)
    kept = kind.project(away)
    assert kept.times.min() >= 0 and kept.times.max() <= 1 and kept.extents.min() > 0
    gradient = jax.jit(jax.grad(lambda p: kind.render(p).sum()))(kept)
    assert np.isfinite(gradient.extents).all()


READ = """
import sys
sys.modules["jax"] = sys.modules["jaxtyping"] = None
import gsdd_jax, numpy
numpy.save(sys.argv[2], gsdd_jax.load(sys.argv[1]).images())
"""


def saved(path, name="video_gaussian"):
    kind = built(name, num_classes=2)
    real = np.random.default_rng(0).random((2 * kind.images_per_class, 8, 8, 12), np.float32)
    params = kind.init(jax.random.key(0), jnp.asarray(real))
    labels = np.repeat(np.arange(2, dtype=np.int32), kind.images_per_class)
    made = {"data": {"class_names": ["a", "b"]}}
    gsdd_jax.save(path, parameterizations.stored(kind, params, labels, 0.1, made))
    return real


def test_a_file_is_read_without_jax(tmp_path):
    path = tmp_path / "set.safetensors"
    saved(path)
    subprocess.run([sys.executable, "-c", READ, path, tmp_path / "a.npy"], check=True)
    shown = np.load(tmp_path / "a.npy")
    loaded = gsdd_jax.load(path)
    assert shown.shape == (4, FRAMES, 8, 8, 3) and "4 images of 4x8x8x3 as video_g" in repr(loaded)
    np.testing.assert_allclose(shown, parameterizations.images(loaded), atol=1e-5)
    assert loaded.images(16, 12).shape == (4, FRAMES, 16, 12, 3)
    fewer = gsdd_jax.subset(loaded, ["b"], images_per_class=1)
    np.testing.assert_array_equal(fewer.images(), loaded.images()[2:3])
    assert "4x8x8x3" in gsdd_jax.formats.info.text(gsdd_jax.info(loaded))
    with pytest.raises(UsageError, match="expected images, got clips of 4 frames"):
        federated.receive(
            path.read_bytes(), client="c", most_bytes=10_000, classes=["a", "b"],
            image_shape=(8, 8, 12),
        )  # fmt: skip


def test_the_gaussians_of_all_frames_have_to_fit_into_memory(tmp_path, monkeypatch):
    saved(tmp_path / "set.safetensors")
    set_ = gsdd_jax.load(tmp_path / "set.safetensors")
    numbers = 4 * FRAMES * set_.format.num_gaussians * 9
    assert 2 * 4 * numbers > 4 * 4 * FRAMES * 8 * 8 * 3 * 4  # the images need less
    monkeypatch.setattr(memory, "available", lambda: 2 * 4 * numbers)
    with pytest.raises(UsageError, match=r"what 4 images of 4x8x8x3 are rendered with: .* expect"):
        parameterizations.images(set_)


def test_codes_of_gaussians_have_to_fit_into_memory(tmp_path, monkeypatch):
    saved(tmp_path / "set.safetensors", "video_quantized")
    set_ = gsdd_jax.load(tmp_path / "set.safetensors")
    monkeypatch.setattr(memory, "available", lambda: 4 * set_.format.num_codes)
    with pytest.raises(UsageError, match=r"the codes of \d+ Gaussians: .* of memory and up to 8 "):
        set_.format.codes(set_.arrays)


def test_the_transform_takes_clips(tmp_path):
    saved(tmp_path / "set.safetensors", "pixels")
    set_, rng = gsdd_jax.load(tmp_path / "set.safetensors"), np.random.default_rng(1)
    mean, std = rng.uniform(0.2, 0.8, (2, FRAMES, 3))
    said = {"name": "normalize", "mean": mean.ravel().tolist(), "std": std.ravel().tolist()}
    set_ = dataclasses.replace(set_, provenance={"transform": said})
    shown = rng.random((5, FRAMES, 6, 7, 3))
    expected = (shown - mean[:, None, None]) / std[:, None, None]
    found = set_.transform(np.float32(shown))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(set_.transform.inverse(found), shown, atol=1e-5)
    np.testing.assert_allclose(set_.numpy().images, set_.transform(set_.images()), atol=1e-5)
    for wrong in (shown[:, :2], shown[:, 0], folded(shown)[0]):
        with pytest.raises(UsageError, match=r"expected shape \[..., 4, height, width, channels\]"):
            set_.transform(wrong)


@pytest.mark.parametrize(("mean", "shown"), [([0.25, 0.5, 0.75] * 4, 3), (range(12), 12)])
def test_constants_that_all_frames_share_are_told_once(tmp_path, mean, shown):
    saved(tmp_path / "set.safetensors", "pixels")
    said = {"name": "normalize", "mean": [float(m) for m in mean], "std": [0.5] * 12}
    set_ = gsdd_jax.load(tmp_path / "set.safetensors")
    set_ = dataclasses.replace(set_, provenance={"transform": said})
    (line,) = re.findall("^transform .*$", gsdd_jax.formats.info.text(gsdd_jax.info(set_)), re.M)
    assert line.endswith(f"name normalize, mean {said['mean'][:shown]}, std [0.5, 0.5, 0.5]")


@pytest.mark.parametrize(
    "name", ["pixels", "idc", "fred", "ddif", "gaussian", "frame_gaussian", "video_quantized"]
)
def test_other_formats_of_clips(tmp_path, name):
    real = saved(tmp_path / "set.safetensors", name)
    loaded = gsdd_jax.load(tmp_path / "set.safetensors")
    images = loaded.images()
    assert images.shape == (len(real), FRAMES, 8, 8, 3)
    if name == "pixels":
        np.testing.assert_array_equal(images, unfolded(real, FRAMES))
    assert base.settings(loaded.format)["frames"] == FRAMES
    assert "frames" not in base.settings(
        parameterizations.build(name, (8, 8, 3), images_per_class=1)
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *((name, {}, name) for name in ("ptq", "rtp", "haba", "quantized", "speed")),
        ("pixels", {"dtype": "codes"}, "pixels in codes"),
    ],
)
def test_formats_that_take_no_clips(name, options, message):
    with pytest.raises(UsageError, match=f"{message}: expected images, got clips of 4 frames; "):
        built(name, **options)


def test_channels_are_counted_by_frame():
    for frames, channels in ((4, 13), (4, 20), (2, 3), (1, 12)):
        with pytest.raises(UsageError, match=r"channels: expected (an integer from 1 to 4|a mult)"):
            parameterizations.build(
                "pixels", (8, 8, channels), ipc=1, images_per_class=1, frames=frames
            )


@pytest.mark.parametrize("frames", [0, -8, True, "8", 257])
def test_frames_of_a_file_are_checked_first(frames):
    said = {"name": "pixels", "height": 8, "width": 8, "channels": 24, "images_per_class": 1}
    with pytest.raises(UsageError, match="pixels: frames: expected an integer from 1 to 256, got"):
        base.format_of(said | {"dtype": "float32", "frames": frames})


def test_augmentation_is_alike_in_all_frames():
    rng = np.random.default_rng(0)
    found = jnp.asarray(rng.normal(size=(3, FRAMES, 8, 8, 3)), jnp.float32)
    for name in augment.OPERATIONS:
        numbers = augment.draw(name, jax.random.key(5), 3, 8, 8)
        shown = unfolded(augment.apply(name, folded(found), numbers, FRAMES), FRAMES)
        if name == "color":
            brightness, saturation, contrast = (np.reshape(n, (3, 1, 1, 1, 1)) for n in numbers)
            bright = found + brightness - 0.5
            gray = bright.mean(-1, keepdims=True)
            full = (bright - gray) * 2 * saturation + gray
            mean = full.mean((1, 2, 3, 4), keepdims=True)
            expected = (full - mean) * (contrast + 0.5) + mean
        else:
            frames = [augment.apply(name, found[:, k], numbers) for k in range(FRAMES)]
            expected = np.stack(frames, 1)
        np.testing.assert_allclose(shown, expected, atol=1e-5)


def test_a_contact_sheet_has_a_filmstrip_per_class():
    found, labels = clips(4)
    sheet = contact_sheet(np.float32(found / 255), labels)
    assert sheet.shape == (2 * 8 + 1, 2 * FRAMES * 8 + 1, 3)
    for k in range(FRAMES):
        np.testing.assert_array_equal(sheet[:8, 8 * k : 8 * (k + 1)], found[0, k])
        np.testing.assert_array_equal(sheet[9:, 33 + 8 * k : 33 + 8 * (k + 1)], found[3, k])
