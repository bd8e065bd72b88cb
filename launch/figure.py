"""Draws a figure of the paper as NAME.png, NAME.svg and NAME.csv (the numbers drawn).

    python -m launch.figure overview    --distilled=runs/demo
    python -m launch.figure ellipses    --workdir=runs/demo
    python -m launch.figure antialias   --distilled=runs/demo
    python -m launch.figure escape      --config=configs/demo.py
    python -m launch.figure pruning     --distilled=runs/demo
    python -m launch.figure convergence --workdir=runs/demo,runs/pixels
    python -m launch.figure landscape   --distilled=runs/demo,runs/pixels
    python -m launch.figure difficulty  --distilled=runs/gpc1,runs/gpc10,runs/gpc30
    python -m launch.figure decode
    python -m launch.figure guidance    --from_table=runs/tables/guidance-small.json
    python -m launch.figure continual   --from_table=runs/tables/continual-small.json
    python -m launch.figure federated   --from_table=runs/federated.json
    python -m launch.figure budgets     --from_table=runs/tables/budgets-small.json

docs/figures.md describes the figures. --out keeps slow parts: the same command resumes. Only files
of an earlier figure are replaced.
"""

import pathlib

from absl import flags

from gsdd_jax import figures
from gsdd_jax.core.errors import UsageError
from launch import cli, paths

CONFIG = cli.define_config()
OUT = paths.define("out", None, "Output folder; default: the folder of the figure's input.")
WORKDIR = paths.define_several(
    "workdir", "ellipses, convergence: work directories, comma-separated."
)
DISTILLED = paths.define_several(
    "distilled", "Distilled sets, comma-separated: .safetensors files or work directories."
)
FROM_TABLE = paths.define(
    "from_table",
    None,
    "guidance, continual, budgets: JSON file of launch.reproduce; federated: that of "
    "examples/federated.",
)
DATA_DIR = paths.define("data_dir", None, "Directory of the TFDS data sets.")
EXPERTS_DIR = paths.define("experts_dir", None, "landscape: directory of the experts.")
SEED = flags.DEFINE_integer("seed", 0, "Random seed of the figure.")
IMAGES = flags.DEFINE_integer("images", 6, "ellipses, antialias: number of images shown.")
IMAGE = flags.DEFINE_integer("image", 0, "overview: index of the image shown per class, from 0.")
STEPS = flags.DEFINE_list(
    "steps", [], "ellipses: comma-separated fit steps to show; empty: a selection."
)
STRESS_STEPS = flags.DEFINE_integer(
    "stress_steps", 1000, "escape: distillation steps of the stress test; 0: no stress test."
)
NUM_NETWORKS = flags.DEFINE_integer(
    "num_networks", 0, "pruning, difficulty: networks per set; 0: as in its config."
)
EPOCHS = flags.DEFINE_integer(
    "epochs", 0, "pruning, difficulty: epochs per network; 0: as in the set's config."
)
POINTS = flags.DEFINE_integer("points", 21, "landscape: grid points per side, an odd number.")
RADIUS = flags.DEFINE_float(
    "radius", 0.5, "landscape: half the grid's side, relative to the norm of the parameters."
)
DRAWS = flags.DEFINE_integer("draws", 4, "landscape: random draws averaged per point.")
JUDGES = flags.DEFINE_integer(
    "judges", 100, "difficulty: number of judges (networks trained on real images)."
)
JUDGE_WIDTH = flags.DEFINE_integer("judge_width", 16, "difficulty: width of the judges.")
JUDGE_EPOCHS = flags.DEFINE_integer("judge_epochs", 5, "difficulty: training epochs of the judges.")
SWEEPS = flags.DEFINE_list(
    "sweeps", [], "decode: comma-separated sweeps: bytes, resolution, batch, storage; empty: all."
)
SECONDS = flags.DEFINE_float("seconds", 2.0, "decode: minimum seconds per measurement.")


