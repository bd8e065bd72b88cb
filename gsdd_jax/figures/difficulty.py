"""Accuracy of networks trained on distilled sets, by difficulty of test images (Figures 3c, 3d).

An image's difficulty is the percentage of small networks, trained briefly on the real images, that
misclassify it.
"""

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gsdd_jax import networks
from gsdd_jax.core.errors import UsageError, ranged
from gsdd_jax.data.transforms import RealImages, to_device
from gsdd_jax.figures import draw, inputs
from gsdd_jax.formats.file import path_of
from gsdd_jax.networks import Network
from gsdd_jax.runs import evaluation
from gsdd_jax.runs.progress import Reporter
from gsdd_jax.setup.components import stream
from gsdd_jax.setup.experiment import EvaluationParts
from gsdd_jax.training import evaluate, experts

NAME = "difficulty"
BINS = 5
EDGES = np.linspace(0, 100, BINS + 1)
BATCH_SIZE, LEARNING_RATE = 64, 0.05  # small networks: SGD without augmentation


def main(
    distilled: Sequence[str | os.PathLike],
    overrides: dict,
    judges: Sequence[int],
    seed: int,
    out: pathlib.Path,
) -> None:
    """Draws a line per set, and in gray the share of test images of each difficulty.

    The small networks' errors are kept in difficulty_judges.json, and the images that the sets'
    networks get right in difficulty.json. `overrides` are as in `evaluation.evaluate_file`,
    `judges` the number of the small networks, their width and their epochs.
    """
    num_networks, width, epochs = judges
    paths = [path_of(d) for d in distilled]
    opened = [evaluation.opened(path, overrides) for path in paths]
    _, config, real = opened[0]
    dataset = real.dataset
    for path, (*_, other) in zip(paths, opened, strict=True):
        if other.dataset.fingerprint != dataset.fingerprint:
            raise UsageError(f"{path}: expected a set made from the data of {paths[0]}")
    network = networks.build(
        "convnet", image_shape=dataset.image_shape, num_classes=dataset.num_classes, width=width
    )
    made_of = dict(
        fingerprint=dataset.fingerprint, transform=config.data.transform,
        width=width, epochs=epochs, seed=seed, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE,
    )  # fmt: skip
    known = inputs.Kept(out / f"{NAME}_judges.json", made_of)
    hard = 100 * judged(known, network, real, num_networks, epochs, seed).mean(0)
    # The data's location changes no result.
    plain = {field: value for field, value in overrides.items() if field != "data.dir"}
    kept = inputs.Kept(out / f"{NAME}.json", {"overrides": plain})
    named = [f"{s.format.name}, {ranged(s.class_counts)} per class" for s, *_ in opened]
    labels, rows = inputs.labels_of(named, paths), []

    def right_of(label, set_, config, parts):
        trained = evaluation.students(config, parts, set_, f"{NAME}: {label}", Reporter(None))
        return _texts(~mistakes(parts.network, trained.params, *parts.tested_on))

    for path, label, (set_, config, parts) in zip(paths, labels, opened, strict=True):
        compute = functools.partial(right_of, label, set_, config, parts)
        right = _flags(kept.get(inputs.digest(path), compute))
        rows += [dict(set=label) | row for row in by_difficulty(hard, right)]
    with draw.sheet(out, NAME, rows, draw.COLUMN, 2.6) as figure:
        axes = figure.subplots()
        share = 100 * np.histogram(hard, EDGES)[0] / len(hard)
        middles = (EDGES[:-1] + EDGES[1:]) / 2
        axes.bar(middles, share, width=0.94 * 100 / BINS, color="#DDDDDD", label="test images, %")
        middle = lambda row: (row["from"] + row["to"]) / 2
        draw.accuracies(axes, rows, "set", middle, bars=0.7)
        axes.set(xlabel=f"difficulty: % of {num_networks} networks that are wrong", ylim=(0, 102))
        axes.legend()


def judged(
    kept: inputs.Kept, network: Network, real: EvaluationParts, count: int, epochs: int, seed: int
) -> Bool[np.ndarray, "networks n"]:
    """Returns each small network's errors on the test images; saved ones are not retrained."""
    train, unravel = real.dataset.train, jax.vmap(network.unraveling())
    images, labels = to_device(train.images, real.transform), jnp.asarray(train.labels)

    def errors(i):
        key = jax.random.fold_in(stream(seed, NAME), i)
        params = experts.initial(network, key)[None]
        for epoch in range(epochs):
            params, _ = experts.train_epoch(
                network, params, key[None], jnp.int32(epoch), images, labels,
                learning_rate=jnp.float32(LEARNING_RATE), batch_size=BATCH_SIZE, strategy="",
            )  # fmt: skip
        return _texts(mistakes(network, unravel(params), *real.tested_on))[0]

    found = []
    with Reporter(None).phase(NAME, count, unit="network") as progress:
        for i in range(count):
            found.append(kept.get(f"network {i}", functools.partial(errors, i)))
            progress.advance(1, accuracy=100 * found[-1].count("0") / len(found[-1]))
    return _flags(found)


def _texts(flags: Bool[np.ndarray, "s n"]) -> list[str]:
    return ["".join("01"[flag] for flag in row) for row in flags.astype(int)]


def _flags(texts: Sequence[str]) -> Bool[np.ndarray, "s n"]:
    return np.array([list(map(int, row)) for row in texts], bool)


def mistakes(
    network: Network, params: Any, images: RealImages, labels: Int[Array | np.ndarray, "n"]
) -> Bool[np.ndarray, "s n"]:
    """Returns whether each of several networks (stacked `params`) misclassifies each image."""
    return np.asarray(evaluate.predictions(network, params, images)) != np.asarray(labels)


def by_difficulty(
    hard: Float[np.ndarray, "n"], right: Bool[np.ndarray, "s n"]
) -> list[dict[str, Any]]:
    """Returns a row per non-empty bin, with the networks' accuracy in percent."""
    place = np.clip(np.digitize(hard, EDGES) - 1, 0, BINS - 1)  # the last bin includes 100
    rows = []
    for i in range(BINS):
        if (mine := place == i).any():
            row = {"from": float(EDGES[i]), "to": float(EDGES[i + 1]), "images": int(mine.sum())}
            rows.append(row | inputs.accuracy(100 * right[:, mine].mean(1)))
    return rows
