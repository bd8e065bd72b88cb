"""Interfaces of networks: `Architecture`, its options, and `Network`, its pure functions."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from gsdd_jax.core.errors import UsageError
from gsdd_jax.networks.layers import Linear
from gsdd_jax.ops.conv import Method
from gsdd_jax.ops.norm import widen

Precision = lax.Precision | None
Shape = tuple[int, int, int]  # height, width, channels
PRECISIONS = ("default", "float32", "bfloat16")


class Classifier(nn.Module):
    """Features by `body`, and the logits of a `head`, by default a linear layer."""

    body: nn.Module
    num_classes: int
    precision: Precision

    @nn.compact
    def __call__(self, images: Array, features_only: bool = False) -> Array:
        features = self.body(images)
        if features_only:
            return features
        return self.head(features)

    def head(self, features: Array) -> Array:
        """Returns the logits of features."""
        return Linear(self.num_classes, precision=self.precision)(features)


@dataclasses.dataclass(frozen=True)
class Network:
    """Classifier as pure functions; hashable, so that it can be a static argument of `jax.jit`.

    Parameters are a pytree of float32 arrays; there is no other state. `jax.vmap` over stacked
    parameters runs several networks. Images are in the data set's transformed space. Derivatives
    are reverse-mode, of any order.
    """

    image_shape: Shape
    num_classes: int
    module: nn.Module
    compute_dtype: str = "float32"
    frames: int = 1  # of a clip, one after the other as channels

    def init(self, key: Key[Array, ""]) -> PyTree[Float[Array, "..."]]:
        """Draws parameters: weights and biases uniform in ±1/√fan_in, norm scale 1 and shift 0."""
        image = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
        return self.module.lazy_init(key, image)["params"]

    def shapes(self) -> Any:
        """Returns the shapes of the parameters, without drawing any."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def unraveling(self) -> Callable[[Float[Array, "p"]], Any]:
        """Returns the inverse of `ravel_pytree` on parameters."""
        return ravel_pytree(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), self.shapes()))[1]

    def apply(
        self,
        params: PyTree[Float[Array, "..."]],
        images: Float[Array, "b h w c"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b num_classes"]:
        """Returns float32 logits, with dropout if the network has any and a `key` is given.

        Raises ValueError if the images do not have `image_shape`.
        """
        return self._run(params, images, rngs=None if key is None else {"dropout": key})

    def features(
        self, params: PyTree[Float[Array, "..."]], images: Float[Array, "b h w c"]
    ) -> Float[Array, "b f"]:
        """Returns the last block's output, flattened, float32: by default the classifier's inputs.

        Raises ValueError if the images do not have `image_shape`.
        """
        return self._run(params, images, features_only=True)

    def _run(self, params: Any, images: Array, **options: Any) -> Array:
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"images are {images.shape[1:]} but the network was built for {self.image_shape}; "
                "build it with their image_shape"
            )
        if self.compute_dtype != "float32":
            images = images.astype(self.compute_dtype)
        return widen(self.module.apply({"params": params}, images, **options))


class Architecture(abc.ABC):
    """Options of a network, each with a default, in a frozen dataclass; builds the network."""

    name: ClassVar[str]
    derived: ClassVar[frozenset[str]] = frozenset()  # fields that are no options
    rate_across: ClassVar[float | None] = None  # by Adam, across architectures (section A.2)

    def smallest(self, size: int) -> int:
        """Returns the fewest pixels per side, for options that suit `size` pixels per side."""
        return 8

    def check(self, image_shape: Shape) -> None:
        """Raises UsageError if the network does not take images of this shape."""
        size = min(image_shape[:2])
        if size < (least := self.smallest(size)):
            raise UsageError(
                f"{self.name} needs images of {least} pixels per side or more, not {size}"
            )

    @abc.abstractmethod
    def body(self, image_shape: Shape, conv: Method, precision: Precision) -> nn.Module:
        """Returns a Flax module from images [b, h, w, c] to features [b, f]."""

    def build(
        self,
        *,
        image_shape: Shape,
        num_classes: int,
        conv: str = "auto",
        precision: str = "default",
        frames: int = 1,
    ) -> Network:
        """Adds a classifier to the body; arguments and errors as for `networks.build`."""
        self = self.of_clips(frames)
        choices = (("convolution", conv, get_args(Method)), ("precision", precision, PRECISIONS))
        for what, value, known in choices:
            if value not in known:
                raise UsageError(f"unknown {what} {value!r}: choose one of {', '.join(known)}")
        self.check(image_shape)
        product = lax.Precision.HIGHEST if precision == "float32" else None
        return Network(
            tuple(image_shape),
            num_classes,
            self.classifier(self.body(image_shape, conv, product), num_classes, product),
            "bfloat16" if precision == "bfloat16" else "float32",
            frames,
        )

    def of_clips(self, frames: int) -> "Architecture":
        """Returns the options for clips of that many frames, or 1; by default the same."""
        del frames
        return self

    def classifier(self, body: nn.Module, num_classes: int, precision: Precision) -> Classifier:
        """Returns the module of the body and its head; by default one linear layer."""
        return Classifier(body, num_classes, precision)
