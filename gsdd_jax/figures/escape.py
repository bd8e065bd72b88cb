"""Centers with and without the boundary loss and the clip (Figure 7), and a stress test.

Both run under distillation with the config's objective, as in the published figure. The initial fit
has no boundary loss but the same clip; centers that it leaves outside are reported separately.
"""

import dataclasses
import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from gsdd_jax.core.errors import UsageError
from gsdd_jax.figures import draw, inputs
from gsdd_jax.formats import file
from gsdd_jax.rasterizer.gaussians import GaussianImages
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.progress import Reporter
from gsdd_jax.setup import experiment, input_pipeline
from gsdd_jax.setup.components import stream
from gsdd_jax.storage.workdir import decisive, snapshot_path
from gsdd_jax.training import distill

NAME, SHARES, STRESS = "escape", "escape_shares", "escape_stress"
ARMS = {
    "loss and clip": {},
    "loss only": {"clip_means": False},
    "clip only": {"boundary_weight": 0.0},
    "neither": {"clip_means": False, "boundary_weight": 0.0},
}
WEIGHTS = (0.0, 0.01, 0.1, 1.0)  # weights of the boundary loss; 0.1 is published
STARTS = ("inside", "at", "on", "beyond")
COUNTS = {  # of the stress test, with their titles
    "gaussians": "",
    "outside": "outside at the end",
    "never_returned": "never returned",
    "no_gradient": "a coordinate without gradient",
}
MARGIN = 0.15  # drawn beyond the furthest center


def main(config: ConfigDict, stress_steps: int, out: pathlib.Path) -> None:
    """Runs or resumes the four distillations and the stress test, and draws them.

    `config` is of Gaussians; boundary weight and clip are replaced. The distillations' directories
    are in `out`/escape. `stress_steps` counts the steps of each of eight runs; 0: no stress test.
    """
    if config.parameterization.name != "gaussian":
        raise UsageError(
            "config.parameterization.name: expected gaussian, whose centers can escape, got "
            f"{config.parameterization.name!r}"
        )
    centers, shares, rows = {}, [], []
    for name, options in ARMS.items():
        workdir, arm = out / NAME / name.replace(" ", "_"), with_options(config, options)
        arm.distill.snapshot_every = max(1, config.distill.num_steps)  # also saves the fit
        arm.evaluate.baselines = ""  # no baselines
        result = distill_to(arm, workdir)
        fitted = file.load(snapshot_path(workdir, 0)).arrays["means"]
        centers[name] = file.load(workdir / file.NAME).arrays["means"]
        beyond = outside(centers[name])
        shares.append(
            dict(arm=name, gaussians=beyond.size, outside=int(beyond.sum()))
            | dict(outside_percent=100 * float(beyond.mean()))
            | dict(furthest=float(np.abs(centers[name]).max()))
            | dict(fitted_outside_percent=100 * float(outside(fitted).mean()))
            | dict(accuracy=result["distilled_accuracy"], std=result["distilled_std"])
        )
        rows += [
            dict(arm=name, image=i, gaussian=n, u=float(u), v=float(v))
            for i, image in enumerate(centers[name])
            for n, (u, v) in enumerate(image)
        ]
    draw.table(out, SHARES, shares)
    limit = max(1.0, *(s["furthest"] for s in shares)) + MARGIN
    # Titles give the shares outside after distillation and, in brackets, after the fit.
    with draw.sheet(out, NAME, rows, draw.PAGE, 2.4) as figure:
        row = figure.subplots(1, len(centers), sharex=True, sharey=True)
        for axes, (name, means), found in zip(row, centers.items(), shares, strict=True):
            points, beyond = means.reshape(-1, 2), outside(means).ravel()
            for chosen, color in ((~beyond, draw.COLORS[0]), (beyond, draw.COLORS[1])):
                # As pixels within the SVG: there are thousands of points.
                axes.scatter(*points[chosen].T, s=1.2, lw=0, color=color, rasterized=True)
            axes.plot([-1, 1, 1, -1, -1], [-1, -1, 1, 1, -1], color="black", lw=0.8)
            axes.set(aspect="equal", xlim=(-limit, limit), ylim=(limit, -limit), xlabel="u")
            axes.set_title(
                f"{name}\n{found['outside_percent']:.1f} % outside\n"
                f"({found['fitted_outside_percent']:.1f} % before)"
            )
        row[0].set_ylabel("v")
    if stress_steps:
        stress(config, stress_steps, out)


def with_options(config: ConfigDict, options: dict) -> ConfigDict:
    copy = config.copy_and_resolve_references()
    with copy.unlocked():
        copy.parameterization.options.update(options)
    return copy


def outside(means: Float[Array | np.ndarray, "*b 2"]) -> Bool[Array | np.ndarray, "*b"]:
    return (abs(means) > 1).any(-1)


