"""Interface of a parameterization, independent of objectives, networks and data sets."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.formats.base import Format, bytes_of
from gsdd_jax.rasterizer.gaussians import budget_bytes, round_to_bfloat16

Shape = tuple[int, int, int]  # height, width, channels
Options = Mapping[str, Any]  # fields that a config sets
Rate = float | Float[Array, ""]  # learning rate
Params = Any  # a pytree; see `Parameterization.by_image`
Transform = Any  # callable from images in [0, 1] to what networks see, with an `inverse`


class Budget(NamedTuple):
    """Bytes that a parameterization may take, and images where their number is free."""

    bytes_per_class: int
    images_per_class: int  # for formats whose images may have any size
    num_classes: int = 1
    reserved: int = 0  # bytes per class taken by soft labels or a labeler

    @property
    def free(self) -> int:
        """Bytes per class that labels leave to the images."""
        return self.bytes_per_class - self.reserved

    def refusal(self, images: int, contents: str, least: int) -> UsageError:
        """Returns the error for fewer than the `least` bytes per class of images without labels."""
        labels = f" and their labels or labeler ({self.reserved:,})" if self.reserved else ""
        fewer = "; lower config.budget.images_per_class" if images > 1 else ""
        return UsageError(
            f"budget: expected at least {least + self.reserved:,} bytes per class for "
            f"{counted(images, 'image')} per class of {contents}{labels}, got "
            f"{self.bytes_per_class:,}{fewer}"
        )

    def ipc(self, image_shape: Shape) -> int:
        """Returns the float32 images per class of the same bytes, at least 1."""
        return max(1, self.bytes_per_class // budget_bytes(1, image_shape))


def check_images(images_per_class: int) -> int:
    """Returns the number if it is positive; raises UsageError otherwise."""
    if images_per_class < 1:
        raise UsageError(f"budget: expected at least 1 image per class, got {images_per_class}")
    return images_per_class


COARSER = 1.01  # factor by which codes become coarser repeatedly until they fit the budget


def on_device(arrays: Any) -> Any:
    """Copies a pytree of NumPy arrays to the device, without a program for each shape."""
    return jax.device_put(jax.tree.map(np.array, arrays))  # which may share memory that is given


@dataclasses.dataclass(frozen=True)
class Parameterization(Format):
    """Format with pure functions over `Params` that optimize it.

    By default parameters are the arrays of `shapes` by name, in float32.
    """

    # Fields set by the data set and the budget; all others are options.
    derived: ClassVar[frozenset[str]] = frozenset(
        {"height", "width", "channels", "images_per_class", "frames"}
    )
    reserves: ClassVar[bool] = False  # whether it leaves `Budget.reserved` bytes free
    needs_file: ClassVar[bool] = False  # whether it needs a file of the user; see `made_of`
    by_image: ClassVar[bool] = True  # whether parameters that are not shared lead with images

    @property
    def described(self) -> str:
        """Short description of an image's parameters."""
        return self.name

    @classmethod
    def published(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns published options for an image shape and a budget: those without a default.

        `options` are those that are given.
        """
        return {}

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Returns published fields of a config for an objective, by dotted name."""
        return {}

    @classmethod
    def unfitted(cls, objective: str, learning_rate: float) -> dict[str, Any]:
        """Returns a `recipe` without a fit, for Adam: DM updates all classes at once."""
        by_dm = {"matching.options.per_class_updates": False} if objective == "dm" else {}
        return {"init.num_steps": 0, "distill.learning_rate": learning_rate} | by_dm

    @classmethod
    def suggested_images(cls, image_shape: Shape, bytes_per_class: int, options: Options) -> int:
        """Returns a suitable number of images per class where it is free.

        `options` of clips include their `frames`.
        """
        return 1

    @classmethod
    def shared_bytes(cls, image_shape: Shape, options: Options) -> int:
        """Returns the bytes that all images share, where `suggested_images` leaves them out."""
        return 0

    @classmethod
    def together(cls, options: Options) -> int:
        """Returns the images of a class that are stored together, in the same bytes as one."""
        return 1

    @classmethod
    def within(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns the fields set by a budget: the images per class that fit, and `published`.

        `options` are checked and take precedence; those of clips include their `frames`. Raises
        UsageError if not one image fits.
        """
        fields = cls.published(image_shape, budget, options)
        classes, together = budget.num_classes, cls.together(fields | dict(options))

        def num_bytes(images: int) -> int:
            """Returns the bytes of so many images of every class, and of what they share."""
            kind = cls(*image_shape, images_per_class=images, **fields | dict(options))
            return bytes_of(kind.array_specs(images * classes).values())

        one, two = num_bytes(together), num_bytes(2 * together)
        images = together * (1 + (classes * budget.free - one) // (two - one))
        if budget.reserved:  # for the labels of so many images
            images = min(images, budget.images_per_class)
        if images < 1:
            raise budget.refusal(1, cls.name, -(-one // classes))
        return fields | {"images_per_class": images}

    @abc.abstractmethod
    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> Params:
        """Returns the initial parameters of the fit to `images` in [0, 1] space."""

    def select(self, params: Params, indices: Int[Array, "k"]) -> Params:
        """Returns the parameters of some images, and what all share."""
        if isinstance(params, dict):
            own = {name: p for name, p in params.items() if not self.is_shared(name)}
            return params | jax.tree.map(lambda p: p[indices], own)
        return jax.tree.map(lambda p: p[indices], params)

    def quantized(self, params: Params) -> Params:
        """Returns the parameters as stored; gradients are straight-through."""
        if self.dtype == "float32":
            return params
        return params | {name: round_to_bfloat16(params[name]) for name in self._stored_names()}

    def render(self, params: Params) -> Float[Array, "m h w c"]:
        """Renders the images, in [0, 1] space but unclipped; differentiable."""
        return self.render_at(params, self.height, self.width)

    def render_at(
        self, params: Params, height: int, width: int, resample: str = "bilinear"
    ) -> Float[Array, "m {height} {width} c"]:
        """Renders the images at another size; see `decode`."""
        return self.decode(self.quantized(params), height, width, resample)

    @property
    def made_of(self) -> str | None:
        """SHA-256 of a file that the images need besides the set, or None."""
        return None

    def differs(self, kind: Format) -> frozenset[str]:
        """Returns the settings in which a set of `kind` that a run begins with may differ."""
        return frozenset()

    def continued(self, kind: Format, params: Params) -> Params:
        """Returns a set's parameters as this parameterization's; see `differs`."""
        return params

    def to_optimized(self, params: Params, transform: Transform) -> Params:
        """Converts stored parameters to those that distillation optimizes; not differentiated."""
        return params

    def from_optimized(self, params: Params, transform: Transform) -> Params:
        """Inverts `to_optimized`."""
        return params

    def to_network(self, params: Params, transform: Transform) -> Float[Array, "m h w c"]:
        """Renders optimized parameters as networks see them: transformed images; differentiable."""
        return transform(self.render(params))

    @abc.abstractmethod
    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        """Returns the published optimizer of this parameterization."""

    def fit_optimizer(self, learning_rate: float, halve_every: int) -> optax.GradientTransformation:
        """Returns the optimizer of the fit to real images.

        `halve_every` is the period in steps at which published rates halve; 0: never.
        """
        return self.optimizer(learning_rate)

    def penalty(self, params: Params) -> Float[Array, ""]:
        """Returns the weighted penalty that is added to every distillation objective."""
        return jnp.zeros(())

    def begin_step(self, params: Params) -> Params:
        """Returns the parameters that a distillation step, of one or more updates, begins with."""
        return params

    def project(self, params: Params) -> Params:
        """Projects parameters onto their valid range after every update."""
        return params

    def report(self, params: Params) -> dict[str, Any]:
        """Returns statistics of stored parameters as plain values by name."""
        return {}

    def to_arrays(self, params: Params) -> dict[str, Any]:
        """Returns the arrays of a file by name, bfloat16 as float32."""
        stored = self.quantized(params)
        return {name: stored[name] for name in self._stored_names()}

    def _stored_names(self) -> list[str]:
        return [*self.shapes(), *self.shared_shapes()]

    def from_arrays(self, arrays: Mapping[str, Any]) -> Params:
        """Inverts `to_arrays`; raises UsageError as `unpack` does."""
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        return on_device(self.unpack(arrays))


class CodedTogether(Parameterization):
    """Base of parameterizations of formats that are `formats.base.CodedTogether`.

    The class states what a refusal says: `contents` of an image.
    """

    derived: ClassVar[frozenset[str]] = Parameterization.derived | {
        "bytes_per_class", "num_classes",
    }  # fmt: skip
    reserves: ClassVar[bool] = True
    contents: ClassVar[str]

    @classmethod
    def within(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns the images per class, and the bytes that they share."""
        images = check_images(budget.images_per_class)
        fields = cls.published(image_shape, budget, options) | {
            "images_per_class": images,
            "bytes_per_class": budget.free,
            "num_classes": budget.num_classes,
        }
        kind = cls(*image_shape, **fields | dict(options))
        if kind.most_bytes < kind.least_bytes:
            least = -(-kind.least_bytes // kind.num_classes)
            raise budget.refusal(images, cls.contents, least)
        return fields

    def too_few_bytes(self, used: int, how: str) -> UsageError:
        """Returns the error for images that take more bytes than there are even where coarsest."""
        return UsageError(
            f"budget: expected at least {-(-used // self.num_classes):,} bytes per class for "
            f"{counted(self.images_per_class, 'image')} per class {how}, got "
            f"{self.bytes_per_class:,}; lower config.budget.images_per_class, or raise "
            "config.budget.bytes"
        )

    def check_finite(self, params: Params) -> None:
        """Raises UsageError for parameters that cannot be coded."""
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
            raise UsageError(f"parameterization {self.name}: expected finite numbers, got others")

    def fitting(self, params: Params) -> dict[str, np.ndarray]:
        """Returns the arrays of `packed`; codes become coarser until they fit the budget."""
        while (arrays := self.packed(params)) is None or self.used_bytes(arrays) > self.most_bytes:
            params = self.coarser(params, COARSER)
        return arrays


class RatedTogether(CodedTogether):
    """`CodedTogether` with a field `rate_weight` and a method `rate`, bits per image."""

    def penalty(self, params: Params) -> Float[Array, ""]:
        """Returns the weighted share of bits beyond the budget."""
        there = self.bits_for_codes / self.num_images
        return self.rate_weight * jax.nn.relu(self.rate(params) / there - 1)
