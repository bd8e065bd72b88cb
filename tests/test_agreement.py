"""Compares NumPy, PyTorch and the compiled call on sets of every parameterization."""

import importlib.util

import jax
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import parameterizations
from gsdd_jax.core import kinds
from gsdd_jax.formats import base
from gsdd_jax.formats.clips import unfolded
from gsdd_jax.parameterizations.quantized import QuantizedImages

pytestmark = pytest.mark.usefixtures("quickly_compiled")

TORCH = importlib.util.find_spec("torch") is not None
CLASSES = 2
BFLOAT16 = {"dtype": "bfloat16"}

# Name, shape of an image, IPC, GPC, options, and how many sets of other values: what is compiled
# for the first of them serves the others.
ROWS = [
    ("gaussian", (8, 12, 3), 4, 3, {"clip_means": False}, 4),
    ("gaussian", (16, 10, 1), 4, 2, {"bfloat16": False, "prefilter": False}, 2),
    ("gaussian", (9, 9, 4), 4, 5, {"opacity": False, "samples_per_side": 3}, 1),
    ("pixels", (8, 12, 3), 2, 1, {}, 4),
    ("pixels", (5, 7, 1), 3, 1, BFLOAT16, 2),
    ("idc", (8, 12, 3), 2, 1, {}, 4),
    ("idc", (6, 9, 1), 2, 1, {"factor": 3}, 2),
    ("idc", (16, 16, 4), 1, 1, BFLOAT16 | {"factor": 4}, 1),
    ("fred", (8, 12, 3), 4, 1, {"size": 16}, 4),
    ("fred", (10, 6, 1), 4, 1, BFLOAT16 | {"size": 20}, 3),
    ("ddif", (8, 12, 3), 4, 1, {"layer_width": 4}, 4),
    ("ddif", (9, 7, 4), 4, 1, BFLOAT16 | {"layer_width": 4, "layers": 3, "w0": 20.0}, 3),
    ("rtp", (8, 12, 3), 2, 1, {"bases": 6}, 4),
    ("rtp", (9, 6, 4), 2, 1, BFLOAT16 | {"bases": 9, "factor": 3}, 1),
    ("haba", (8, 12, 3), 8, 1, {}, 4),
    ("haba", (9, 6, 4), 4, 1, BFLOAT16 | {"hallucinators": 2, "base_channels": 1}, 1),
    ("speed", (8, 12, 3), 4, 1, {"blocks": 2}, 4),
    ("speed", (34, 34, 4), 4, 1, BFLOAT16 | {"patch": 2, "heads": 4, "epitomes": 300}, 1),
    ("nsd", (8, 12, 3), 2, 1, {}, 4),
    ("nsd", (9, 6, 4), 4, 1, BFLOAT16 | {"kernels": 3, "rank": 5, "size": 4}, 1),
    ("hmn", (8, 12, 3), 4, 1, {}, 4),
    ("hmn", (9, 6, 4), 4, 1, BFLOAT16 | {"factor": 3, "image_channels": 2}, 1),
    ("dct", (8, 12, 3), 8, 3, {}, 2),
    ("dct", (16, 12, 3), 8, 2, {"side": 10, "subsampled": False}, 1),
    ("dct", (9, 17, 1), 8, 3, {"step": 40.0}, 1),
    ("ptq", (8, 12, 3), 4, 3, {}, 4),
    ("ptq", (16, 12, 3), 2, 4, {"bits": 3, "patch": 4, "groups": 3}, 1),
    ("ptq", (9, 17, 1), 4, 3, {"bits": 1, "patch": 17, "groups": 1}, 1),
    ("quantized", (8, 12, 3), 4, 3, {"coding": "none", "luma": False, "log_scales": True}, 3),
    ("quantized", (16, 10, 3), 4, 3, {"opacity": False}, 1),
    ("quantized", (24, 24, 1), 2, 4, {"bits_means": 8, "bits_opacities": 2}, 1),
    ("ddif", (8, 12, 12), 4, 1, {"frames": 4, "layer_width": 4}, 2),
    ("ddif", (9, 7, 2), 4, 1, BFLOAT16 | {"frames": 2, "layer_width": 4}, 1),
    ("dct", (8, 12, 12), 8, 3, {"frames": 4}, 2),
    ("dct", (9, 17, 2), 8, 3, {"frames": 2, "step": 40.0}, 1),
    ("frame_gaussian", (8, 12, 12), 4, 3, {"frames": 4, "clip_means": False}, 2),
    ("frame_gaussian", (9, 9, 2), 4, 5, {"frames": 2, "opacity": False}, 1),
    ("static_dynamic", (8, 12, 12), 4, 1, {"frames": 4}, 2),
    ("static_dynamic", (9, 7, 2), 4, 1, BFLOAT16 | {"frames": 2, "each": 1}, 1),
    ("video_gaussian", (8, 12, 12), 4, 3, {"frames": 4, "clip_means": False}, 2),
    ("video_gaussian", (9, 9, 2), 4, 5, {"frames": 2, "opacity": False}, 1),
    ("video_quantized", (8, 12, 12), 4, 3, {"frames": 4, "coding": "none", "log_scales": True}, 2),
    ("video_quantized", (9, 9, 2), 4, 5, {"frames": 2, "opacity": False}, 1),
]