def stress(config: ConfigDict, steps: int, out: pathlib.Path) -> None:
    """Draws shares by weight, one line per start: without the clip above, with it below.

    `never_returned` counts those outside at some time and never seen inside again. `no_gradient`
    counts those with a coordinate that never had one, from objective or boundary loss.
    """
    made_of, rows = {"config": decisive(config), "steps": steps}, []
    kept = inputs.Kept(out / f"{STRESS}.json", made_of)
    for clip, weight in itertools.product((False, True), WEIGHTS):
        name = f"clip {clip}, weight {weight:g}"
        arm = with_options(config, {"clip_means": clip, "boundary_weight": weight})
        counts = kept.get(name, functools.partial(_stressed, arm, steps, f"stress: {name}"))
        for start, found in counts.items():
            rows.append(dict(clip=int(clip), weight=weight, start=start) | found)
    fields = list(COUNTS)[1:]
    with draw.sheet(out, STRESS, rows, draw.PAGE, 3.2) as figure:
        grid = figure.subplots(2, len(fields), sharex=True, sharey=True)
        for i, (row, clip) in enumerate(zip(grid, ("no clip", "clip"), strict=True)):
            for axes, field in zip(row, fields, strict=True):
                for j, start in enumerate(STARTS):
                    mine = [r for r in rows if r["clip"] == i and r["start"] == start]
                    y = [100 * r[field] / max(r["gaussians"], 1) for r in mine]
                    axes.plot(range(len(WEIGHTS)), y, label=start, **draw.look(j))
                axes.set_xticks(range(len(WEIGHTS)), labels=[f"{w:g}" for w in WEIGHTS])
                if not i:
                    axes.set_title(f"{COUNTS[field]},\n% after {steps} steps")
            row[0].set_ylabel(f"{clip}, %")
        for axes in grid[1]:
            axes.set_xlabel("weight of the boundary loss")
        grid[-1, -1].legend(title="start")


def _stressed(config, steps, name) -> dict[str, dict[str, int]]:
    parts = experiment.build(config)
    kind, key = parts.parameterization, stream(config.seed, "stress")
    shape = (len(parts.labels), *kind.image_shape)
    params, starts = started(key, kind.init(key, jnp.zeros(shape)))
    counted = {"gaussians": np.ones_like(starts)} | endure(parts, config, params, steps, name)
    return {
        start: {name: int(which[starts == i].sum()) for name, which in counted.items()}
        for i, start in enumerate(STARTS)
    }


def started(
    key: Key[Array, ""], gaussians: GaussianImages
) -> tuple[GaussianImages, Int[np.ndarray, "m n"]]:
    """Returns the Gaussians moved, and the index into `STARTS` of each.

    "inside" is anywhere within 0.9. Otherwise one coordinate is there; the other is at 0.995
    ("at" the border), at 1 ("on") or at 1.02 to 1.5 ("beyond": 8 pixels of an image of 32).
    """
    shape = gaussians.opacities.shape
    keys = jax.random.split(jax.random.fold_in(key, 1), 4)
    starts = np.broadcast_to(np.arange(shape[1]) % len(STARTS), shape)
    within = jax.random.uniform(keys[0], (*shape, 2), minval=-0.9, maxval=0.9)
    beyond = jax.random.uniform(keys[1], shape, minval=1.02, maxval=1.5)
    distance = jnp.select([starts == 1, starts == 2], [0.995, 1.0], beyond)
    sign = jnp.where(jax.random.bernoulli(keys[2], shape=shape), 1.0, -1.0)
    axis = jax.random.bernoulli(keys[3], shape=shape).astype(int)
    moved = (starts != 0)[..., None] & (jnp.arange(2) == axis[..., None])
    means = jnp.where(moved, (sign * distance)[..., None], within)
    return dataclasses.replace(gaussians, means=means), starts


def endure(
    parts: experiment.Experiment, config: ConfigDict, params: GaussianImages, steps: int, name: str
) -> dict[str, Bool[np.ndarray, "m n"]]:
    """Distills from `params`, and checks centers every `distill.steps_per_call` steps.

    Returns whether `COUNTS` has each Gaussian.
    """
    key, rate = stream(config.seed, "distill"), config.distill.learning_rate
    data = input_pipeline.real(parts)
    state = distill.start(parts.problem, jax.tree.map(jnp.copy, params), rate)
    been = np.asarray(outside(params.means))
    returned, pulled = np.zeros(been.shape, bool), np.zeros(params.means.shape, bool)
    done = 0
    with Reporter(None).phase(name, steps) as progress:
        while done < steps:
            # The first check is after one step, when the clip has moved all centers that it can.
            count = min(config.distill.steps_per_call if done else 1, steps - done)
            given = parts.host_inputs(done, count)
            state, losses = distill.run(parts.problem, state, key, data, given, count)
            done += count
            # Adam's moments are exactly 0 as long as every gradient is.
            moments = (optax.tree_utils.tree_get(state.optimizer, m).means for m in ("mu", "nu"))
            pulled = pulled | np.any([np.asarray(m != 0) for m in moments], 0)
            now = np.asarray(outside(state.params.means))
            returned, been = returned | (been & ~now), been | now
            progress.advance(count, loss=float(losses.mean()))
    names = tuple(COUNTS)[1:]
    return dict(zip(names, (now, been & ~returned, ~pulled.all(-1)), strict=True))
