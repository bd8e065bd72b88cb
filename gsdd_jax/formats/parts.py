"""Distilled sets of fewer or of joined classes; images keep their bits."""

import dataclasses
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.fields import POSITIVE, check_value
from gsdd_jax.formats.base import Contents, is_unequal, settings
from gsdd_jax.formats.distilled import CLASS_NAMES, DistilledSet
from gsdd_jax.formats.shapes import Int

SPLIT = "budget.split"  # in a provenance's config: how unequal classes share the images
PARTS = "parts"  # in a provenance: those of the sets that a set was made of
PRIVACY = "privacy"  # in the provenance of a differentially private set: what it cost
# Fields of a config by which a set is evaluated.
EVALUATED = (
    *("network.", "matching.strategy", "data.transform", "data.resolution", "evaluate.optimizer"),
    *("evaluate.num_networks", "evaluate.rates", "evaluate.epochs", "evaluate.batch_size"),
)


@checked
def merge(sets: Sequence[DistilledSet], learning_rate: float | None = None) -> DistilledSet:
    """Returns one set of the classes of all sets, in their order.

    Sets are of one format with equal settings, transform and evaluation, and without soft labels
    or labeler, which know only the classes of their own set. Classes have different names, or none
    in any set. The provenance is the first set's, with those of all as `parts`.

    Args:
      learning_rate: of the result; None: that of the sets, which is then equal.

    Raises UsageError, naming the set and the field, for sets that differ or share a class, and for
    a format that cannot store them together without loss.
    """
    if len(sets) < 2:
        raise UsageError(f"merge: expected two sets or more, got {len(sets)}")
    if learning_rate is not None:
        check_value("merge: learning_rate", "float", learning_rate, POSITIVE)
        sets = [dataclasses.replace(of, learning_rate=learning_rate) for of in sets]
    first, names = sets[0], []
    named = first.class_names is not None
    for i, of in enumerate(sets):
        with located(of.source or f"set {i + 1}"):
            if of.soft_labels is not None:
                raise UsageError(
                    "soft labels: expected none, got those of its own classes, which say nothing "
                    "about the classes of other sets"
                )
            if of.labeler is not None:
                raise UsageError("labeler: expected none, got one of its own classes")
            if (of.class_names is not None) != named:
                raise UsageError("class names: expected them in every set or in none")
            for what, found, expected in _compared(of, first):
                if found != expected:
                    raise UsageError(
                        f"{what}: expected {reprlib.repr(expected)}, as in "
                        f"{first.source or 'set 1'}, got {reprlib.repr(found)}"
                    )
            if repeated := sorted(set(names) & set(of.class_names or ())):
                raise UsageError(
                    f"class names: expected other classes than in the sets before, got "
                    f"{reprlib.repr(repeated[0])}, too"
                )
            names += of.class_names or ()
    contents = [of.format.divided(of.arrays) for of in sets]
    for i, (of, found) in enumerate(zip(sets, contents, strict=True)):
        with located(of.source or f"set {i + 1}"):
            _check_shared(first.format.name, found, contents[0])
            if of.learning_rate != first.learning_rate:
                raise UsageError(
                    f"learning_rate: expected {first.learning_rate:.7g}, as in "
                    f"{first.source or 'set 1'}, got {of.learning_rate:.7g}; give one for all"
                )
    joined = Contents(
        *(
            {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
            for parts in ([c.by_image for c in contents], [c.by_class for c in contents])
        ),
        contents[0].shared,
    )
    data = {n: v for n, v in first.data.items() if all(of.data.get(n) == v for of in sets)}
    data["name"] = " + ".join(dict.fromkeys(str(of.data.get("name")) for of in sets))
    made = _made(sets, data, names)
    return _rebuilt(first, joined, [n for of in sets for n in of.class_counts], made)


@checked
def subset(
    of: DistilledSet,
    classes: Sequence[str | int] | None = None,
    *,
    images_per_class: int | None = None,
    bytes_per_class: int | None = None,
) -> DistilledSet:
    """Returns some classes of a set, or the first images of each class.

    Args:
      classes: names or indices, in the order of the new labels; None: all. Soft labels and a
        labeler keep the logits of these classes: an image's probabilities are those given that it
        is of one of them.
      images_per_class: number of images, the first of each class; None: all.
      bytes_per_class: bytes, of all arrays divided by the classes, that whole images may take,
        equally many of each class.

    Raises UsageError for unknown or repeated classes, more images than the smallest class has,
    fewer bytes than one image takes, a format that cannot store the images without loss, and
    unequal classes of a total that is no multiple of their number.
    Mixtures stay only if nothing is cut: which images they show follows from all of the set's.
    """
    with located(of.source or "subset"):
        whole, of = of, of.without_mixes()
        chosen = np.arange(of.num_classes)
        if classes is not None:
            with located("classes"):
                chosen = class_indices(classes, of.class_names, of.num_classes)
        _check_order(of)
        there = [of.class_counts[c] for c in chosen]
        most = min(there)
        count = most if images_per_class is None else images_per_class
        if not 1 <= count <= most:
            smallest = chosen[there.index(most)]
            least = f" (class {smallest} has no more)" if is_unequal(there) else ""
            raise UsageError(f"images_per_class: expected 1 to {most}{least}, got {count}")
        every = tuple(chosen) == tuple(range(of.num_classes))
        fits = bytes_per_class is None or whole.num_bytes <= bytes_per_class * of.num_classes
        if every and fits and (images_per_class is None or {count} == set(there)):
            return whole
        contents = of.format.divided(of.arrays)
        cut = lambda count: _subset(of, contents, chosen, len(chosen) * [count])
        if bytes_per_class is None:
            return _subset(of, contents, chosen, there) if images_per_class is None else cut(count)
        # Sizes of entropy-coded images need not grow evenly.
        least, best = 1, None
        while least <= count:
            middle = (least + count) // 2
            found = cut(middle)
            if found.num_bytes <= bytes_per_class * len(chosen):
                least, best = middle + 1, found
            else:
                count = middle - 1
        if best is None:
            raise UsageError(
                f"bytes_per_class: expected at least {-(-found.num_bytes // len(chosen))}, which "
                f"one image per class takes, got {bytes_per_class}"
            )
        return best


def class_indices(
    classes: Sequence[str | int], names: Sequence[str] | None, count: int
) -> Int[np.ndarray, "k"]:
    """Returns the indices of classes, given by name or by index.

    Raises UsageError for an unknown or repeated one. A name that looks like an index is a name.
    """
    places = {name: i for i, name in enumerate(names or ())}
    found: list[int] = []
    for given in classes:
        index = places.get(given) if isinstance(given, str) else given
        if index is None and given.isascii() and given.isdecimal():
            index = int(given[:9])
        if index is None or not 0 <= index < count:
            known = f", or {reprlib.repr(list(names))}" if names else ""
            raise UsageError(f"expected 0 to {count - 1}{known}, got {reprlib.repr(given)}")
        if index in found:
            raise UsageError(f"expected different ones, got {reprlib.repr(given)} again")
        found.append(index)
    if not found:
        raise UsageError("expected one or more, got none")
    return np.array(found)


def _subset(of, contents, chosen, counts) -> DistilledSet:
    """Returns the first `counts` images of the `chosen` classes."""
    if sum(counts) % len(counts):
        raise UsageError(
            f"classes: expected a total that is a multiple of {len(counts)}, their number, of "
            f"unequally many images, got {sum(counts)}; give images_per_class of 1 to "
            f"{min(counts)}, too"
        )
    first = np.cumsum((0, *of.class_counts))
    images = np.concatenate([first[c] + np.arange(n) for c, n in zip(chosen, counts, strict=True)])
    fewer = Contents(
        {n: array[images] for n, array in contents.by_image.items()},
        {n: array[chosen] for n, array in contents.by_class.items()},
        contents.shared,
    )
    names = of.class_names and [of.class_names[i] for i in chosen]
    soft = None if of.soft_labels is None else of.soft_labels[images][:, chosen]
    labeler = None if of.labeler is None else of.labeler.of_classes(chosen)
    return _rebuilt(of, fewer, counts, _made([of], of.data, names), soft, labeler)


def _rebuilt(of, contents, counts, provenance, soft=None, labeler=None) -> DistilledSet:
    classes = len(counts)
    kind, arrays = of.format.resized(contents, sum(counts) // classes, classes)
    made = dataclasses.replace(
        of,
        format=kind,
        arrays=arrays,
        labels=np.repeat(np.arange(classes, dtype=np.int32), counts),
        provenance=provenance,
        soft_labels=soft,
        labeler=labeler,
        source="",
    )
    config = provenance.get("config")
    if isinstance(config, dict):  # compared with real images in the same bytes
        config = config | {"budget.bytes": -(-made.num_bytes // classes)}
        if not is_unequal(counts):
            config.pop(SPLIT, None)
        provenance["config"] = config
    return made


def _made(sets, data, names) -> dict[str, Any]:
    """Returns the provenance of a set made of others, whose classes have `names`, if any."""
    data = {n: v for n, v in data.items() if n != CLASS_NAMES}
    data |= {CLASS_NAMES: names} if names else {}
    made = sets[0].provenance | {"data": data, PARTS: [of.provenance for of in sets]}
    if len(sets) > 1:
        made.pop(PRIVACY, None)  # each part says its own
    return made


def _compared(of, first):
    """Yields a name, the value of a set, and that of the first, for all that must be equal."""
    ours, theirs = (_settings(one) for one in (of, first))
    for name in sorted(ours.keys() | theirs.keys(), key=lambda n: (n != "format", n)):
        yield name, ours.get(name), theirs.get(name)
    ours, theirs = (one.transform_description() for one in (of, first))
    if ours["name"] == "normalize" == theirs["name"]:  # another data set may have equal constants
        ours, theirs = ({n: one.get(n) for n in ("name", "mean", "std")} for one in (ours, theirs))
    for name in sorted(ours.keys() | theirs.keys(), key=lambda n: (n != "name", n)):
        yield f"transform: {name}", ours.get(name), theirs.get(name)
    ours, theirs = (_evaluated(one) for one in (of, first))
    for name in sorted(ours.keys() | theirs.keys()):
        yield f"config.{name}", ours.get(name), theirs.get(name)


def _settings(of) -> dict[str, Any]:
    _check_order(of)
    found = settings(of.format)
    kept = {n: v for n, v in found.items() if n not in of.format.of_all_classes | {"name"}}
    return {"format": found["name"]} | kept


def _evaluated(of) -> dict[str, Any]:
    config = of.provenance.get("config")
    fields = config if isinstance(config, dict) else {}
    return {n: v for n, v in fields.items() if n.startswith(EVALUATED)}


def _check_order(of) -> None:
    labels = np.sort(of.labels)
    every = np.array_equal(np.unique(labels), np.arange(of.num_classes))
    if not every or not np.array_equal(of.labels, labels):
        raise UsageError("labels: expected images in the order of their classes")


def _check_shared(name, found, expected) -> None:
    for key, values in expected.shared.items():
        if not np.array_equal(found.shared[key], values):
            raise UsageError(
                f"{name}: its images share {key!r}, which differs from the first set's, so that "
                "they cannot be stored together without loss, as Gaussians in bfloat16 can; "
                "gsdd_jax.evaluate takes a list of sets"
            )
