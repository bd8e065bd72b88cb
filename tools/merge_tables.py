"""Merges the files of one table whose cells ran on several machines.

    python tools/merge_tables.py --table=bytes --size=small --out=FOLDER FIRST.json SECOND.json

Of each cell, the one with most finished seeds is taken; of equal ones the first. Cells with other
settings than today's are left out.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

from configs import tables
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import read_object
from gsdd_jax.core.trees import dotted
from gsdd_jax.tables.table import Cell, Found, Table, write


def merged(table: Table, files: list[pathlib.Path]) -> list[Found]:
    """Returns the results of the table's cells; prints those that are left out.

    Raises UsageError for cells that the table does not have.
    """
    best, known = [Found()] * len(table.cells), {(c.row, c.column) for c in table.cells}
    for path in files:
        cells = read_object(path, "a table")["cells"]
        there = {(cell["row"], cell["column"]): cell for cell in cells}
        if unknown := sorted(there.keys() - known):
            raise UsageError(f"{path}: {', '.join(unknown[0])}: no cell of this table")
        for place, cell in enumerate(table.cells):
            given = there.get((cell.row, cell.column))
            if given is None or not any(_finished(found := _found(given))):
                continue
            if _settings(given) == _settings(_plain(cell)):
                best[place] = max(best[place], found, key=_finished)
            else:
                print(f"{path}: {cell.row}, {cell.column}: left out, with other settings")
    return best


def _plain(cell: Cell) -> dict[str, Any]:
    trials = [{"settings": dict(trial)} for trial in cell.trials if cell.trials[1:]]
    return {"config": json.loads(cell.config.to_json()), "trials": trials}


def _settings(cell: dict[str, Any]) -> tuple[Any, Any]:
    """Returns the trials of a cell, and its config without the fields that these replace."""
    trials = [trial["settings"] for trial in cell["trials"]]
    replaced = {name for trial in trials for name in trial}
    return trials, {n: v for n, v in dotted(cell["config"]).items() if n not in replaced}


def _found(cell) -> Found:
    trials = tuple((t["settings"], t["train_accuracy"], t["reason"]) for t in cell["trials"])
    accuracies = {int(seed): values for seed, values in cell["accuracies"].items()}
    return Found(accuracies, cell["chosen"], trials, cell["reason"])


def _finished(found: Found) -> tuple[int, int]:
    """Returns the numbers of finished seeds and trials."""
    tried = sum(accuracy is not None for _, accuracy, _ in found.trials)
    return len(found.accuracies), tried


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", choices=tables.NAMES, required=True)
    parser.add_argument("--size", choices=("small", "paper"), default="small")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("files", type=pathlib.Path, nargs="+")
    args = parser.parse_args()
    try:
        table = tables.load(args.table, args.size)
        write(table, merged(table, args.files), args.out)
    except (UsageError, OSError) as error:
        sys.exit(f"error: {error}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"error: expected files that launch.reproduce wrote, got no {error}")


if __name__ == "__main__":
    main()
