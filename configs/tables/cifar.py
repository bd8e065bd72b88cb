"""Accuracy by parameterization at IPC 1, 10 and 50, by trajectory matching (Table 7).

    python -m launch.reproduce --table=cifar --size=paper
    python -m launch.reproduce --table=cifar --size=small
    python -m launch.reproduce --table=cifar --row=NSD --column="DM, IPC 1" --seeds=1

Small: CIFAR-10 at IPC 1, by trajectory and by distribution matching, three seeds of the whole
pipeline; pixels and Gaussians by feature regression (FRePo), too. Each method's rate is the best of
four on training images.
"""

from configs import cifar10_frepo, common, load
from configs.tables import small
from configs.tables.methods import (
    HALF,
    METHODS,
    PUBLISHED,
    REAL,
    SHARING,
    num_images,
    published,
    stored_as,
    trials,
)
from gsdd_jax.tables.table import Cell, Table

COLUMNS = tuple(PUBLISHED["cifar"]["columns"])
REGRESSED = ("pixels", "pixels, bfloat16", "Gaussians")


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    if size == "small":
        return Table("cifar-small", "CIFAR-10 at one image per class, small", tuple(_small()))
    return Table("cifar-paper", "CIFAR-10 and CIFAR-100", tuple(_paper()), needs_gpu=True)


def _small():
    for objective in ("tm", "dm", "frepo"):
        column = f"{'FRePo' if objective == 'frepo' else objective.upper()}, IPC 1"
        real = small.get_config(objective)
        small.evaluate_as_long(real, 10 * real.budget.images_per_class)
        for row, arm in REAL.items() if objective != "frepo" else ():
            yield Cell(row, column, real, arm=arm, seeds=small.SEEDS)
        for row, method in (METHODS | SHARING).items():
            if objective == "frepo" and row not in REGRESSED:
                continue
            config, rates = small.stored(objective, method), trials(method, objective)
            yield Cell(row, column, config, trials=rates, seeds=small.SEEDS)


def _paper():
    for place, column in enumerate(COLUMNS):
        name, ipc = column.split("_ipc")
        base = load(f"{name}_tm:ipc={ipc}")
        for row, arm in REAL.items():
            yield Cell(row, column, base, arm=arm)
        known = lambda row, place=place: PUBLISHED["cifar"]["rows"].get(row, [None] * 6)[place]
        for row, method in (METHODS | SHARING).items():
            number = known({"vanilla": "TM"}.get(method.published, method.published))
            searched = ({},) if row == "Gaussians" else trials(method, "tm", "paper")
            yield Cell(row, column, published(base, method), trials=searched, published=number)
        for row in REGRESSED:
            number = known("FRePo") if row == "pixels" else None
            config, rates = _regressed(base, row), trials(METHODS[row], "frepo", "paper")
            yield Cell(f"FRePo, {row}", column, config, trials=rates, published=number)


def _regressed(base, row):
    """Returns a config of the published settings of FRePo for pixels or for Gaussians.

    Pixels have learned labels beyond the bytes of one float32 image, as published. Gaussians have
    hard labels and the images of their own row.
    """
    ipc, method = base.budget.ipc, METHODS[row]
    config = load(f"{base.data.name}_frepo:ipc={ipc}")
    if row == "Gaussians":
        own = common.matched_by(base.copy_and_resolve_references(), "frepo")
        own.matching.options = config.matching.options
        own.distill.update(num_steps=config.distill.num_steps, eval_every=config.distill.eval_every)
        own.evaluate = config.evaluate
        config = own
    elif method.options == HALF:
        label = config.budget.bytes // ipc - 4 * 3 * 32 * 32
        config.budget.images_per_class = 2 * ipc
        config.budget.bytes += ipc * label
        config = stored_as(config, method)
    small.evaluate_as_long(config, num_images(config), cifar10_frepo.STEPS[ipc])
    return config
