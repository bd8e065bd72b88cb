"""Experts of a config: what they depend on, and where they are kept."""

import dataclasses
import functools
import pathlib
import re
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax import data, networks
from gsdd_jax.networks import Network
from gsdd_jax.storage import trajectories
from gsdd_jax.storage.trajectories import ExpertStore, Identity
from gsdd_jax.training import experts as training


def directory(config: ConfigDict) -> pathlib.Path:
    """Where a config's experts are kept: `config.experts.dir`, or a name made of data and network.

    Settings that are not part of that name are compared when the store is opened.
    """
    if config.experts.dir:
        return pathlib.Path(config.experts.dir)
    parts = [
        *(config.data.name, config.data.subset, config.data.resolution, config.data.transform),
        *(config.network.name, *_network_options(config).values()),
    ]
    name = "-".join(str(part) for part in parts if part)
    return pathlib.Path("runs", "experts", re.sub(r"[^\w.-]", "-", name))


def settings(config: ConfigDict) -> dict[str, Any]:
    """All of a config that its experts depend on, by dotted name."""
    fields = (
        *("data.name", "data.subset", "data.resolution", "data.resize", "data.transform"),
        *("network.name", "network.precision"),
        *("experts.epochs", "experts.batch_size", "experts.learning_rate", "experts.seed"),
        "matching.strategy",
    )
    return {
        **{
            field: functools.reduce(lambda c, n: c[n], field.split("."), config) for field in fields
        },
        **{f"network.options.{name}": v for name, v in _network_options(config).items()},
    }


def identity(config: ConfigDict, dataset: data.Dataset, network: Network) -> Identity:
    """Everything that a config's experts depend on, named as in the config."""
    return {
        **settings(config),
        "data.fingerprint": dataset.fingerprint,
        "num_parameters": training.num_parameters(network),
    }


def are_there(config: ConfigDict) -> bool:
    """Whether `directory(config)` has a file of each expert; they are not opened."""
    where = directory(config)
    return all(
        trajectories.file_of(where, expert).is_file()
        for expert in range(config.experts.num_experts)
    )


def _network_options(config: ConfigDict) -> dict[str, Any]:
    """All that it has, in their order, whether or not the config names them."""
    options = dict(config.network.options)
    return dataclasses.asdict(networks.architecture(config.network.name, options))


def open_store(config: ConfigDict, dataset: data.Dataset, network: Network) -> ExpertStore:
    """The experts of a config.

    Raises:
      UsageError: they are not all there, damaged, or were made with other settings.
    """
    made_of = identity(config, dataset, network)
    return ExpertStore.open(directory(config), made_of, config.experts.num_experts)
