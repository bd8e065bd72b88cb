"""Images and their Gaussians as ellipses, during fit and distillation (Figure 8)."""

import dataclasses
import io
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict
from PIL import Image

from gsdd_jax import parameterizations
from gsdd_jax.core.errors import UsageError
from gsdd_jax.figures import draw, geometry, inputs
from gsdd_jax.formats import file
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.parameterizations.base import on_device
from gsdd_jax.parameterizations.gaussian import Gaussian, Gaussians
from gsdd_jax.rasterizer.gaussians import GaussianImages
from gsdd_jax.runs import fits
from gsdd_jax.runs.progress import Reporter
from gsdd_jax.setup import experiment
from gsdd_jax.setup.components import stream
from gsdd_jax.storage.workdir import snapshots
from gsdd_jax.training import fit

NAME = "ellipses"
STEPS = (0, 50, 200)  # steps of the fit; the last one is added
MOST_DISTILLED = 4  # columns for the distillation
FRAMES = 24  # per part of the animation, about
FRAME_MS = 150


class Moment(NamedTuple):
    """Gaussians of a few images at a step; images in [0, 1]."""

    phase: str  # "fit" or "distill"
    step: int
    gaussians: GaussianImages
    images: Float[np.ndarray, "m h w c"]
    ellipses: geometry.Ellipses  # as rendered

    @property
    def title(self) -> str:
        return f"{'fit' if self.phase == 'fit' else 'distillation'}\nstep {self.step}"


def main(
    config: ConfigDict,
    workdir: str | os.PathLike | None,
    steps: list[int],
    num_images: int,
    out: pathlib.Path,
) -> None:
    """Draws the first image of `num_images` classes, and writes ellipses.gif.

    Shows the fit of `config` at `steps` (empty: a selection), of codes none, and the distillation
    that `workdir` has snapshots of, or else its distilled set.
    """
    kept = {} if workdir is None else _sets(pathlib.Path(workdir))
    where = workdir or "config"
    with inputs.building_from(where):
        material = experiment.build_fit_parts(config)
        kind = material.parameterization
        fits_alone = isinstance(kind, Gaussian)  # codes share grids between all images
        if not (fits_alone or (kept and isinstance(kind, Gaussians))):
            expected = "gaussian" + ", or quantized with a workdir" * (not kept)
            raise UsageError(f"config.parameterization.name: expected {expected}, got {kind.name}")
        # One image per class, to show different objects.
        chosen = (np.cumsum(material.counts) - material.counts)[:num_images]
        total = config.init.num_steps
        steps = sorted({s for s in steps or (*STEPS, total) if s <= total})
        moments = []
        if fits_alone and config.init.images != "none":
            moments = fitting(config, material, chosen, steps)
        elif not kept:
            raise UsageError("config.init.images: expected real or solid, got none: no fit to show")
    for step, path in kept.items():
        moments.append(distilled(inputs.load_gaussians(path), chosen, step))
    shown = set(spread([m.step for m in moments if m.phase == "distill"], MOST_DISTILLED))
    columns = [m for m in moments if m.step in (steps if m.phase == "fit" else shown)]
    cell, count = draw.PAGE / max(len(columns), 6), len(chosen)
    size = cell * len(columns), 2 * cell * count + 0.35
    with draw.sheet(out, NAME, rows(chosen, columns), *size, tight=True) as figure:
        # An image above its ellipses.
        grid = figure.subplots(2 * count, len(columns), squeeze=False)
        for column, m in zip(grid.T, columns, strict=True):
            column[0].set_title(m.title)
            fill(lambda i, c=column: c[2 * i : 2 * i + 2], m)
    animate(moments, out / f"{NAME}.gif")


def _sets(workdir: pathlib.Path) -> dict[int, pathlib.Path]:
    """Returns a run's sets by step. Raises UsageError if it has none yet."""
    if kept := snapshots(workdir):
        return kept
    if not (last := workdir / file.NAME).is_file():
        raise UsageError(
            f"{workdir}: no set yet; expected a run that has ended, or with snapshots "
            "(config.distill.snapshot_every); without workdir only the fit is shown"
        )
    return {inputs.step_of(file.load(last)): last}


