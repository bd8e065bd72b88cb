"""Accuracy by bytes: random real images, by their labels, and Gaussians as codes.

    python -m launch.reproduce --table=budgets --size=small

Small: CIFAR-10 at a tenth to ten times the bytes of one float32 image per class, by distribution
matching and, with a labeler, by characteristic functions. Networks of width 16 train for 1,600
steps on every set, at the best of four learning rates on training images; a labeler of more bytes
is wider. The paper has no such table: `--size=paper` is the same with its networks of width 128 and
its lengths, without characteristic functions.
"""

from configs import common, load
from configs.tables import small
from configs.tables.bytes import CODES, RATE_OF_LABELER, RATES, STEPS, TO_LABEL
from configs.tables.methods import REAL, num_images
from gsdd_jax.rasterizer.gaussians import budget_bytes
from gsdd_jax.setup.components import labels_of
from gsdd_jax.tables.table import Cell, Table

SHAPE, CLASSES = (32, 32, 3), 10
FLOAT32 = budget_bytes(1, SHAPE)  # bytes of one image
# Bytes per class -> channels of a labeler.
WIDTHS = {FLOAT32 // 10: 8, FLOAT32 // 4: 16, FLOAT32: 16, 3 * FLOAT32: 32, 10 * FLOAT32: 32}
ARMS = {row: arm for row, arm in REAL.items() if arm != "random_real_uint8"}
ARMS["random real, compressed, labeler"] = "random_real_dct_labeler"


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    cells = tuple(_cells(size))
    return Table(f"budgets-{size}", "CIFAR-10 by bytes per class", cells, needs_gpu=size == "paper")


def _cells(size):
    for there, width in WIDTHS.items():
        column = f"{there:,} bytes"
        config = small.get_config("dm") if size == "small" else load("cifar10_dm")
        config.budget.bytes, config.labels.width = there, width
        config.evaluate.rates = f"{RATES},{RATE_OF_LABELER}"
        codes = common.quantized(config, CODES * there // FLOAT32)
        if size == "small":
            small.evaluate_as_long(codes, num_images(codes), STEPS)
        for row, arm in ARMS.items():
            if arm != "random_real" or there >= FLOAT32:
                yield Cell(row, column, codes, arm=arm)
        yield Cell("Gaussians in codes by DM", column, codes)
        if size == "small":
            yield Cell("Gaussians in codes and labeler by NCFM", column, _labeled(codes))


def _labeled(codes):
    """Returns the config of as good images and a labeler in the same bytes, by NCFM."""
    config = small.by_characteristic_functions(codes)
    config.update_from_flattened_dict(TO_LABEL)
    images, there = codes.budget.images_per_class, codes.budget.bytes
    beside = labels_of(config).suggested_images(images, there, SHAPE, CLASSES)
    config = common.quantized(config, beside)
    small.evaluate_as_long(config, num_images(config), STEPS)
    return config
