"""Describes the fields of a config, for --help."""

import textwrap
from collections.abc import Collection

from ml_collections import ConfigDict

from gsdd_jax import matching
from gsdd_jax.config.fields import group_help, helps
from gsdd_jax.core.trees import dotted

# Fields shown by --help; --helpfull shows all.
MOST_USED = (
    *("seed", "scale", "data.name", "data.resolution", "budget.ipc", "budget.bytes"),
    *("budget.images_per_class", "parameterization.name", "network.name", "network.options.width"),
    *("init.num_steps", "matching.name", "experts.num_experts", "distill.num_steps"),
    *("distill.learning_rate", "distill.eval_every", "evaluate.num_networks", "evaluate.epochs"),
)
SMALLER_OF_ALL = (
    *("data.on_device=streamed", "budget.images_per_class", "network.options.width"),
    *("evaluate.num_networks", "evaluate.batch_size"),
)


def smaller(config: ConfigDict) -> str:
    """Returns fields of `config` that make it take less memory."""
    kind = matching.known().get(config.matching.name)
    fields = (*(kind.saves_memory if kind else ()), *SMALLER_OF_ALL)
    return ", ".join(f"--config.{field}" for field in fields)


def describe(config: ConfigDict, only: Collection[str] = ()) -> str:
    """Returns a description of each field, or of `only` some: name, value in `config` and help."""
    values = dotted(config.to_dict())
    meanings, groups = helps(values), group_help()
    if only:
        values = {name: values[name] for name in only if name in values}
    text = {name: "" if isinstance(value, dict) else str(value) for name, value in values.items()}
    names, width = max(map(len, text)), max(map(len, text.values()))
    lines, group = [], ""
    for name, value in text.items():
        before, group = group, name.partition(".")[0]
        if not only and group != before and group in groups:
            lines.append(f"  {group}: {groups[group]}")
        indent = " " * (6 + names + min(width, 14))
        line = f"  {name:{names}}  {value:{min(width, 14)}}  {meanings.get(name, '')}".rstrip()
        lines += textwrap.wrap(line, 100, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines)
