"""Accuracy on six subsets of ImageNet at 128 x 128, IPC 1, by one objective (Table 2).

    python -m launch.reproduce --table=imagenet128_tm --size=paper

Defines the tables imagenet128_tm, imagenet128_dm and imagenet128_dc.
"""

from configs import load
from configs.tables.methods import METHODS, PUBLISHED, SHARING, SUBSETS, published, trials
from gsdd_jax.config import scaled
from gsdd_jax.tables.table import Cell, Table

SMALL = 0.01  # of lengths; sizes shrink by its square root


def get_table(objective: str, size: str) -> Table:
    """Returns the table of "tm", "dm" or "dc"; its small size only shows that everything runs."""
    numbers = PUBLISHED[f"imagenet128_{objective}_ipc1"]["rows"]
    base = load(f"imagenet_{objective}")
    sharing = {row: method for row, method in SHARING.items() if method.published in numbers}
    cells = []
    for place, subset in enumerate(SUBSETS):
        config = base.copy_and_resolve_references()
        config.data.subset = subset
        if size == "small":
            config.scale = SMALL
        cells.append(Cell("random real", subset, scaled(config), arm="random_real"))
        for row, method in (METHODS | sharing).items():
            known = {"vanilla": objective.upper()}.get(method.published, method.published)
            number = numbers.get(known, [None] * len(SUBSETS))[place]
            searched = ({},) if row == "Gaussians" else trials(method, objective, size)
            cells.append(
                Cell(row, subset, scaled(published(config, method)), "distilled", searched,
                     published=None if size == "small" else number)
            )  # fmt: skip
    title = f"ImageNet subsets at one image per class, {objective.upper()}"
    name = f"imagenet128_{objective}-{size}"
    return Table(name, title, tuple(cells), needs_gpu=size == "paper")
