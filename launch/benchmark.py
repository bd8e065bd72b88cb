"""Runs a benchmark and prints its table.

    python -m launch.benchmark rasterize
    python -m launch.benchmark rasterize --peers --shapes=A,D --out=figures.json --plot=figures.png
    python -m launch.benchmark tm_memory --out=memory.json

rasterize, size: the rasterizer beside its peers, and the largest images it takes. experts,
precision, tm_memory: training and matching steps. streaming: steps on a set that is read from disk.
pytorch: training and matching beside PyTorch. ddif, bits: other ways to store an image.
"""

import importlib

from absl import flags

from gsdd_jax.core.errors import UsageError
from launch import cli

BENCHMARKS = (
    *("rasterize", "size", "experts", "precision", "tm_memory", "streaming"),
    *("pytorch", "ddif", "bits"),
)
OUT = flags.DEFINE_string("out", None, "A JSON file to write the figures to, as they come.")
SHAPES = flags.DEFINE_string("shapes", "", "rasterize: some of A to F, R, by commas; empty: all.")
PEERS = flags.DEFINE_bool("peers", False, "rasterize: beside SIREN and gsplat too.")
PLOT = flags.DEFINE_string("plot", None, "rasterize: a PNG file of time against size.")


def main(name: str) -> None:
    try:
        benchmark = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:  # ddif compares with a formula of the tests
        where = "run it from a checkout" if error.name.startswith("tests") else "install it"
        raise UsageError(f"{name}: needs {error.name}, which is not there; {where}") from None
    if name == "rasterize":
        benchmark.main(OUT.value, SHAPES.value, PEERS.value, PLOT.value)
    else:
        benchmark.main(OUT.value)


if __name__ == "__main__":
    cli.run(main, positional=BENCHMARKS)
