"""Accuracy of codes of a few bits, and of their options, at the same bytes.

    python -m launch.reproduce --table=codes --size=paper
    python -m launch.reproduce --table=codes --size=small

Paper: three rows each of CIFAR-10 and CIFAR-100, with the published numbers of bfloat16 Gaussians.
Small: CIFAR-10 at IPC 1, 500 steps, one change at a time from bfloat16, three seeds. Its first and
last rows are repeated with experts of 20 epochs instead of seven, and with those experts for 1,500
steps (one seed).
"""

from configs import common, load
from configs.tables import small
from configs.tables.methods import PUBLISHED
from gsdd_jax.tables.table import Cell, Table

TM = "matching.options"
VARIANTS = {
    "codes": {},
    "codes, early epochs first": {f"{TM}.grow_start_from": 2, f"{TM}.grow_start_over": 250},
    "codes, average of the parameters": {"distill.average": 0.98},
    "codes, soft labels": {"labels.learned": True},
    "codes, soft labels, average": {"labels.learned": True, "distill.average": 0.98},
}
IMAGES = 112  # per class, as codes
STRONG = {"experts.epochs": 20, f"{TM}.max_start_epoch": 15}
LONGER = {"distill.num_steps": 1500}


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    if size == "small":
        return Table("codes-small", "Codes instead of bfloat16, small", tuple(_small()))
    return Table("codes-paper", "Codes instead of bfloat16", tuple(_paper()), needs_gpu=True)


def experiment(gpc: int, coded: bool = True):
    """Returns a config of the small table with `gpc` images per class, in codes or bfloat16."""
    config = small.get_config("tm")
    config.distill.num_steps = 500
    config.budget.images_per_class = gpc
    if coded:
        common.quantized(config, gpc)
    small.evaluate_as_long(config, 10 * gpc)
    return config


def _small():
    plain, coded = experiment(30, coded=False), experiment(IMAGES)
    usual, strong, best = "CIFAR-10, TM, IPC 1", "with stronger experts", "codes, soft labels"
    yield Cell("bfloat16", usual, plain, seeds=small.SEEDS)
    for row, changes in VARIANTS.items():
        yield Cell(row, usual, coded, trials=(changes,), seeds=small.SEEDS)
    for column, changes, rows, seeds in (
        (strong, STRONG, ("codes", best), small.SEEDS),
        (f"{strong}, 1,500 steps", STRONG | LONGER, (best,), small.SEEDS[:1]),
    ):
        yield Cell("bfloat16", column, plain, trials=(changes,), seeds=seeds)
        for row in rows:
            yield Cell(row, column, coded, trials=(changes | VARIANTS[row],), seeds=seeds)


def _paper():
    columns = PUBLISHED["cifar"]["columns"]
    for column, published in zip(columns, PUBLISHED["cifar"]["rows"]["GSDD"], strict=True):
        name, ipc = column.split("_")
        for row, codes, number in (("bfloat16", "", published), ("codes", ",codes", None)):
            config = load(f"{name}_tm:ipc={ipc.removeprefix('ipc')}{codes}")
            yield Cell(row, column, config, published=number)
