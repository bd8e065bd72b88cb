"""Parts that configs share."""

from collections.abc import Collection

from ml_collections import ConfigDict

from gsdd_jax.config import default, in_codes, matched_by, stored_as

__all__ = [
    "get_config",
    "imagenet_subset",
    "matched_by",
    "parse",
    "quantized",
    "stored_as",
]


def get_config(name: str = "", resolution: int = 0, resize: str = "crop") -> ConfigDict:
    """Returns the default config: distribution matching at the smallest budget.

    A data set of images that are larger than CIFAR's has the published rate of their fit.
    """
    config = default()
    if name:
        config.data.update(name=name, resolution=resolution, resize=resize)
        config.init.learning_rate = 0.01
    return config


def quantized(config: ConfigDict, gpc: int, soft_labels: bool = False) -> ConfigDict:
    """Changes `config` to codes of 40 bits per Gaussian and `gpc` images, and returns it.

    Soft labels pay where classes are few: every image stores a value per class.
    """
    in_codes(config, bits_per_gaussian=40.0)
    config.budget.images_per_class = gpc
    if soft_labels:
        config.labels.learned = True
    return config


def imagenet_subset() -> ConfigDict:
    """Returns the default config for a subset of ImageNet at 128 x 128."""
    config = get_config("imagenet2012", 128, "squash")
    config.data.subset = "nette"  # or woof, fruit, yellow, meow, squawk
    return config


def parse(variant: str, budgets: Collection[int], has_codes: bool = True) -> tuple[int, bool]:
    """Returns the IPC of a variant such as "ipc=10,codes", and whether it uses codes.

    An empty one has the first of `budgets`, the family's values of IPC. Raises ValueError for a
    variant that the family does not have.
    """
    known = {f"ipc={ipc}": ipc for ipc in budgets}
    words = [word for word in variant.split(",") if word]
    found = [known[word] for word in words if word in known]
    codes = words.count("codes") if has_codes else 0
    if len(found) > 1 or codes > 1 or len(found) + codes < len(words):
        more = ", each with ,codes or without" if has_codes else ""
        raise ValueError(f"variant {variant!r}: expected one of {', '.join(known)}{more}")
    return found[0] if found else next(iter(budgets)), bool(codes)
