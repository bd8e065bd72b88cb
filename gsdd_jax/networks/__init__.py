"""Networks by name, one file each: for distillation, experts and evaluation."""

from collections.abc import Mapping
from typing import Any

from gsdd_jax.core import kinds
from gsdd_jax.core.fields import check_options
from gsdd_jax.networks.base import Architecture, Network

__all__ = ["Architecture", "Network", "architecture", "build", "find", "known"]


def find(name: str) -> type[Architecture]:
    """Returns the network of that name. Raises UsageError if there is none."""
    return kinds.named(__name__, Architecture, name, "config.network.name")


def known() -> dict[str, type[Architecture]]:
    return kinds.known(__name__, Architecture)


def architecture(name: str, options: Mapping[str, Any]) -> Architecture:
    """Returns the network `name` with options as from a config, not yet bound to an image size.

    Raises UsageError for an unknown name or option, or one of a wrong type or range.
    """
    kind = find(name)
    check_options(kind, options, "config.network.options")
    return kind(**options)


def build(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    conv: str = "auto",
    precision: str = "default",
    frames: int = 1,
    **options: Any,
) -> Network:
    """Builds a network by name (paper, sections A.1.2 and A.2).

    Args:
        conv: "auto" is the fastest convolution for the device; "lax" is XLA's, which has
            forward-mode derivatives too.
        precision: of the products: "default" lets a GPU take TF32, "float32" does not, "bfloat16"
            computes all but the statistics of norms in bfloat16.
        frames: frames of a clip, one after the other as channels; 1: images.
        **options: fields of the network's dataclass.

    Raises UsageError for an unknown name or setting, or one that does not fit the image.
    """
    return architecture(name, options).build(
        image_shape=image_shape, num_classes=num_classes, conv=conv, precision=precision,
        frames=frames,
    )  # fmt: skip
