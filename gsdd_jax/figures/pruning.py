"""Test accuracy after removal of some Gaussians of each image (Figure 3a)."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from gsdd_jax import parameterizations
from gsdd_jax.figures import draw, geometry, inputs
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.file import path_of
from gsdd_jax.runs import evaluation
from gsdd_jax.runs.progress import Reporter
from gsdd_jax.setup.components import stream
from gsdd_jax.storage.workdir import decisive

NAME = "pruning"
PERCENT = tuple(range(0, 100, 10))  # removed Gaussians per image
ORDERS = {
    "large": "large and opaque first",
    "random": "random",
    "small": "small and transparent first",
}


def main(
    distilled: str | os.PathLike, overrides: Mapping[str, Any], seed: int, out: pathlib.Path
) -> None:
    """Draws test accuracy after removing 0 to 90 % of each image's Gaussians, in three orders.

    Args:
      distilled: a file or a work directory.
      overrides: as for `evaluation.evaluate_file`.
      seed: seed of the random order.
      out: output folder, which also caches evaluations (pruning.json).
    """
    path = path_of(distilled)
    set_ = inputs.load_gaussians(path)
    _, config, parts = evaluation.opened(path, overrides)
    made_of = {"distilled": inputs.digest(path), "seed": seed, "config": decisive(config)}
    kept = inputs.Kept(out / f"{NAME}.json", made_of)
    reporter, rows = Reporter(None), []
    for order in ORDERS:
        ranks = removal_order(set_, order, stream(seed, "pruning"))
        for percent in PERCENT:
            pruned = without(set_, ranks, percent / 100)
            left = pruned.format.num_gaussians
            # Without removal all orders are the same.
            name = f"{order} {percent} %" if percent else "whole"
            if kept.get(name) is None:
                accuracies = evaluation.distilled(
                    config, parts, pruned, f"{NAME}: {name}", reporter
                )
                kept[name] = [float(a) for a in accuracies.test]
            summary = evaluation.summary("test", kept.get(name))
            rows.append(
                dict(order=order, removed_percent=percent, gaussians_left=left)
                | dict(accuracy=summary["test_accuracy"], std=summary["test_std"])
            )
    draw.table(out, NAME, rows)
    with draw.sheet(draw.COLUMN, 2.4) as figure:
        axes = figure.subplots()
        for i, (order, label) in enumerate(ORDERS.items()):
            mine = [r for r in rows if r["order"] == order]
            x, mean, std = (
                np.array([r[k] for r in mine]) for k in ("removed_percent", "accuracy", "std")
            )
            axes.plot(x, mean, label=label, **draw.look(i))
            axes.fill_between(x, mean - std, mean + std, color=draw.COLORS[i], alpha=0.18, lw=0)
        axes.set(xlabel="Gaussians removed from each image, %", ylabel="test accuracy, %")
        figure.legend(loc="outside upper center")
        draw.save(figure, out, NAME)


def removal_order(set_: DistilledSet, order: str, key: Key[Array, ""]) -> Int[np.ndarray, "m n"]:
    """Returns each image's Gaussians in order of removal; those of opacity 0 always go first.

    Size is the area of the rendered ellipse times its opacity.
    """
    kind, params = parameterizations.of(set_)
    opaque = np.abs(np.asarray(params.opacities, np.float64))
    if order == "random":
        rank = np.asarray(jax.random.uniform(key, params.opacities.shape))
    else:
        size = geometry.areas(params, kind.height, kind.width, kind.prefilter) * opaque
        rank = -size if order == "large" else size
    return np.argsort(np.where(opaque == 0, -np.inf, rank), axis=-1, kind="stable")


def without(set_: DistilledSet, order: Int[np.ndarray, "m n"], share: float) -> DistilledSet:
    """Removes the first `share` of `order` from each image; at least one Gaussian stays."""
    count = order.shape[1]
    removed = min(round(share * count), count - 1)
    left = jnp.asarray(np.sort(order[:, removed:], axis=-1))
    keep = lambda a: jax.vmap(lambda one, places: one[places])(a, left)
    kind, params = parameterizations.of(set_)
    kind = dataclasses.replace(kind, num_gaussians=count - removed)
    return inputs.with_params(set_, kind, jax.tree.map(keep, params))
