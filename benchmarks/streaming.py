"""Distribution matching on a set read from disk, compared with the same set held on the device.

Both take turns, so that a busy machine slows both; the ratio is the result. There is no
augmentation, which takes equally long in both.
"""

import pathlib
import tempfile
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.table import Table, device
from gsdd_jax import data, matching, networks, parameterizations
from gsdd_jax.data import transforms
from gsdd_jax.setup import input_pipeline
from gsdd_jax.training import distill

SIDE, CLASSES, GPC, BATCH = 64, 10, 10, 32
STEPS_PER_CALL, ROUNDS = 5, 3
WAYS = ("whole", "streamed")


COLUMNS = "width images whole:.2f streamed:.2f ratio:.2f"


def main(out: str | None) -> None:
    """Prints a table of steps per second and their ratio."""
    # Short on a CPU; on a GPU the published width, and more to read.
    on_cpu = jax.default_backend() == "cpu"
    width, images, steps = (8, 20_000, 15) if on_cpu else (128, 100_000, 200)
    print(f"{device()}; DM, ConvNetD4, {SIDE} x {SIDE}, {BATCH} images per class")
    table = Table(out, COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        seconds = compare(on_disk(pathlib.Path(folder), images), width, steps)
    rates = {way: 1 / s for way, s in seconds.items()}
    ratio = rates["streamed"] / rates["whole"]
    table.add(dict(width=width, images=images, **rates, ratio=ratio))


def compare(split: data.Split, width: int, num_steps: int) -> dict[str, float]:
    """Returns seconds per step of each way: the median of `ROUNDS` runs of `num_steps`."""
    parts, key = parts_of(split, width), jax.random.key(0)
    zeros = jnp.zeros((CLASSES * GPC, SIDE, SIDE, 3))
    start = parts.parameterization.init(key, zeros)

    def run(way):
        settings = dict(steps_per_call=STEPS_PER_CALL, num_steps=num_steps)
        config = ConfigDict({"data": {"on_device": way}, "distill": settings})
        state = distill.start(parts.problem, jax.tree.map(jnp.copy, start), 1e-3)
        steps = input_pipeline.steps(config, parts, key, 0)
        calls = num_steps // STEPS_PER_CALL
        ahead = steps.given(0, STEPS_PER_CALL)
        for call in range(calls):
            if call == 1:  # the first call begins with empty buffers
                before = time.perf_counter()
            state, losses = distill.run(parts.problem, state, key, *ahead, STEPS_PER_CALL)
            if call + 1 < calls:
                ahead = steps.given((call + 1) * STEPS_PER_CALL, STEPS_PER_CALL)
            jax.block_until_ready(losses)
        return (time.perf_counter() - before) / (num_steps - STEPS_PER_CALL)

    for way in WAYS:  # compiles
        run(way)
    rounds = [{way: run(way) for way in WAYS} for _ in range(ROUNDS)]
    return {way: float(np.median([one[way] for one in rounds])) for way in WAYS}


def parts_of(split: data.Split, width: int) -> types.SimpleNamespace:
    """Returns the parts of an experiment that `input_pipeline.steps` needs."""
    shape = (SIDE, SIDE, 3)
    network = networks.build("convnet", image_shape=shape, num_classes=CLASSES, width=width)
    objective = matching.build(
        "dm", network=network, num_classes=CLASSES, images_per_class=GPC, strategy="",
        batch_real=BATCH,
    )  # fmt: skip
    stored = parameterizations.build("gaussian", shape, ipc=1, images_per_class=GPC)
    return types.SimpleNamespace(
        parameterization=stored,
        problem=distill.Problem(stored, objective, CLASSES),
        dataset=types.SimpleNamespace(train=split, image_shape=shape),
        transform=transforms.Normalize(jnp.full(3, 0.5), jnp.full(3, 0.25)),
        feed=lambda first, count: None,
    )


def on_disk(folder: pathlib.Path, count: int) -> data.Split:
    """Returns random images, mapped from a file."""
    path, random = folder / "images.npy", np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, SIDE, SIDE, 3))
    for image in images:
        image[:] = np.frombuffer(random.bytes(image.size), np.uint8).reshape(image.shape)
    images.flush()
    labels = np.arange(count, dtype=np.int32) % CLASSES
    return data.Split(np.asarray(np.load(path, mmap_mode="r")), labels)
