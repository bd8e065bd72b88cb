"""Accuracy of distilled sets and of real images, compressed or not, in the same bytes.

    python -m launch.reproduce --table=bytes --size=small

Small: CIFAR-10 at the bytes of one float32 image per class, three seeds. Networks of width 16 train
for 1,600 steps on every set, at the best of three learning rates on training images. The paper has
no such table: `--size=paper` is the same with its networks of width 128 and its lengths.
"""

from configs import common, load
from configs.tables import small
from configs.tables.methods import METHODS, stored_as
from gsdd_jax.setup import cost
from gsdd_jax.setup.components import build_parameterization
from gsdd_jax.tables.table import Cell, Table

STEPS = 1600
RATES = "0.03,0.1"  # and the set's own
REAL = {
    "random real, float32": "random_real",
    "random real, 8 bits": "random_real_uint8",
    "random real, compressed": "random_real_dct",
    "random real, compressed, soft labels": "random_real_dct_soft",
}
SOFT = {"labels.source": "teacher"}
CODES = 112  # images per class of Gaussians as codes
OBJECTIVES = ("dm", "tm")
KINDS = ("IDC, bfloat16", "FreD, bfloat16", "DDiF, bfloat16", "Gaussians")


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    cells = tuple(_cells(size))
    return Table(f"bytes-{size}", "CIFAR-10 in 12,288 bytes per class", cells,
                 needs_gpu=size == "paper")  # fmt: skip


def _cells(size):
    real = _as_long(_config("dm", size), size)
    for row, arm in REAL.items():
        yield Cell(row, "not distilled", real, arm=arm, seeds=small.SEEDS)
    for objective in OBJECTIVES:
        for row, config in _distilled(objective, size).items():
            rates = tuple(
                {"distill.learning_rate": rate * config.distill.learning_rate}
                for rate in (0.3, 1.0, 3.0)
            )
            if objective == "dm" and not row.startswith(("IDC", "FreD", "DDiF")):
                fitted = config.copy_and_resolve_references()
                fitted.distill.num_steps = 0
                yield Cell(row, "not distilled", fitted, seeds=small.SEEDS)
            yield Cell(row, objective.upper(), config, trials=rates, seeds=small.SEEDS)


def _distilled(objective, size):
    """Returns the configs of one objective by row."""
    made = {}
    for row in KINDS:
        if size == "small":
            made[row] = small.stored(objective, METHODS[row])
        else:
            made[row] = stored_as(_config(objective, size), METHODS[row])
    made["Gaussians, soft labels"] = _with(made["Gaussians"], SOFT)
    made["codes"] = common.quantized(_config(objective, size), CODES)
    made["codes, soft labels"] = _with(made["codes"], SOFT)
    compressed = common.stored_as(_config(objective, size), "dct")
    compressed.budget.images_per_class = CODES
    made["compressed"] = compressed
    made["compressed, soft labels"] = _with(compressed, SOFT)
    if objective == "tm":
        learned = SOFT | {"labels.learned": True}
        made["codes, learned soft labels"] = _with(made["codes"], learned)
        made["compressed, learned soft labels"] = _with(compressed, learned)
    return {row: _as_long(config, size) for row, config in made.items()}


def _config(objective, size):
    if size == "small":
        return small.get_config(objective)
    return load("cifar10_tm:ipc=1" if objective == "tm" else "cifar10_dm")


def _with(config, changes):
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    return config


def _as_long(config, size):
    """Returns the config with evaluations of `STEPS` steps, or of the paper's length."""
    config = config.copy_and_resolve_references()
    config.evaluate.rates = RATES
    if size == "small":
        side, classes, *_ = cost.sizes(config)
        kind = build_parameterization(config, (side, side, 3), classes)
        batches = -(-classes * kind.images_per_class // config.evaluate.batch_size)
        config.evaluate.epochs = STEPS // batches
    return config
