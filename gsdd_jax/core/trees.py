"""Nested configs as dotted names, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def flat(config: ConfigDict) -> dict[str, Any]:
    """{dotted field: plain value}."""
    return dotted(json.loads(config.to_json()))


def dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict by dotted names; an empty one in it is a value."""
    out = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            out.update(dotted(value, f"{prefix}{name}."))
        else:
            out[prefix + name] = value
    return out


def unflat(fields: Mapping[str, Any]) -> ConfigDict:
    """The inverse of `flat`."""
    config = ConfigDict()
    for name, value in fields.items():
        node, last = parent(config, name)
        node[last] = ConfigDict() if value == {} else value
    return config


def parent(config: ConfigDict, name: str) -> tuple[ConfigDict, str]:
    """The group of a field by its dotted name, made where it is missing, and the last name."""
    *groups, last = name.split(".")
    for group in groups:
        if group not in config:
            config[group] = ConfigDict()
        config = config[group]
    return config, last
