"""Tests the CUDA kernels' own code, run on the host thread by thread, against float64.

What only a GPU can show (speed, the hardware's own exponential) is not tested here; what the code
computes, in any order of threads, is.
"""

import ctypes
import itertools
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from tests.dense import CUT, dense, random_gaussians, saturated_gaussians

ROOT = pathlib.Path(__file__).parent.parent
COMPILER = shutil.which("c++") or shutil.which("g++")
NAMES = ("means", "cholesky", "colors", "opacities")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")


class Arguments(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in (*NAMES, "offsets")),
        *((name, ctypes.c_int64) for name in ("batch", "count", "height", "width")),
        *((name, ctypes.c_int) for name in ("channels", "samples")),
        *((name, ctypes.c_double) for name in ("variance", "min_weight")),
        *((name, ctypes.c_int) for name in ("pass_clipped", "backwards")),
    ]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("cuda") / "kernel.so"
    emulation = ROOT / "tests" / "cuda_on_cpu"
    command = [COMPILER, "-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas"]
    command += [f"-I{emulation}", f"-I{ROOT / 'xla_ops'}", str(emulation / "driver.cc")]
    result = subprocess.run([*command, "-o", str(path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return ctypes.CDLL(str(path))


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def run(library, parameters, cotangent, *, side=2, prefilter=True, cut=CUT, offsets=None,
        clip_gradient="stop", backwards=False):  # fmt: skip
    """Returns images of a batch [B, N, ...] or of ragged arrays, and every parameter's gradient."""
    parameters = [np.ascontiguousarray(p, np.float32) for p in parameters]
    cotangent = np.ascontiguousarray(cotangent, np.float32)
    batch, height, width, channels = cotangent.shape
    if offsets is not None:
        offsets = np.ascontiguousarray(offsets, np.int32)
    count = parameters[3].shape[-1]
    arguments = Arguments(
        *map(pointer, parameters), None if offsets is None else pointer(offsets),
        batch, count, height, width, channels, side, 1 / 12 if prefilter else 0.0, cut,
        clip_gradient == "pass", backwards,
    )  # fmt: skip
    images = np.full(cotangent.shape, 7e7, np.float32)
    gradients = [np.full_like(p, 7e7) for p in parameters]
    library.forward(ctypes.byref(arguments), pointer(images))
    library.backward(ctypes.byref(arguments), pointer(cotangent), *map(pointer, gradients))
    return images, gradients


def check(library, batches, height, width, cotangent, **settings):
    """Compares the batch with images rendered one by one in float64."""
    expected = []
    for b, parameters in enumerate(batches):
        _, near, _ = dense(parameters, height, width, **settings)
        cotangent[b][near] = 0
        image, _, gradients = dense(parameters, height, width, cotangent=cotangent[b], **settings)
        expected.append((image, near, gradients))
    stacked = [np.stack(p) for p in zip(*batches, strict=True)]
    images, gradients = run(library, stacked, cotangent, **settings)
    for b, (image, near, exact) in enumerate(expected):
        error = np.abs(images[b] - image)[~near].max(initial=0)
        assert error <= 1e-5 * np.abs(image).max() + 1e-30
        for name, a, e in zip(NAMES, gradients, exact, strict=True):
            assert np.abs(a[b] - e).max() <= 1e-4 * np.abs(e).max() + 1e-30, name


CASES = [
    # B, N, height, width, C, samples_per_side, prefilter
    (1, 1, 1, 1, 1, 2, True),
    (2, 22, 32, 32, 3, 2, False),
    (1, 85, 7, 33, 4, 3, True),
    (2, 300, 40, 72, 2, 2, True),
    (1, 9, 21, 35, 3, 1, True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_float64(library, case):
    batch, count, height, width, channels, side, prefilter = case
    batches = [random_gaussians(count + height + b, count, channels) for b in range(batch)]
    shape = (batch, height, width, channels)
    cotangent = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    check(library, batches, height, width, cotangent, side=side, prefilter=prefilter)


def test_many_random_images_match_float64(library):
    rng = np.random.default_rng(11)
    for seed in range(20):
        count, channels = int(rng.integers(1, 30)), int(rng.integers(1, 5))
        height, width = (int(v) for v in rng.integers(1, 50, 2))
        prefilter, cut = bool(rng.random() < 0.8), float(rng.choice([CUT, 1e-9, 1e-3, 0.3]))
        batches = [random_gaussians(1000 + seed, count, channels)]
        cotangent = rng.normal(size=(1, height, width, channels)).astype(np.float32)
        check(library, batches, height, width, cotangent, prefilter=prefilter, cut=cut)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_gradient_passes_through_the_clipping(library, side):
    batches = [saturated_gaussians(70 + b, 25, 3) for b in range(2)]
    cotangent = np.random.default_rng(1).normal(size=(2, 21, 35, 3)).astype(np.float32)
    check(library, batches, 21, 35, cotangent, side=side, clip_gradient="pass")
    stacked = [np.stack(p) for p in zip(*batches, strict=True)]
    _, passed = run(library, stacked, cotangent, side=side, clip_gradient="pass")
    _, stopped = run(library, stacked, cotangent, side=side)
    assert np.abs(passed[3] - stopped[3]).max() > 0.01 * np.abs(passed[3]).max()


@pytest.mark.parametrize("side", [2, 3])
def test_an_opacity_of_zero_has_a_gradient_where_no_weight_is_cut(library, side):
    """Compares with the gradient at opacities of almost 0; all other gradients are 0."""
    means, cholesky, colors, opacities = random_gaussians(4, 9, 3)
    opacities[::2] = 0
    cotangent = np.random.default_rng(1).normal(size=(1, 11, 14, 3)).astype(np.float32)
    parameters = [p[None] for p in (means, cholesky, colors, opacities)]
    _, gradients = run(library, parameters, cotangent, side=side, cut=0.0)
    almost = np.where(opacities == 0, 1e-30, opacities)
    _, _, expected = dense(
        (means, cholesky, colors, almost), 11, 14, side=side, cotangent=cotangent[0], cut=1e-300
    )
    assert np.abs(expected[3][::2]).max() > 0.1
    for a, e in zip(gradients, expected, strict=True):
        assert np.abs(a[0] - e).max() <= 1e-4 * np.abs(e).max()


@pytest.mark.parametrize("side", [2, 3])
def test_a_large_gaussian_is_gathered_by_all_warps_of_a_block(library, side):
    means, cholesky, colors, opacities = random_gaussians(21, 12, 3)
    cholesky[::3] *= 12
    batches = [(means, cholesky, colors, np.abs(opacities))]
    cotangent = np.random.default_rng(1).normal(size=(1, 70, 83, 3)).astype(np.float32)
    check(library, batches, 70, 83, cotangent, side=side)
    stacked = [p[None] for p in batches[0]]
    _, forwards = run(library, stacked, cotangent, side=side)
    _, backwards = run(library, stacked, cotangent, side=side, backwards=True)
    for a, b in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_large_batch_has_the_bits_of_a_call_per_image(library):
    """Uses large batches, with larger tiles and more Gaussians per block, in reverse order."""
    count, height, width = 31, 18, 6
    one = [p.astype(np.float32) for p in random_gaussians(5, count, 3)]
    cotangent = np.random.default_rng(0).normal(size=(1, height, width, 3)).astype(np.float32)
    image, gradients = run(library, [p[None] for p in one], cotangent)
    batch = 540
    many = [np.broadcast_to(p, (batch, *p.shape)) for p in one]
    images, all_gradients = run(
        library, many, np.broadcast_to(cotangent, (batch, height, width, 3)), backwards=True
    )
    np.testing.assert_array_equal(images, np.broadcast_to(image, images.shape))
    for name, a, e in zip(NAMES, all_gradients, gradients, strict=True):
        np.testing.assert_array_equal(a, np.broadcast_to(e, a.shape), err_msg=name)


def test_ragged_has_the_bits_of_a_call_per_image(library):
    counts, height, width = (0, 5, 1, 0, 70, 22, 0), 21, 35
    bounds = np.cumsum([3, *counts])
    parameters = random_gaussians(8, int(bounds[-1]) + 4, 3)
    shape = (len(counts), height, width, 3)
    cotangent = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    images, gradients = run(library, parameters, cotangent, offsets=bounds)
    for b, (first, last) in enumerate(itertools.pairwise(bounds)):
        mine = [p[None, first:last] for p in parameters]
        image, d_mine = run(library, mine, cotangent[b : b + 1], backwards=True)
        np.testing.assert_array_equal(images[b], image[0])
        for name, a, e in zip(NAMES, gradients, d_mine, strict=True):
            np.testing.assert_array_equal(a[first:last], e[0], err_msg=name)
    for a in gradients:
        assert not a[:3].any() and not a[-4:].any()


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_not_finite_parameters_stay_in_their_image(library, value):
    stacked = [np.stack([p, p]) for p in random_gaussians(3, 40, 3)]
    cotangent = np.ones((2, 19, 18, 3), np.float32)
    images, gradients = run(library, stacked, cotangent)
    for which in range(4):
        bad = [p.copy() for p in stacked]
        bad[which].reshape(2, 40, -1)[1, 33, -1] = value
        images_bad, gradients_bad = run(library, bad, cotangent)
        np.testing.assert_array_equal(images_bad[0], images[0])
        assert np.isnan(images_bad[1]).all()
        for a, e in zip(gradients_bad, gradients, strict=True):
            assert np.isnan(a[1, 33]).all()
            np.testing.assert_array_equal(np.delete(a[1], 33, 0), np.delete(e[1], 33, 0))
            np.testing.assert_array_equal(a[0], e[0])