def main(name: str) -> None:
    from gsdd_jax.figures import draw

    out = _out()
    for file in figures.files(name):
        draw.check_place(out / file)
    figures.load(name).main(*FIGURES[name](), out)
    print(f"{out / name}.png, .svg and .csv")


def _ellipses():
    from gsdd_jax.figures import inputs

    if len(WORKDIR.value) > 1:
        raise UsageError("--workdir: expected one work directory, for ellipses")
    workdir = WORKDIR.value[0] if WORKDIR.value else None
    config = inputs.config_of(workdir, DATA_DIR.value) if workdir else _experiment()
    for text in STEPS.value:
        if not text.isdigit():
            raise UsageError(f"--steps: expected comma-separated numbers of steps, got {text!r}")
    return config, workdir, [int(text) for text in STEPS.value], _positive(IMAGES)


def _landscape():
    places = {"data.dir": DATA_DIR.value, "experts.dir": EXPERTS_DIR.value}
    return _some(DISTILLED), POINTS.value, RADIUS.value, DRAWS.value, places, SEED.value


def _difficulty():
    judges = [_positive(flag) for flag in (JUDGES, JUDGE_WIDTH, JUDGE_EPOCHS)]
    return _some(DISTILLED), _evaluation(), judges, SEED.value


def _decode():
    from benchmarks import decode

    return (decode.rows(SWEEPS.value, SECONDS.value, _out() / "decode.json"),)


FIGURES = {  # the arguments of each figure's `main`, before the folder
    "overview": lambda: (_one_set(), IMAGE.value, DATA_DIR.value),
    "ellipses": _ellipses,
    "antialias": lambda: (_one_set(), _positive(IMAGES)),
    "escape": lambda: (_experiment(), STRESS_STEPS.value),
    "pruning": lambda: (_one_set(), _evaluation(), SEED.value),
    "convergence": lambda: (_some(WORKDIR),),
    "landscape": _landscape,
    "difficulty": _difficulty,
    "decode": _decode,
    "guidance": lambda: (_table(),),
    "continual": lambda: (_table(),),
    "federated": lambda: (_table(),),
    "budgets": lambda: (_table(), _published()),
}


def _table():
    there = bool(FROM_TABLE.value)
    return _given(FROM_TABLE, there, "the JSON file of the results")


def _published() -> dict[int, float]:
    from configs.tables.budgets import FLOAT32
    from configs.tables.methods import PUBLISHED

    found = PUBLISHED["cifar"]["rows"]["GSDD"]
    return {FLOAT32 * ipc: value for ipc, value in zip((1, 10, 50), found[:3], strict=True)}


def _out() -> pathlib.Path:
    """Returns the output folder: by default that of the figure's input."""
    made_from = [*WORKDIR.value, *DISTILLED.value, *filter(None, [FROM_TABLE.value])]
    if OUT.value or not made_from:
        return pathlib.Path(OUT.value or "runs/figures")
    first = pathlib.Path(made_from[0])
    return first.parent if first.suffix else first


def _experiment():
    config = cli.experiment(CONFIG.value)
    if DATA_DIR.value is not None:
        config.data.dir = DATA_DIR.value
    return config


def _evaluation() -> dict:
    return {
        "evaluate.num_networks": NUM_NETWORKS.value or None,
        "evaluate.epochs": EPOCHS.value or None,
        "data.dir": DATA_DIR.value,
    }


def _given(flag: flags.FlagHolder, right: bool, expected: str):
    if not right:
        raise UsageError(f"--{flag.name}: expected {expected}")
    return flag.value


def _some(flag: flags.FlagHolder) -> list[str]:
    return _given(flag, bool(flag.value), "one or more, separated by commas")


def _one_set() -> str:
    count = len(DISTILLED.value)
    return _given(DISTILLED, count == 1, f"one set, got {count}")[0]


def _positive(flag: flags.FlagHolder) -> int:
    return _given(flag, flag.value >= 1, f"at least 1, got {flag.value}")


if __name__ == "__main__":
    cli.run(main, positional=figures.NAMES, resumes=True)
