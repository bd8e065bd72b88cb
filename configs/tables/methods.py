"""Parameterizations that the tables compare, with the learning rates tried for each."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from ml_collections import ConfigDict

from configs import common
from gsdd_jax import matching
from gsdd_jax.config import bytes_per_class
from gsdd_jax.setup import cost
from gsdd_jax.setup.components import build_parameterization

PUBLISHED = json.loads((pathlib.Path(__file__).parent / "published.json").read_text())
SUBSETS = ("nette", "woof", "fruit", "yellow", "meow", "squawk")


@dataclasses.dataclass(frozen=True)
class Method:
    """Row of a table.

    Attributes:
      name: of the parameterization.
      options: of it.
      rates: of distillation by objective, which are tried by small tables: four for each method.
      paper_rates: the same for tables of the paper's size, the published rate among them.
      published: what the paper's tables call it, if they have it.
    """

    name: str
    options: dict[str, object]
    rates: dict[str, tuple[float, ...]]
    paper_rates: dict[str, tuple[float, ...]]
    published: str = ""


PIXEL_RATES = {"tm": (3.0, 10.0, 30.0, 100.0), "dm": (0.1, 1.0, 10.0, 100.0)}
IDC_RATES = {"tm": (0.1, 0.3, 1.0, 3.0), "dm": (0.01, 0.1, 1.0, 10.0)}
FRED_RATES = {"tm": (1.0, 3.0, 10.0, 30.0), "dm": (0.01, 0.1, 1.0, 10.0)}
DDIF_RATES = {"tm": (1e-4, 3e-4, 1e-3, 3e-3), "dm": (1e-4, 3e-4, 1e-3, 3e-3)}
GAUSSIAN_RATES = {"tm": (1e-3, 3e-3, 1e-2, 3e-2), "dm": (3e-4, 1e-3, 3e-3, 1e-2)}
# Published: pixels by TM 100 on CIFAR-10, 1000 on CIFAR-100 and at 128 x 128, 1e5 and 1e4 at IPC
# 10; FreD in these units about 980 and 780 by TM, 9.8 and 0.78 by DM, 0.0098 and 0.078 by DC; DDiF
# 1e-4 by TM, 5e-5 by DM.
PIXEL_PAPER = {"tm": (100.0, 1e3, 1e4, 1e5), "dm": (0.1, 1.0, 10.0, 100.0)}
FRED_PAPER = {
    "tm": (30.0, 100.0, 300.0, 1000.0),
    "dm": (0.1, 1.0, 10.0, 100.0),
    "dc": (0.003, 0.01, 0.03, 0.1),
}
DDIF_PAPER = {"tm": (3e-5, 1e-4, 3e-4, 1e-3), "dm": (2e-5, 5e-5, 1e-4, 3e-4)}
HALF = {"dtype": "bfloat16"}
METHODS = {
    "pixels": Method("pixels", {}, PIXEL_RATES, PIXEL_PAPER, "vanilla"),
    "pixels, bfloat16": Method("pixels", HALF, PIXEL_RATES, PIXEL_PAPER),
    "IDC": Method("idc", {}, IDC_RATES, IDC_RATES, "IDC"),
    "IDC, bfloat16": Method("idc", HALF, IDC_RATES, IDC_RATES),
    "FreD": Method("fred", {}, FRED_RATES, FRED_PAPER, "FreD"),
    "FreD, bfloat16": Method("fred", HALF, FRED_RATES, FRED_PAPER),
    "DDiF": Method("ddif", {}, DDIF_RATES, DDIF_PAPER, "DDiF"),
    "DDiF, bfloat16": Method("ddif", HALF, DDIF_RATES, DDIF_PAPER),
    "Gaussians": Method("gaussian", {}, GAUSSIAN_RATES, GAUSSIAN_RATES, "GSDD"),
}


def stored_as(config: ConfigDict, method: Method) -> ConfigDict:
    """Returns a copy of `config` with another parameterization.

    A student step takes all images where there are fewer than the step of the Gaussians takes. FreD
    keeps more coefficients where there are fewer real images than it would have room for.
    """
    config = config.copy_and_resolve_references()
    if method.name != config.parameterization.name:
        common.stored_as(config, method.name)
    config.parameterization.options = ConfigDict(method.options)
    side, classes, examples, _ = cost.sizes(config)
    images = build_parameterization(config, (side, side, 3), classes).images_per_class
    if method.name == "fred" and images > (most := examples // classes):
        per_image = bytes_per_class(config, (side, side, 3)) // (3 * most)
        size = -(-per_image // (2 if method.options == HALF else 4))
        config.parameterization.options.size = size
        images = build_parameterization(config, (side, side, 3), classes).images_per_class
    most, _ = matching.find(config.matching.name).largest_batch(classes, images)
    if config.matching.options.batch_syn > most:
        config.matching.options.batch_syn = 0
    return config


def trials(method: Method, objective: str, size: str = "small") -> tuple[dict[str, float], ...]:
    """Returns the rates that a table of a size tries."""
    known = method.rates if size == "small" else method.paper_rates
    rates = known.get(objective, known["dm"])
    return tuple({"distill.learning_rate": rate} for rate in rates)
