"""Compares real images read from disk step by step with the same images held in memory."""

import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from gsdd_jax import UsageError, data, matching, networks, parameterizations
from gsdd_jax.config import validate
from gsdd_jax.core import devices
from gsdd_jax.data import reading, rows, transforms
from gsdd_jax.matching import dm
from gsdd_jax.setup import input_pipeline
from gsdd_jax.training import distill, experts
from tests.conftest import QUICKLY

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIZE, COUNTS, GPC, STEPS = 8, (7, 5, 9), 3, 4
CLASSES = len(COUNTS)
KEY = jax.random.key(3)
NORMALIZE = transforms.Normalize(jnp.array([0.4, 0.5, 0.6]), jnp.array([0.2, 0.3, 0.25]))
NETWORK = networks.build(
    "convnet", image_shape=(SIZE, SIZE, 3), num_classes=CLASSES, width=4, depth=1
)
KIND = parameterizations.build("pixels", (SIZE, SIZE, 3), ipc=GPC, images_per_class=GPC)


@pytest.fixture
def on_disk(tmp_path):
    """Returns a training split mapped from a file, like a cached one."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES, dtype=np.int32), COUNTS)
    random.shuffle(labels)
    images = random.integers(0, 256, (len(labels), SIZE, SIZE, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    return data.Split(np.asarray(np.load(tmp_path / "images.npy", mmap_mode="r")), labels)


class Experts:
    """Two experts of an epoch, with random parameters."""

    epochs = 1

    def __len__(self):
        return 2

    def parameters(self, expert, epoch):
        size = experts.num_parameters(NETWORK)
        return np.random.default_rng([expert, epoch]).normal(0, 0.1, size).astype(np.float32)


def parts_of(split, name, transform=NORMALIZE, **options):
    """Returns the parts of an experiment that `input_pipeline.steps` needs."""
    objective = matching.build(
        name, network=NETWORK, num_classes=CLASSES, images_per_class=GPC, strategy="",
        **options,
    )  # fmt: skip
    return types.SimpleNamespace(
        problem=distill.Problem(KIND, objective, CLASSES),
        dataset=types.SimpleNamespace(train=split, image_shape=split.images.shape[1:]),
        transform=transform,
        host_inputs=lambda first, count: objective.host_inputs(Experts(), 0, first, count),
    )


def config_of(on_device):
    of_steps = {"steps_per_call": STEPS, "num_steps": STEPS}
    return ConfigDict({"data": {"on_device": on_device}, "distill": of_steps})


def distilled(parts, on_device, calls, first=0, state=None):
    """Returns the losses of the steps in `calls`, and the state after them."""
    problem, losses = parts.problem, []
    if state is None:
        start = jax.random.uniform(KEY, (CLASSES * GPC, SIZE, SIZE, 3))
        state = distill.start(problem, KIND.init(jax.random.key(0), start), 0.01)
    steps = input_pipeline.steps(config_of(on_device), parts, KEY, first)
    for count in calls:
        state, some = distill.run(problem, state, KEY, *steps.given(first, count), count)
        losses += some.tolist()
        first += count
    return losses, state


def same(one, other):
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


OBJECTIVES = {
    "dm": dict(batch_real=8),  # two classes have fewer
    "dc by groups": dict(batch_real=4, classes_per_step=1, outer_loops=2),
    "frepo": dict(batch_real=6, pool_size=2, max_updates=1),
    "bptt": dict(batch_real=6, syn_steps=1, max_start_step=1),
    "ncfm by groups": dict(batch_real=6, num_frequencies=8, classes_per_step=1),
}


@pytest.mark.parametrize("case", OBJECTIVES)
def test_a_streamed_run_has_the_bits_of_one_that_holds_the_set(on_disk, case, request):
    """Includes a run that was interrupted and resumes with another iterator."""
    if case != "dc by groups":  # which takes long to compile
        request.getfixturevalue("fully_compiled")
    parts = parts_of(on_disk, case.split()[0], **OBJECTIVES[case])
    expected = distilled(parts, "whole", [2, 2])
    assert same(distilled(parts, "streamed", [2, 2]), expected)
    before, state = distilled(parts, "streamed", [2])
    after, state = distilled(parts, "streamed", [2], first=2, state=state)
    assert same((before + after, state), expected)


def test_a_whitened_set_is_streamed_to_rounding(on_disk):
    """Allows rounding: a held set is whitened at once, a streamed one as it is drawn."""
    zca = transforms.fit_zca(on_disk.images)
    parts = parts_of(on_disk, "dm", zca, batch_real=4)
    assert transforms.to_device(on_disk.images, zca).stored.dtype == jnp.float32
    (losses, _), (expected, _) = (distilled(parts, w, [1]) for w in ("streamed", "whole"))
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_only_what_is_drawn_goes_to_the_device(on_disk):
    parts = parts_of(on_disk, "dm", batch_real=4)
    given, host_inputs = input_pipeline.steps(config_of("streamed"), parts, KEY, 0).given(0, 2)
    assert host_inputs is None
    assert given.read.shape == (2, 1, CLASSES, 4, SIZE, SIZE, 3)
    assert given.images.stored is None
    for step in range(2):
        drawn = distill.drawn(parts.problem, KEY, given, None, jnp.int32(step))
        np.testing.assert_array_equal(given.read[step], on_disk.images[drawn])
        assert (on_disk.labels[drawn] == np.arange(CLASSES)[:, None]).all()


def test_what_draws_nothing_takes_nothing(on_disk):
    parts = parts_of(on_disk, "tm")
    for on_device in ("auto", "whole", "streamed"):
        parts.host_inputs = lambda first, count: (first, count)
        given, host_inputs = input_pipeline.steps(config_of(on_device), parts, KEY, 0).given(0, 2)
        assert given.images.stored is None and given.read is None
        assert host_inputs == (0, 2)


def test_it_is_held_where_it_fits(on_disk, monkeypatch):
    size = on_disk.images.size
    for room, transform, expected in (
        (4 * size, NORMALIZE, False),
        (4 * size - 4, NORMALIZE, True),
        (16 * size, transforms.fit_zca(on_disk.images), False),
        (16 * size - 4, transforms.fit_zca(on_disk.images), True),  # whitened: in float32
    ):
        monkeypatch.setattr(devices, "memory", lambda room=room: room)
        assert input_pipeline.is_streamed(config_of("auto"), on_disk.images, transform) == expected
        assert input_pipeline.is_streamed(config_of("streamed"), on_disk.images, transform)
        assert not input_pipeline.is_streamed(config_of("whole"), on_disk.images, transform)


def test_an_objective_that_does_not_say_what_it_draws_is_held(on_disk, monkeypatch):
    parts = parts_of(on_disk, "dm", batch_real=4)
    monkeypatch.setattr(dm.DistributionMatching, "draws", matching.Matching.draws)
    with pytest.raises(UsageError, match=r"^config.data.on_device: expected auto or whole, .*'dm'"):
        input_pipeline.steps(config_of("streamed"), parts, KEY, 0)
    monkeypatch.setattr(devices, "memory", lambda: 0)
    given, _ = input_pipeline.steps(config_of("auto"), parts, KEY, 0).given(0, 2)
    np.testing.assert_array_equal(given.images.stored, on_disk.images)


def test_a_place_that_there_is_not_is_refused():
    message = "config.data.on_device: expected one of auto, whole, streamed, got 'disk'"
    with pytest.raises(UsageError, match=f"^{message}$"):
        validate.ranges(config_of("disk"), "data")


# Rows, and reading ahead.


def test_rows_are_those_of_the_array(on_disk, tmp_path):
    random, images = np.random.default_rng(1), on_disk.images
    indices = random.integers(0, len(images), (2, 5))
    held = np.array(images)
    for array in (images, images[3:], held, held[::-1], images.astype(np.int32)):
        few = indices % len(array)
        np.testing.assert_array_equal(rows.take(array, few), array[few])
        np.testing.assert_array_equal(np.concatenate(list(rows.pieces(array))), array)
    (tmp_path / "images.npy").unlink()  # a cache may be deleted while it is in use
    np.testing.assert_array_equal(rows.take(images, indices), held[indices])


def test_rows_are_read_from_the_file_and_not_through_the_mapping(on_disk, tmp_path):
    """Reads the file's current contents; the mapping of a replaced file stays as it was."""
    path, held = tmp_path / "images.npy", np.array(on_disk.images)
    np.save(tmp_path / "other.npy", 255 - held)
    (tmp_path / "other.npy").replace(path)
    np.testing.assert_array_equal(rows.take(on_disk.images, np.arange(3)), 255 - held[:3])
    np.testing.assert_array_equal(np.concatenate(list(rows.pieces(on_disk.images))), 255 - held)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="a file of the cache ends at byte"):
        rows.take(on_disk.images, np.array([len(held) - 1]))


