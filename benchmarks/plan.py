"""Hours and memory of large experiments on H200s, computed from `benchmarks.scale`'s steps.

    python -m benchmarks.plan

renews the tables of docs/scale.md. No such machine was measured: `Machine` has the data sheet's
values and the share of each that is assumed to be reached.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from benchmarks import programs
from benchmarks.scale import CONFIGS, DEVICES
from configs import load
from gsdd_jax import matching
from gsdd_jax.core.files import write_atomically
from gsdd_jax.setup.experiment import REAL
from gsdd_jax.training import experts

ROOT = pathlib.Path(__file__).parent.parent
STEPS = ROOT / "benchmarks" / "results" / "scale" / "steps.json"
DOCUMENT = ROOT / "docs" / "scale.md"
STATES = 4  # arrays of the set's size: parameters, gradient, Adam's two moments


def _of(value: float, shown: str, unit: float, reached: str = "assumed") -> Any:
    """Returns a field of `Machine` with its line of the table."""
    return dataclasses.field(default=value, metadata=dict(shown=shown, unit=unit, reached=reached))


@dataclasses.dataclass(frozen=True)
class Machine:
    """An H200 in a cluster. Rates are per second and per device; FLOPs are those of TF32."""

    memory: float = _of(141e9, "memory, GB", 1e9, "memory_reached")
    bandwidth: float = _of(4.8e12, "memory bandwidth, TB/s", 1e12, "bandwidth_reached")
    flops: float = _of(495e12, "dense TF32, TFLOP/s", 1e12, "flops_reached")
    inside: float = _of(450e9, "NVLink within a node, each way, GB/s", 1e9, "links_reached")
    across: float = _of(50e9, "network between nodes, each way, GB/s", 1e9, "links_reached")
    launch: float = _of(2e-6, "shortest operation, µs", 1e-6)
    latency_inside: float = _of(10e-6, "shortest collective within a node, µs", 1e-6)
    latency_across: float = _of(30e-6, "shortest collective between nodes, µs", 1e-6)
    node: int = 8  # devices
    memory_reached: float = 0.75  # JAX's default share
    bandwidth_reached: float = 0.7
    flops_reached: float = 0.3
    links_reached: float = 0.7


class Seconds(NamedTuple):
    """Seconds of a step by each of its limits."""

    flops: float
    bandwidth: float
    launches: float
    network: float

    @property
    def total(self) -> float:
        """Returns the longest of the overlapping limits plus the network's."""
        return max(self[:3]) + self.network

    @property
    def limit(self) -> str:
        return max(self._fields, key=lambda name: getattr(self, name))


def step_seconds(row: dict[str, Any], machine: Machine) -> Seconds:
    """Returns the seconds of a row's step; collectives run one after the other."""
    within = row["devices"] <= machine.node
    rate = (machine.inside if within else machine.across) * machine.links_reached
    latency = machine.latency_inside if within else machine.latency_across
    return Seconds(
        row["flops"] / (machine.flops * machine.flops_reached),
        row["bytes"] / (machine.bandwidth * machine.bandwidth_reached),
        row["operations"] * machine.launch,
        row["sent"] / rate + sum(row["calls"].values()) * latency,
    )


class Sizes(NamedTuple):
    """Numbers of classes and of distilled images, and bytes."""

    classes: int
    images: int
    parameters: int  # of the set, in float32
    data: int  # real images, as stored
    drawn: int  # real images of a step
    network: int
    store: int  # of the experts


@functools.cache
def sizes(name: str) -> Sizes:
    """Returns the sizes of a config's experiment."""
    config = load(name)
    of = programs.parts(config)
    height, width, channels = of.network.image_shape
    image = height * width * channels
    images = of.num_classes * of.parameterization.images_per_class
    parameters = 4 * (6 + channels) * of.parameterization.num_gaussians * images
    network, drawn, store = 4 * experts.num_parameters(of.network), 0, 0
    if follows_experts(config):
        store = config.experts.num_experts * (config.experts.epochs + 1) * network
    else:
        classes = config.matching.options.classes_per_step or of.num_classes
        drawn = classes * config.matching.options.batch_real * image
    data = of.num_images * image
    return Sizes(of.num_classes, images, parameters, data, drawn, network, store)


class Run(NamedTuple):
    """Hours of an experiment's parts, and bytes per device."""

    experts: float
    fit: float
    distill: float
    evaluation: float
    memory: float

    @property
    def hours(self) -> float:
        return sum(self[:4])


