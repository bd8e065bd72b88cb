"""An experiment's steps, compiled for simulated devices of this host.

Only shapes matter: nothing is read or run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from benchmarks import hlo
from gsdd_jax import matching, networks
from gsdd_jax.core import mesh
from gsdd_jax.data import transforms
from gsdd_jax.matching import tm
from gsdd_jax.networks import Network
from gsdd_jax.parameterizations import Parameterization
from gsdd_jax.setup import cost
from gsdd_jax.setup.components import build_parameterization
from gsdd_jax.training import distill, evaluate, experts, fit

GPU_MEMORY = int(0.75 * 141e9)  # bytes of an H200 that JAX takes by default


class Parts(NamedTuple):
    """An experiment without its data."""

    config: ConfigDict
    num_images: int  # training images
    num_classes: int
    parameterization: Parameterization
    network: Network

    @property
    def labels(self) -> Any:
        return jnp.zeros(self.num_classes * self.parameterization.images_per_class, jnp.int32)


def parts(config: ConfigDict) -> Parts:
    """Builds the parts. Raises UsageError if the size of the config's data is not known."""
    side, num_classes, examples, _ = cost.sizes(config)
    network = networks.build(
        config.network.name, image_shape=(side, side, 3), num_classes=num_classes,
        precision=config.network.precision, **config.network.options,
    )  # fmt: skip
    stored = build_parameterization(config, (side, side, 3), num_classes)
    return Parts(config, examples, num_classes, stored, network)


def rows(
    config: ConfigDict, devices: Sequence[int], steps: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yields each device's work in some of `STEPS`, for each number of devices."""
    of = parts(config)
    for count, part in itertools.product(devices, steps):
        with mesh.use_devices(count):
            compiled = STEPS[part](of).compile()
        memory = compiled.memory_analysis()
        counted = hlo.count(compiled)
        yield dict(
            part=part,
            devices=count,
            **counted,
            sent=hlo.sent(counted["moved"], count),
            arguments=memory.argument_size_in_bytes,
            results=memory.output_size_in_bytes - memory.alias_size_in_bytes,
            temporary=memory.temp_size_in_bytes,
        )


def _distill(of: Parts):
    config, stored = of.config, of.parameterization
    side, kind = of.network.image_shape, dict(config.matching.options)
    objective = matching.build(
        config.matching.name, network=of.network, num_classes=of.num_classes,
        images_per_class=stored.images_per_class, strategy=config.matching.strategy, **kind,
    ).resolve_auto(len(of.labels), side, GPU_MEMORY)  # fmt: skip
    problem = distill.Problem(stored, objective, of.num_classes, config.distill.average)

    def arguments():
        params = stored.init(jax.random.key(0), jnp.zeros((len(of.labels), *side)))
        if objective.follows_experts:
            shape = 1, objective.experts_per_step, experts.num_parameters(of.network)
            host_inputs = tm.Segments(jnp.zeros(shape), jnp.zeros(shape))
        else:  # the compared classes
            host_inputs = jax.tree.map(
                jnp.asarray, objective.host_inputs(None, seed=0, first=0, count=1)
            )
        state = distill.start(problem, params, 1e-3)
        return state, jax.random.key(0), _real(of, drawn=objective.draws_real), host_inputs

    with mesh.group_devices(objective.independent):
        return distill.run.lower(problem, *_shapes(arguments), 1)


def _fit(of: Parts):
    stored, init = of.parameterization, of.config.init

    def arguments():
        images = jnp.zeros((len(of.labels), *of.network.image_shape))
        return fit.start(stored, jax.random.key(0), images, init.learning_rate), images

    state, images = _shapes(arguments)
    halve = init.halve_means_every
    return fit.run.lower(stored, state, images, init.learning_rate, 1, halve)


def _experts(of: Parts):
    settings = of.config.experts
    count = settings.at_once * mesh.size()

    def arguments():
        params = jnp.zeros((count, experts.num_parameters(of.network)))
        data = _real(of, drawn=True)
        return params, jax.random.split(jax.random.key(0), count), data.images, data.labels

    params, keys, images, labels = _shapes(arguments)
    number, rate = _shapes(lambda: (jnp.int32(0), jnp.float32(0)))
    return experts.train_epoch.lower(
        of.network, params, keys, number, images, labels, learning_rate=rate,
        batch_size=settings.batch_size, strategy=of.config.matching.strategy,
    )  # fmt: skip


def _evaluation(of: Parts):
    settings, count = of.config.evaluate, of.config.evaluate.num_networks
    schedule = evaluate.Schedule(
        optimizer=settings.optimizer, epochs=settings.epochs, batch_size=settings.batch_size,
        strategy=of.config.matching.strategy,
    )  # fmt: skip

    def arguments():
        keys = jax.random.split(jax.random.key(0), count)
        params = jax.vmap(of.network.init)(keys)
        optimizer = jax.vmap(schedule.transformation(0.01, len(of.labels)).init)(params)
        students = evaluate.Students(params, optimizer, jnp.int32(0))
        images = jnp.zeros((1, len(of.labels), *of.network.image_shape))
        return students, keys, images, of.labels, jnp.float32(0.01), jnp.int32(1)

    return evaluate._train_epochs.lower(of.network, schedule, *_shapes(arguments))


def _real(of: Parts, drawn: bool) -> matching.RealData:
    """Returns training images, equally many per class."""
    height, width, channels = of.network.image_shape
    transform = transforms.Normalize(jnp.zeros(channels), jnp.ones(channels))
    stored = jnp.zeros((of.num_images, height, width, channels), jnp.uint8)
    if of.config.data.transform == "zca":
        size = height * width * channels
        transform = transforms.ZCA(jnp.zeros(size), jnp.zeros((size, size)), of.network.image_shape)
        if drawn and 4 * stored.size <= transforms.MOST_WHITENED:
            stored = stored.astype(jnp.float32)
    images = transforms.RealImages(stored, transform)
    by_class = jnp.zeros((of.num_classes, of.num_images // of.num_classes), jnp.int32)
    labels = jnp.zeros(of.num_images, jnp.int32)
    return matching.RealData(images, labels, by_class, jnp.zeros(of.num_classes, jnp.int32))


def _shapes(arguments):
    """Returns the shapes of a function's results, replicated on all devices, without running it."""
    where = mesh.replicated_sharding()
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        jax.eval_shape(arguments),
    )


# distill, fit: one step. experts: an epoch of `at_once` experts on every device. evaluation: an
# epoch of the networks that evaluate a set.
STEPS = {"distill": _distill, "fit": _fit, "experts": _experts, "evaluation": _evaluation}
