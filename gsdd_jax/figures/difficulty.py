"""Accuracy by difficulty of test images, of networks trained on distilled sets (Figures 3c, 3d).

An image's difficulty is the percentage of small networks, trained briefly on the real images, that
misclassify it.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Array, Bool, Float, Int, Key

from gsdd_jax import networks, parameterizations
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import check_regular, write_atomically
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
BATCH_SIZE, LEARNING_RATE = 64, 0.05  # small networks: SGD without augmentation


def main(
    distilled: Sequence[str | os.PathLike],
    overrides: Mapping[str, Any],
    *,
    num_networks: int,
    width: int,
    epochs: int,
    seed: int,
    out: pathlib.Path,
) -> None:
    """Draws a line per set, and in grey the share of test images of each difficulty.

    Args:
      distilled: files or work directories, of one data set.
      overrides: settings of the sets' evaluation, as for `evaluation.evaluate_file`.
      num_networks, width, epochs: settings of the small networks.
      seed: seed of the small networks.
      out: output folder, which also caches the small networks' errors (difficulty.safetensors)
        and the images that the sets' networks get right (difficulty.json).
    """
    for flag, value in (
        ("judges", num_networks),
        ("judge_width", width),
        ("judge_epochs", epochs),
    ):
        if value < 1:
            raise UsageError(f"--{flag}: expected at least 1, got {value}")
    paths = [path_of(d) for d in distilled]
    opened = [evaluation.opened(path, overrides) for path in paths]
    dataset = opened[0].parts.dataset
    for path, other in zip(paths, opened, strict=True):
        if other.parts.dataset.fingerprint != dataset.fingerprint:
            raise UsageError(f"{path}: expected a set made from the data of {paths[0]}")
    network = networks.build(
        "convnet", image_shape=dataset.image_shape, num_classes=dataset.num_classes, width=width
    )
    made_of = dict(
        fingerprint=dataset.fingerprint, transform=opened[0].config.data.transform,
        width=width, epochs=epochs, seed=seed, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE,
    )  # fmt: skip
    path = out / f"{NAME}.safetensors"
    wrong = errors_of_many(path, made_of, network, opened[0].parts, num_networks, seed)
    hard = difficulty(wrong)
    kept = inputs.Kept(out / f"{NAME}.json", {"overrides": _plain(overrides)})
    rows, labels = [], _labels(paths, opened)
    for path, label, (set_, config, parts) in zip(paths, labels, opened, strict=True):
        name = inputs.digest(path)
        if kept.get(name) is None:
            trained = evaluation.students(config, parts, set_, f"{NAME}: {label}", Reporter(None))
            found = mistakes(parts.network, trained, *parts.tested_on)
            kept[name] = ["".join("01"[v] for v in row) for row in (~found).astype(int)]
        right = np.array([list(map(int, row)) for row in kept.get(name)], bool)
        rows += [dict(set=label) | row for row in by_difficulty(hard, right)]
    draw.table(out, NAME, rows)
    plot(rows, labels, hard, num_networks, out)


def errors_of_many(
    path: pathlib.Path,
    made_of: Mapping[str, Any],
    network: Network,
    real: EvaluationParts,
    num_networks: int,
    seed: int,
) -> Bool[np.ndarray, "networks n"]:
    """Returns each network's errors on the test images; networks in the file are not retrained."""
    identity = json.dumps(dict(made_of), sort_keys=True)
    test, train = real.tested_on, real.dataset.train
    wrong = _read(path, identity, len(test[1]))
    images, labels = to_device(train.images, real.transform), jnp.asarray(train.labels)
    unravel = jax.vmap(experts.unraveling(network))
    done = min(len(wrong), num_networks)
    with Reporter(None).phase(NAME, num_networks, done, unit="network") as progress:
        for i in range(done, num_networks):
            key = jax.random.fold_in(stream(seed, NAME), i)
            params, loss = trained_shortly(network, key, images, labels, made_of["epochs"])
            one = mistakes(network, unravel(params), *test)
            wrong = np.concatenate([wrong, one])
            content = safetensors.numpy.save({"wrong": wrong.astype(np.uint8)}, {NAME: identity})
            write_atomically(path, content)
            progress.advance(1, loss=loss, accuracy=100 * float(1 - one.mean()))
    return wrong[:num_networks]


