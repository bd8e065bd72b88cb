"""One-shot federated learning: clients send distilled sets, a server trains on all of them.

A client's file is untrusted. How files travel is left to a framework such as Flower.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError, located, printable
from gsdd_jax.core.fields import check_value
from gsdd_jax.formats import file
from gsdd_jax.formats.distilled import CLASS_NAMES, DistilledSet
from gsdd_jax.formats.shapes import Int

SPLITS = ("iid", "classes", "dirichlet")
LEAST, MOST = 1e-3, 1e3  # concentration
_TRIES = 1000


@checked
def pack(distilled: DistilledSet) -> bytes:
    """Returns a set as the bytes of a file, whose provenance holds the class names only.

    The config, versions and hashes of the client's data stay with the client. Raises UsageError for
    a set without class names.
    """
    if distilled.class_names is None:
        raise UsageError(f"{distilled!r}: expected class names, got none")
    data = {CLASS_NAMES: list(distilled.class_names)}
    return file.encoded(dataclasses.replace(distilled, provenance={"data": data}))


@checked
def receive(
    content: bytes,
    *,
    client: str,
    most_bytes: int,
    classes: Sequence[str],
    image_shape: Sequence[int],
) -> DistilledSet:
    """Returns the set that a client sent by `pack`, checked.

    Args:
      content: what arrived.
      client: name of the client, for messages.
      most_bytes: most bytes of `content`.
      classes: names of the classes that the client may send.
      image_shape: height, width and channels of the images.

    Raises UsageError, naming the client, for content that is too large, no distilled set or
    damaged, for other classes, images of another size, and images that are not finite.
    """
    client = printable(client)
    with located(client):
        if len(content) > most_bytes:
            raise UsageError(f"expected at most {most_bytes:,} bytes, got {len(content):,}")
        found = file.decoded(content, "its set")
        if found.class_names is None:
            raise UsageError("its set: expected class names, got none")
        if other := [name for name in found.class_names if name not in set(classes)]:
            raise UsageError(
                f"its set: expected classes among {', '.join(map(printable, classes))}, got "
                f"{printable(other[0])}"
            )
        if found.format.image_shape != tuple(image_shape):
            raise UsageError(
                f"its set: expected images of {tuple(image_shape)}, got {found.format.image_shape}"
            )
        found.images()  # refuses what is not finite
    return dataclasses.replace(found, source=client)


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
      labels: class of each image [n], integers.
      split: "iid", equal parts of every class; "classes", a few classes for each client, divided
        equally among those who have them (FedD3); "dirichlet", random shares of every class.
      classes_per_client: number of classes of a client, for "classes".
      concentration: of the Dirichlet distribution of a class's shares; the smaller, the less equal.
      seed: random seed.

    Raises UsageError for invalid arguments, and if a client would have no image.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise UsageError(f"labels: expected integers [n], got {labels.dtype} {list(labels.shape)}")
    names = np.unique(labels)
    check_value("num_clients", "int", num_clients, (1, len(labels)))
    check_value("concentration", "float", concentration, (LEAST, MOST))
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
            ends = np.rint(np.cumsum(share) / share.sum() * len(of_class)).astype(int)
            for client, part in enumerate(np.split(of_class, ends[:-1])):
                found[client].append(part)
        parts = [np.sort(np.concatenate(of)) for of in found]
        if all(map(len, parts)):
            return parts
    raise UsageError(
        f"num_clients: expected fewer than {num_clients}, so that each of them has images"
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
