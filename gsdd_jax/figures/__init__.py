"""The paper's figures and two more, one file each, found by name.

Each module has `main(..., out)`, which writes NAME.png, NAME.svg and NAME.csv (the numbers drawn)
to the folder `out`. The same input and seed give the same bytes. matplotlib is only imported to
draw.
"""

import importlib
from types import ModuleType

NAMES = ("overview", "ellipses", "antialias", "escape", "pruning", "convergence", "landscape",
         "difficulty", "decode", "guidance", "continual", "federated", "budgets")  # fmt: skip
PARTS = {"escape": ("escape", "escape_shares", "escape_stress")}  # of those that have several
KINDS = ("png", "svg", "csv")
ALSO = {"ellipses": ("ellipses.gif",)}


def load(name: str) -> ModuleType:
    """Returns the module of one of `NAMES`."""
    return importlib.import_module(f"{__name__}.{name}")


def files(name: str) -> tuple[str, ...]:
    """Returns the names of the files that one of `NAMES` writes."""
    drawn = (f"{part}.{kind}" for part in PARTS.get(name, (name,)) for kind in KINDS)
    return (*drawn, *ALSO.get(name, ()))
