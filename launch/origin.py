"""Finds the command that made a distilled set."""

import importlib
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax.config import adapt
from gsdd_jax.config.fields import COMPONENTS, NAMES, known
from gsdd_jax.config.validate import OPTIONS
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import check, meaning
from gsdd_jax.core.trees import flat
from gsdd_jax.storage.workdir import OPERATIONAL
from launch import experiments

REQUIRED = {*NAMES, "seed", "data.name", "budget.ipc", "init.num_steps", "distill.num_steps"}
LEFT_OUT = {*OPERATIONAL, "scale"}  # a scaled config's other fields are recorded as scaled


def command(fields: Mapping[str, Any]) -> list[str]:
    """Returns the arguments of `distill` for a recorded config: the shipped experiment that differs
    in the fewest fields, and these fields. Those that this version lacks are left out.

    A config that is no run's has no command: one without `REQUIRED` fields, with unknown components
    or a value of a wrong type."""
    if not fields.keys() >= REQUIRED:
        return []
    names = {group: str(fields[f"{group}.name"]) for group in COMPONENTS}
    of_version = known(names)
    given = {n: v for n, v in fields.items() if n in of_version and n not in LEFT_OUT}
    try:
        for group, package in COMPONENTS.items():
            package.find(names[group])
        for name in given.keys() - set(OPTIONS):
            check(of_version[name], given[name], name, automatic=True)
    except UsageError:
        return []
    found = ((name, config, _flags(config, given)) for name, config in _shipped())
    name, _, flags = min(found, key=lambda one: (_distance(*one[1:]), len(one[2])))
    arguments = [f"--config={name}", *(f"--config.{n}={v}" for n, v in flags.items())]
    return list(map(shlex.quote, arguments))


def _shipped() -> Iterator[tuple[str, ConfigDict]]:
    for name in experiments.titles(experiments.SHIPPED):
        get_config = importlib.import_module(f"configs.{name}").get_config
        yield name, get_config()
        for variant in experiments.variants(experiments.SHIPPED, name):
            yield f"{name}:{variant}", get_config(variant)


def _distance(config: ConfigDict, flags: Mapping[str, Any]) -> int:
    """Returns how many fields differ, except those that a config leaves to the data set."""
    there, of_version = flat(config), known()
    opened = {n for n, of in of_version.items() if meaning(of).automatic and there.get(n) == 0}
    return len(flags.keys() - opened)


def _flags(config: ConfigDict, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields that make the config of a shipped one."""
    named = {n: given[n] for n in NAMES if isinstance(given.get(n), str)}
    there = flat(config)
    named = {n: v for n, v in named.items() if v != there[n]}
    if named:  # other components bring their own defaults
        other = config.copy_and_resolve_references()
        other.update_from_flattened_dict(named)
        there = flat(adapt.swapped(other, config, named))
    return named | {
        n: v
        for n, v in given.items()
        if there.get(n) != v and isinstance(v, str | int | float) and n not in named
    }
