"""Runs a benchmark and prints its table.

    python -m launch.benchmark rasterize
    python -m launch.benchmark rasterize --peers --shapes=A,D --out=figures.json
    python -m launch.benchmark tm_memory --out=memory.json
    python -m launch.benchmark scale --devices=1,8,64 --out=steps.json

rasterize, size: the rasterizer beside its peers, and the largest images it takes. experts,
precision, tm_memory: training and matching steps. streaming: steps on a set that is read from disk.
pytorch: training and matching beside PyTorch. ddif, bits: other ways to store an image. scale: what
each of many devices does, without them.
"""

import importlib

from absl import flags

from gsdd_jax.core.errors import UsageError
from launch import cli

BENCHMARKS = (
    *("rasterize", "size", "experts", "precision", "tm_memory", "streaming"),
    *("pytorch", "ddif", "bits", "scale"),
)
OUT = flags.DEFINE_string("out", None, "A JSON file to write the figures to, as they come.")
SHAPES = flags.DEFINE_string("shapes", "", "rasterize: some of A to F, R, by commas; empty: all.")
PEERS = flags.DEFINE_bool("peers", False, "rasterize: beside SIREN and gsplat too.")
DEVICES = flags.DEFINE_string("devices", "", "scale: how many, by commas; empty: 1,8,64.")
CONFIGS = flags.DEFINE_string("configs", "", "scale: of which experiments, by commas; empty: all.")


def main(name: str) -> None:
    try:
        benchmark = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:  # ddif compares with a formula of the tests
        where = "run it from a checkout" if error.name.startswith("tests") else "install it"
        raise UsageError(f"{name}: needs {error.name}, which is not there; {where}") from None
    if name == "rasterize":
        benchmark.main(OUT.value, SHAPES.value, PEERS.value)
    elif name == "scale":
        benchmark.main(OUT.value, DEVICES.value, CONFIGS.value)
    else:
        benchmark.main(OUT.value)


if __name__ == "__main__":
    cli.run(main, positional=BENCHMARKS)
