"""One-shot federated learning: clients send distilled sets, a server trains on all of them.

A client's file is untrusted. How files travel is left to a framework such as Flower.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError, located, printable
from gsdd_jax.core.fields import SEED, check_value
from gsdd_jax.formats import file
from gsdd_jax.formats.clips import check_shape
from gsdd_jax.formats.distilled import CLASS_NAMES, DistilledSet
from gsdd_jax.formats.labeler import ALONE
from gsdd_jax.formats.parts import PRIVACY
from gsdd_jax.formats.shapes import Int

SPLITS = ("iid", "classes", "dirichlet")
CONCENTRATION = 1e-3, 1e3  # least and most
BYTES_PER_IMAGE = 16  # of a client's file; small sets with mixtures take about 30
MOST_SAMPLES = 4  # per pixel side
LARGEST = 16.0  # absolute value of a pixel
_TRIES = 100


@checked
def pack(distilled: DistilledSet) -> bytes:
    """Returns a set as the bytes of a file, whose provenance holds the class names and, of a
    private set, epsilon and delta.

    The config, versions and hashes of the client's data stay with the client. Raises UsageError for
    a set without class names, and for one with a labeler, which knows one client's classes only.
    """
    if distilled.class_names is None:
        raise UsageError(f"{distilled!r}: expected class names, got none")
    if distilled.labeler is not None:
        raise UsageError(f"{distilled!r}: {ALONE}")
    provenance = _named(distilled)
    cost = distilled.provenance.get(PRIVACY)
    if isinstance(cost, Mapping):
        numbers = {name: cost.get(name) for name in ("epsilon", "delta")}
        if all(isinstance(n, int | float) and math.isfinite(n) for n in numbers.values()):
            provenance[PRIVACY] = numbers
    return file.encoded(dataclasses.replace(distilled, provenance=provenance))


@checked
def receive(
    content: bytes,
    *,
    client: str,
    most_bytes: int,
    classes: Sequence[str],
    image_shape: Sequence[int],
    most_images: int | None = None,
) -> DistilledSet:
    """Returns the set that a client sent by `pack`, checked.

    Args:
      content: what arrived.
      client: name of the client, for messages.
      most_bytes: most bytes of `content`.
      classes: names of the classes that the client may send.
      image_shape: height, width and channels of the images.
      most_images: most images, mixtures included; None: one for every `BYTES_PER_IMAGE` of
        `most_bytes`.

    Raises UsageError, naming the client, for content that is too large, no distilled set or
    damaged; for a labeler, other classes, too many images, images of another size, with numbers far
    outside [0, 1], and those that take long to render. Sizes are checked before anything is
    decoded.
    """
    client, shape = printable(client), tuple(image_shape)
    most = most_bytes // BYTES_PER_IMAGE if most_images is None else most_images

    def accept(said: file.Described) -> None:
        if said.class_names is None:
            raise UsageError("expected class names, got none")
        if other := [name for name in said.class_names if name not in set(classes)]:
            known = ", ".join(map(printable, classes))
            raise UsageError(f"expected classes among {known}, got {printable(other[0])}")
        check_shape(said.format.image_shape, shape)
        if said.format.frames > 1:
            raise UsageError(f"expected images, got clips of {said.format.frames} frames")
        if said.has_labeler:
            raise UsageError(ALONE)
        if said.num_images > most:
            raise UsageError(f"expected at most {most:,} images, got {said.num_images:,}")
        samples = getattr(said.format, "samples_per_side", 1)
        if samples > MOST_SAMPLES:
            raise UsageError(f"samples_per_side: expected at most {MOST_SAMPLES}, got {samples}")

    with located(client):
        if len(content) > most_bytes:
            raise UsageError(f"expected at most {most_bytes:,} bytes, got {len(content):,}")
        found = file.decoded(content, "its set", accept)
        with located("its set"):
            images = found.images()  # refuses what is not finite
            if (largest := float(np.abs(images).max())) > LARGEST:
                raise UsageError(f"expected pixels of about 0 to 1, got {largest:g}")
    return dataclasses.replace(found, provenance=_named(found), source=client)


def _named(of: DistilledSet) -> dict[str, Any]:
    """Returns a provenance of the class names only."""
    return {"data": {CLASS_NAMES: list(of.class_names)}}


@checked
def partition(
    labels: Any,
    num_clients: int,
    *,
    split: str = "iid",
    classes_per_client: int = 2,
    concentration: float = 0.1,
    seed: int = 0,
) -> list[Int[np.ndarray, "n"]]:
    """Divides a data set among clients; returns the indices of each client's images, ascending.

    Every image goes to one client, unless none has its class.

    Args:
      labels: class of each image [n], integers or texts.
      split: "iid", equal parts of every class; "classes", a few classes for each client, divided
        equally among those who have them (FedD3); "dirichlet", random shares of every class.
      classes_per_client: number of classes of a client, for "classes".
      concentration: of the Dirichlet distribution of a class's shares; the smaller, the less equal.
      seed: random seed.

    Raises UsageError for invalid arguments, and if a client would have no image.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iuU" or not len(labels):
        raise UsageError(
            f"labels: expected integers or texts [n], got {labels.dtype} {list(labels.shape)}"
        )
    names = np.unique(labels)
    check_value("num_clients", "int", num_clients, (1, len(labels)))
    check_value("concentration", "float", concentration, CONCENTRATION)
    check_value("seed", "int", seed, SEED)
    if split == "classes":
        check_value("classes_per_client", "int", classes_per_client, (1, len(names)))
    if split not in SPLITS:
        raise UsageError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    rng = np.random.default_rng(seed)
    for _ in range(_TRIES):
        found = [[] for _ in range(num_clients)]
        shares = _shares(rng, len(names), num_clients, split, classes_per_client, concentration)
        for name, share in zip(names, shares, strict=True):
            if not share.any():
                continue
            of_class = rng.permutation(np.flatnonzero(labels == name))
            order = rng.permutation(num_clients)  # rounding leaves out others in each class
            ends = np.rint(np.cumsum(share[order]) / share.sum() * len(of_class)).astype(int)
            for client, part in zip(order, np.split(of_class, ends[:-1]), strict=True):
                found[client].append(part)
        parts = [np.sort(np.concatenate(of)) for of in found]
        if all(map(len, parts)):
            return parts
    raise UsageError(
        f"num_clients: expected fewer than {num_clients}, or a larger concentration: in each of "
        f"{_TRIES} draws a client had no image"
    )


def _shares(rng, num_classes, num_clients, split, per_client, concentration):
    """Returns the share of every client in every class [class, client], up to a factor."""
    if split == "iid":
        return np.ones((num_classes, num_clients))
    if split == "dirichlet":
        return rng.dirichlet(np.full(num_clients, concentration), num_classes)
    order, shares = rng.permutation(num_classes), np.zeros((num_classes, num_clients))
    for client in range(num_clients):
        mine = (client * per_client + np.arange(per_client)) % num_classes
        shares[order[mine], client] = 1
    return shares
