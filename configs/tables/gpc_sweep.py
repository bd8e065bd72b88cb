"""Accuracy by number of Gaussian images per class at one budget (Figure 3).

python -m launch.reproduce --table=gpc_sweep --size=paper
python -m launch.reproduce --table=gpc_sweep --size=small
"""

from configs import cifar10_tm
from configs.tables import small
from gsdd_jax.tables.table import Cell, Table

COUNTS = (1, 5, 10, 30, 60, 120)


def get_table(size: str) -> Table:
    """Returns the table for CIFAR-10 at IPC 1, by trajectory matching."""
    cells = []
    for gpc in COUNTS:
        config = small.gaussians() if size == "small" else cifar10_tm.get_config()
        config.budget.images_per_class = gpc
        batch = config.matching.options.batch_syn
        config.matching.options.batch_syn = min(batch, 10 * gpc)
        if size == "small":
            small.evaluate_as_long(config, 10 * gpc)
        seeds = small.SEEDS if size == "small" else (0,)
        cells.append(Cell(f"{gpc} images per class", "CIFAR-10, TM, IPC 1", config, seeds=seeds))
    title = "Gaussian images per class at the bytes of one float32 image"
    return Table(f"gpc_sweep-{size}", title, tuple(cells), needs_gpu=size == "paper")
