"""Identity and location of a config's experts."""

import dataclasses
import pathlib
import re
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax import data, networks
from gsdd_jax.core.trees import flat
from gsdd_jax.storage import trajectories
from gsdd_jax.storage.trajectories import ExpertStore, Identity
from gsdd_jax.training import experts as training


def directory(config: ConfigDict) -> pathlib.Path:
    """Returns `config.experts.dir`, or a name composed from data and network.

    Settings outside that name are compared when the store is opened.
    """
    if config.experts.dir:
        return pathlib.Path(config.experts.dir)
    data = config.data
    parts = [data.name, data.subset, data.classes[:40], data.resolution, data.transform]
    parts += [config.network.name, *_network_options(config).values()]
    name = "-".join(str(part) for part in parts if part)
    return pathlib.Path("runs", "experts", re.sub(r"[^\w.-]", "-", name))


def settings(config: ConfigDict) -> dict[str, Any]:
    """Returns all settings that a config's experts depend on, by dotted name."""
    fields = (
        *("data.name", "data.subset", "data.resolution", "data.resize", "data.transform"),
        *("network.name", "network.precision"),
        *("experts.epochs", "experts.batch_size", "experts.learning_rate", "experts.seed"),
        "matching.strategy",
    )
    values = flat(config)
    options = {f"network.options.{name}": v for name, v in _network_options(config).items()}
    added = {field: values[field] for field in ("data.classes", "data.frames") if values[field]}
    return {field: values[field] for field in fields} | added | options


def identity(config: ConfigDict, dataset: data.Dataset, network: networks.Network) -> Identity:
    """Returns all that a config's experts depend on: settings, data and network size."""
    size = training.num_parameters(network)
    return settings(config) | {"data.fingerprint": dataset.fingerprint, "num_parameters": size}


def are_there(config: ConfigDict) -> bool:
    """Returns whether all experts in `directory(config)` are finished; checks nothing else."""
    where = directory(config)
    return all(trajectories.is_finished(where, e) for e in range(config.experts.num_experts))


def _network_options(config: ConfigDict) -> dict[str, Any]:
    """Returns all options of the network in its order, with defaults for missing ones."""
    options = dict(config.network.options)
    return dataclasses.asdict(networks.architecture(config.network.name, options))


def open_store(config: ConfigDict, dataset: data.Dataset, network: networks.Network) -> ExpertStore:
    """Opens the experts of a config.

    Raises UsageError if some are missing, damaged or made with other settings.
    """
    made_of = identity(config, dataset, network)
    return ExpertStore(directory(config), made_of, config.experts.num_experts)
