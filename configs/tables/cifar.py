"""Accuracy by parameterization at IPC 1, 10 and 50, by trajectory matching (Table 7).

    python -m launch.reproduce --table=cifar --size=paper
    python -m launch.reproduce --table=cifar --size=small

Small: CIFAR-10 at IPC 1, by trajectory and by distribution matching, three seeds of the whole
pipeline. Each method's rate is the best of four on training images.
"""

from configs import load
from configs.tables import small
from configs.tables.methods import METHODS, PUBLISHED, REAL, SHARING, published, trials
from gsdd_jax.tables.table import Cell, Table

COLUMNS = tuple(PUBLISHED["cifar"]["columns"])


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    if size == "small":
        return Table("cifar-small", "CIFAR-10 at one image per class, small", tuple(_small()))
    return Table("cifar-paper", "CIFAR-10 and CIFAR-100", tuple(_paper()), needs_gpu=True)


def _small():
    for objective in ("tm", "dm"):
        column = f"{objective.upper()}, IPC 1"
        real = small.get_config(objective)
        small.evaluate_as_long(real, 10 * real.budget.images_per_class)
        for row, arm in REAL.items():
            yield Cell(row, column, real, arm=arm, seeds=small.SEEDS)
        for row, method in METHODS.items():
            config, rates = small.stored(objective, method), trials(method, objective)
            yield Cell(row, column, config, trials=rates, seeds=small.SEEDS)


def _paper():
    for place, column in enumerate(COLUMNS):
        name, ipc = column.split("_")
        base = load(f"{name}_tm:ipc={ipc.removeprefix('ipc')}")
        for row, arm in REAL.items():
            yield Cell(row, column, base, arm=arm)
        for row, method in (METHODS | SHARING).items():
            known = {"vanilla": "TM"}.get(method.published, method.published)
            number = PUBLISHED["cifar"]["rows"].get(known, [None] * len(COLUMNS))[place]
            searched = ({},) if row == "Gaussians" else trials(method, "tm", "paper")
            yield Cell(row, column, published(base, method), trials=searched, published=number)