def drawn_gaussians(rng, shape, channels):
    """Draws Gaussians: small and large, thin and round, inside and outside, of either sign."""
    return {
        "means": rng.uniform(-1.2, 1.2, (*shape, 2)),
        "cholesky": rng.normal(0.5, 1.0, (*shape, 3)),
        "colors": rng.normal(0.4, 0.5, (*shape, channels)),
        "opacities": rng.normal(0.7, 0.6, shape),
    }


def drawn_in_time(rng, shape, colors):
    """Draws Gaussians that move and fade."""
    return drawn_gaussians(rng, shape, colors) | {
        "times": rng.random(shape), "velocities": rng.normal(0, 1, (*shape, 2)),
        "extents": rng.uniform(0.1, 1, shape),
    }  # fmt: skip


def drawn(kind, images, seed):
    """Draws parameters far from a start by real images, as most distilled sets are."""
    rng = np.random.default_rng(seed)
    if kind.name == "gaussian":
        arrays = drawn_gaussians(rng, (images, kind.num_gaussians), kind.channels)
        return kind.from_arrays({n: np.float32(a) for n, a in arrays.items()})
    if kind.name == "frame_gaussian":
        shape = images, kind.frames, kind.num_gaussians
        arrays = drawn_gaussians(rng, shape, kind.colors)
        return kind.from_arrays({n: np.float32(a) for n, a in arrays.items()})
    if kind.name == "video_gaussian":
        arrays = drawn_in_time(rng, (images, kind.num_gaussians), kind.colors)
        return kind.from_arrays({n: np.float32(arrays[n]) for n in kind.shapes()})
    if kind.name == "quantized":
        arrays = drawn_gaussians(rng, (kind.num_gaussians,), kind.channels)
        gaussians = gsdd_jax.GaussianImages(
            **{n: np.float32(a) for n, a in arrays.items()}, height=kind.height, width=kind.width
        )
        ends = np.float32([-1.0] * 5 + [-0.5] * kind.channels + [0.0] * kind.opacity)
        return QuantizedImages(gaussians, np.float32(kind.counts), ends, ends + 2.5)
    if kind.name == "video_quantized":
        arrays = drawn_in_time(rng, (kind.num_gaussians,), kind.colors)
        gaussians = kind.built({n: np.float32(a) for n, a in arrays.items()})
        low = {"extents": -2.5, "times": -0.5, "opacities": 0.0, "colors": -0.5}
        ends = np.float32([low.get(n, -1.0) for n, k in kind.field_sizes.items() for _ in range(k)])
        return QuantizedImages(gaussians, np.float32(kind.counts), ends, ends + 2.5)
    if kind.name == "fred":
        size, count = kind.height * kind.width, kind.num_frequencies
        places = [np.sort(rng.permutation(size)[:count]) for _ in range(CLASSES)]
        values = rng.normal(0, 1, (images, *kind.shapes()["coefficients"]))
        places = np.repeat(places, kind.images_per_class, axis=0)
        found = {"coefficients": np.float32(values), "frequencies": np.float32(places)}
        return jax.device_put(found)
    if kind.name == "dct":  # in steps of 30 gray levels, smaller toward the high frequencies
        spread = 3 / (1 + np.add.outer(np.arange(8), np.arange(8)))
        shapes = {name: shape for name, shape in kind.shapes().items() if name != "step"}
        planes = {n: rng.laplace(0, spread, (images, *shape)) for n, shape in shapes.items()}
        planes["step"] = np.full(images, 30)
        return jax.device_put({name: np.float32(plane) for name, plane in planes.items()})
    if kind.name == "rtp":
        addresses = rng.normal(0, 0.3, (images, kind.bases))
        bases = rng.normal(0.2, 1, kind.shared_shapes()["bases"])
        return jax.device_put({"addresses": np.float32(addresses), "bases": np.float32(bases)})
    if kind.name in ("haba", "nsd", "hmn", "static_dynamic"):
        shapes = {name: spec.shape for name, spec in kind.array_specs(images).items()}
        arrays = {n: np.float32(rng.normal(0.2, 0.4, shape)) for n, shape in shapes.items()}
        return jax.device_put(kind.unpack(arrays))
    if kind.name == "speed":
        shapes = {name: spec.shape for name, spec in kind.array_specs(images).items()}
        arrays = {n: np.float32(rng.normal(0.2, 0.4, shape)) for n, shape in shapes.items()}
        places = [
            [np.sort(rng.permutation(kind.num_codes)[: kind.nonzero]) for _ in range(kind.heads)]
            for _ in range(images)
        ]
        arrays["patches"], arrays["atoms"] = np.divmod(places, kind.epitomes)
        return kind.from_arrays(arrays)
    params = {}
    for name, shape in kind.shapes().items():
        # The largest values at which sines are not noise.
        bound = 0.5 if name[-2:] == "_0" else np.sqrt(6 / shape[0]) / getattr(kind, "w0", 1)
        values = rng.uniform(-bound, bound, (images, *shape))
        params[name] = np.float32(values if kind.name == "ddif" else values + 0.5)
    return jax.device_put(params)


