"""Real images, their Gaussians and the distilled images, in one column per class."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from gsdd_jax import parameterizations
from gsdd_jax.figures import draw, ellipses, geometry, inputs
from gsdd_jax.formats.file import path_of
from gsdd_jax.runs import fits
from gsdd_jax.setup import experiment
from gsdd_jax.storage import workdir as workdirs

NAME = "overview"
ROWS = ("real", "Gaussians", "distilled")


def main(distilled: str | os.PathLike, image: int, data_dir: str | None, out: pathlib.Path) -> None:
    """Draws one image per class; the CSV has every ellipse.

    Args:
      distilled: a set of Gaussians that started from real images, or its work directory.
      image: index of the image within each class, from 0.
      data_dir: folder of TFDS's sets, for the real images.
      out: output folder.
    """
    set_ = inputs.load_gaussians(path_of(distilled))
    with inputs.building_from(distilled):
        config = workdirs.whole(set_.provenance["config"])
        config.data.dir, config.init.images = data_dir or "", "real"
        material = experiment.build_fit_parts(config)
    kind = parameterizations.of_format(set_.format)
    per_class = len(set_.labels) // material.dataset.num_classes
    chosen = np.arange(material.dataset.num_classes) * per_class + image % per_class
    moment = ellipses.distilled(set_, chosen, config.distill.num_steps)
    draw.table(out, NAME, ellipses.rows(kind, chosen, [moment]))
    outlines = ellipses.shapes(kind, moment.gaussians)
    real = fits.images_of(config, material)[chosen]
    with draw.sheet(draw.PAGE, draw.PAGE / len(chosen) * len(ROWS) + 0.2) as figure:
        grid = figure.subplots(len(ROWS), len(chosen), squeeze=False)
        for axes, name in zip(grid[:, 0], ROWS, strict=True):
            axes.set_ylabel(name)
        for i, (above, middle, below) in enumerate(grid.T):
            above.set_title(material.dataset.class_names[set_.labels[chosen[i]]])
            draw.image(above, real[i])
            one = geometry.Ellipses(*(a[i] for a in outlines))
            colors, opacities = moment.gaussians.colors[i], moment.gaussians.opacities[i]
            draw.outlines(middle, one, colors, opacities, real.shape[1:3])
            draw.image(below, moment.images[i])
        figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
        draw.save(figure, out, NAME)
