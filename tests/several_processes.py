"""Runs a tiny table as one of several processes, counts what it reads, and is refused in the end.

python -m tests.several_processes --root=FOLDER
"""

import contextlib
import math
import pathlib

from absl import flags

from configs import common, demo
from launch import cli
from tests.tiny import TINY

# Flags of the first cell, as for a command.
SETTINGS = TINY | {
    "evaluate.baselines": "",
    "distill.snapshot_every": 0,
    "experts.num_experts": 3,
    "experts.epochs": 1,
    # All calls have two steps and all batches one size, for fewer programs.
    "distill.eval_every": 4,
    "experts.batch_size": 1500,
}
CELLS = {  # what differs, of `matching` but for the number of steps
    "dm": ("dm", {}, 6),
    "dm, of too many": ("dm", {"batch_syn": 1000}, 6),
    "one group": ("dm", {"batch_real": 3}, 2),  # devices divide neither images nor classes
    "tm": ("tm", {"syn_steps": 2, "batch_syn": 10, "max_start_epoch": 1, "expert_epochs": 1}, 2),
}
ROOT = flags.DEFINE_string("root", None, "Where the table is made.", required=True)
cli.define_processes()


def cells():
    """Returns cells that read images from disk; the last is another evaluation of the first."""
    from gsdd_jax.tables.table import Cell

    made = []
    for name, (objective, options, num_steps) in CELLS.items():
        config = demo.get_config()
        config.update_from_flattened_dict(SETTINGS)
        if objective != "dm":
            common.matched_by(config, objective)
        config.data.on_device = "streamed"
        config.mesh.groups = int(name == "one group")
        config.matching.options.update(options)
        config.distill.num_steps = num_steps
        made.append(Cell(name, "accuracy", config))
    return *made, Cell("dm, again", "accuracy", made[0].config, evaluation={"learning_rate": 0.02})


def main():
    import jax

    from gsdd_jax.core import errors, files, processes
    from gsdd_jax.data import reading
    from gsdd_jax.runs import progress
    from gsdd_jax.storage import workdir
    from gsdd_jax.tables import reproduce, table

    read, ahead = [], reading.ahead

    def counted(images, *arguments):
        place = len(read)
        read.append(0)
        for item in ahead(images, *arguments):
            read[place] += item.size // math.prod(images.shape[1:])
            yield item

    reading.ahead = counted
    jax.clear_caches = lambda: None  # the cells' programs are alike
    if jax.process_count() == 1:
        reproduce.cost_of = lambda piece: None  # it compiles and times steps
    root = pathlib.Path(ROOT.value)
    found, failed = reproduce.reproduce(
        table.Table("tiny", "Tiny", cells()), root, progress.OneLine()
    )
    assert len(failed) == 1
    assert len(found) == (len(cells()) if processes.first() else 0)
    refused = False
    with contextlib.ExitStack() as stack:
        if processes.first():
            stack.enter_context(files.locked(root / "taken", ""))
        try:
            stack.enter_context(processes.held(lambda: files.locked(root / "taken", "taken")))
        except errors.InUseError as error:
            refused = str(error) == "taken"
    kept = root / f"process_{jax.process_index()}.json"
    files.write_json(kept, {"read": read, "refused": refused})
    if processes.first():
        files.write_json(root / "wrong" / "config.json", [])
    with workdir.prepared(root / "wrong", cells()[0].config):
        raise AssertionError("expected a refusal")


if __name__ == "__main__":
    cli.run(main)