def agree(found, expected, darkest):
    """Checks agreement to 1e-5, except where rounding decides if a weight reaches 1/255."""
    difference = np.abs(found - expected)
    far = (difference > 1e-5 * np.maximum(1, np.abs(expected))).any(-1)
    assert far.sum() <= 1, f"{far.sum()} pixels differ, the most by {difference.max()}"
    assert difference.max() < darkest, difference.max()
    return difference[~far].max()


def differences(path, row):
    """Returns the largest difference from the compiled call for each set of a row."""
    name, shape, ipc, gpc, options, count = row
    kind = parameterizations.build(
        name, shape, ipc=ipc, images_per_class=gpc, num_classes=CLASSES, **options
    )
    images = CLASSES * kind.images_per_class
    labels = np.repeat(np.arange(CLASSES, dtype=np.int32), kind.images_per_class)
    for seed in range(count):
        params = drawn(kind, images, seed)
        gsdd_jax.save(path, parameterizations.stored(kind, params, labels, 0.01, {"seed": seed}))
        decoded = gsdd_jax.load(path)
        expected = np.asarray(parameterizations.rendered(decoded))
        assert expected.shape == (images, *shape) and expected.std() > 0.02
        darkest = 0.01 if "gaussian" in name or "quantized" in name else 1e-4
        yield agree(decoded.rendered(), expected, darkest)
        if seed == 0:  # at another size too
            for size in ((11, 30, "bilinear"), (2 * shape[0], 3, "nearest")):
                expected_there = np.asarray(parameterizations.rendered(decoded, *size))
                agree(decoded.rendered(*size), expected_there, darkest)
        if TORCH:
            tensors, classes = decoded.torch("unit").tensors
            of_torch = unfolded(expected, kind.frames)
            agree(np.moveaxis(tensors.numpy(), -3, -1), of_torch, darkest)
            np.testing.assert_array_equal(classes.numpy(), labels)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{'x'.join(map(str, row[1]))}")
def test_all_show_the_same(tmp_path, row):
    assert len(list(differences(tmp_path / "set.safetensors", row))) == row[-1]


def test_every_parameterization_is_compared():
    assert {name for name, *_ in ROWS} == set(kinds.known("gsdd_jax.formats", base.Format))
