"""Runs a benchmark and prints its table.

    python -m launch.benchmark rasterize
    python -m launch.benchmark rasterize --peers --shapes=A,D --out=figures.json
    python -m launch.benchmark scale --devices=1,8,64 --out=steps.json

rasterize    the rasterizer; with --peers also SIREN and gsplat
size         time and memory up to the largest batch and resolution
experts      training of several experts at once
precision    a matching step and an expert's epoch at each precision
pytorch      a matching step and an expert's epoch, compared with PyTorch
storage      decoding by every parameterization at equal bytes, compared with Gaussians
codecs       quality of real images compared with their bytes: dct, JPEG, WebP, AVIF
scale        work per device on 1, 8 and 64 devices, by XLA's count of compiled programs
"""

import importlib

from absl import flags

from launch import cli, paths

BENCHMARKS = ("rasterize", "size", "experts", "precision", "pytorch", "storage", "codecs", "scale")
OUT = paths.define(
    "out",
    None,
    "JSON file for the measurements. Replaces only earlier measurements.",
)
SHAPES = flags.DEFINE_string(
    "shapes", "", "rasterize: comma-separated shapes, A to F and R; empty: all."
)
PEERS = flags.DEFINE_bool("peers", False, "rasterize: also measure SIREN and gsplat.")
DEVICES = flags.DEFINE_string(
    "devices", "", "scale: comma-separated numbers of devices; empty: 1,8,64."
)
CONFIGS = flags.DEFINE_string("configs", "", "scale: comma-separated experiments; empty: all.")


def main(name: str) -> None:
    benchmark = importlib.import_module(f"benchmarks.{name}")
    if OUT.value:
        from benchmarks.table import check_place

        check_place(OUT.value, benchmark.COLUMNS)
    if name == "rasterize":
        benchmark.main(OUT.value, SHAPES.value, PEERS.value)
    elif name == "scale":
        benchmark.main(OUT.value, DEVICES.value, CONFIGS.value)
    else:
        benchmark.main(OUT.value)


if __name__ == "__main__":
    cli.run(main, positional=BENCHMARKS)
