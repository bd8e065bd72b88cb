"""Parameterizations that the tables compare, with the learning rates tried for each."""

import dataclasses
import json
import pathlib

from ml_collections import ConfigDict

from configs import common
from gsdd_jax import matching, parameterizations
from gsdd_jax.config import bytes_per_class
from gsdd_jax.setup import cost

PUBLISHED = json.loads((pathlib.Path(__file__).parent / "published.json").read_text())
SUBSETS = ("nette", "woof", "fruit", "yellow", "meow", "squawk")


@dataclasses.dataclass(frozen=True)
class Method:
    """One row: a parameterization, its options, and the rates of distillation by objective."""

    name: str
    options: dict[str, object]
    rates: dict[str, tuple[float, ...]]  # tried by small tables: four for each method
    paper_rates: dict[str, tuple[float, ...]]  # of the paper's size, the published rate among them
    published: str = ""  # name in the paper's tables, if they have it


REGRESSION_RATES = (300.0, 1e3, 3e3, 1e4)  # of pixels by FRePo; none is published for SGD
PIXEL_RATES = {
    "tm": (3.0, 10.0, 30.0, 100.0),
    "dm": (0.1, 1.0, 10.0, 100.0),
    "frepo": REGRESSION_RATES,
}
IDC_RATES = {"tm": (0.1, 0.3, 1.0, 3.0), "dm": (0.01, 0.1, 1.0, 10.0)}
FRED_RATES = {"tm": (1.0, 3.0, 10.0, 30.0), "dm": (0.01, 0.1, 1.0, 10.0)}
DDIF_RATES = {"tm": (1e-4, 3e-4, 1e-3, 3e-3), "dm": (1e-4, 3e-4, 1e-3, 3e-3)}
GAUSSIAN_RATES = {"tm": (1e-3, 3e-3, 1e-2, 3e-2), "dm": (3e-4, 1e-3, 3e-3, 1e-2)}
# Published: pixels by TM 100 on CIFAR-10, 1000 on CIFAR-100 and at 128 x 128, 1e5 and 1e4 at IPC
# 10; FreD in these units about 980 and 780 by TM, 9.8 and 0.78 by DM, 0.0098 and 0.078 by DC; DDiF
# 1e-4 by TM, 5e-5 by DM.
PIXEL_PAPER = PIXEL_RATES | {"tm": (100.0, 1e3, 1e4, 1e5)}
FRED_PAPER = {
    "tm": (30.0, 100.0, 300.0, 1000.0),
    "dm": (0.1, 1.0, 10.0, 100.0),
    "dc": (0.003, 0.01, 0.03, 0.1),
}
DDIF_PAPER = {"tm": (3e-5, 1e-4, 3e-4, 1e-3), "dm": (2e-5, 5e-5, 1e-4, 3e-4)}
SHARED_RATES = dict.fromkeys(("tm", "dm"), (1e-3, 3e-3, 1e-2, 3e-2))  # none is published for Adam
# Published settings of the student by method, data set and IPC: MTT's for pixels, FreD's, DDiF's,
# HaBa's, SPEED's.
STUDENT = ("syn_steps", "expert_epochs", "max_start_epoch", "lr_lr", "lr_init")
PAPER_STUDENT = {
    ("pixels", "cifar10", 1): (50, 2, 2, 1e-7, 0.01),
    ("pixels", "cifar100", 1): (20, 3, 20, 1e-5, 0.01),
    ("pixels", "imagenet2012", 1): (20, 2, 10, 1e-6, 0.01),
    ("fred", "cifar10", 1): (50, 2, 5, 1e-7, 0.01),
    ("fred", "cifar10", 10): (40, 2, 15, 1e-5, 0.01),
    ("fred", "cifar10", 50): (30, 2, 40, 1e-5, 0.001),
    ("fred", "cifar100", 1): (50, 2, 15, 1e-5, 0.01),
    ("fred", "cifar100", 10): (20, 2, 40, 1e-5, 0.01),
    ("fred", "cifar100", 50): (80, 2, 40, 1e-5, 0.01),
    ("fred", "imagenet2012", 1): (20, 2, 10, 1e-6, 0.01),
    ("ddif", "cifar10", 1): (60, 2, 10, 1e-5, 0.01),
    ("ddif", "cifar10", 10): (60, 2, 10, 1e-5, 0.01),
    ("ddif", "cifar10", 50): (60, 2, 40, 1e-5, 0.01),
    ("ddif", "cifar100", 1): (60, 2, 40, 1e-5, 0.01),
    ("ddif", "cifar100", 10): (60, 2, 40, 1e-5, 0.01),
    ("ddif", "cifar100", 50): (60, 2, 40, 1e-5, 0.01),
    ("ddif", "imagenet2012", 1): (20, 2, 10, 1e-6, 0.01),
    ("haba", "cifar10", 1): (50, 2, 2, 1e-7, 0.01),
    ("haba", "cifar10", 10): (30, 2, 20, 1e-5, 0.001),
    ("haba", "cifar10", 50): (30, 2, 20, 1e-5, 0.01),
    ("speed", "cifar10", 1): (60, 2, 10, 1e-5, 0.01),
    ("speed", "cifar10", 10): (60, 2, 20, 1e-5, 0.01),
    ("speed", "cifar10", 50): (60, 2, 40, 1e-5, 0.01),
    ("speed", "cifar100", 1): (60, 2, 40, 1e-5, 0.01),
    ("speed", "cifar100", 10): (60, 2, 40, 1e-5, 0.01),
    ("speed", "cifar100", 50): (60, 2, 40, 1e-5, 0.01),
    ("speed", "imagenet2012", 1): (60, 2, 10, 1e-5, 0.01),
}
REAL = {  # arms of random real images by row
    "random real": "random_real",
    "random real, 8 bits": "random_real_uint8",
    "random real, compressed": "random_real_dct",
    "random real, compressed, soft labels": "random_real_dct_soft",
}
HALF, CODED = {"dtype": "bfloat16"}, {"dtype": "codes"}
METHODS = {
    "pixels": Method("pixels", {}, PIXEL_RATES, PIXEL_PAPER, "vanilla"),
    "pixels, bfloat16": Method("pixels", HALF, PIXEL_RATES, PIXEL_PAPER),
    "IDC": Method("idc", {}, IDC_RATES, IDC_RATES, "IDC"),
    "IDC, bfloat16": Method("idc", HALF, IDC_RATES, IDC_RATES),
    "FreD": Method("fred", {}, FRED_RATES, FRED_PAPER, "FreD"),
    "FreD, bfloat16": Method("fred", HALF, FRED_RATES, FRED_PAPER),
    "DDiF": Method("ddif", {}, DDIF_RATES, DDIF_PAPER, "DDiF"),
    "DDiF, bfloat16": Method("ddif", HALF, DDIF_RATES, DDIF_PAPER),
    "Gaussians": Method("gaussian", {}, GAUSSIAN_RATES, GAUSSIAN_RATES, "GSDD"),
}
SHARING_NAMES = {"RTP": "rtp", "HaBa": "haba", "HMN": "hmn", "SPEED": "speed", "NSD": "nsd"}
SHARING = {
    row + ", bfloat16" * (options == HALF): Method(
        name, options, SHARED_RATES, SHARED_RATES, "" if options else row
    )
    for row, name in SHARING_NAMES.items()
    for options in ({}, HALF)
}
CODED_METHODS = {
    f"{row}, codes": dataclasses.replace(METHODS[row], options=CODED, published="")
    for row in ("pixels", "IDC", "FreD", "DDiF")
}


