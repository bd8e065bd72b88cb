"""Accuracy by parameterization at IPC 1, 10 and 50, by trajectory matching (Table 7).

    python -m launch.reproduce --table=cifar --size=paper
    python -m launch.reproduce --table=cifar --size=small

Small: CIFAR-10 at IPC 1, by trajectory and by distribution matching, three seeds of the whole
pipeline. Each method's rate is the best of four on training images.
"""

from configs import load
from configs.tables import small
from configs.tables.methods import METHODS, PUBLISHED, stored_as, trials
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
        for arm, row in (
            ("random_real", "random real"),
            ("random_real_uint8", "random real, 8 bits"),
        ):
            yield Cell(row, column, real, arm=arm, seeds=small.SEEDS)
        for row, method in METHODS.items():
            yield Cell(
                row,
                column,
                small.stored(objective, method),
                trials=trials(method, objective),
                seeds=small.SEEDS,
            )


def _paper():
    for place, column in enumerate(COLUMNS):
        name, ipc = column.split("_")
        base = load(f"{name}_tm:ipc={ipc.removeprefix('ipc')}")
        yield Cell("random real", column, base, arm="random_real")
        for row, method in METHODS.items():
            known = {"vanilla": "TM"}.get(method.published, method.published)
            published = PUBLISHED["cifar"]["rows"].get(known, [None] * len(COLUMNS))[place]
            searched = ({},) if row == "Gaussians" else trials(method, "tm", "paper")
            yield Cell(row, column, stored_as(base, method), trials=searched, published=published)
