"""What large experiments take on H200s, by arithmetic from steps that `benchmarks.scale` compiled.

    python -m benchmarks.plan

writes the tables of docs/scale.md anew. No such machine was measured: `Machine` has what its data
sheet says and, of that, what is assumed to be reached.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from benchmarks import programs
from gsdd_jax.core import mesh
from gsdd_jax.core.files import write_atomically
from gsdd_jax.networks import Network
from gsdd_jax.runs import cost
from gsdd_jax.runs.experiment import REAL
from gsdd_jax.training import experts

ROOT = pathlib.Path(__file__).parent.parent
STEPS = ROOT / "benchmarks" / "results" / "scale" / "steps.json"
DOCUMENT = ROOT / "docs" / "scale.md"
DEVICES = (1, 8, 64)
STATES = 4  # arrays as large as a set's parameters: they, Adam's two moments, the gradient


@dataclasses.dataclass(frozen=True)
class Machine:
    """An H200 and its like in a cluster. Rates are a second and a device's own."""

    memory: float = 141e9  # bytes
    bandwidth: float = 4.8e12  # bytes, HBM3e
    products: float = 495e12  # FLOPs in TF32, dense; 989e12 in bfloat16
    inside: float = 450e9  # bytes each way over NVLink, which is sold as 900 GB both ways
    across: float = 50e9  # bytes each way between nodes: 400 Gb a second and GPU
    node: int = 8  # devices
    # Assumed:
    memory_reached: float = 0.75  # what JAX takes of it by default
    products_reached: float = 0.3  # of the rate of products
    bandwidth_reached: float = 0.7
    links_reached: float = 0.7
    launch: float = 2e-6  # seconds of the shortest operation
    latency_inside: float = 10e-6  # seconds of the shortest collective
    latency_across: float = 30e-6


class Seconds(NamedTuple):
    """Of a step, by what would take so long if there were nothing else."""

    products: float
    bandwidth: float
    launches: float
    network: float

    @property
    def total(self) -> float:
        """Products, bytes and launches beside each other, then the network."""
        return max(self[:3]) + self.network

    @property
    def limit(self) -> str:
        return max(self._fields, key=lambda name: getattr(self, name))


class Experiment(NamedTuple):
    """A config, and the configs whose steps were compiled."""

    config: str
    like: str  # its step but for sizes
    fit: str
    alone: str  # experts and the networks that judge
    group: int = 0  # classes that a step compares; 0: all


def _imagenet(name: str, ipc: int, group: int = 0) -> Experiment:
    tm = "imagenet1k_tm_ipc"
    return Experiment(
        f"imagenet1k_{name}_ipc{ipc}", f"imagenet1k_{name}_ipc1", f"{tm}{ipc}", f"{tm}1", group
    )


EXPERIMENTS = (
    Experiment(*["cifar100_tm_ipc50"] * 4),
    *(_imagenet("dm", ipc, group) for ipc, group in ((1, 0), (10, 100), (50, 0), (50, 100))),
    *(_imagenet("tm", ipc) for ipc in (1, 10, 50)),
)


