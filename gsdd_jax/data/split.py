"""Division of labeled pictures into training and test pictures."""

import hashlib

from gsdd_jax.core.errors import UsageError
from gsdd_jax.data.items import Item

TEST_FRACTION = 0.1  # of each class, by default


def divided(items: list[Item], fraction: float) -> tuple[list[Item], list[Item]]:
    """Splits every class by a hash of names into training and test pictures, at least one each."""
    by_class: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        by_class.setdefault(item.label, []).append(place)
    drawn = set()
    for label, places in by_class.items():
        names = {i: f"{label}/{items[i].name}".encode() for i in places}
        places.sort(key=lambda i, names=names: hashlib.sha256(names[i]).digest())
        drawn.update(places[: min(len(places) - 1, max(1, int(fraction * len(places) + 0.5)))])
    if not drawn:
        raise UsageError("no class has a second picture to test on: give test pictures")
    parts = ([], [])
    for place, item in enumerate(items):
        parts[place in drawn].append(item)
    return parts
