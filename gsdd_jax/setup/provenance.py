"""Evaluation settings from a distilled set's provenance, validated."""

import dataclasses
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax import networks
from gsdd_jax.config import validate
from gsdd_jax.config.fields import known
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.trees import unflat
from gsdd_jax.setup import experiment
from gsdd_jax.storage import workdir

# Fields of the set's config that the evaluation reads.
FIELDS = (
    *("seed", "data.name", "data.subset", "data.classes", "data.resolution", "data.resize"),
    "data.frames",
    *("data.transform", "budget.ipc", "budget.bytes", "budget.split"),
    *("network.name", "network.precision", "matching.strategy"),
    *("evaluate.num_networks", "evaluate.optimizer", "evaluate.learning_rate", "evaluate.rates"),
    *("evaluate.epochs", "evaluate.batch_size"),
)
# Values of fields that older sets lack.
SINCE = workdir.ADDED | {"budget.bytes": 0, "evaluate.rates": ""}
OPTIONS = "network.options"
# Fields that an evaluation obeys: of images in memory, of a set from a file.
ON_SET = (
    *("seed", "mesh.devices", "network.name", "network.precision", OPTIONS, "matching.strategy"),
    *("evaluate.num_networks", "evaluate.optimizer", "evaluate.learning_rate", "evaluate.epochs"),
    "evaluate.batch_size",
)
ON_IMAGES = (*ON_SET, "evaluate.rates", "data.classes", "data.transform")
ON_FILE = (*FIELDS, OPTIONS, "mesh.devices", "data.dir")
# The published comparison across architectures (section A.2).
ACROSS = {"evaluate.optimizer": "adam", "evaluate.num_networks": 3}


def recorded(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config that made a set, by dotted name."""
    made_by = provenance.get("config")
    if not isinstance(made_by, dict):
        raise UsageError(
            f"provenance.config: expected the config that made the set, got {reprlib.repr(made_by)}"
        )
    return made_by


def check_acting(overrides: Iterable[str], acting: Iterable[str]) -> None:
    """Raises UsageError, naming it, for the first field that an evaluation does not obey."""
    for field in overrides:
        if not any(field == name or field.startswith(f"{name}.") for name in acting):
            raise UsageError(
                f"config.{field}: no field of this evaluation, which has {', '.join(acting)}"
            )


def resolve(
    provenance: Mapping[str, Any],
    overrides: Mapping[str, Any],
    learning_rate: float | None = None,
) -> ConfigDict:
    """Returns the config of an evaluation: the needed part of the set's config, overridden.

    Another network than the config's gets its own default options. One with a `rate_across` is
    trained as in the published comparison across architectures. Overrides apply last. The
    location of data and other operational settings never come from a file.

    Args and errors are those of `evaluate_file`.
    """
    made_by = SINCE | recorded(provenance)
    values = {field: _value(made_by, field) for field in FIELDS}
    overrides = {field: value for field, value in overrides.items() if value is not None}
    check_acting(overrides, ON_FILE)
    for field, value in overrides.items():
        validate.value(field, value)
        if field == OPTIONS and value != {}:
            raise UsageError(f"config.{field}: expected fields by name, got {reprlib.repr(value)}")
    network = overrides.get("network.name", values["network.name"])
    options = {}
    if network == values["network.name"]:
        options = _below(OPTIONS, made_by)
    elif rate := networks.find(network).rate_across:
        values |= ACROSS | {"evaluate.learning_rate": rate}
    options |= _below(OPTIONS, overrides)
    config = unflat(values | workdir.OPERATIONAL)
    config.network.options = ConfigDict(dataclasses.asdict(networks.architecture(network, options)))
    config.update_from_flattened_dict(overrides)
    if learning_rate is not None:
        validate.value("evaluate.learning_rate", learning_rate, "learning_rate")
        config.evaluate.learning_rate = learning_rate
        if "evaluate.rates" not in overrides:  # the rate is given, not searched for
            config.evaluate.rates = ""
    validate.ranges(config, "seed", "data", "budget", "evaluate")
    experiment.rates(config)
    experiment.check_strategy(config)
    return config


def _below(group: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a group, by the rest of their names."""
    start = f"{group}."
    return {f.removeprefix(start): value for f, value in fields.items() if f.startswith(start)}


def _value(config: Mapping[str, Any], field: str) -> Any:
    name = f"provenance.config[{field!r}]"
    if field not in config:
        raise UsageError(f"{name} is missing")
    validate.value(field, config[field], name)
    return float(config[field]) if known()[field].type == "float" else config[field]
