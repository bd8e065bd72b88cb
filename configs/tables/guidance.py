"""Accuracy by bits per Gaussian and images per class at one budget.

    python -m launch.reproduce --table=guidance --size=paper
    python -m launch.reproduce --table=guidance --size=small

Rows are bits per Gaussian, columns images per class. The number of Gaussians per image follows.
Small: 100 distillation steps, 500 fit steps, one seed.
"""

from configs import cifar10_tm
from configs.tables import small
from gsdd_jax.tables.table import Cell, Table

OF = "parameterization.options"
# Bits of means, L, colors and opacities, and their number after coding.
BITS = {"6 4 4 3": 32.0, "7 5 5 4": 40.0, "8 6 6 6": 49.0}
IMAGES = (60, 112, 224)


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    cells = []
    for bits, coded in BITS.items():
        fields = ("means", "cholesky", "colors", "opacities")
        widths = zip(fields, map(int, bits.split()), strict=True)
        changes = {f"{OF}.bits_{field}": width for field, width in widths}
        for images in IMAGES:
            config = cifar10_tm.get_config("ipc=1,codes")
            if size == "small":
                config = small.get_config("tm")
                config.init.num_steps = 500
                config.parameterization = cifar10_tm.get_config("ipc=1,codes").parameterization
                small.evaluate_as_long(config, 10 * images)
            trial = changes | {f"{OF}.bits_per_gaussian": coded, "budget.images_per_class": images}
            row = f"{bits} ({coded:g} bits per Gaussian)"
            cells.append(Cell(row, f"{images} images per class", config, trials=(trial,)))
    title = "Bits of a Gaussian and images per class at the bytes of one float32 image"
    return Table(f"guidance-{size}", title, tuple(cells), needs_gpu=size == "paper")
