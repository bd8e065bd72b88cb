"""Static and dynamic memory (Wang et al., CVPR 2024): still images and gray motion, combined."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from gsdd_jax.formats import static_dynamic
from gsdd_jax.formats.pairs import PAIRS
from gsdd_jax.formats.static_dynamic import BIAS, KERNEL, MEMORIES, SIDE
from gsdd_jax.parameterizations.base import Options
from gsdd_jax.parameterizations.sharing import Pairing


@dataclasses.dataclass(frozen=True)
class StaticDynamic(Pairing, static_dynamic.StaticDynamic):
    """Memories and the convolution, all learned by Adam; every image meets every gray clip.

    Memories begin with real clips, and the convolution adds image and motion. Published images are
    distilled first, by DC from single frames, and stay as they are; gray clips and convolution
    begin at random, and each has its own SGD with momentum 0.95.
    """

    @classmethod
    def together(cls, options: Options) -> int:
        """Returns the clips of a memory."""
        return options.get("each", cls.each) ** 2

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """Returns memories of as many real clips as they have images; nothing is random."""
        del key
        pairs, each = self.pairs(len(images)), self.each
        first = np.unique(pairs[:, 0], return_index=True)[1]
        last = np.append(first[1:], len(images)) - 1
        own = np.minimum(first[:, None] + np.arange(each) * (each + 1), last[:, None])
        shapes, middle = self.shared_shapes(), SIDE // 2
        adding = jnp.concatenate([jnp.eye(self.colors), jnp.ones((1, self.colors))])
        return {
            MEMORIES: static_dynamic.of_clips(images[own], self.frames),
            KERNEL: jnp.zeros(shapes[KERNEL]).at[middle, middle, middle].set(adding),
            BIAS: jnp.zeros(shapes[BIAS]),
            PAIRS: jnp.asarray(pairs),
        }
