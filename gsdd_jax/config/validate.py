"""Checks configs before anything is built or any data is opened."""

import difflib
import reprlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax.config.fields import COMPONENTS, default, known
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import check, check_options
from gsdd_jax.core.trees import dotted

OPTIONS = tuple(f"{group}.options" for group in COMPONENTS)


def structure(config: ConfigDict) -> None:
    """Raises UsageError for an unknown or missing field, or one out of its range."""
    defaults = default()
    expected, given = _closed(defaults), _closed(config)
    for name, value in given.items():
        if name not in expected:
            nearest = _nearest(name, dotted(defaults.to_dict()))
            raise UsageError(f"config.{reprlib.repr(name)[1:-1]}: no such field{nearest}")
        if name in OPTIONS and value != {}:
            raise UsageError(
                f"config.{name}: expected a group of fields, got {reprlib.repr(value)}"
            )
    for name in expected:
        if name not in given:
            raise UsageError(f"config.{name}: missing; start from gsdd_jax.config.default()")
    ranges(config, *{name.partition(".")[0] for name in given}, automatic=True)


def every(config: ConfigDict, automatic: bool = False) -> None:
    """Raises UsageError, naming it, for the first field out of its range.

    `automatic` permits 0 for fields that the data set determines.
    """
    groups = {name.partition(".")[0] for name in dotted(config.to_dict())}
    ranges(config, *groups, automatic=automatic)
    options(config)


def ranges(config: ConfigDict, *groups: str, automatic: bool = False) -> None:
    """Raises UsageError, naming it, for the first field of some groups out of its range.

    Commands check the groups that they use ("distill", or a top-level field such as "seed").
    `options` checks options. `automatic` permits 0 for fields that the data set determines.
    """
    fields = known()
    for name, value in dotted(config.to_dict()).items():
        if name.partition(".")[0] not in groups or name not in fields or name in OPTIONS:
            continue
        check(fields[name], value, f"config.{name}", automatic)


def value(name: str, given: Any, where: str = "") -> None:
    """Raises UsageError, naming it or `where`, for a field's value of a wrong type or range.

    Options and unknown fields are not checked.
    """
    if (of := known().get(name)) is not None and name not in OPTIONS:
        check(of, given, where or f"config.{name}")


def options(config: ConfigDict) -> None:
    """Raises UsageError, naming it, for an unknown option or one out of its range."""
    for group, package in COMPONENTS.items():
        part = config[group]
        check_options(package.find(part.name), dict(part.options), f"config.{group}.options")


def _closed(config: ConfigDict) -> dict[str, Any]:
    """Returns fields by dotted name, with a component's options as one empty field."""
    fields = {}
    for name, given in dotted(config.to_dict()).items():
        group = next((g for g in OPTIONS if name.startswith(f"{g}.")), None)
        fields[group or name] = {} if group else given
    return fields


def _nearest(name: str, fields: Mapping[str, Any]) -> str:
    last = name.rpartition(".")[2]
    close = [field for field in fields if field.rpartition(".")[2] == last]
    close += difflib.get_close_matches(name[:100], fields, n=3, cutoff=0.5)
    shown = ", ".join(f"config.{field}" for field in dict.fromkeys(close))
    return f"; the nearest are {shown}" if shown else "; --help lists them"
