"""Conversion between nested configs and dotted names."""

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def flat(config: ConfigDict) -> dict[str, Any]:
    """Returns {dotted field: plain value}."""
    return dotted(json.loads(config.to_json()))


def dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens a nested dict to dotted names; an empty dict inside is kept as a value."""
    out = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            out.update(dotted(value, f"{prefix}{name}."))
        else:
            out[f"{prefix}{name}"] = value
    return out


def unflat(fields: Mapping[str, Any]) -> ConfigDict:
    """Inverts `flat`."""
    config = ConfigDict()
    for name, value in fields.items():
        node, last = parent(config, name)
        node[last] = ConfigDict() if isinstance(value, dict) and not value else value
    return config


def parent(config: ConfigDict, name: str) -> tuple[ConfigDict, str]:
    """Returns the group of a dotted name, created if missing, and the last part of the name."""
    *groups, last = name.split(".")
    for group in groups:
        if group not in config:
            config[group] = ConfigDict()
        config = config[group]
    return config, last
