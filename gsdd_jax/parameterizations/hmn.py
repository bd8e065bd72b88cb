"""HMN (Zheng et al., 2024, hierarchical memory network): memories of three levels, decoded."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from gsdd_jax.formats import hmn
from gsdd_jax.formats.arrays import einsum
from gsdd_jax.formats.base import bytes_of
from gsdd_jax.formats.hmn import (
    BIAS,
    CLASS,
    EXTRACTORS,
    HIDDEN,
    KERNEL,
    OF_CLASSES,
    OF_DATA_SET,
    OF_IMAGES,
    PIXELS,
    SLOPE,
)
from gsdd_jax.parameterizations.base import Budget, Options, Shape
from gsdd_jax.parameterizations.sharing import Sharing

# Chosen here: channels of an image's memory in the numbers of one float32 image per class, which
# grow as the root of the budget, and the channels of other memories for each of them.
CHANNELS, FEATURES = 4, 2


@dataclasses.dataclass(frozen=True)
class HMN(Sharing, hmn.HMN):
    """Memories of the data set, of classes and of images, extractors and a decoder, all by Adam.

    The budget counts all. The three levels, joined along channels, and the one decoder are
    published; no source that was found states sizes, layers or rates, which are chosen here.

    The start shows the leading principal components of patches: of all images in the memory of the
    data set, of a class less these, and of an image less its class's.
    """

    @classmethod
    def published(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns sizes chosen here: narrower ones where no image of each class fits."""
        height, width, _ = image_shape
        classes, itemsize = budget.num_classes, 2 if options.get("dtype") == "bfloat16" else 4
        both = math.gcd(height, width)
        most = max(1, round(math.sqrt(2 * min(height, width))))
        factor = next(n for n in range(min(most, both), 0, -1) if both % n == 0)
        room = budget.bytes_per_class / (itemsize * math.prod(image_shape))
        for channels in range(max(1, round(CHANNELS * math.sqrt(room))), 0, -1):
            fields = {"factor": factor, "image_channels": channels, "features": FEATURES * channels}
            one = cls(*image_shape, images_per_class=1, **fields | dict(options))
            if bytes_of(one.array_specs(classes).values()) <= classes * budget.bytes_per_class:
                break
        return fields

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """Returns memories and a decoder that show principal components of patches of `images`.

        Two hidden features, of either sign, pass a component through the leaky ReLU. Components of
        an image beyond the channels of its memory are those of its class.
        """
        del key
        (rows, columns), shapes = self.cells, self.shared_shapes()
        split = images.reshape(len(images), rows, self.factor, columns, self.factor, -1)
        patches = split.swapaxes(2, 3).reshape(len(images), rows, columns, -1)
        mean, scale = patches.mean((0, 1, 2)), math.sqrt(patches.shape[-1])
        spread = einsum("myxi,myxj->ij", patches - mean, patches - mean)
        count = min(self.features, len(mean))
        components = jnp.linalg.eigh(spread)[1][:, ::-1][:, :count]
        components = jnp.pad(components, ((0, 0), (0, self.features - count)))
        numbers = einsum("myxi,if->myxf", patches - mean, components) / scale
        of_classes = numbers.reshape(-1, self.images_per_class, *numbers.shape[1:])
        means = of_classes.mean(1)
        of_all = means.mean(0)
        own = (of_classes - means[:, None]).reshape(numbers.shape)
        passed = jnp.eye(self.features)
        joined = jnp.concatenate([passed, passed, passed[: self.image_channels]])
        middle = jnp.concatenate([joined, -joined], 1)
        shown = scale / (1 + SLOPE) * components.T
        return {
            OF_DATA_SET: of_all,
            OF_CLASSES: means - of_all,
            OF_IMAGES: own[..., : self.image_channels],
            EXTRACTORS: jnp.tile(passed, (len(means), 1, 1)),
            HIDDEN: jnp.zeros(shapes[HIDDEN]).at[KERNEL // 2, KERNEL // 2].set(middle),
            HIDDEN + BIAS: jnp.zeros(shapes[HIDDEN + BIAS]),
            PIXELS: jnp.concatenate([shown, -shown]),
            PIXELS + BIAS: mean,
            CLASS: jnp.repeat(jnp.arange(len(means), dtype=jnp.float32), self.images_per_class),
        }

    def _stored_names(self) -> list[str]:
        return [*super()._stored_names(), *self.class_shapes()]

    def to_arrays(self, params: dict[str, Array]) -> dict[str, Array]:
        """Returns what is shared, and the classes of the images that `params` has."""
        arrays = super().to_arrays(params)
        used = params[CLASS][:: self.images_per_class].astype(np.int32)
        return arrays | {name: arrays[name][used] for name in self.class_shapes()}

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes for all images at once."""
        more = (num_images - 1) * self.bytes_of_features
        return super().working_bytes(num_images, height, width) + more
