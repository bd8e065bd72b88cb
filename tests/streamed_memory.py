"""Prints as JSON the peak memory of decoding and distilling sets of growing sizes.

python -m tests.streamed_memory 20000 200000
"""

import json
import pathlib
import sys
import tempfile
import types

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gsdd_jax import data, matching, networks, parameterizations
from gsdd_jax.data import cache, dataset, transforms
from gsdd_jax.data.decode import CHUNK, Chunk
from gsdd_jax.setup import experiment, input_pipeline
from gsdd_jax.training import distill

SHAPE, CLASSES, GPC, STEPS = (64, 64, 3), 10, 1, 8
NETWORK = networks.build("convnet", image_shape=SHAPE, num_classes=CLASSES, width=2, depth=1)
KIND = parameterizations.build("gaussian", SHAPE, ipc=1, images_per_class=GPC)
CONFIG = ConfigDict(
    {
        "data": {"on_device": "streamed"},
        "distill": {"steps_per_call": STEPS // 2, "num_steps": STEPS},
    }
)


def chunks(count):
    """Yields random images in place of a decoder's."""
    random = np.random.default_rng(0)
    for first in range(0, count, CHUNK):
        size = min(CHUNK, count - first)
        images = np.frombuffer(random.bytes(size * np.prod(SHAPE)), np.uint8)
        yield Chunk(images.reshape(size, *SHAPE), (np.arange(size) % CLASSES).astype(np.int32))


def describe(arrays):
    """Returns all measurements of a set."""
    mean, std = dataset.channel_mean_std(arrays["train_images"])
    return {"fingerprint": cache.fingerprint(arrays), "mean": mean, "std": std}


def distilled(folder, count):
    """Decodes, checks and streams a set of `count` images."""
    cache.write(folder, {"train": chunks(count), "test": chunks(10)}, describe)
    arrays, info = cache.read(folder)
    train = data.Split(arrays["train_images"], arrays["train_labels"])
    transform = transforms.Normalize(jnp.asarray(info["mean"]), jnp.asarray(info["std"]))
    objective = matching.build(
        "dm", network=NETWORK, num_classes=CLASSES, images_per_class=GPC, strategy="",
        batch_real=32,
    )  # fmt: skip
    problem = distill.Problem(KIND, objective, CLASSES)
    parts = types.SimpleNamespace(
        problem=problem,
        dataset=types.SimpleNamespace(train=train, num_classes=CLASSES, image_shape=SHAPE),
        transform=transform,
        host_inputs=lambda first, count: None,
    )
    experiment.HELD_OUT = 100
    held = experiment.EvaluationParts(parts.dataset, transform).chosen_on
    key = jax.random.key(0)
    start = experiment.initial_images(parts.dataset, key, CLASSES * [GPC])
    state = distill.start(problem, KIND.init(key, jnp.asarray(start)), 0.01)
    steps = input_pipeline.steps(CONFIG, parts, key, 0)
    for first in range(0, STEPS, steps.at_once):
        given = steps.given(first, steps.at_once)
        state, _ = distill.run(problem, state, key, *given, steps.at_once)
    jax.block_until_ready((state, held))


def peak():
    """Returns MiB of this process only; `ru_maxrss` would start at its parent's."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def main(counts):
    """Prints the peak after each set."""
    found = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            distilled(pathlib.Path(folder), count)
        found.append(peak())
    print(json.dumps(found))


if __name__ == "__main__":
    main(list(map(int, sys.argv[1:])))
