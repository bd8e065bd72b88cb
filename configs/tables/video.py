"""Clips by how they are stored, in the same bytes, by distribution matching.

    python -m launch.reproduce --table=video --size=small

Small: moving Fashion-MNIST (`configs/moving_fashion_dm_cpu.py`), which `launch.prepare` has to
prepare first, at the bytes of one float32 clip per class; three rates for every method, networks of
equally many steps.
"""

from configs import load
from configs.tables import small
from configs.tables.methods import Method, num_images, stored_as
from gsdd_jax.tables.table import Cell, Table

STEPS = 200
HALF = {"dtype": "bfloat16"}
FIELDS = {"layers": 2, "layer_width": 20, "w0": 10.0}  # of CIFAR-10 at IPC 50: 31 clips per class
GAUSSIANS = (1e-3, 3e-3, 1e-2)
SIZES = ("small",)
METHODS = {  # rates of distillation by row; pixels and IDC in other units
    "pixels, bfloat16": ("pixels", HALF, (1.0, 10.0, 100.0)),
    "IDC, bfloat16": ("idc", HALF, (0.1, 1.0, 10.0)),
    "FreD, bfloat16": ("fred", HALF, (0.1, 1.0, 10.0)),
    "DDiF in space and time, bfloat16": ("ddif", HALF | FIELDS, (3e-4, 1e-3, 3e-3)),
    "Gaussians of each frame": ("frame_gaussian", {}, GAUSSIANS),
    "Gaussians with a color per frame": ("gaussian", {}, GAUSSIANS),
    "Gaussians in space and time": ("video_gaussian", {}, GAUSSIANS),
}
REAL = {"random real": "random_real", "random real, 8 bits": "random_real_uint8"}


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    return Table(f"video-{size}", "Moving Fashion-MNIST in 32,768 bytes per class", tuple(_cells()))


def _cells():
    base = load("moving_fashion_dm_cpu")
    base.evaluate.batch_size, base.evaluate.baselines = 0, ""
    for row, arm in REAL.items():
        yield Cell(row, "not distilled", base, arm=arm)
    for row, (name, options, rates) in METHODS.items():
        config = stored_as(base, Method(name, options, {}, {}))
        small.evaluate_as_long(config, num_images(config), STEPS)
        if name == "ddif":
            config.init.num_steps, config.init.learning_rate = 300, 5e-3
        if config.init.num_steps:
            fitted = config.copy_and_resolve_references()
            fitted.distill.num_steps = 0
            yield Cell(row, "not distilled", fitted)
        trials = tuple({"distill.learning_rate": rate} for rate in rates)
        yield Cell(row, "DM", config, trials=trials)
