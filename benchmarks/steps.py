"""Times a step of trajectory matching and an epoch of experts at CIFAR-10's sizes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.data import augment, transforms
from gsdd_jax.matching import tm
from gsdd_jax.runs.experts import expert_key
from gsdd_jax.training import distill, experts

SHAPE, CLASSES = (32, 32, 3), 10
BATCH = 256  # batch size of an expert


def normalize() -> transforms.Normalize:
    """Returns the default transform of a benchmark."""
    return transforms.Normalize(jnp.full(3, 0.5), jnp.full(3, 0.25))


class Timed(NamedTuple):
    """A function to time, and its memory."""

    call: Callable[[], object]  # waits for its result
    temporary: int  # bytes
    bytes: int  # with arguments
    once: float = 0.0  # seconds of a run before the first call


def timed_step(images: int, syn_steps: int, transform: Any = None, **settings: Any) -> Timed:
    """Returns consecutive steps of trajectory matching, which keep no activations.

    Args:
      images: size of the synthetic set (Gaussians of CIFAR-10's budget at IPC 1) and its batch.
      settings: settings of the network.
    """
    network = networks.build("convnet", image_shape=SHAPE, num_classes=CLASSES, **settings)
    stored = parameterizations.build("gaussian", SHAPE, ipc=1, images_per_class=images // CLASSES)
    objective = tm.TrajectoryMatching(network, syn_steps, images, keep_every=0)
    problem = distill.Problem(stored, objective, CLASSES)
    key = jax.random.key(0)
    start, _ = ravel_pytree(network.init(key))
    host_inputs = tm.Segments(start[None, None], start[None, None] + 0.01)
    # Real images only matter for the transform.
    pixels, labels = np.zeros((CLASSES, *SHAPE), np.uint8), np.arange(CLASSES, dtype=np.int32)
    real = matching.real_data(pixels, labels, CLASSES, transform or normalize(), drawn=False)
    state = distill.start(problem, stored.init(key, jnp.zeros((images, *SHAPE))), 1e-3)
    compiled = distill.run.lower(problem, state, key, real, host_inputs, 1).compile()

    def call():
        nonlocal state  # donated
        state, losses = compiled(state, key, real, host_inputs)
        jax.block_until_ready(losses)

    return _timed(call, compiled)


def expert_epoch(
    count: int, examples: int, transform: Any = None, **settings: Any
) -> tuple[Timed, np.ndarray, np.ndarray]:
    """Returns an epoch of `count` experts on random images, the transformed images, and labels."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (examples, *SHAPE), np.uint8)
    labels = random.integers(0, CLASSES, examples, np.int32)
    network = networks.build("convnet", image_shape=SHAPE, num_classes=CLASSES, **settings)
    keys = jnp.stack([expert_key(0, expert) for expert in range(count)])
    start = jnp.stack([experts.initial(network, key) for key in keys])
    prepare = lambda: jax.block_until_ready(transforms.to_device(pixels, transform or normalize()))
    prepare()  # compiles
    before = time.perf_counter()
    images = prepare()
    once, rate = time.perf_counter() - before, dict(learning_rate=jnp.float32(0.01))
    arguments = keys, jnp.int32(0), images, jnp.asarray(labels)
    compiled = experts.train_epoch.lower(
        network, start, *arguments, **rate, batch_size=BATCH, strategy=augment.DSA
    ).compile()
    epoch = 0

    def call():
        nonlocal epoch
        epoch += 1  # new draws, and so augmentations, each time
        numbered = arguments[0], jnp.int32(epoch), *arguments[2:]
        jax.block_until_ready(compiled(start.copy(), *numbered, **rate))

    return _timed(call, compiled, once), np.array(images.stored), labels


def _timed(call: Callable, compiled: jax.stages.Compiled, once: float = 0.0) -> Timed:
    call()
    found = compiled.memory_analysis()
    temporary = found.temp_size_in_bytes
    return Timed(call, temporary, temporary + found.argument_size_in_bytes, once)
