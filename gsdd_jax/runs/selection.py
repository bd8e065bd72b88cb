"""Selection of the real images that a set starts from, by a teacher of all real images."""

import pathlib

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from gsdd_jax.config import validate
from gsdd_jax.config.fields import HERDING
from gsdd_jax.core import mesh
from gsdd_jax.data import Split, rows
from gsdd_jax.runs import evaluation, teacher
from gsdd_jax.runs.progress import Display
from gsdd_jax.setup.components import stream
from gsdd_jax.setup.experiment import FitParts, order_of_class
from gsdd_jax.training import evaluate


def chosen(
    config: ConfigDict, material: FitParts, workdir: pathlib.Path, reporter: Display
) -> Int[np.ndarray, "m"]:
    """Returns the indices of the real images that the set starts from, ordered by class.

    They are herded in the teacher's features, or random ones that it recognizes. A class of fewer
    images gives all. Raises UsageError like `teacher.trained`, and for a single class.
    """
    validate.ranges(config, "teacher")
    parts = evaluation.real_parts(config, material.dataset)
    taught = teacher.trained(config, parts, workdir, reporter)
    train, found = parts.dataset.train, []
    key = stream(config.seed, "initial images")  # as for random ones
    for c, count in enumerate(material.counts):
        of_class = np.flatnonzero(train.labels == c)
        real, _ = parts.on_device(Split(rows.take(train.images, of_class), train.labels[of_class]))
        images = real.transformed(real.stored)
        if config.init.images == HERDING:
            features = evaluate.features(taught.network, taught.params, images)
            best = herded(np.asarray(mesh.to_host(features)), count)
        else:
            outputs = evaluate.outputs(taught.network, taught.params, images)
            recognized = np.asarray(mesh.to_host(outputs)).argmax(1) == c
            best = first(order_of_class(key, c, len(of_class)), recognized)[:count]
        found.append(of_class[best])
    return np.concatenate(found)


def first(order: Int[np.ndarray, "n"], wanted: Bool[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Returns the indices in `order`, those that are `wanted` before the others."""
    return order[np.argsort(~wanted[order], kind="stable")]


def herded(features: Float[np.ndarray, "n f"], count: int) -> Int[np.ndarray, "m"]:
    """Returns the indices of at most `count` rows, in the order of their choice.

    Each is the one that brings the mean of those chosen nearest to the mean of all, among rows of
    unit length (Rebuffi et al., CVPR 2017, algorithm 4).
    """
    features = features.astype(np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    mean, total = features.mean(0), np.zeros(features.shape[1])
    left, found = np.ones(len(features), bool), []
    for k in range(1, min(count, len(features)) + 1):
        # |mean - (total + x) / k| up to a constant, for x of unit length or 0
        rest = k * mean - total
        distance = (features**2).sum(1) - 2 * features @ rest
        best = int(np.where(left, distance, np.inf).argmin())
        left[best] = False
        total += features[best]
        found.append(best)
    return np.array(found)