def run(name: str, rows: dict[str, dict[str, Any]], machine: Machine) -> Run:
    """Returns the cost of a config's experiment from the rows of its steps, by part."""
    seconds = {part: step_seconds(row, machine).total for part, row in rows.items()}
    config, own, distill = load(name), sizes(name), rows["distill"]
    settings, judged, training, unused = config.experts, config.evaluate, 0.0, 0
    if follows_experts(config):
        in_turn = -(-settings.num_experts // distill["devices"])
        training = in_turn * settings.epochs * seconds["experts"] / settings.at_once
        unused = own.data  # held by the device, but not drawn by TM
    sets = 1 + ("fitted" in judged.beside)
    if config.distill.eval_every:
        sets += (config.distill.num_steps - 1) // config.distill.eval_every
    real = sum(count for name, count in REAL.items() if name in judged.beside.split(","))
    images = sets * own.images + real * config.budget.ipc * own.classes
    return Run(
        training / 3600,
        config.init.num_steps * seconds["fit"] / 3600,
        config.distill.num_steps * seconds["distill"] / 3600,
        (judged.epochs + 1) * images / own.images * seconds["evaluation"] / 3600,
        distill["arguments"] + distill["results"] + distill["temporary"] + unused,
    )


def follows_experts(config: ConfigDict) -> bool:
    """Returns whether the objective of a config follows experts."""
    return matching.find(config.matching.name).follows_experts


def tables(rows: list[dict[str, Any]], machine: Machine) -> dict[str, str]:
    """Returns the tables of docs/scale.md, by name."""
    found = {"machine": [("one device", "taken", "reached")], "sizes": [SIZES], "steps": [STEP],
             "runs": [RUNS]}  # fmt: skip
    for field in dataclasses.fields(machine):
        if about := field.metadata:
            share = getattr(machine, about["reached"], None)
            reached = f"{share:.0%}" if share else about["reached"]
            value = getattr(machine, field.name) / about["unit"]
            found["machine"].append((about["shown"], f"{value:g}", reached))
    for name in CONFIGS:
        own, steps = sizes(name), load(name).distill.num_steps
        shown = own.parameters, STATES * own.parameters, *own[3:]
        found["sizes"].append((name, f"{own.images:,}", *(_bytes(size) for size in shown)))
        for devices in DEVICES:
            mine = {r["part"]: r for r in rows if (r["config"], r["devices"]) == (name, devices)}
            row, taken = mine["distill"], run(name, mine, machine)
            seconds = step_seconds(row, machine)
            found["steps"].append(
                (name, str(devices), _figure(row["flops"] / 1e12), _figure(row["bytes"] / 1e9),
                 f"{row['operations']:,.0f}", f"{sum(row['calls'].values()):,.0f}",
                 _figure(row["sent"] / 1e9), _figure(seconds.total), seconds.limit)
            )  # fmt: skip
            too_much = taken.memory > machine.memory * machine.memory_reached
            found["runs"].append(
                (name, str(devices), f"{steps:,}",
                 *(_figure(hours) for hours in (*taken[:4], taken.hours, taken.hours * devices)),
                 f"{taken.memory / 1e9:,.0f}" + " (too much)" * too_much)
            )  # fmt: skip
    return {name: _markdown(lines) for name, lines in found.items()}


SIZES = ("config", "images", "set, float32", "with gradient and Adam", "real images",
         "drawn per step", "network", "experts' store")  # fmt: skip
STEP = ("config", "GPUs", "TFLOP", "GB", "operations", "collectives", "GB sent", "seconds", "limit")
RUNS = ("config", "GPUs", "steps", "experts, h", "fit, h", "distill, h", "evaluate, h", "total, h",
        "GPU hours", "GB per GPU")  # fmt: skip


def _figure(value: float) -> str:
    """Formats two digits, or all before the point; nothing for zero."""
    if not value:
        return ""
    return f"{value:,.{max(0, 1 - math.floor(math.log10(value)))}f}"


def _bytes(size: float) -> str:
    unit, name = next(
        (u, n) for u, n in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1, "B"), (0, "")) if size >= u
    )
    return f"{_figure(size / unit)} {name}" if size else ""


def _markdown(lines: Iterable[tuple[str, ...]]) -> str:
    head, *rows = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *rows))


def renewed(document: str, found: dict[str, str]) -> str:
    """Replaces each table between its marks in a document, `<!-- NAME -->` to `<!-- end -->`."""

    def table(mark):
        return f"{mark[1]}\n\n{found[mark[2]]}\n\n{mark[3]}"

    return re.sub(r"(<!-- (\w+) -->)\n.*?\n(<!-- end -->)", table, document, flags=re.DOTALL)


def main() -> None:
    """Renews the document's tables."""
    found = tables(json.loads(STEPS.read_text()), Machine())
    write_atomically(DOCUMENT, renewed(DOCUMENT.read_text(), found).encode())


if __name__ == "__main__":
    main()
