"""The objective's loss around distilled sets, along two random directions (Figure 4).

The plane lies in the space of optimized parameters. Each field of each image has its direction
scaled to the field's norm, like filter normalization of networks (Li et al., 2018). Sets stored in
different ways are therefore comparable.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from gsdd_jax import parameterizations
from gsdd_jax.core.errors import UsageError
from gsdd_jax.figures import draw, inputs
from gsdd_jax.formats import file
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.matching import Learned
from gsdd_jax.runs.progress import Reporter
from gsdd_jax.setup import experiment, input_pipeline
from gsdd_jax.setup.components import stream
from gsdd_jax.setup.provenance import recorded
from gsdd_jax.storage.workdir import whole
from gsdd_jax.training import labeling

NAME = "landscape"
LEVELS = 19


def main(
    distilled: Sequence[str | os.PathLike],
    points: int,
    radius: float,
    draws: int,
    places: dict[str, str | None],
    seed: int,
    out: pathlib.Path,
) -> None:
    """Draws a contour plot of the objective per set; a cross marks the set.

    The random draws are the same at every point: networks and real images (DM, DC), or segments of
    experts (TM). `places` maps dotted fields to the locations of data and experts. Finished rows of
    the grid are kept in landscape.json.
    """
    if points < 3 or points % 2 == 0:
        raise UsageError(f"points: expected an odd number of at least 3, got {points}")
    if draws < 1 or not radius > 0:
        raise UsageError(f"draws, radius: expected positive numbers, got {draws}, {radius}")
    paths = [file.path_of(d) for d in distilled]
    sets = [file.load(path).without_mixes() for path in paths]
    labels = inputs.labels_of([set_.format.name for set_ in sets], paths)
    made_of = dict(points=points, radius=radius, draws=draws, seed=seed)
    made_of["distilled"] = [inputs.digest(path) for path in paths]
    kept = inputs.Kept(out / f"{NAME}.json", made_of)
    offsets, grids, rows = np.linspace(-radius, radius, points), [], []

    @functools.lru_cache(1)  # built once, if a row of the set is missing
    def plane_of(i):
        with inputs.building_from(paths[i]):
            parts = experiment.build(made_by(sets[i], places))
        return plane(parts, sets[i], stream(seed, NAME), draws)

    def losses(i, second):
        return [float(plane_of(i)(first, second)) for first in offsets]

    for i, label in enumerate(labels):
        grid = []
        with Reporter(None).phase(f"{NAME}: {label}", points, unit="row") as progress:
            for row, second in enumerate(offsets):
                grid.append(kept.get(f"{label} row {row}", functools.partial(losses, i, second)))
                progress.advance(1)
        grids.append(np.array(grid))
        for place, loss in np.ndenumerate(grids[-1]):
            second, first = offsets[[*place]].tolist()
            rows.append(dict(set=label, first=first, second=second, loss=loss))
    with draw.sheet(out, NAME, rows, draw.PAGE, 2.9) as figure:
        panels = figure.subplots(1, len(grids), sharex=True, sharey=True, squeeze=False)[0]
        for axes, label, grid in zip(panels, labels, grids, strict=True):  # each of its own scale
            least, most = grid.min(), grid.max()
            levels = np.linspace(least, max(most, least + 1e-6 * abs(least)), LEVELS)
            filled = axes.contourf(offsets, offsets, grid, levels=levels, cmap="cividis")
            axes.contour(offsets, offsets, grid, levels=levels, colors="white", linewidths=0.3)
            axes.plot(0, 0, marker="+", color="white", markersize=7)
            axes.set(title=f"{label}: {grid[len(grid) // 2, len(grid) // 2]:.3g} at the set")
            axes.set(xlabel="first direction, norms", aspect="equal")
            bar = figure.colorbar(filled, ax=axes, label="loss", format="%.4g", shrink=0.85)
            bar.set_ticks(levels[:: LEVELS // 6])
        panels[0].set_ylabel("second direction, norms")


def made_by(set_: DistilledSet, places: dict[str, str | None]):
    """Returns the config that made a set, with locations on this machine."""
    given = {field: value for field, value in places.items() if value is not None}
    return whole(recorded(set_.provenance) | given)


def plane(
    parts: experiment.Experiment, set_: DistilledSet, key: Key[Array, ""], draws: int
) -> Callable[[float, float], Float[Array, ""]]:
    """Returns (a, b) -> mean loss at `set_` + a * first direction + b * second direction."""
    kind, params = parameterizations.of(set_)
    at = kind.to_optimized(params, parts.transform)
    keys = jax.random.split(key, 3)
    first, second = (direction(k, at) for k in keys[:2])
    loss = objective(parts, set_, keys[2], draws)
    return lambda a, b: loss(jax.tree.map(lambda p, d, e: p + a * d + b * e, at, first, second))


def objective(
    parts: experiment.Experiment, set_: DistilledSet, key: Key[Array, ""], draws: int
) -> Callable[[parameterizations.Params], Float[Array, ""]]:
    """Returns the objective without boundary loss, as a function of optimized parameters.

    The loss is the mean over `draws` fixed steps, each with all its updates while the images stay
    fixed. Learning rate and soft labels of the student are the set's. What the objective keeps
    across steps is that of the first step.
    """
    problem, matching, data = parts.problem, parts.problem.matching, input_pipeline.real(parts)
    if set_.labeler is not None:
        data = dataclasses.replace(data, labeler=labeling.of_set(set_.labeler))
    learned = Learned(set_.learning_rate, set_.soft_labels)
    aux_params = matching.aux_params_of(problem.labels, learned)
    kept = matching.first_kept(jax.random.fold_in(key, draws))  # none of the keys of the draws
    all_inputs = parts.host_inputs(0, draws)

    def step(params, data, drawn):
        key, host_inputs = drawn
        begin_key, update_key, after_key = jax.random.split(key, 3)
        synthetic = problem.synthetic(params, data.transform)

        def update(carry, u):
            loss_key = jax.random.fold_in(update_key, u)
            loss = matching.loss(synthetic, data, aux_params, carry, u, loss_key)
            after = matching.after_update(synthetic, carry, u, jax.random.fold_in(after_key, u))
            return after, loss

        carry = matching.begin(begin_key, data, host_inputs)
        carry = matching.with_kept(carry, kept, synthetic, aux_params)
        return jax.lax.scan(update, carry, jnp.arange(matching.num_updates))[1].sum()

    @jax.jit
    def mean(params, data, keys, all_inputs):
        return jax.lax.map(lambda drawn: step(params, data, drawn), (keys, all_inputs)).mean()

    keys = jax.random.split(key, draws)
    return lambda params: mean(params, data, keys, all_inputs)


def direction(key: Key[Array, ""], params: parameterizations.Params) -> parameterizations.Params:
    """Returns a random direction with the norm of `params` in each field (leaf) of each image."""
    leaves, tree = jax.tree.flatten(params)
    norm = lambda a: jnp.sqrt((a**2).sum(tuple(range(1, a.ndim)), keepdims=True))

    def scaled(key, like):
        random = jax.random.normal(key, like.shape)
        return random * norm(like) / norm(random)

    keys = jax.random.split(key, len(leaves))
    return tree.unflatten(map(scaled, keys, leaves))
