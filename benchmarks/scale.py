"""Counts the work of each of 1 to 64 devices per step, by XLA's analysis of the programs.

Nothing is run or read: steps are compiled for simulated devices of this host. XLA counts the body
of a loop once, and a custom call as nothing; collectives here count as often as the program names
them. So counts compare versions of a step, and numbers of devices that divide no loop. They are no
costs of a run.
"""

import collections
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.backend
import jax.numpy as jnp
from ml_collections import ConfigDict

from benchmarks.table import Table, chosen
from configs import load
from gsdd_jax import matching
from gsdd_jax.core import mesh
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import transforms
from gsdd_jax.matching import tm
from gsdd_jax.networks import Network
from gsdd_jax.ops import conv
from gsdd_jax.parameterizations import Parameterization
from gsdd_jax.setup import cost, experiment
from gsdd_jax.setup.components import build_objective
from gsdd_jax.training import distill, evaluate, experts, fit

DEVICES = (1, 8, 64)
CONFIGS = (
    "cifar100_tm:ipc=50",
    *(f"imagenet1k_{name}:ipc={ipc}" for name in ("dm", "tm") for ipc in (1, 50)),
)
COLUMNS = "config part devices flops:.4g bytes:.4g calls moved:.3g arguments:.3g temporary:.3g"
COLLECTIVE = re.compile(
    r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)\("
)
ARRAY = re.compile(r"[a-z]+(\d*)\w*\[([\d,]*)\]")


def main(out: str | None, devices: str, configs: str) -> None:
    counts, names = numbers(devices), chosen("configs", configs.split(","), CONFIGS)
    as_on_gpus(max(counts))
    table = Table(out, COLUMNS)
    for name in names:
        for row in rows(load(name), counts):
            table.add({"config": name} | row)
        jax.clear_caches()


def numbers(text: str) -> list[int]:
    """Returns numbers of devices. Raises UsageError for numbers outside 1 to 64."""
    try:
        counts = [int(part) for part in text.split(",")] if text else list(DEVICES)
    except ValueError:
        counts = [0]
    if min(counts) < 1 or max(counts) > max(DEVICES):
        raise UsageError(f"--devices: expected comma-separated numbers from 1 to 64, got {text!r}")
    return counts


def as_on_gpus(count: int) -> None:
    """Simulates `count` devices on this host, with XLA's own convolutions as on GPUs.

    Programs and arrays from before are gone.
    """
    jax.extend.backend.clear_backends()  # a command has asked JAX for its devices
    conv._form = lambda *_: "lax"  # a CPU takes Winograd's transforms or its own calls
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)
    # Skips passes on the processor's code, not on XLA's program.
    jax.config.update("jax_disable_most_optimizations", True)


