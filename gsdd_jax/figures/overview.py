"""Real images, their Gaussians and the distilled images, in one column per class."""

import os
import pathlib

import numpy as np

from gsdd_jax.config.fields import BY_TEACHER
from gsdd_jax.figures import draw, ellipses, inputs
from gsdd_jax.formats.file import path_of
from gsdd_jax.runs import fits
from gsdd_jax.setup import experiment
from gsdd_jax.setup.provenance import recorded
from gsdd_jax.storage import workdir as workdirs

NAME = "overview"
ROWS = ("real", "Gaussians", "distilled")


def main(distilled: str | os.PathLike, image: int, data_dir: str | None, out: pathlib.Path) -> None:
    """Draws one image per class of Gaussians that started from real images; the CSV has all
    ellipses."""
    set_ = inputs.load_gaussians(path_of(distilled))
    with inputs.building_from(distilled):
        config = workdirs.whole(recorded(set_.provenance))
        config.data.dir = data_dir or ""
        if config.init.images not in BY_TEACHER:
            config.init.images = "real"
        material = experiment.build_fit_parts(config)
    counts = np.array(set_.class_counts)
    chosen = np.cumsum(counts) - counts + image % counts
    moment = ellipses.distilled(set_, chosen, config.distill.num_steps)
    rows = ellipses.rows(chosen, [moment])
    real = fits.images_of(config, material)[chosen]
    size = draw.PAGE, draw.PAGE / len(chosen) * len(ROWS) + 0.2
    with draw.sheet(out, NAME, rows, *size, tight=True) as figure:
        grid = figure.subplots(len(ROWS), len(chosen), squeeze=False)
        for axes, name in zip(grid[:, 0], ROWS, strict=True):
            axes.set_ylabel(name)
        for axes, label, image in zip(grid[0], set_.labels[chosen], real, strict=True):
            axes.set_title(material.dataset.class_names[label])
            draw.image(axes, image)
        ellipses.fill(lambda i: grid[:0:-1, i], moment)