def scaled(row: dict[str, Any], like: ConfigDict, config: ConfigDict, group: int) -> dict[str, Any]:
    """The row of a step of `config`, from that of a config which differs from it in sizes alone.

    Args:
      row: of `like`.
      like, config: ImageNet-1K's or one and the same.
      group: classes that the step compares; 0: all.
    """
    share = lambda count: -(-count // row["devices"])  # of each device
    there, here = like.matching.options, config.matching.options
    if config.matching.name == "tm":
        # A student step costs its batch and sends the student's gradients; the images that are
        # drawn, and their gradients, are sent once. The larger counts, for both.
        launches = here.syn_steps / there.syn_steps
        products = launches * share(here.batch_syn) / share(there.batch_syn)
        drawn = here.syn_steps * here.batch_syn / (there.syn_steps * there.batch_syn)
        moved = max(launches, drawn)
        calls, touched, kept = launches, max(products, drawn), 1.0
    else:
        _, classes, _, _ = cost.sizes(config)
        group = group or classes
        own, dividing = _own_classes(group, row["devices"])
        own_there, dividing_there = _own_classes(classes, row["devices"])
        launches = own / own_there
        synthetic = -(-config.budget.gpc // dividing)
        synthetic_there = -(-like.budget.gpc // dividing_there)
        # Real images forward; synthetic ones forward, once more, and back.
        forward = -(-here.batch_real // dividing) + 3 * synthetic
        products = launches * forward
        products /= -(-there.batch_real // dividing_there) + 3 * synthetic_there
        # The gradients of what is stored of the images that are drawn.
        moved = group / classes * sizes(config).parameters / sizes(like).parameters
        calls, touched, kept = 1.0, products, launches * synthetic / synthetic_there
    more = sizes(config).parameters - kept * sizes(like).parameters
    return row | dict(
        products=products * row["products"],
        bytes=touched * row["bytes"],
        operations=launches * row["operations"],
        calls={kind: calls * count for kind, count in row["calls"].items()},
        moved={kind: moved * size for kind, size in row["moved"].items()},
        arguments=row["arguments"]
        + (STATES - 1) * (sizes(config).parameters - sizes(like).parameters),
        temporary=kept * row["temporary"] + more,
    )


def _own_classes(count: int, devices: int) -> tuple[int, int]:
    """Classes of each device, and the devices that divide their images."""
    groups = mesh.divided(devices, count)
    return -(-count // groups), devices // groups


def step_seconds(row: dict[str, Any], machine: Machine) -> Seconds:
    """Of one step, from its row."""
    return Seconds(
        row["products"] / (machine.products * machine.products_reached),
        row["bytes"] / (machine.bandwidth * machine.bandwidth_reached),
        row["operations"] * machine.launch,
        network_seconds(row, machine),
    )


def network_seconds(row: dict[str, Any], machine: Machine) -> float:
    """Of its collectives, in rings, one after the other and beside nothing else."""
    alone = row["devices"] <= machine.node
    rate = (machine.inside if alone else machine.across) * machine.links_reached
    latency = machine.latency_inside if alone else machine.latency_across
    return sent(row) / rate + sum(row["calls"].values()) * latency


def sent(row: dict[str, Any]) -> float:
    """Bytes that each device sends in a step, by collectives in rings."""
    others = (row["devices"] - 1) / row["devices"]
    of_result = {
        "all-reduce": 2 * others,
        "all-gather": others,
        "reduce-scatter": row["devices"] - 1,
        "all-to-all": others,
    }
    return sum(of_result.get(kind, 1) * size for kind, size in row["moved"].items())


class Sizes(NamedTuple):
    """Of an experiment, in bytes unless it says otherwise."""

    images: int  # a number: that are distilled
    parameters: int  # of the set, in float32
    data: int  # real images as they are stored
    drawn: int  # real images of a step, likewise
    read: int  # of the experts' store, a step and process
    store: int  # the experts' store


def sizes(config: ConfigDict) -> Sizes:
    """From the config alone."""
    of = programs.parts(config)
    height, width, channels = of.network.image_shape
    image = height * width * channels
    images = of.num_classes * of.parameterization.images_per_class
    parameters = 4 * (6 + channels) * of.parameterization.num_gaussians * images
    options, drawn, read, store = config.matching.options, 0, 0, 0
    if config.matching.name == "tm":
        row = _network_bytes(of.network)
        read = 2 * options.experts_per_step * row
        store = config.experts.num_experts * (config.experts.epochs + 1) * row
    else:
        drawn = of.num_classes * options.batch_real * image
    return Sizes(images, parameters, of.num_images * image, drawn, read, store)


@functools.cache
def _network_bytes(network: Network) -> int:
    """Of its parameters in float32."""
    return 4 * experts.num_parameters(network)


class Run(NamedTuple):
    """An experiment on so many devices: hours of its parts, bytes of a device."""

    experiment: Experiment
    row: dict[str, Any]
    classes: int  # that a step compares
    groups: int  # steps in which every class is compared once
    experts: float
    fit: float
    distill: float
    evaluation: float
    memory: float

    @property
    def hours(self) -> float:
        return self.experts + self.fit + self.distill + self.evaluation


def run(
    experiment: Experiment, devices: int, rows: list[dict[str, Any]], machine: Machine
) -> Run | None:
    """None where one of its rows is not there."""
    config = config_of(experiment.config)
    _, classes, _, _ = cost.sizes(config)
    needed = {
        "distill": (experiment.like, devices),
        "fit": (experiment.fit, devices),
        **dict.fromkeys(programs.ALONE, (experiment.alone, DEVICES[0])),
    }
    found = {part: _row(rows, part, *where) for part, where in needed.items()}
    if None in found.values():
        return None
    found["distill"] = scaled(
        found["distill"], config_of(experiment.like), config, experiment.group
    )
    seconds = {part: step_seconds(row, machine).total for part, row in found.items()}
    groups = classes // (experiment.group or classes)
    settings, judged = config.experts, config.evaluate
    training = 0.0
    if config.matching.name == "tm":
        in_turn = -(-settings.num_experts // devices)
        training = in_turn * settings.epochs * seconds["experts"] / settings.at_once
    own = sizes(config)
    # An epoch of the row is one of its own images, by all networks; here each device has some.
    shared = sizes(config_of(experiment.alone)).images
    part = -(-judged.num_networks // devices) / judged.num_networks
    epoch = seconds["evaluation"] * part / shared
    distilled = 1 + ("fitted" in judged.beside)
    if config.distill.eval_every:
        distilled += (config.distill.num_steps - 1) // config.distill.eval_every
    real = sum(count for name, count in REAL.items() if name in judged.beside.split(","))
    images = distilled * own.images + real * config.budget.ipc * classes
    row = found["distill"]
    unused = own.data if config.matching.name == "tm" else 0  # is there, but TM draws none of it
    return Run(
        experiment,
        row,
        classes // groups,
        groups,
        training / 3600,
        config.init.num_steps * seconds["fit"] / 3600,
        groups * passes(config) * seconds["distill"] / 3600,
        (judged.epochs + 1) * images * epoch / 3600,
        row["arguments"] + row["results"] + row["temporary"] + unused,
    )


def passes(config: ConfigDict) -> int:
    """How often the distillation goes over all classes: its steps, where a step compares all."""
    _, classes, _, _ = cost.sizes(config)
    group = config.matching.options.get("classes_per_step") or classes
    return config.distill.num_steps * group // classes


def config_of(name: str) -> ConfigDict:
    """A shipped config."""
    return importlib.import_module(f"configs.{name}").get_config()


def _row(rows, part, config, devices) -> dict[str, Any] | None:
    key = config, part, devices
    same = [r for r in rows if (r["config"], r["part"], r["devices"]) == key]
    return same[0] if same else None


def tables(rows: list[dict[str, Any]], machine: Machine) -> dict[str, str]:
    """The tables of docs/scale.md, by name."""
    runs = [run(e, n, rows, machine) for e in EXPERIMENTS for n in DEVICES]
    runs = [r for r in runs if r is not None]
    return {
        "machine": _table(("of one device", "taken", "of it reached"), _of_machine(machine)),
        "sizes": _table(SIZES, _of_sizes()),
        "counts": _table(COUNTS, _of_counts(runs)),
        "steps": _table(STEP, _of_steps(runs, machine)),
        "runs": _table(RUNS, _of_runs(runs, machine)),
    }


def _of_machine(machine: Machine) -> Iterator[tuple[str, ...]]:
    percent = lambda part: f"{part:.0%}"
    yield "memory", f"{machine.memory / 1e9:.0f} GB", percent(machine.memory_reached)
    yield (
        "its bandwidth",
        f"{machine.bandwidth / 1e12:.1f} TB/s",
        percent(machine.bandwidth_reached),
    )
    yield (
        "products, TF32",
        f"{machine.products / 1e12:.0f} TFLOP/s",
        percent(machine.products_reached),
    )
    rate = f"{machine.inside / 1e9:.0f} GB/s each way"
    yield f"NVLink, among {machine.node}", rate, percent(machine.links_reached)
    rate = f"{machine.across / 1e9:.0f} GB/s each way"
    yield f"network, beyond {machine.node}", rate, percent(machine.links_reached)
    yield "an operation", f"{machine.launch * 1e6:.0f} µs at least", "assumed"
    between = machine.latency_inside, machine.latency_across
    shown = " and ".join(f"{seconds * 1e6:.0f}" for seconds in between)
    yield f"a collective, among {machine.node} and beyond", f"{shown} µs at least", "assumed"


SIZES = (
    *("config", "images", "set, float32", "with gradient and Adam", "real images"),
    *("drawn a step", "network", "experts' store"),
)


def _of_sizes() -> Iterator[tuple[str, ...]]:
    for name in dict.fromkeys(experiment.config for experiment in EXPERIMENTS):
        own = sizes(config_of(name))
        network = _network_bytes(programs.parts(config_of(name)).network)
        shown = (own.parameters, STATES * own.parameters, own.data, own.drawn, network, own.store)
        yield (
            name,
            f"{own.images:,}",
            *(_bytes(size) if size else "" for size in shown),
        )


COUNTS = (
    *("config", "classes a step", "GPUs", "TFLOP", "GB", "operations"),
    *("collectives", "GB sent"),
)


def _of_counts(runs: list[Run]) -> Iterator[tuple[str, ...]]:
    for r in runs:
        row = r.row
        yield (
            *(r.experiment.config, f"{r.classes}", str(row["devices"])),
            *(_figure(row["products"] / 1e12), _figure(row["bytes"] / 1e9)),
            *(f"{row['operations']:,.0f}", f"{sum(row['calls'].values()):,.0f}"),
            _figure(sent(row) / 1e9),
        )


STEP = (
    "config",
    "classes a step",
    "GPUs",
    "products",
    "bytes",
    "launches",
    "network",
    "a step, s",
    "limit",
)


def _of_steps(runs: list[Run], machine: Machine) -> Iterator[tuple[str, ...]]:
    for r in runs:
        seconds = step_seconds(r.row, machine)
        shown = (*seconds, seconds.total)
        yield (
            *(r.experiment.config, f"{r.classes}", str(r.row["devices"])),
            *(_figure(value) for value in shown),
            seconds.limit,
        )


RUNS = (
    *("config", "GPUs", "steps", "experts, h", "fit, h", "distil, h", "judge, h", "all, h"),
    *("GPU hours", "GB a GPU"),
)


def _of_runs(runs: list[Run], machine: Machine) -> Iterator[tuple[str, ...]]:
    for r in runs:
        devices, config = r.row["devices"], config_of(r.experiment.config)
        fits = r.memory <= machine.memory * machine.memory_reached
        memory = f"{r.memory / 1e9:,.0f}" + ("" if fits else " (too much)")
        hours = r.experts, r.fit, r.distill, r.evaluation, r.hours, r.hours * devices
        yield (
            *(r.experiment.config, str(devices), f"{r.groups * passes(config):,}"),
            *(_figure(value) if value else "" for value in hours),
            memory,
        )


def _figure(value: float) -> str:
    """Two digits, or all before the point."""
    if value == 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def _bytes(size: float) -> str:
    unit, name = next(
        (u, n) for u, n in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1, "B")) if size >= u
    )
    return f"{_figure(size / unit)} {name}"


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def renewed(document: str, found: dict[str, str]) -> str:
    """A document with the tables between its marks, `<!-- NAME -->` to `<!-- end -->`, anew."""

    def table(mark):
        return f"{mark[1]}\n\n{found[mark[2]]}\n\n{mark[3]}"

    return re.sub(r"(<!-- (\w+) -->)\n.*?\n(<!-- end -->)", table, document, flags=re.DOTALL)


def main() -> None:
    """Renews the document's tables."""
    found = tables(json.loads(STEPS.read_text()), Machine())
    write_atomically(DOCUMENT, renewed(DOCUMENT.read_text(), found).encode())


if __name__ == "__main__":
    main()
