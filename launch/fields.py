"""Checks and describes the fields of a config."""

from __future__ import annotations

import ast
import difflib
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import common
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.options import dotted

# Fields shown by --help; --helpfull shows all.
MOST_USED = (
    "seed",
    "scale",
    "data.name",
    "data.resolution",
    "budget.ipc",
    "budget.gpc",
    "parameterization.name",
    "network.name",
    "network.options.width",
    "init.num_steps",
    "matching.name",
    "experts.num_experts",
    "distill.num_steps",
    "distill.learning_rate",
    "distill.eval_every",
    "evaluate.num_networks",
    "evaluate.epochs",
)
# Groups whose fields are checked by the component that takes them.
OPEN = ("parameterization.options", "network.options", "matching.options")
# Fields that reduce the memory of each objective.
SMALLER = {
    "dm": ("matching.options.batch_real", "matching.options.class_by_class=True"),
    "dc": ("matching.options.batch_real", "matching.options.classes_per_step"),
    "tm": ("matching.options.batch_syn", "matching.options.keep_every=0", "experts.at_once"),
}
SMALLER_OF_ALL = (
    *("data.on_device=streamed", "budget.gpc", "network.options.width"),
    *("evaluate.num_networks", "evaluate.batch_size"),
)


def smaller(config: ConfigDict) -> str:
    """Fields of `config` that make it take less memory."""
    fields = (*SMALLER.get(config.matching.name, ()), *SMALLER_OF_ALL)
    return ", ".join(f"--config.{field}" for field in fields)


def check(config: ConfigDict) -> None:
    """Raises UsageError for a field that is unknown, missing or of another type."""
    default = common.get_config()
    known, given = _closed(default), _closed(config)
    for name, value in given.items():
        if name not in known:
            nearest = _nearest(name, dotted(default.to_dict()))
            raise UsageError(f"config.{name}: no such field{nearest}")
        if not _alike(value, known[name]):
            raise UsageError(
                f"config.{name}: expected {_kind(known[name])} such as {known[name]!r}, "
                f"got {value!r}"
            )
    for name in known:
        if name not in given:
            raise UsageError(f"config.{name}: missing; start from configs.common.get_config()")


def _closed(config: ConfigDict) -> dict[str, Any]:
    """Fields by dotted name; an open group is one empty field."""
    fields = {}
    for name, value in dotted(config.to_dict()).items():
        group = next((g for g in OPEN if name.startswith(f"{g}.")), None)
        fields[group or name] = {} if group else value
    return fields


def describe(config: ConfigDict, only: Collection[str] = ()) -> str:
    """Describes each field, or each of `only`: name, value in `config` and comment."""
    values = dotted(config.to_dict())
    comments = _meanings(values)
    if only:
        values = {name: values[name] for name in only if name in values}
    text = {name: "" if _is_group(value) else str(value) for name, value in values.items()}
    names, width = max(map(len, text)), max(map(len, text.values()))
    lines, group = [], ""
    for name, value in text.items():
        before, group = group, name.rpartition(".")[0]
        if not only and group != before and group in comments:
            lines.append(f"  {group}: {comments.pop(group)}")
        indent = " " * (6 + names + min(width, 14))
        line = f"  {name:{names}}  {value:{min(width, 14)}}  {comments.get(name, '')}".rstrip()
        lines += textwrap.wrap(line, 100, subsequent_indent=indent, drop_whitespace=True)
    return "\n".join(lines)


def defaults(config: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Default and comment of each field, by dotted name.

    The options are those of the network and the objective that `config` names.
    """
    default = common.get_config()
    for group, own in common.OPTIONS.items():
        options = own.get(str(config.get(f"{group}.name")), ConfigDict)
        default[group].options = options()
    meanings = _meanings(config)
    values = dotted(default.to_dict())
    return {name: (value, meanings.get(name, "")) for name, value in values.items()}


def _meanings(config: Mapping[str, Any]) -> dict[str, str]:
    """Comments of all fields, including options of the network and objective of `config`."""
    comments = _comments(common.get_config, "config.")
    for group, own in common.OPTIONS.items():
        if function := own.get(str(config.get(f"{group}.name"))):
            options = _comments(function, "options.")
            comments |= {f"{group}.options.{name}": text for name, text in options.items()}
    return comments


def _is_group(value: Any) -> bool:
    return isinstance(value, dict)


def _alike(value: Any, default: Any) -> bool:
    if _is_group(default):
        return _is_group(value)
    kinds = (int, float) if type(default) is float else (type(default),)
    return type(value) in kinds


def _kind(default: Any) -> str:
    names = {bool: "True or False", int: "an integer", float: "a number", str: "a text"}
    return names.get(type(default), "a group of fields")


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    last = name.rpartition(".")[2]
    close = [field for field in known if field.rpartition(".")[2] == last]
    close += difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    shown = ", ".join(f"config.{field}" for field in dict.fromkeys(close))
    return f"; the nearest are {shown}" if shown else "; --help lists them"


def _comments(function: Callable, prefix: str) -> dict[str, str]:
    """Comments behind assignments to names with `prefix`, by the rest of the name."""
    source = textwrap.dedent(inspect.getsource(function))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    at = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    comments = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign):
            target = ast.unparse(node.targets[-1])
            lines = range(node.lineno, node.end_lineno + 1)
            comment = " ".join(at[line] for line in lines if line in at)
            if target.startswith(prefix) and comment:
                comments[target.removeprefix(prefix)] = comment
    return comments
