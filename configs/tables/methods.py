"""Parameterizations that the tables compare, with the learning rates tried for each."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from ml_collections import ConfigDict

from configs import common
from gsdd_jax import matching
from gsdd_jax.setup import cost
from gsdd_jax.setup.components import build_parameterization

PUBLISHED = json.loads((pathlib.Path(__file__).parent / "published.json").read_text())
SUBSETS = ("nette", "woof", "fruit", "yellow", "meow", "squawk")


@dataclasses.dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
      name: of the parameterization.
      options: of it.
      rates: of distillation by objective, which are tried: four for each method.
      published: what the paper's tables call it, if they have it.
    """

    name: str
    options: dict[str, object]
    rates: dict[str, tuple[float, ...]]
    published: str = ""


PIXEL_RATES = {"tm": (3.0, 10.0, 30.0, 100.0), "dm": (0.1, 1.0, 10.0, 100.0)}
IDC_RATES = {"tm": (0.1, 0.3, 1.0, 3.0), "dm": (0.01, 0.1, 1.0, 10.0)}
FRED_RATES = {"tm": (1.0, 3.0, 10.0, 30.0), "dm": (0.01, 0.1, 1.0, 10.0)}
DDIF_RATES = {"tm": (1e-4, 3e-4, 1e-3, 3e-3), "dm": (1e-4, 3e-4, 1e-3, 3e-3)}
GAUSSIAN_RATES = {"tm": (1e-3, 3e-3, 1e-2, 3e-2), "dm": (3e-4, 1e-3, 3e-3, 1e-2)}
HALF = {"dtype": "bfloat16"}
METHODS = {
    "pixels": Method("pixels", {}, PIXEL_RATES, "vanilla"),
    "pixels, bfloat16": Method("pixels", HALF, PIXEL_RATES),
    "IDC": Method("idc", {}, IDC_RATES, "IDC"),
    "IDC, bfloat16": Method("idc", HALF, IDC_RATES),
    "FreD": Method("fred", {}, FRED_RATES, "FreD"),
    "FreD, bfloat16": Method("fred", HALF, FRED_RATES),
    "DDiF": Method("ddif", {}, DDIF_RATES, "DDiF"),
    "DDiF, bfloat16": Method("ddif", HALF, DDIF_RATES),
    "Gaussians": Method("gaussian", {}, GAUSSIAN_RATES, "GSDD"),
}


def stored_as(config: ConfigDict, method: Method) -> ConfigDict:
    """A copy of `config` whose images are stored in that way.

    A student step takes all images where there are fewer than the step of the Gaussians takes.
    """
    config = config.copy_and_resolve_references()
    if method.name != config.parameterization.name:
        common.stored_as(config, method.name)
    config.parameterization.options = ConfigDict(method.options)
    side, classes, *_ = cost.sizes(config)
    images = build_parameterization(config, (side, side, 3), classes).images_per_class
    most, _ = matching.find(config.matching.name).largest_batch(classes, images)
    if config.matching.options.batch_syn > most:
        config.matching.options.batch_syn = 0
    return config


def trials(method: Method, objective: str) -> tuple[dict[str, float], ...]:
    """The rates that are tried."""
    rates = method.rates.get(objective, method.rates["dm"])
    return tuple({"distill.learning_rate": rate} for rate in rates)
