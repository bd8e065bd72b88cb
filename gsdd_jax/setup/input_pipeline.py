"""Supplies a run's real images, from the device that holds them or from the disk."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, UInt8
from ml_collections import ConfigDict

from gsdd_jax.core import devices, mesh
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import reading, transforms
from gsdd_jax.matching import Matching, RealData, real_data
from gsdd_jax.training import distill

# Shares of the device's and the host's memory that an "auto" training split may take. Networks need
# the rest; on the host also the system, other processes and cached pages.
SHARE, SHARE_OF_HOST = 1 / 2, 1 / 4


def is_streamed(config: ConfigDict, images: UInt8[np.ndarray, "n h w c"], transform: Any) -> bool:
    """Returns whether training images are read step by step: if the config says so, or if it says
    "auto" and they do not fit."""
    if config.data.on_device != "auto":
        return config.data.on_device == "streamed"
    size = images.size * (4 if transforms.is_whitened(images, transform) else 1)
    share = SHARE_OF_HOST if devices.accelerator_memory() is None else SHARE
    return size > share * devices.memory()


@dataclasses.dataclass(frozen=True)
class Steps:
    """Inputs of the steps of a distillation, in order.

    Attributes:
      at_once: maximum number of steps per call.
    """

    at_once: int
    _data: RealData
    _host_inputs: Callable[[int, int], Any]
    # If streamed: this process's part of each step's images, and the numbers of classes and of
    # images per class of all processes.
    _read: Iterator[UInt8[np.ndarray, "d k r h w c"]] | None = None
    _drawn: tuple[int, int] = (0, 0)

    def given(self, first: int, count: int) -> tuple[RealData, Any]:
        """Returns `data` and `host_inputs` of `training.distill.run` for `count` steps from
        `first`, the end of the previous call."""
        data = self._data
        if self._read is not None:
            read = np.stack([next(self._read) for _ in range(count)])
            data = dataclasses.replace(data, read=mesh.shard_host_array(read, 2, *self._drawn))
        return data, self._host_inputs(first, count)


def real(parts: Any, streamed: bool = False) -> RealData:
    """Returns the real images that the objective of the Experiment `parts` draws from."""
    problem, train = parts.problem, parts.dataset.train
    given = train.images, train.labels, problem.num_classes, parts.transform
    return real_data(*given, drawn=problem.matching.draws_real and not streamed)


def steps(
    config: ConfigDict, parts: Any, key: Key[Array, ""], first: int, labeler: Any = None
) -> Steps:
    """Builds the inputs for distilling the Experiment `parts` with `key`, from step `first` on.

    `labeler` is that of `RealData`.

    Raises UsageError if streaming is requested, but the objective does not say what it draws.
    """
    problem, train = parts.problem, parts.dataset.train
    streamed = problem.matching.draws_real and is_streamed(config, train.images, parts.transform)
    if streamed and type(problem.matching).draws is Matching.draws:
        if config.data.on_device == "streamed":
            raise UsageError(
                "config.data.on_device: expected auto or whole, because the objective "
                f"{problem.matching.name!r} does not say which real images it draws"
            )
        streamed = False
    data = real(parts, streamed)
    at_once, host_inputs = config.distill.steps_per_call, parts.host_inputs
    labeled = dataclasses.replace(data, labeler=labeler)
    if not streamed:
        return Steps(at_once, labeled, host_inputs)

    # Indices are drawn on the host, to wait for no step on the devices, in threads without a mesh.
    by_class = dataclasses.replace(data, images=transforms.RealImages(None, None))
    own_copy = lambda a: jax.device_put(a.addressable_data(0), _host())
    here = jax.tree.map(own_copy, (key, by_class))

    def of_step(step):
        return jax.tree.map(lambda a: a[0], host_inputs(step, 1)), np.int32(step)

    def indices(step):
        return np.asarray(distill.drawn(problem, *here, *of_step(step)))

    drawn = jax.eval_shape(
        functools.partial(distill.drawn, problem), key, by_class, *of_step(first)
    )
    shape = *drawn.shape, *parts.dataset.image_shape
    of_all, end = shape[1:3], config.distill.num_steps
    classes, images = mesh.local_slices(*of_all)
    own = lambda step: indices(step)[:, classes, images]
    read = reading.ahead(train.images, own, first, end, shape)
    return Steps(min(at_once, reading.items_at_once(shape)), labeled, host_inputs, read, of_all)


def _host() -> jax.Device:
    """Returns the host's CPU, or the device if JAX may use only that."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]
