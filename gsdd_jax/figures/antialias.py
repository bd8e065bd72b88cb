"""The same Gaussians with and without anti-aliasing, where it matters most (Figure 6)."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import jax
import numpy as np

from gsdd_jax import parameterizations
from gsdd_jax.figures import draw, inputs
from gsdd_jax.formats.file import path_of

NAME = "antialias"
SUPERSAMPLING = 2  # sample points per pixel side, as published
WAYS = {  # name: (sample points per side, pre-filter)
    "neither": (1, False),
    "supersampling": (SUPERSAMPLING, False),
    "pre-filter": (1, True),
    "both": (SUPERSAMPLING, True),
}


def main(distilled: str | os.PathLike, num_images: int, out: pathlib.Path) -> None:
    """Draws the `num_images` images that lose most without anti-aliasing; the CSV has all."""
    set_ = inputs.load_gaussians(path_of(distilled))
    images, (kind, params) = {}, parameterizations.of(set_)
    for name, (samples, prefilter) in WAYS.items():
        kind = dataclasses.replace(kind, samples_per_side=samples, prefilter=prefilter)
        images[name] = set_.checked(np.asarray(jax.jit(kind.render)(params)))
    both = images["both"].astype(np.float64)
    # PSNR to both, in dB, for a peak of 1.
    errors = {n: ((i - both) ** 2).mean((1, 2, 3)) for n, i in images.items() if n != "both"}
    found = {name: -10 * np.log10(np.maximum(error, 1e-30)) for name, error in errors.items()}
    chosen = np.argsort(found["neither"], kind="stable")[:num_images]
    rows = [
        dict(image=i, label=int(label), drawn=int(i in chosen))
        | {f"psnr_{name}": float(values[i]) for name, values in found.items()}
        for i, label in enumerate(set_.labels)
    ]
    cell = draw.PAGE / max(len(chosen), 6)
    size = cell * len(chosen) + 0.3, cell * len(WAYS) + 0.3
    with draw.sheet(out, NAME, rows, *size, tight=True) as figure:
        grid = figure.subplots(len(WAYS), len(chosen), squeeze=False)
        for row, name in zip(grid, WAYS, strict=True):
            row[0].set_ylabel(name)
            for axes, image in zip(row, chosen, strict=True):
                draw.image(axes, images[name][image])
                if name != "both":
                    axes.set_xlabel(f"{found[name][image]:.1f} dB", labelpad=1.5)
