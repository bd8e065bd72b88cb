"""The networks that images are distilled for and judged by, as pure functions of parameters."""

from dataclasses import dataclass
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, PyTree

from gsdd_jax.errors import UsageError
from gsdd_jax.networks.alexnet import AlexNet
from gsdd_jax.networks.conv import Method
from gsdd_jax.networks.convnet import ConvNet
from gsdd_jax.networks.layers import Linear, widen
from gsdd_jax.networks.resnet import ResNet18
from gsdd_jax.networks.vgg import VGG11
from gsdd_jax.networks.vit import ViT

NAMES = ("convnet", "alexnet", "vgg11", "resnet18", "vit")
PRECISIONS = ("default", "float32", "bfloat16")


class _Classifier(nn.Module):
    body: nn.Module
    num_classes: int
    precision: lax.Precision | None

    @nn.compact
    def __call__(self, images: Array, features_only: bool = False) -> Array:
        features = self.body(images)
        if features_only:
            return features
        return Linear(self.num_classes, precision=self.precision)(features)


@dataclass(frozen=True)
class Network:
    """A classifier as pure functions; hashable, so it can be a static argument of `jax.jit`.

    Its parameters are a pytree of float32 arrays without any other state; several networks run at
    once by `jax.vmap` over stacked parameters. Images are in the data set's transformed space.
    Derivatives are reverse-mode, of any order.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    module: nn.Module
    compute_dtype: str = "float32"

    def init(self, key: Key[Array, ""]) -> PyTree[Float[Array, "..."]]:
        """Fresh parameters: weights and biases uniform in ±1/√fan_in, norm scale 1 and shift 0."""
        image = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
        return self.module.lazy_init(key, image)["params"]

    def apply(
        self, params: PyTree[Float[Array, "..."]], images: Float[Array, "b h w c"]
    ) -> Float[Array, "b num_classes"]:
        """Logits, float32. Raises ValueError where the images' shape is not `image_shape`."""
        return self._run(params, images)

    def features(
        self, params: PyTree[Float[Array, "..."]], images: Float[Array, "b h w c"]
    ) -> Float[Array, "b f"]:
        """What the classifier reads, float32: the last block's output, flattened.

        Raises ValueError where the images' shape is not `image_shape`.
        """
        return self._run(params, images, features_only=True)

    def _run(self, params: Any, images: Array, **options: bool) -> Array:
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"images are {images.shape[1:]} but the network was built for {self.image_shape}; "
                "build it with their image_shape"
            )
        if self.compute_dtype != "float32":
            images = images.astype(self.compute_dtype)
        return widen(self.module.apply({"params": params}, images, **options))


def build(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    width: int = 128,
    depth: int | None = None,
    conv: str = "auto",
    precision: str = "default",
) -> Network:
    """A network by name (paper, sections A.1.2 and A.2).

    Args:
        name: one of `NAMES`.
        image_shape: height, width and channels.
        num_classes: number of logits.
        width: channels of every block; "convnet" only.
        depth: blocks; "convnet" (default log2(size) - 2: 3 at 32×32, 5 at 128×128) and "vit"
            (default 6, and 10 from 128×128 on) only.
        conv: "auto" is the fastest convolution for the device; "lax" is XLA's, which has
            forward-mode derivatives too.
        precision: of the products: "default" lets a GPU take TF32, "float32" does not, "bfloat16"
            computes everything but the norms' statistics in bfloat16.

    Raises:
        UsageError: for an unknown name or setting, or one that does not fit the image.
    """
    choices = (("network", name, NAMES), ("convolution", conv, get_args(Method)))
    for what, value, known in (*choices, ("precision", precision, PRECISIONS)):
        if value not in known:
            raise UsageError(f"unknown {what} {value!r}: choose one of {', '.join(known)}")
    if width != 128 and name != "convnet":
        raise UsageError(f"{name} has a fixed width: leave width out, or choose convnet")
    if depth is not None and name not in ("convnet", "vit"):
        raise UsageError(f"{name} has a fixed depth: leave depth out, or choose convnet")
    if width < 1 or (depth is not None and depth < 1):
        raise UsageError(f"width {width} and depth {depth} should be at least 1")
    size = min(image_shape[:2])
    if name == "convnet" and depth is None:
        depth = max(1, size.bit_length() - 3)
    smallest = {"convnet": 2 ** (depth or 0), "vgg11": 32}.get(name, 8)
    if size < smallest:
        raise UsageError(f"{name} needs images of {smallest} pixels a side or more, not {size}")
    product = lax.Precision.HIGHEST if precision == "float32" else None
    if name == "convnet":
        body = ConvNet(width, depth, conv, product)
    elif name == "vit":
        patch = size // 8
        if image_shape[0] % patch or image_shape[1] % patch:
            raise UsageError(f"vit cuts patches of {patch} pixels: {image_shape[:2]} does not fit")
        body = ViT(patch, depth or (10 if size >= 128 else 6), product)
    else:
        body = {"alexnet": AlexNet, "vgg11": VGG11, "resnet18": ResNet18}[name](conv, product)
    return Network(
        tuple(image_shape),
        num_classes,
        _Classifier(body, num_classes, product),
        "bfloat16" if precision == "bfloat16" else "float32",
    )
