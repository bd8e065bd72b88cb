"""Class-incremental learning with a replay memory, by how its images are stored.

    python -m launch.reproduce --table=continual --size=paper
    python -m launch.reproduce --table=continual --size=small

The protocol is that of the published code of distribution matching (`CL_DM.py`), after GDumb:
classes come in steps, each step stores images of its own classes, and after each step a new network
is trained on the memory alone. Columns are the steps. Seeds are orders of the classes, those of
NumPy's seeds, which also draw everything else.

Paper: CIFAR-100 in 5 and in 10 steps, 20 float32 images per class, five orders, three networks. The
published results are curves; herding takes features of a network that is trained on its own step.
Small: CIFAR-10 and CIFAR-100 in 5 steps, 10 float32 images per class, two orders, two networks of
width 16. The last network of every row on a data set trains for equally many steps of SGD.
"""

from configs import common, load
from configs.tables import small
from configs.tables.methods import num_images
from gsdd_jax import parameterizations
from gsdd_jax.config import bytes_per_class
from gsdd_jax.data.soft_labels import MIXED
from gsdd_jax.runs.continual import ACCURACIES
from gsdd_jax.setup import cost
from gsdd_jax.setup.components import labels_of
from gsdd_jax.tables.table import Cell, Table

SETTINGS = {  # data sets, numbers of steps, orders, networks, steps of SGD of the last network
    "small": (("cifar10", "cifar100"), (5,), (0, 1), 2, 800),
    "paper": (("cifar100",), (5, 10), (0, 1, 2, 3, 4), 3, 8008),
}
TENTH = ", a tenth of the bytes"
# Budget in float32 images per class, images of Gaussians and of codes, by size and ending of a row.
BUDGETS = {
    "small": {"": (10, 160, 448), TENTH: (1, 30, 112)},
    "paper": {"": (20, 160, 500), TENTH: (2, 62, 224)},
}
PIXEL_RATE = 1.0
RATES = "0.03,0.1"  # of networks; and 0.01, the published one
SHAPE = (32, 32, 3)


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    names, lengths, orders, _, _ = SETTINGS[size]
    cells = tuple(
        Cell(row, f"{name}, step {step} of {length}", config, seeds=orders, steps=length,
             value=f"{ACCURACIES}/{step}")
        for name in names
        for length in lengths
        for row, config in _rows(size, name, length).items()
        for step in range(1, length + 1)
    )  # fmt: skip
    title = f"Classes step by step, {size}"
    return Table(f"continual-{size}", title, cells, needs_gpu=size == "paper")


def _rows(size, name, length):
    """Returns the configs by row."""
    made = {}
    for ending, (ipc, gaussians, codes) in BUDGETS[size].items():
        base = _base(size, name, ipc)
        base.budget.images_per_class = gaussians
        if not ending:
            made["pixels"] = common.stored_as(_copy(base), "pixels")
            made["pixels"].distill.learning_rate = PIXEL_RATE
            made["random real"] = _not_distilled(made["pixels"])
            made["herding"] = _not_distilled(made["pixels"])
            made["herding"].init.images = "herding"
        made[f"Gaussians{ending}"] = base
        made[f"codes{ending}"] = common.quantized(_copy(base), codes)
        made[f"compressed real{ending}"] = _compressed(base, length, {})
        labels = {"source": "teacher", **MIXED}
        made[f"compressed real, a teacher's labels{ending}"] = _compressed(base, length, labels)
    for config in made.values():
        images = (1 + config.labels.mixes) * num_images(config)
        small.evaluate_as_long(config, images, SETTINGS[size][-1])
    return made


def _base(size, name, ipc):
    """Returns the config of an experiment by distribution matching."""
    config = small.get_config("dm") if size == "small" else load("cifar10_dm")
    config.data.name, config.budget.ipc = name, ipc
    config.distill.eval_every = 0
    if size == "paper":
        config.evaluate.batch_size = 256  # as published for this protocol
    config.evaluate.num_networks, config.evaluate.rates = SETTINGS[size][3], RATES
    return config


def _compressed(base, length, labels):
    """Returns the config of as many compressed images as there are in the budget's bytes."""
    config = _not_distilled(common.stored_as(_copy(base), "dct"))
    config.labels.update(labels)
    data = cost.sizes(config)
    there = bytes_per_class(config, SHAPE)
    images = parameterizations.find("dct").suggested_images(SHAPE, there, {})
    images = labels_of(config).suggested_images(images, there, SHAPE, data.classes // length)
    config.budget.images_per_class = min(images, data.examples // data.classes)
    return config


def _not_distilled(config):
    config = _copy(config)
    config.distill.num_steps = 0
    return config


def _copy(config):
    return config.copy_and_resolve_references()