def test_pieces_are_bounded(on_disk, monkeypatch):
    monkeypatch.setattr(rows, "PIECE", 5 * SIZE * SIZE * 3 + 1)
    assert [len(piece) for piece in rows.pieces(on_disk.images)] == [5, 5, 5, 5, 1]
    monkeypatch.setattr(rows, "PIECE", 1)
    assert [len(piece) for piece in rows.pieces(on_disk.labels)] == [1] * sum(COUNTS)


def test_items_come_in_order_from_any_on(on_disk):
    of_item = lambda item: np.arange(item, item + 2)
    read = lambda first: list(reading.ahead(on_disk.images, of_item, first, 19, (2, SIZE, SIZE, 3)))
    assert len(read(0)) == 19
    for item, images in zip(range(7, 19), read(7), strict=True):
        np.testing.assert_array_equal(images, on_disk.images[item : item + 2])


def test_what_goes_wrong_while_reading_ahead_is_raised(on_disk):
    def of_item(item):
        if item == 2:
            raise UsageError("data: no such item")
        return np.arange(2)

    items = reading.ahead(on_disk.images, of_item, 0, 5, (2, SIZE, SIZE, 3))
    next(items), next(items)
    with pytest.raises(UsageError) as raised:
        next(items)
    assert str(raised.value) == "data: no such item"


@pytest.mark.parametrize(("shape", "expected"), [((1, 2**20), 128), ((2**28,), 1), ((3,), None)])
def test_a_call_takes_a_bounded_number_of_bytes(shape, expected):
    count = reading.items_at_once(shape)
    assert count == (expected or reading.AT_ONCE // 3)


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="memory is read there")
def test_memory_does_not_grow_with_the_set():
    """Decodes, checks and distills 25 MB of images, then 246 MB, which would show if held."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.streamed_memory", "2000", "20000"],
        capture_output=True,
        text=True,
        env={**os.environ, **QUICKLY, "JAX_PLATFORMS": "cpu"},
        cwd=pathlib.Path(__file__).parent.parent,
    )
    assert result.returncode == 0, result.stderr
    small, large = json.loads(result.stdout)
    assert large - small < 150
