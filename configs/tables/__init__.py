"""Tables of the paper and further ones, one module each with `get_table(size)`.

    python -m launch.reproduce --table=cifar --size=small

Size "paper" is the published experiment with its published numbers. "small" is the same comparison,
shrunk to two CPU cores; it reproduces no row of the paper.
"""

import importlib

NAMES = (
    *("cifar", "imagenet128_tm", "imagenet128_dm", "imagenet128_dc", "cross_architecture"),
    *("cross_resolution", "ablation", "gpc_sweep", "codes", "guidance", "bytes", "continual"),
    "video",
    "budgets",
)


def load(name: str, size: str):
    """Returns a table; `imagenet128_tm` is that of `imagenet` for an objective."""
    module, _, objective = name.partition("128_")
    get_table = importlib.import_module(f"configs.tables.{module}").get_table
    return get_table(*filter(None, [objective]), size)