def rows(
    config: ConfigDict, devices: Sequence[int], parts: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yields a row for each of the `parts` of `STEPS` (or all) and number of devices."""
    built = build(config)
    parts = parts or [p for p in STEPS if p != "experts" or built.objective.follows_experts]
    for part, count in itertools.product(parts, devices):
        with mesh.use_devices(count):
            compiled = STEPS[part](built).compile()
        yield dict(part=part, devices=count) | work(compiled)


def work(compiled: jax.stages.Compiled) -> dict[str, Any]:
    """Returns what a device computes, holds, and receives in collectives, by kind."""
    analysis, memory = compiled.cost_analysis(), compiled.memory_analysis()
    calls, sizes = collections.Counter(), collections.Counter()
    for results, kind in COLLECTIVE.findall(compiled.as_text()):
        calls[kind] += 1
        sizes[kind] += sum(map(_size, *zip(*ARRAY.findall(results), strict=True)))
    return dict(
        flops=analysis["flops"], bytes=analysis["bytes accessed"],
        calls=calls.total(), moved=sizes.total(), collectives=dict(sizes),
        arguments=memory.argument_size_in_bytes, temporary=memory.temp_size_in_bytes,
    )  # fmt: skip


def _size(bits: str, sides: str) -> int:
    return int(bits or 8) * math.prod(map(int, filter(None, sides.split(",")))) // 8


class Parts(NamedTuple):
    """An experiment without its data."""

    config: ConfigDict
    num_images: int  # training images
    num_classes: int
    parameterization: Parameterization
    network: Network
    objective: matching.Matching

    @property
    def labels(self) -> Any:
        return jnp.zeros(self.num_classes * self.parameterization.images_per_class, jnp.int32)


def build(config: ConfigDict) -> Parts:
    """Builds the parts. Raises UsageError if the size of the config's data is unknown."""
    data = cost.sizes(config)
    classes, stored = data.classes, cost.build_stored(config, data)
    network, per_class = cost.network_of(config.network, data), stored.images_per_class
    counts = classes * (data.examples // classes,)
    objective = build_objective(config, network, classes, per_class, counts)
    return Parts(config, data.examples, classes, stored, network, objective)


def _distill(of: Parts):
    stored, objective = of.parameterization, of.objective
    problem = distill.Problem(stored, objective, of.num_classes, of.config.distill.average)

    def arguments():
        start = jnp.zeros((len(of.labels), *of.network.image_shape))
        if objective.follows_experts:
            shape = 1, objective.experts_per_step, experts.num_parameters(of.network)
            host_inputs = tm.Segments(jnp.zeros(shape), jnp.zeros(shape))
        else:  # the compared classes
            host_inputs = jax.tree.map(
                jnp.asarray, objective.host_inputs(None, seed=0, first=0, count=1)
            )
        state = distill.start(problem, stored.init(jax.random.key(0), start), 1e-3)
        return state, jax.random.key(0), _real(of, objective.draws_real), host_inputs

    with mesh.group_devices(objective.independent):
        return distill.run.lower(problem, *_shapes(arguments), 1)


def _fit(of: Parts):
    stored, init = of.parameterization, of.config.init

    def arguments():
        images = jnp.zeros((len(of.labels), *of.network.image_shape))
        return fit.start(stored, jax.random.key(0), images, init.learning_rate), images

    rate = init.learning_rate
    return fit.run.lower(stored, *_shapes(arguments), rate, 1, init.halve_means_every)


def _experts(of: Parts):
    count = of.config.experts.at_once * mesh.size()

    def arguments():
        params = jnp.zeros((count, experts.num_parameters(of.network)))
        data, keys = _real(of, drawn=True), jax.random.split(jax.random.key(0), count)
        return (params, keys, jnp.int32(0), data.images, data.labels), jnp.float32(0)

    given, rate = _shapes(arguments)
    return experts.train_epoch.lower(
        of.network, *given, learning_rate=rate,
        batch_size=of.config.experts.batch_size, strategy=of.config.matching.strategy,
    )  # fmt: skip


def _evaluation(of: Parts):
    settings, schedule = of.config.evaluate, experiment.build_schedule(of.config)

    def arguments():
        keys = jax.random.split(jax.random.key(0), settings.num_networks)
        params = jax.vmap(of.network.init)(keys)
        optimizer = jax.vmap(schedule.transformation(0.01, len(of.labels)).init)(params)
        students = evaluate.Students(params, optimizer, jnp.int32(0))
        images = jnp.zeros((1, len(of.labels), *of.network.image_shape))
        return students, keys, images, of.labels, jnp.float32(0.01), jnp.int32(1)

    return evaluate.train_epochs.lower(of.network, schedule, *_shapes(arguments))


def _real(of: Parts, drawn: bool) -> matching.RealData:
    """Returns training images, equally many per class."""
    height, width, channels = shape = of.network.image_shape
    transform = transforms.Normalize(jnp.zeros(channels), jnp.ones(channels))
    stored = jnp.zeros((of.num_images, *shape), jnp.uint8)
    if of.config.data.transform == "zca":
        size = height * width * channels
        transform = transforms.ZCA(jnp.zeros(size), jnp.zeros((size, size)), shape)
        if drawn and 4 * stored.size <= transforms.MOST_WHITENED:
            stored = stored.astype(jnp.float32)
    by_class = jnp.zeros((of.num_classes, of.num_images // of.num_classes), jnp.int32)
    labels, counts = jnp.zeros(of.num_images, jnp.int32), jnp.zeros(of.num_classes, jnp.int32)
    return matching.RealData(transforms.RealImages(stored, transform), labels, by_class, counts)


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
