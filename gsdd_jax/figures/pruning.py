"""Test accuracy after removal of some Gaussians of each image (Figure 3a)."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from gsdd_jax import parameterizations
from gsdd_jax.figures import draw, geometry, inputs
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.file import path_of
from gsdd_jax.parameterizations.base import on_device
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

    Evaluations are kept in pruning.json; `overrides` are as in `evaluation.evaluate_file`.
    """
    path = path_of(distilled)
    set_ = inputs.load_gaussians(path)
    _, config, parts = evaluation.opened(path, overrides)
    made_of = {"distilled": inputs.digest(path), "seed": seed, "config": decisive(config)}
    kept = inputs.Kept(out / f"{NAME}.json", made_of)
    rows = []
    for order in ORDERS:
        ranks = removal_order(set_, order, stream(seed, "pruning"))
        for percent in PERCENT:
            pruned = without(set_, ranks, percent / 100)
            # Without removal all orders are the same.
            name = f"{order} {percent} %" if percent else "whole"

            def tested(pruned=pruned, name=f"{NAME}: {name}"):
                found = evaluation.distilled(config, parts, pruned, name, Reporter(None))
                return [float(a) for a in found.test]

            found = inputs.accuracy(kept.get(name, tested))
            left = pruned.format.num_gaussians
            rows.append(dict(order=order, removed_percent=percent, gaussians_left=left) | found)
    with draw.sheet(out, NAME, rows, draw.COLUMN, 2.4) as figure:
        axes = figure.subplots()
        draw.accuracies(axes, rows, "order", lambda row: row["removed_percent"], ORDERS)
        axes.set_xlabel("Gaussians removed from each image, %")
        figure.legend(loc="outside upper center")


def removal_order(set_: DistilledSet, order: str, key: Key[Array, ""]) -> Int[np.ndarray, "m n"]:
    """Returns each image's Gaussians in order of removal, those of opacity 0 first.

    Size is the area of the rendered ellipse times its opacity.
    """
    kind, params = parameterizations.of(set_)
    opaque = np.abs(np.asarray(params.opacities, np.float64))
    if order == "random":
        rank = np.asarray(jax.random.uniform(key, params.opacities.shape))
    else:
        drawn = geometry.ellipses(params, kind.height, kind.width, kind.prefilter)
        size = np.pi * drawn.axes.prod(-1) * opaque
        rank = -size if order == "large" else size
    return np.argsort(np.where(opaque == 0, -np.inf, rank), axis=-1, kind="stable")


def without(set_: DistilledSet, order: Int[np.ndarray, "m n"], share: float) -> DistilledSet:
    """Removes the first `share` of `order` from each image; at least one Gaussian stays."""
    count = order.shape[1]
    removed = min(round(share * count), count - 1)
    left = np.sort(order[:, removed:], axis=-1)
    keep = lambda a: np.asarray(a)[np.arange(len(left))[:, None], left]
    kind, params = parameterizations.of(set_)
    kind = dataclasses.replace(kind, num_gaussians=count - removed)
    return inputs.with_params(set_, kind, on_device(jax.tree.map(keep, params)))
