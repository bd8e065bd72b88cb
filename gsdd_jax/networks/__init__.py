"""Networks by name, one file each: for distillation, experts and evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.options import check_names, check_values
from gsdd_jax.networks.alexnet import AlexNet
from gsdd_jax.networks.base import Architecture, Network
from gsdd_jax.networks.convnet import ConvNet
from gsdd_jax.networks.resnet import ResNet18
from gsdd_jax.networks.vgg import VGG11
from gsdd_jax.networks.vit import ViT

__all__ = ["Architecture", "Network", "architecture", "build"]

BY_NAME = {kind.name: kind for kind in (ConvNet, AlexNet, VGG11, ResNet18, ViT)}


def architecture(name: str, options: Mapping[str, Any]) -> Architecture:
    """Returns the network `name` with validated options, not yet bound to an image size.

    Args:
        name: one of `BY_NAME`.
        options: fields of the network's dataclass, as from a config; not trusted.

    Raises:
        UsageError: for an unknown name or option, or one of a wrong type or range.
    """
    if name not in BY_NAME:
        raise UsageError(f"unknown network {name!r}: choose one of {', '.join(BY_NAME)}")
    kind, where = BY_NAME[name], "config.network.options"
    check_names(kind, options, {field.name for field in dataclasses.fields(kind)}, where)
    check_values(kind, options, kind.limits, f"{where}.")
    return kind(**options)


def build(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    conv: str = "auto",
    precision: str = "default",
    **options: Any,
) -> Network:
    """Builds a network by name (paper, sections A.1.2 and A.2).

    Args:
        name: one of `BY_NAME`.
        image_shape: height, width and channels.
        num_classes: number of logits.
        conv: "auto" is the fastest convolution for the device; "lax" is XLA's, which has
            forward-mode derivatives too.
        precision: of the products: "default" lets a GPU take TF32, "float32" does not, "bfloat16"
            computes all but the statistics of norms in bfloat16.
        **options: fields of the network's dataclass.

    Raises:
        UsageError: for an unknown name or setting, or one that does not fit the image.
    """
    return architecture(name, options).build(
        image_shape=image_shape, num_classes=num_classes, conv=conv, precision=precision
    )