def fitting(
    config: ConfigDict,
    material: experiment.FitParts,
    chosen: Int[np.ndarray, "m"],
    steps: list[int],
) -> list[Moment]:
    """Fits the images `chosen` as a run of `config` does, and returns `steps` and some between.

    An image's fit depends on no other image, so these end as in the full fit.
    """
    kind, real = material.parameterization, fits.images_of(config, material)
    rates = config.init.learning_rate, config.init.halve_means_every
    # All are drawn at once, as in the run.
    key = stream(config.seed, "initial parameters")
    start = fit.start(kind, key, jax.device_put(real), *rates)
    params, real = of_images((start.params, real), chosen)
    state = fit.FitState(params, kind.fit_optimizer(*rates).init(params), start.step)
    between = np.unique(np.geomspace(1, max(steps[-1], 1), FRAMES).astype(int)).tolist()
    moments, done = [], 0
    with Reporter(None).phase("fit", steps[-1]) as progress:
        for step in sorted({0, *steps, *(s for s in between if s <= steps[-1])}):
            while done < step:
                # Halve calls, so that few lengths are compiled.
                count = 1 << ((step - done).bit_length() - 1)
                state, errors = fit.run(kind, state, real, rates[0], count, rates[1])
                done += count
                progress.advance(count, error=float(errors.mean()))
            moments.append(moment("fit", step, kind, jax.tree.map(jnp.copy, state.params)))
    return moments


def distilled(set_: DistilledSet, chosen: Int[np.ndarray, "m"], step: int) -> Moment:
    """Returns some images of a set of Gaussians. Raises UsageError if one is not finite."""
    kind, params = parameterizations.of(set_)
    found = moment("distill", step, kind, of_images(params, chosen))
    set_.checked(found.images)
    return found


def of_images(tree: Any, chosen: Int[np.ndarray, "m"]) -> Any:
    """Returns some entries of arrays that lead with images, on the device."""
    return on_device(jax.tree.map(lambda a: np.asarray(a)[chosen], tree))


def moment(phase: str, step: int, kind: Gaussian, gaussians: GaussianImages) -> Moment:
    """Returns Gaussians as NumPy arrays, with their rendering."""
    images = np.asarray(kind.render(gaussians))
    if not kind.opacity:
        ones = np.ones(gaussians.opacities.shape, np.float32)
        gaussians = dataclasses.replace(gaussians, opacities=ones)
    outlines = geometry.ellipses(gaussians, kind.height, kind.width, kind.prefilter)
    return Moment(phase, step, jax.tree.map(np.asarray, gaussians), images, outlines)


def spread(steps: Sequence[int], most: int) -> list[int]:
    """Returns at most `most` of `steps`, evenly spread, with the first and the last."""
    if len(steps) <= most:
        return list(steps)
    return [steps[i] for i in np.linspace(0, len(steps) - 1, most).round().astype(int)]


def rows(chosen: Int[np.ndarray, "m"], moments: Sequence[Moment]) -> list[dict]:
    """Returns a row per drawn ellipse; lengths in pixels."""
    found = []
    for m in moments:
        centers, axes, angles = m.ellipses
        for i, image in enumerate(chosen):
            for n in np.flatnonzero(m.gaussians.opacities[i]):
                color = m.gaussians.colors[i, n]
                found.append(
                    dict(phase=m.phase, step=m.step, image=int(image), gaussian=int(n))
                    | dict(zip(("x", "y"), centers[i, n], strict=True))
                    | dict(long=axes[i, n, 0], short=axes[i, n, 1], degrees=angles[i, n])
                    | {f"color{c}": float(v) for c, v in enumerate(color)}
                    | dict(opacity=float(m.gaussians.opacities[i, n]))
                )
    return found


def animate(moments: Sequence[Moment], path: pathlib.Path) -> None:
    """Writes a GIF: a column per image, renderings above ellipses; each part's last frame rests."""
    fitted, later = ([m for m in moments if m.phase == p] for p in ("fit", "distill"))
    keep = set(spread([m.step for m in later], FRAMES))
    frames, lasts = [], []
    for part in (fitted, [m for m in later if m.step in keep]):
        frames += [_frame(m) for m in part]
        lasts += [FRAME_MS] * (len(part) - 1) + [8 * FRAME_MS] * bool(part)
    content = io.BytesIO()
    first, *rest = (Image.fromarray(f).quantize(128, dither=Image.Dither.NONE) for f in frames)
    more = dict(append_images=rest, duration=lasts, loop=0, comment=draw.MARK)
    first.save(content, "GIF", save_all=True, **more)
    draw.write(path, content.getvalue())


def _frame(m: Moment) -> np.ndarray:
    with draw.styled(1.1 * len(m.images), 2.5) as figure:
        grid = figure.subplots(2, len(m.images), squeeze=False)
        figure.suptitle(m.title)
        fill(lambda i: grid[:, i], m)
        return draw.frame(figure)


def fill(axes_of: Callable[[int], Sequence[Any]], m: Moment) -> None:
    """Draws image i and its ellipses in the two axes of `axes_of(i)`."""
    for i, image in enumerate(m.images):
        above, below = axes_of(i)
        draw.image(above, image)
        one = geometry.Ellipses(*(a[i] for a in m.ellipses))
        colors, opacities = m.gaussians.colors[i], m.gaussians.opacities[i]
        draw.outlines(below, one, colors, opacities, image.shape[:2])
