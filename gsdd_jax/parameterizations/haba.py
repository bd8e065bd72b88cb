"""HaBa (Liu et al., 2022, dataset factorization): bases, each shown by several hallucinators."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from gsdd_jax.formats import haba
from gsdd_jax.formats.base import bytes_of
from gsdd_jax.formats.haba import (
    BASES,
    DECODER,
    DECODER_BIAS,
    ENCODER,
    ENCODER_BIAS,
    KERNEL,
    SCALE,
)
from gsdd_jax.formats.pairs import PAIRS
from gsdd_jax.parameterizations.base import Budget, Options, Shape
from gsdd_jax.parameterizations.sharing import Pairing

PUBLISHED = 5  # hallucinators
GRAY = 0.5
RANDOM = 0.1  # share of the published random start that is added to the identity


@dataclasses.dataclass(frozen=True)
class HaBa(Pairing, haba.HaBa):
    """Bases and hallucinators, both by Adam; every base is shown by every hallucinator.

    The budget counts the hallucinators, which the published one leaves out. Five take the bytes of
    nine images on CIFAR-10. At IPC 1 in float32 three fit, with a gray base per class.

    Bases begin as real images, and hallucinators show them nearly as they are. Nothing is fitted,
    because images of one base cannot each be a real one. In the published code hallucinators are
    random at first, SGD at 100 with momentum 0.95 learns both parts by TM, and a penalty drives
    apart the features of one base by two hallucinators.
    """

    @classmethod
    def published(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns bases of all channels and five hallucinators if they fit, else of one channel.

        Fewer hallucinators where a base per class does not fit with five.
        """
        choices = [(image_shape[2], PUBLISHED), *((1, n) for n in range(PUBLISHED, 0, -1))]
        for base_channels, hallucinators in choices:
            fields = {"hallucinators": hallucinators, "base_channels": base_channels}
            one = cls(*image_shape, images_per_class=1, **fields | dict(options))
            least = bytes_of(one.array_specs(budget.num_classes).values())
            if least <= budget.num_classes * budget.bytes_per_class:
                break
        return fields

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """Returns the first image of each group as its base, and hallucinators near the identity.

        Pixels at the border begin gray, which only the published random part reaches.
        """
        pairs = self.pairs(len(images))
        first = np.unique(pairs[:, 0], return_index=True)[1]
        bases = images[first]
        if self.base_channels < self.channels:
            bases = bases.mean(-1, keepdims=True)
        return {BASES: bases, PAIRS: jnp.asarray(pairs)} | self._hallucinators(key)

    def _hallucinators(self, key: Key[Array, ""]) -> dict[str, Array]:
        shapes = self.shared_shapes()
        found = {name: jnp.zeros(shape) for name, shape in shapes.items()}
        found[SCALE] += 1
        found[ENCODER_BIAS] -= GRAY
        found[DECODER_BIAS] += GRAY
        layers = ((ENCODER, ENCODER_BIAS), (DECODER, DECODER_BIAS))
        for i, (kernel, bias) in enumerate(layers):
            *_, inputs, outputs = shapes[kernel]
            middle = jnp.ones((1, outputs)) if inputs == 1 else jnp.eye(inputs)
            found[kernel] = found[kernel].at[:, KERNEL // 2, KERNEL // 2].set(middle)
            fan = KERNEL**2 * (inputs if kernel == ENCODER else outputs)  # PyTorch's default
            for j, name in enumerate((kernel, bias)):
                drawn = jax.random.uniform(
                    jax.random.fold_in(key, 2 * i + j), shapes[name], minval=-1.0
                )
                found[name] += RANDOM / math.sqrt(fan) * drawn
        return found