def stored_as(config: ConfigDict, method: Method) -> ConfigDict:
    """Returns a copy of `config` with another parameterization.

    A student step takes all images where there are fewer than the step of the Gaussians takes. FreD
    keeps more coefficients, and NSD has fewer kernels, where there are fewer real images than they
    would have room for. Codes have the suggested number of images, if there are as many real ones.
    """
    config = config.copy_and_resolve_references()
    if method.name != config.parameterization.name:
        common.stored_as(config, method.name)
    config.parameterization.options = ConfigDict(method.options)
    data = cost.sizes(config)
    classes, most, shape = data.classes, data.examples // data.classes, data.shape
    if method.options == CODED:
        kind = parameterizations.find(method.name).variant(CODED)
        suggested = kind.suggested_images(shape, bytes_per_class(config, shape), CODED)
        config.budget.images_per_class = min(suggested, most)
    elif method.name == "fred" and num_images(config) > classes * most:
        per_image = bytes_per_class(config, shape) // (shape[2] * most)
        size = -(-per_image // (2 if method.options == HALF else 4))
        config.parameterization.options.size = size
    elif method.name == "nsd" and num_images(config) > classes * most:
        config.parameterization.options.kernels = most
    images = num_images(config) // classes
    most, _ = matching.find(config.matching.name).largest_batch(classes, images)
    if config.matching.options.batch_syn > most:
        config.matching.options.batch_syn = 0
    return config


def published(config: ConfigDict, method: Method) -> ConfigDict:
    """Returns `stored_as` with known settings of the method's own published code.

    FreD's code refuses whitening. DDiF's fields are of normalized images.
    """
    if method.name == "ddif":
        method = dataclasses.replace(method, options={"space": "normalized", **method.options})
    row, config = config, stored_as(config, method)
    if method.name == "fred":
        config.data.transform = "normalize"
    if config.matching.name == "tm":
        of_row = {name: row.matching.options[name] for name in STUDENT}
        own = PAPER_STUDENT.get((method.name, config.data.name, config.budget.ipc))
        config.matching.options.update(dict(zip(STUDENT, own, strict=True)) if own else of_row)
    return config


def num_images(config: ConfigDict) -> int:
    """Returns the images of all classes of a config's set."""
    data = cost.sizes(config)
    return data.classes * cost.build_stored(config, data).images_per_class


def trials(method: Method, objective: str, size: str = "small") -> tuple[dict[str, float], ...]:
    """Returns the rates that a table of a size tries."""
    known = method.rates if size == "small" else method.paper_rates
    rates = known.get(objective, known["dm"])
    return tuple({"distill.learning_rate": rate} for rate in rates)
