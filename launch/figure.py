"""Draws a figure of the paper: NAME.png, NAME.svg, and NAME.csv with the numbers drawn.

    python -m launch.figure ellipses    --workdir=runs/demo
    python -m launch.figure antialias   --distilled=runs/demo
    python -m launch.figure escape      --config=configs/demo.py
    python -m launch.figure pruning     --distilled=runs/demo
    python -m launch.figure convergence --workdir=runs/demo,runs/pixels
    python -m launch.figure landscape   --distilled=runs/demo,runs/pixels
    python -m launch.figure difficulty  --distilled=runs/gpc1,runs/gpc10,runs/gpc30
    python -m launch.figure decode
    python -m launch.figure guidance    --from_table=runs/tables/guidance-small.json

docs/figures.md says what each shows. What takes long is kept in --out as it comes, and the same
command goes on with it.
"""

import pathlib

from absl import flags

from gsdd_jax import figures
from gsdd_jax.core.errors import UsageError
from launch import cli, paths

CONFIG = cli.define_config()
OUT = paths.define("out", None, "A folder; by default beside what the figure is made from.")
WORKDIR = paths.define_several("workdir", "ellipses, convergence: work directories, by commas.")
DISTILLED = paths.define_several(
    "distilled", "Distilled sets by commas: .safetensors files or work directories."
)
FROM_TABLE = paths.define("from_table", None, "guidance: JSON that launch.reproduce wrote.")
DATA_DIR = paths.define("data_dir", None, "Where TFDS keeps its sets.")
EXPERTS_DIR = paths.define("experts_dir", None, "landscape: where the experts are.")
SEED = flags.DEFINE_integer("seed", 0, "Of what the figure itself draws at random.")
IMAGES = flags.DEFINE_integer("images", 6, "ellipses, antialias: how many are shown.")
STEPS = flags.DEFINE_list("steps", [], "ellipses: of the fit, by commas; empty: some.")
STRESS_STEPS = flags.DEFINE_integer("stress_steps", 1000, "escape: of the stress; 0: without it.")
NUM_NETWORKS = flags.DEFINE_integer("num_networks", 0, "pruning, difficulty: of a set; 0: its own.")
EPOCHS = flags.DEFINE_integer("epochs", 0, "pruning, difficulty: passes over a set; 0: its own.")
POINTS = flags.DEFINE_integer("points", 21, "landscape: a side of the grid; odd.")
RADIUS = flags.DEFINE_float("radius", 0.5, "landscape: of the grid, in norms of the parameters.")
DRAWS = flags.DEFINE_integer("draws", 4, "landscape: that the loss is averaged over.")
JUDGES = flags.DEFINE_integer("judges", 100, "difficulty: small networks trained on real images.")
JUDGE_WIDTH = flags.DEFINE_integer("judge_width", 16, "difficulty: of those networks.")
JUDGE_EPOCHS = flags.DEFINE_integer("judge_epochs", 5, "difficulty: of those networks.")
SWEEPS = flags.DEFINE_list("sweeps", [], "decode: some of bytes, resolution, batch; empty: all.")
SECONDS = flags.DEFINE_float("seconds", 2.0, "decode: at least, of each measurement.")


def main(name: str) -> None:
    from gsdd_jax.figures import draw

    draw.require()
    out = pathlib.Path(OUT.value or _beside())
    FIGURES[name](figures.load(name).main, out)
    print(f"{out / name}.png, .svg and .csv")


def _ellipses(draw, out):
    from gsdd_jax.figures import inputs

    if len(WORKDIR.value) > 1:
        raise UsageError("--workdir: expected one, for ellipses")
    workdir = WORKDIR.value[0] if WORKDIR.value else None
    config = inputs.config_of(workdir, DATA_DIR.value) if workdir else _experiment()
    steps = [_integer("steps", text) for text in STEPS.value]
    draw(config, workdir, steps, _positive("images", IMAGES.value), out)


def _antialias(draw, out):
    draw(_one_set(), _positive("images", IMAGES.value), out)


def _escape(draw, out):
    draw(_experiment(), STRESS_STEPS.value, out)


def _pruning(draw, out):
    draw(_one_set(), _evaluation(), SEED.value, out)


def _convergence(draw, out):
    draw(_some("workdir", WORKDIR.value), out)


def _landscape(draw, out):
    draw(
        _some("distilled", DISTILLED.value), points=POINTS.value, radius=RADIUS.value,
        draws=DRAWS.value, seed=SEED.value, out=out,
        places={"data.dir": DATA_DIR.value, "experts.dir": EXPERTS_DIR.value},
    )  # fmt: skip


def _difficulty(draw, out):
    draw(
        _some("distilled", DISTILLED.value), _evaluation(), num_networks=JUDGES.value,
        width=JUDGE_WIDTH.value, epochs=JUDGE_EPOCHS.value, seed=SEED.value, out=out,
    )  # fmt: skip


def _decode(draw, out):
    from benchmarks import decode

    draw(decode.rows(SWEEPS.value, SECONDS.value, out / "decode.json"), out)


def _guidance(draw, out):
    if not FROM_TABLE.value:
        raise UsageError("--from_table: expected the JSON file that launch.reproduce wrote")
    draw(FROM_TABLE.value, out)


FIGURES = {name: globals()[f"_{name}"] for name in figures.NAMES}


def _beside() -> pathlib.Path:
    made_from = [*WORKDIR.value, *DISTILLED.value, *filter(None, [FROM_TABLE.value])]
    if not made_from:
        return pathlib.Path("runs", "figures")
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


def _some(flag: str, values: list[str]) -> list[str]:
    if not values:
        raise UsageError(f"--{flag}: expected one or more, separated by commas")
    return values


def _one_set() -> str:
    if len(DISTILLED.value) != 1:
        raise UsageError(f"--distilled: expected one, got {len(DISTILLED.value)}")
    return DISTILLED.value[0]


def _integer(flag: str, text: str) -> int:
    if not text.isdigit():
        raise UsageError(f"--{flag}: expected numbers of steps, by commas, got {text!r}")
    return int(text)


def _positive(flag: str, value: int) -> int:
    if value < 1:
        raise UsageError(f"--{flag}: expected at least 1, got {value}")
    return value


if __name__ == "__main__":
    cli.run(main, positional=figures.NAMES, resumes=True)
