"""Runs a benchmark and prints its table.

python -m launch.benchmark rasterize
"""

import importlib

from absl import flags

from launch import cli

BENCHMARKS = ("rasterize", "experts", "tm_memory")
OUT = flags.DEFINE_string("out", None, "A JSON file to write the figures to.")


def main(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}").main(OUT.value)


if __name__ == "__main__":
    cli.run(main, positional=BENCHMARKS)
