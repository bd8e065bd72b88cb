"""Distils a data set.

    python -m launch.distill --config=configs/demo.py --workdir=runs/demo

Any field of the config can be changed: `--config.distill.num_steps=100`. The same command started
again goes on where it was interrupted.
"""

import pathlib

from absl import flags

from launch import cli, fields

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Where results and checkpoints go.", required=True)


def main() -> None:
    from gsdd_jax.page import document  # after the flags, so that a wrong one answers at once
    from gsdd_jax.runs.distill import distill_to

    result = distill_to(cli.experiment(CONFIG.value), WORKDIR.value)
    document.write([WORKDIR.value], pathlib.Path(WORKDIR.value, document.NAME), fields.defaults)
    shown = ("distilled", "fitted", "random_real")
    arms = (cli.accuracy(arm, result) for arm in shown if f"{arm}_accuracy" in result)
    print(f"results in {WORKDIR.value}: distilled.safetensors, result.json, report.html")
    print("test accuracy:  " + "   ".join(arms))


if __name__ == "__main__":
    cli.run(main, resumes=True)
