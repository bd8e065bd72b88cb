"""Accuracy of distilled sets and of real images, compressed or not, in the same bytes.

    python -m launch.reproduce --table=bytes --size=small

Small: CIFAR-10 at the bytes of one float32 image per class, three seeds. Networks of width 16 train
for 1,600 steps on every set, at the best of three learning rates on training images. The paper has
no such table: `--size=paper` is the same with its networks of width 128 and its lengths.
"""

from configs import common, load
from configs.tables import small
from configs.tables.methods import CODED_METHODS, METHODS, REAL, num_images, published, trials
from gsdd_jax.data.soft_labels import MIXED, OF_LABELER
from gsdd_jax.tables.table import Cell, Table

STEPS = 1600
RATES = "0.03,0.1"  # and the set's own
SOFT = {"labels.source": "teacher"}
OF_MIXTURES = SOFT | {f"labels.{name}": value for name, value in MIXED.items()}
TO_LABEL = {"labels.source": "labeler"}
TO_LABEL |= {f"labels.{name}": value for name, value in OF_LABELER.items()}
RATE_OF_LABELER = 0.2  # largest rate of networks that learn from a labeler
CODES = 112  # images per class of Gaussians as codes
CODES_MIXED = 103  # images per class in what labels of mixtures leave
BESIDE_LABELER = {"codes": CODES, "compressed": 128}  # images per class
QUANTIZED = 20  # images per class of pixels of two bits
PIXEL_RATES = {"dm": 1.0, "tm": 30.0}  # the best of pixels in small tables
OBJECTIVES = ("dm", "tm")
# By back-propagation through training: rate of the images by row.
THROUGH_TRAINING = {"compressed, labeler": 2e-2, "codes, labeler": 2e-3}
BY_CHARACTERISTIC_FUNCTIONS = (
    "Gaussians", "codes", "codes, soft labels", "codes, labels of mixtures", "codes, labeler",
    "compressed", "compressed, soft labels", "compressed, labels of mixtures",
    "compressed, labeler",
)  # fmt: skip
NOT_DISTILLED = {"dm": "not distilled", "tm": "not distilled, whitened"}  # as the objective's sets
HALVES = ("IDC, bfloat16", "FreD, bfloat16", "DDiF, bfloat16", "Gaussians")
KINDS = {row: METHODS[row] for row in HALVES} | CODED_METHODS
RIVALS = {row for row in KINDS if row.startswith(("IDC", "FreD", "DDiF"))}  # at all of their rates


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    cells = tuple(_cells(size))
    return Table(f"bytes-{size}", "CIFAR-10 in 12,288 bytes per class", cells,
                 needs_gpu=size == "paper")  # fmt: skip


def _cells(size):
    for objective, column in NOT_DISTILLED.items():
        real = _as_long(_config(objective, size), size)
        for row, arm in REAL.items():
            yield Cell(row, column, real, arm=arm, seeds=small.SEEDS)
    for objective in OBJECTIVES:
        for row, config in _distilled(objective, size).items():
            if row in RIVALS:
                rates = trials(KINDS[row], objective, size)
            else:
                rates = tuple(
                    {"distill.learning_rate": factor * config.distill.learning_rate}
                    for factor in (0.3, 1.0, 3.0)
                )
            if objective == "dm" and row not in RIVALS:
                fitted = config.copy_and_resolve_references()
                fitted.distill.num_steps = 0
                yield Cell(row, NOT_DISTILLED["dm"], fitted, seeds=small.SEEDS)
            yield Cell(row, objective.upper(), config, trials=rates, seeds=small.SEEDS)
    if size == "small":
        by_dm = _distilled("dm", size)
        for row, rate in THROUGH_TRAINING.items():
            config = small.through_training(by_dm[row], rate)
            yield Cell(row, "BPTT", config, seeds=small.SEEDS)
        for row in BY_CHARACTERISTIC_FUNCTIONS:
            config = small.by_characteristic_functions(by_dm[row])
            yield Cell(row, "NCFM", config, seeds=small.SEEDS)


def _distilled(objective, size):
    """Returns the configs of one objective by row."""
    made = {}
    for row, method in KINDS.items():
        if size == "small":
            made[row] = small.stored(objective, method)
        else:
            made[row] = published(_config(objective, size), method)
        if method.name == "pixels":
            _set_rate(made[row], objective, size)
    made["Gaussians, soft labels"] = _with(made["Gaussians"], SOFT)
    made["codes"] = common.quantized(_config(objective, size), CODES)
    made["codes, soft labels"] = _with(made["codes"], SOFT)
    made["compressed"] = common.stored_as(_config(objective, size), "dct")
    made["compressed"].budget.images_per_class = CODES
    made["compressed, soft labels"] = _with(made["compressed"], SOFT)
    for row in ("codes", "compressed"):
        mixed = OF_MIXTURES | {"budget.images_per_class": CODES_MIXED}
        made[f"{row}, labels of mixtures"] = _with(made[row], mixed)
        labeled = TO_LABEL | {"budget.images_per_class": BESIDE_LABELER[row]}
        made[f"{row}, labeler"] = _with(made[row], labeled)
    made["quantized pixels"] = _quantized(objective, size)
    made["quantized pixels, soft labels"] = _with(made["quantized pixels"], SOFT)
    if objective == "tm":
        learned = SOFT | {"labels.learned": True}
        made["codes, learned soft labels"] = _with(made["codes"], learned)
        made["compressed, learned soft labels"] = _with(made["compressed"], learned)
    return {row: _as_long(config, size) for row, config in made.items()}


def _quantized(objective, size):
    config = common.stored_as(_config(objective, size), "ptq")
    config.budget.images_per_class = QUANTIZED
    _set_rate(config, objective, size)
    if objective == "tm":
        options = config.matching.options
        options.batch_syn = min(options.batch_syn, 10 * QUANTIZED)
    return config


def _set_rate(config, objective, size):
    """Sets the rate of pixels; by TM on whitened images it is the published one."""
    if size == "small" or objective == "dm":
        config.distill.learning_rate = PIXEL_RATES[objective]


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
    taught = config.labels.source == "labeler"
    config.evaluate.rates = f"{RATES},{RATE_OF_LABELER}" if taught else RATES
    if size == "small":
        small.evaluate_as_long(config, num_images(config), STEPS)
    return config
