"""Runs a table of the paper, or goes on with it, and writes it beside the published numbers.

    python -m launch.reproduce --table=cifar --size=small --dry_run
    python -m launch.reproduce --table=cifar --size=small

Tables: cifar, imagenet128_tm, imagenet128_dm, imagenet128_dc, cross_architecture, cross_resolution,
ablation, gpc_sweep, codes, guidance. The same command goes on where it was interrupted; several at
once share the pieces, and several processes (`--coordinator`) run each piece together. `--dry_run`
lists what is done and what each missing piece will cost.
"""

import importlib
import pathlib

from absl import flags

from configs import tables
from launch import cli, paths

TABLE = flags.DEFINE_enum("table", None, tables.NAMES, "Which.", required=True)
SIZE = flags.DEFINE_enum("size", "small", ["small", "paper"], "For a CPU, or as published.")
ROOT = paths.define("root", "runs/tables", "Where runs, experts, fits and tables are kept.")
DATA_DIR = paths.define("data_dir", "", "Where TFDS keeps its sets.")
cli.define_processes()
DRY_RUN = flags.DEFINE_bool("dry_run", False, "List the pieces with their cost; run nothing.")


def main() -> None:
    from gsdd_jax.core import processes
    from gsdd_jax.runs import reproduce, table
    from gsdd_jax.runs.report import OneLine

    table_ = importlib.import_module(f"configs.tables.{TABLE.value}").get_table(SIZE.value)
    for cell in table_.cells:
        cell.config.data.dir = DATA_DIR.value
    if DRY_RUN.value:
        if processes.first():
            print(table.listed(reproduce.plan(table_, ROOT.value)), end="")
        return
    display = OneLine()
    found = reproduce.reproduce(table_, ROOT.value, display)
    display.end()
    if not processes.first():
        return
    print(table.markdown(table_, found), end="")
    print(f"\nwritten to {pathlib.Path(ROOT.value, table_.name)}.md, .csv and .json")


if __name__ == "__main__":
    cli.run(main, resumes=True)
