"""Membership inference of a recipe: which training images can be told from its distilled sets.

Shadow sets are distilled from random halves of the training images, in complementary pairs. Each
scores all training images, and each is attacked with the help of the others (`membership`).
"""

import dataclasses
import hashlib
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from gsdd_jax import data, matching, parameterizations
from gsdd_jax.core import memory, mesh
from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import write_atomically, write_json
from gsdd_jax.data import Dataset, Split, cache, rows
from gsdd_jax.data.transforms import to_unit
from gsdd_jax.formats import file
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.parts import PRIVACY
from gsdd_jax.runs import evaluation, membership
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.progress import Display
from gsdd_jax.setup.components import load_data
from gsdd_jax.storage.workdir import decisive, prepared
from gsdd_jax.training import evaluate

FEWEST = 4  # images of a class: two in each half
RESULT, SCORES = "audit.json", "scores.safetensors"
ATTACKS = ("network", "nearest")
_OF_SET = "set"  # metadata of scores: SHA-256 of the set


@checked
def audit_to(
    config: ConfigDict,
    shadows: int,
    workdir: str | os.PathLike,
    display: Display | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Audits the recipe of `config` in `workdir`, or resumes; returns the content of `audit.json`.

    Two attacks score an image: by the confidence of a network that is trained on the set, and by
    the distance to the nearest image of its class in the set. Each is used with likelihood ratios
    ("lira"), and with one threshold for all images ("threshold").

    `dataset` replaces that of `config.data`.

    Raises UsageError for an odd or too small number of shadows, a class of fewer than four images,
    an objective that follows experts, a set to begin with, and like `distill_to`.
    """
    membership.check_shadows(shadows)
    if matching.find(config.matching.name).follows_experts:
        raise UsageError(
            f"config.matching.name: expected an objective without experts for an audit, got "
            f"{config.matching.name}; its experts would have seen all images"
        )
    if config.init.set:
        raise UsageError("config.init.set: expected none for an audit: it may have seen all images")
    config = config.copy_and_resolve_references()
    config.evaluate.update(num_networks=1, rates="", baselines="")
    whole = data.untested(dataset or load_data(config))
    if (fewest := min(whole.train_counts)) < FEWEST:
        name = whole.class_names[whole.train_counts.index(fewest)]
        raise UsageError(
            f"config.data.name: expected {FEWEST} training images or more of each class for an "
            f"audit, got {fewest} of {name!r}"
        )
    display = display or Display()
    with prepared(workdir, config, **{"data.fingerprint": whole.fingerprint}) as workdir:
        inside = halves(whole, shadows, config.seed)
        parts = evaluation.parts_of(config, whole)
        scores, spent = [], []
        for i, chosen in enumerate(inside):
            folder = workdir / f"shadow-{i}"
            display.line(f"shadow {i + 1} of {shadows}")
            distill_to(config, folder, display, _only(whole, chosen))
            set_ = file.load(folder / file.NAME)
            if PRIVACY in set_.provenance:
                spent.append(set_.provenance[PRIVACY])
            with mesh.use_devices(config.mesh.devices):
                scores.append(_scored(config, parts, set_, folder, display))
        result = {
            "attacks": found(scores, inside),
            "shadows": shadows,
            "images": len(whole.train.labels),
            "images_per_class": set_.format.images_per_class,
            "bytes_per_class": set_.num_bytes // set_.num_classes,
            "data": {"name": whole.name, "fingerprint": whole.fingerprint},
            "config": decisive(config),
            "versions": set_.provenance["versions"],
        }
        if spent:  # of the smaller half: the sampling rate is twice that of all images, or more
            result[PRIVACY] = max(spent, key=lambda of: of["epsilon"])
        write_json(workdir / RESULT, result)
    return result


def text(result: dict[str, Any]) -> str:
    """Returns the measures of each attack as lines for people."""
    lines = [f"{result['shadows']} sets, each of a half of {result['images']:,} images"]
    for attack, kinds in result["attacks"].items():
        for kind, of in kinds.items():
            shown = {n: 100 * np.array([m["value"], m["std"]]) for n, m in of.items()}
            measured = ", ".join(
                f"{name.replace('_', ' ')} {value:.2f} ± {std:.2f} %"
                for name, (value, std) in shown.items()
            )
            lines.append(f"{attack}, {kind}: {measured}")
    return "\n".join(lines)


def halves(dataset: Dataset, shadows: int, seed: int) -> Bool[np.ndarray, "{shadows} n"]:
    """Returns which training images each shadow is made of.

    Sets 2i and 2i + 1 have the two halves of a random division of every class.
    """
    labels = dataset.train.labels
    inside = np.zeros((shadows, len(labels)), bool)
    for pair in range(shadows // 2):
        rng = np.random.default_rng([seed, pair])
        for c in range(dataset.num_classes):
            of_class = rng.permutation(np.flatnonzero(labels == c))
            inside[2 * pair, of_class[: len(of_class) // 2]] = True
        inside[2 * pair + 1] = ~inside[2 * pair]
    return inside


def found(
    scores: list[dict[str, Float[np.ndarray, "n"]]], inside: Bool[np.ndarray, "s n"]
) -> dict[str, Any]:
    """Returns the measures of both attacks, by likelihood ratios and by one threshold."""
    result = {}
    for attack in ATTACKS:
        of_sets = np.stack([of[attack] for of in scores])
        result[attack] = {
            "lira": membership.attacked(membership.ratios(of_sets, inside), inside),
            "threshold": membership.attacked(of_sets, inside),
        }
    return result


def _only(dataset: Dataset, chosen: Bool[np.ndarray, "n"]) -> Dataset:
    """Returns a data set of some training images, with the constants of the whole one."""
    there, train = np.flatnonzero(chosen), dataset.train
    memory.check(f"shadows: {len(there):,} images", len(there) * train.images[:1].nbytes)
    part = Split(rows.take(train.images, there), train.labels[there])
    arrays = {"train_images": part.images, "train_labels": part.labels}
    return dataclasses.replace(dataset, train=part, fingerprint=cache.fingerprint(arrays))


def _scored(config, parts, set_, folder: pathlib.Path, display) -> dict[str, np.ndarray]:
    """Returns a set's scores of all training images by attack; they are kept in its folder."""
    sha256 = hashlib.sha256((folder / file.NAME).read_bytes()).hexdigest()
    path = folder / SCORES
    if path.exists():
        kept = _kept(path, sha256, len(parts.dataset.train.labels))
        if kept is not None:
            return kept
    trained = evaluation.students(config, parts, set_, "attack", display)
    confidence, distance = [], []
    images, labels = _images_of(set_)
    train, done = parts.dataset.train, 0
    for piece in rows.pieces(train.images):
        of = jnp.asarray(train.labels[done : done + len(piece)])
        done += len(piece)
        unit = to_unit(piece)
        logits = evaluate.outputs(parts.network, trained.params, parts.transform(unit))
        confidence.append(np.asarray(confidences(logits, of)))
        distance.append(np.asarray(nearest(unit, of, images, labels)))
    made = dict(zip(ATTACKS, (np.concatenate(confidence), -np.concatenate(distance)), strict=True))
    write_atomically(path, safetensors.numpy.save(made, {_OF_SET: sha256}))
    return made


def _images_of(set_: DistilledSet) -> tuple[Float[Array, "m h w c"], Int[Array, "m"]]:
    set_ = set_.without_mixes()
    return jnp.asarray(parameterizations.images(set_)), jnp.asarray(set_.labels)


def _kept(path: pathlib.Path, sha256: str, count: int) -> dict[str, np.ndarray] | None:
    """Returns the scores of a set from a file; None if damaged, or of another set."""
    try:
        with safetensors.safe_open(path, "numpy") as opened:
            if opened.metadata() != {_OF_SET: sha256} or set(opened.keys()) != set(ATTACKS):
                return None
            if any(opened.get_slice(name).get_shape() != [count] for name in ATTACKS):
                return None
            found = {name: opened.get_tensor(name) for name in ATTACKS}
    except (OSError, safetensors.SafetensorError):
        return None
    right = all(of.dtype == np.float32 and np.isfinite(of).all() for of in found.values())
    return found if right else None


@jax.jit
def confidences(logits: Float[Array, "n k"], labels: Int[Array, "n"]) -> Float[Array, "n"]:
    """Returns log(p / (1 - p)) of each image's class, whose probability is p."""
    own = jnp.arange(logits.shape[1]) == labels[:, None]
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), 1)
    return jnp.where(own, logits, 0).sum(1) - others


@jax.jit
def nearest(
    images: Float[Array, "n h w c"],
    labels: Int[Array, "n"],
    others: Float[Array, "m h w c"],
    of_others: Int[Array, "m"],
) -> Float[Array, "n"]:
    """Returns the Euclidean distance of each image to the nearest of the others of its class."""
    images, others = (of.reshape(len(of), -1) for of in (images, others))
    products = jnp.matmul(images, others.T, precision=jax.lax.Precision.HIGHEST)
    square = (images**2).sum(1)[:, None] + (others**2).sum(1) - 2 * products
    square = jnp.where(labels[:, None] == of_others, square, jnp.inf)
    return jnp.sqrt(jnp.maximum(square.min(1), 0))
