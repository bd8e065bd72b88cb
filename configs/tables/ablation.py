"""Ablation of the parts of the Gaussian parameterization (Table 3).

    python -m launch.reproduce --table=ablation --size=paper
    python -m launch.reproduce --table=ablation --size=small

Paper: ImageNette at IPC 1 and CIFAR-10 at IPC 10, both by trajectory matching. Small: CIFAR-10 at
IPC 1, three seeds.
"""

from configs import cifar10_tm, imagenet_tm
from configs.tables import small
from configs.tables.methods import PUBLISHED
from gsdd_jax.tables.table import Cell, Table

OF = "parameterization.options"
VARIANTS = {
    "all": {},
    "without opacity": {f"{OF}.opacity": False},
    "without boundary loss": {f"{OF}.boundary_weight": 0.0},
    "without clip": {f"{OF}.clip_means": False},
    "without boundary loss and clip": {f"{OF}.boundary_weight": 0.0, f"{OF}.clip_means": False},
    "without bf16": {f"{OF}.bfloat16": False},
    "without anti-aliasing": {f"{OF}.prefilter": False, f"{OF}.samples_per_side": 1},
    "without pre-filter": {f"{OF}.prefilter": False},
    "without supersampling": {f"{OF}.samples_per_side": 1},
    "from random Gaussians": {"init.images": "none"},
    "from solid colors": {"init.images": "solid"},
    "gradient stops at the clip": {f"{OF}.clip_gradient": "stop"},
    "gradient passes the clip": {f"{OF}.clip_gradient": "pass"},
}


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    cells = []
    for column, (config, seeds) in _experiments(size).items():
        published = PUBLISHED["ablation"].get(column, {})
        for row, changes in VARIANTS.items():
            number = published.get(row)
            cells.append(
                Cell(row, column, config, trials=(changes,), seeds=seeds, published=number)
            )
    name, title = f"ablation-{size}", "Parts of the Gaussian parameterization"
    return Table(name, title, tuple(cells), needs_gpu=size == "paper")


def _experiments(size):
    if size == "small":
        return {"CIFAR-10, TM, IPC 1": (small.gaussians(), small.SEEDS)}
    nette = imagenet_tm.get_config()
    nette.data.subset = "nette"
    return {
        "nette_tm_ipc1": (nette, (0,)),
        "cifar10_tm_ipc10": (cifar10_tm.get_config("ipc=10"), (0,)),
    }