def trained_shortly(
    network: Network,
    key: Key[Array, ""],
    images: RealImages,
    labels: Int[Array, "n"],
    epochs: int,
) -> tuple[Float[Array, "1 p"], float]:
    """Returns a fresh network after some epochs of SGD, flat, and its loss in the last."""
    params = experts.initial(network, key)[None]
    for epoch in range(epochs):
        params, losses = experts.train_epoch(
            network, params, key[None], jnp.int32(epoch), images, labels,
            learning_rate=jnp.float32(LEARNING_RATE), batch_size=BATCH_SIZE, strategy="",
        )  # fmt: skip
    return params, float(losses[0])


def _read(path, identity, num_images) -> Bool[np.ndarray, "networks n"]:
    if not path.exists():
        return np.zeros((0, num_images), bool)
    check_regular(path, "the networks' errors")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            found = (file.metadata() or {}).get(NAME)
            wrong = file.get_tensor("wrong").astype(bool)
    except (OSError, safetensors.SafetensorError) as error:
        raise UsageError(f"{path}: expected the networks' errors ({error})") from None
    if found != identity or wrong.shape[1:] != (num_images,):
        raise UsageError(
            f"{path}: of other data or other networks; move it away, or give another --out"
        )
    return wrong


def mistakes(
    network: Network,
    params: Any,
    images: RealImages,
    labels: Int[Array | np.ndarray, "n"],
) -> Bool[np.ndarray, "s n"]:
    """Returns whether each of several networks (stacked `params`) misclassifies each image."""
    return np.asarray(evaluate.predictions(network, params, images)) != np.asarray(labels)


def difficulty(wrong: Bool[np.ndarray, "networks n"]) -> Float[np.ndarray, "n"]:
    """Returns the percentage of networks that misclassify each image."""
    return 100 * wrong.mean(0)


def by_difficulty(
    hard: Float[np.ndarray, "n"], right: Bool[np.ndarray, "s n"]
) -> list[dict[str, Any]]:
    """Returns a row per non-empty bin, with the networks' accuracy in percent."""
    edges = np.linspace(0, 100, BINS + 1)
    place = np.clip(np.digitize(hard, edges) - 1, 0, BINS - 1)  # the last bin includes 100
    rows = []
    for i in range(BINS):
        if (mine := place == i).any():
            summary = evaluation.summary("test", 100 * right[:, mine].mean(1))
            rows.append(
                {"from": float(edges[i]), "to": float(edges[i + 1]), "images": int(mine.sum())}
                | dict(accuracy=summary["test_accuracy"], std=summary["test_std"])
            )
    return rows


def plot(
    rows: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    hard: Float[np.ndarray, "n"],
    num_networks: int,
    out: pathlib.Path,
) -> None:
    """Draws lines of accuracy over bars of the share of images."""
    with draw.sheet(draw.COLUMN, 2.6) as figure:
        axes = figure.subplots()
        edges = np.linspace(0, 100, BINS + 1)
        share = 100 * np.histogram(hard, edges)[0] / len(hard)
        middles = (edges[:-1] + edges[1:]) / 2
        axes.bar(middles, share, width=0.94 * 100 / BINS, color="#DDDDDD", label="test images, %")
        for i, label in enumerate(labels):
            mine = [r for r in rows if r["set"] == label]
            x = [(r["from"] + r["to"]) / 2 for r in mine]
            mean, std = (np.array([r[k] for r in mine]) for k in ("accuracy", "std"))
            axes.errorbar(x, mean, std, label=label, capsize=2, elinewidth=0.7, **draw.look(i))
        axes.set(xlabel=f"difficulty: % of {num_networks} networks that are wrong", ylim=(0, 102))
        axes.set_ylabel("test accuracy, %")
        axes.legend()
        draw.save(figure, out, NAME)


def _labels(paths, opened) -> list[str]:
    kinds = [parameterizations.of_format(o.set_.format) for o in opened]
    labels = [f"{k.name}, {k.images_per_class} a class" for k in kinds]
    return labels if len(set(labels)) == len(labels) else inputs.names_of(paths)


def _plain(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the overrides without the data's location, which changes no result."""
    return {field: value for field, value in overrides.items() if field != "data.dir"}
