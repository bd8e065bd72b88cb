"""Accuracy of sets at other resolutions and on corrupted test images.

    python -m launch.reproduce --table=cross_resolution --size=paper
    python -m launch.reproduce --table=cross_resolution --size=small

Gaussians and fields are rendered at the other size, FreD's spectrum is padded, and pixels are
resampled (bilinear and nearest). The network's depth follows the size. A corruption's column is the
mean over its five strengths. Small: CIFAR-10 distilled at 16 x 16, so that 32 x 32 has real detail.
"""

from configs import imagenet_tm
from configs.tables import small
from configs.tables.methods import METHODS, stored_as, trials
from gsdd_jax.tables.table import Cell, Table

SIZES = {"paper": (128, 256, 512), "small": (16, 32, 64)}
ROWS = ("pixels", "IDC", "FreD", "DDiF", "Gaussians")
RESAMPLED = ("pixels", "IDC")
KINDS = ("noise", "blur", "contrast", "jpeg")


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    cells = []
    own, *others = SIZES[size]
    objective = {"paper": "tm", "small": "dm"}[size]
    for row in ROWS:
        method = METHODS[row]
        config = _experiment(size, method, own)
        searched = ({},) if size == "paper" and row == "Gaussians" else trials(method, objective)
        common = dict(config=config, trials=searched)
        cells.append(Cell(row, str(own), **common))
        for side in others:
            for resample in ("bilinear", "nearest") if row in RESAMPLED else ("bilinear",):
                name = f"{row}, {resample}" if row in RESAMPLED else row
                evaluation = {"resolution": side, "resample": resample}
                cells.append(Cell(name, str(side), evaluation=evaluation, **common))
        for kind in KINDS:
            cells.append(
                Cell(row, kind, evaluation={"corrupted": list(KINDS)},
                     value=f"corrupted/{kind}_accuracies", **common)
            )  # fmt: skip
    return Table(
        f"cross_resolution-{size}", f"Distilled at {own} x {own}, used at other sizes, and tested "
        "on images made worse", tuple(cells), needs_gpu=size == "paper",
    )  # fmt: skip


def _experiment(size, method, side):
    if size == "small":
        config = small.stored("dm", method)
        config.data.resolution = side
        return config
    return stored_as(imagenet_tm.get_config(), method)
