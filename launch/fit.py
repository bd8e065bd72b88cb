"""Fits the parameterization of a config to real images, without distillation.

    python -m launch.fit --config=configs/demo.py --workdir=runs/demo-fit
    python -m launch.fit --config=demo --config.budget.images_per_class=10 --workdir=runs/larger

Prints the PSNR and writes the fitted set, from which a distillation would start.
"""

from gsdd_jax.core.errors import counted
from launch import cli, paths

CONFIG = cli.define_config()
cli.define_processes()
cli.define_stop_after()
WORKDIR = paths.define("workdir", "runs/fit", "Directory for the fitted set and checkpoints.")


def main() -> None:
    from gsdd_jax.runs.distill import fit_to  # after the flags, so that a wrong one answers at once

    result = fit_to(cli.experiment(CONFIG.value), WORKDIR.value)
    images = counted(result["images"], "image")
    print(f"{images}, {result['bytes']} bytes, PSNR {result['psnr']:.2f} dB")


if __name__ == "__main__":
    cli.run(main, resumes=True)
