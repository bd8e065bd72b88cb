"""Clips by how they are stored, in the same bytes, by distribution and by trajectory matching.

    python -m launch.reproduce --table=video --size=small

Small: moving Fashion-MNIST (`configs/moving_fashion_dm_cpu.py`), which `launch.prepare` has to
prepare first, at the bytes of one float32 clip per class; three rates for every method and
objective, networks of equally many steps, three short experts. Paper: miniUCF and HMDB51 at the
bytes of one and of five by distribution matching, as `clips_dm`.
"""

from configs import clips_dm, load
from configs.tables import small
from configs.tables.methods import REAL, Method, num_images, stored_as, trials
from gsdd_jax.config.own import shortened_tm
from gsdd_jax.tables.table import Cell, Table

STEPS = 200
HALF = {"dtype": "bfloat16"}
FIELDS = {"layers": 2, "layer_width": 20, "w0": 10.0}  # of CIFAR-10 at IPC 50: 31 clips per class
COLUMNS = {"dm": "DM", "tm": "TM"}
FOLLOWED = {"syn_steps": 10, "batch_syn": 40, "expert_epochs": 1}  # minutes per run of 50 steps
GAUSSIANS = {"dm": (3e-4, 1e-3, 3e-3), "tm": (1e-3, 3e-3, 1e-2)}
CODED = {"bits_per_gaussian": 41.0}  # about what a fit takes at its rate
OWN = {  # further fields of rows; codes have as many clips as compressed real ones
    "ddif": {"init.num_steps": 300, "init.learning_rate": 5e-3},
    "video_quantized": {"budget.images_per_class": 83, "init.learning_rate": 0.03},
}
PIXELS = (3.0, 30.0, 300.0)  # published on miniUCF at VPC 1: 30
METHODS = {  # rates of distillation by row; those of pixels and IDC have other units
    "pixels, bfloat16": Method(
        "pixels", HALF, {"dm": (0.1, 1.0, 10.0), "tm": (10.0, 30.0, 100.0)}, {}
    ),
    "IDC, bfloat16": Method("idc", HALF, {"dm": (0.1, 1.0, 10.0), "tm": (1.0, 3.0, 10.0)}, {}),
    "FreD, bfloat16": Method("fred", HALF, {"dm": (0.1, 1.0, 10.0), "tm": (3.0, 10.0, 30.0)}, {}),
    "DDiF in space and time, bfloat16": Method("ddif", HALF | FIELDS, GAUSSIANS, {}),
    "static-dynamic, bfloat16": Method(
        "static_dynamic", HALF | {"each": 1}, dict.fromkeys(COLUMNS, (1e-3, 3e-3, 1e-2)), {}
    ),
    "Gaussians of each frame": Method("frame_gaussian", {}, GAUSSIANS, {}),
    "Gaussians with a color per frame": Method("gaussian", {}, GAUSSIANS, {}),
    "Gaussians in space and time": Method("video_gaussian", {}, GAUSSIANS, {}),
    "Gaussians in space and time, codes": Method("video_quantized", CODED, GAUSSIANS, {}),
}
LARGE = {
    "pixels": Method("pixels", {}, {}, {"dm": PIXELS}, "DM"),
    "static-dynamic": Method("static_dynamic", {}, {}, {"dm": (1e-3, 3e-3, 1e-2)}, "Wang et al."),
    "Gaussians of each frame": Method("frame_gaussian", {}, {}, GAUSSIANS),
    "Gaussians in space and time": Method("video_gaussian", {}, {}, GAUSSIANS),
}
TITLES = {
    "small": "Moving Fashion-MNIST in 32,768 bytes per class",
    "paper": "Video sets at the bytes of float32 clips",
}


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    cells = tuple(_small() if size == "small" else _paper())
    return Table(f"video-{size}", TITLES[size], cells, needs_gpu=size == "paper")


def _small():
    for objective, column in COLUMNS.items():
        base = _base(objective)
        if objective == "dm":
            yield from (Cell(row, "not distilled", base, arm=arm) for row, arm in REAL.items())
        for row, method in METHODS.items():
            config = stored_as(base, method)
            config.update_from_flattened_dict(OWN.get(method.name, {}))
            small.evaluate_as_long(config, num_images(config), STEPS)
            if objective == "dm" and config.init.num_steps:
                fitted = config.copy_and_resolve_references()
                fitted.distill.num_steps = 0
                yield Cell(row, "not distilled", fitted)
            yield Cell(row, column, config, trials=trials(method, objective))


def _base(objective):
    """Returns the config of Gaussians in space and time by an objective."""
    config = load("moving_fashion_dm_cpu")
    config.evaluate.batch_size, config.evaluate.baselines = 0, ""
    if objective == "tm":
        shortened_tm(config)
        config.matching.options.update(FOLLOWED)
        config.distill.num_steps = 50
    return config


def _paper():
    for variant, known in clips_dm.PUBLISHED.items():
        base = load(f"clips_dm:{variant}")
        for row, arm in REAL.items():
            yield Cell(row, variant, base, arm=arm)
        for row, method in LARGE.items():
            yield Cell(
                row, variant, stored_as(base, method), trials=trials(method, "dm", "paper"),
                published=known.get(method.published),
            )  # fmt: skip
