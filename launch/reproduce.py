"""Runs or resumes a table of the paper and writes it with the published numbers.

    python -m launch.reproduce --table=cifar --size=small --dry_run
    python -m launch.reproduce --table=cifar --size=small
    python -m launch.reproduce --table=bytes --row=codes --row="codes, soft labels" --seeds=1

Tables: cifar, imagenet128_tm, imagenet128_dm, imagenet128_dc, cross_architecture, cross_resolution,
ablation, gpc_sweep, codes, guidance, bytes, budgets, continual, video. The same command resumes an
interrupted table. Several commands at once divide the pieces. The processes of one multi-process
run (`--coordinator`) compute each piece together. A piece that fails leaves its own cells empty;
the exit status is then 2.
"""

import pathlib

from absl import flags

from configs import tables
from gsdd_jax.core.errors import UsageError, counted
from launch import cli, paths

TABLE = flags.DEFINE_enum("table", None, tables.NAMES, "Table to run.", required=True)
SIZE = flags.DEFINE_enum(
    "size",
    "small",
    ["small", "paper"],
    "Size of the experiments: small for a CPU, paper as published.",
)
ROOT = paths.define("root", "runs/tables", "Directory for runs, experts, fits and tables.")
DATA_DIR = paths.define("data_dir", "", "Directory of the TFDS data sets.")
cli.define_processes()
cli.define_stop_after()
ROWS = flags.DEFINE_multi_string("row", [], "Run only this row")
COLUMNS = flags.DEFINE_multi_string("column", [], "Run only this column")
SEEDS = flags.DEFINE_integer("seeds", 0, "Run only so many seeds; 0: all.", 0)
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Only list the pieces, with their state and estimated cost."
)


def main() -> None:
    from gsdd_jax.core import processes
    from gsdd_jax.runs.progress import OneLine
    from gsdd_jax.tables import reproduce, table

    table_ = tables.load(TABLE.value, SIZE.value)
    for cell in table_.cells:
        cell.config.data.dir = DATA_DIR.value
    cells = table_.part(ROWS.value, COLUMNS.value, SEEDS.value)
    if DRY_RUN.value:
        if processes.first():
            print(table.listed(reproduce.plan(table_, ROOT.value, cells)), end="")
        return
    display = OneLine()
    found, failed = reproduce.reproduce(table_, ROOT.value, display, cells)
    display.end()
    if processes.first():
        print(table.markdown(table_, found), end="")
        print(f"\nwritten to {pathlib.Path(ROOT.value, table_.name)}.md, .csv and .json")
    if failed:
        name, reason = next(iter(failed.items()))
        raise UsageError(f"{counted(len(failed), 'piece')} failed, the first is {name}: {reason}")


if __name__ == "__main__":
    cli.run(main, resumes=True)
