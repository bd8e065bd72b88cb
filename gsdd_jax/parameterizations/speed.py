"""SPEED (Wei et al., 2023, sparse parameterization): sums of shared epitomes, shown by a network."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core import memory
from gsdd_jax.formats import speed
from gsdd_jax.formats.arrays import einsum
from gsdd_jax.formats.base import ITEMSIZE
from gsdd_jax.formats.speed import (
    ATOMS, BIAS, EPITOMES, HIDDEN, MIX, NORMS, OUT, PATCHES, PIXELS, SCALE, VALUES,
)  # fmt: skip
from gsdd_jax.parameterizations.base import Budget, Options, Shape, on_device
from gsdd_jax.parameterizations.sharing import Sharing
from gsdd_jax.rasterizer.gaussians import round_to_bfloat16

CODES = "codes"  # all of an image, of which the largest are shown and stored
SPREAD = 0.2  # standard deviation of the first codes and epitomes
COPIES = 4  # memory of codes read from a file, in copies
FIELDS = ("patch", "epitomes", "epitome_width", "heads", "blocks", "nonzero", "l1_weight")
# Published settings for IPC 1, 10 and 50: CIFAR-10, CIFAR-100, Tiny ImageNet (1 and 10), subsets of
# ImageNet at 128 x 128 (1 and 10).
CIFAR10 = (
    (4, 16, 32, 2, 1, 48, 3e-6),
    (4, 64, 96, 3, 1, 48, 3e-7),
    (4, 64, 192, 6, 3, 48, 7e-8),
)
CIFAR100 = (
    (4, 64, 96, 3, 2, 48, 3e-7),
    (4, 64, 192, 6, 3, 48, 7e-8),
    (4, 64, 192, 6, 3, 166, 3e-8),
)
TINY = ((8, 128, 256, 8, 2, 48, 7e-8), (8, 128, 256, 8, 2, 128, 7e-9))
SUBSETS = ((8, 256, 192, 4, 2, 192, 7e-7), (8, 256, 384, 6, 2, 384, 7e-8))


@dataclasses.dataclass(frozen=True)
class SPEED(Sharing, speed.SPEED):
    """Codes of all places, of which those of the largest size are shown; all by Adam.

    Gradients pass the selection straight through, so that other codes can grow. The file holds the
    shown codes with their places, the epitomes and the network; the budget counts all of it. In the
    published code all codes are shown during distillation, and the selection follows it.

    The start is the published random one, which is then fitted to real images.
    """

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Returns a fit by the rate of `Sharing`, chosen here."""
        return super().recipe(objective) | {
            "init.num_steps": 5000,
            "init.learning_rate": 3e-3,
            "init.halve_means_every": 0,
        }

    @classmethod
    def published(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns the settings published for such images, by the number of classes and the IPC.

        Narrower ones where no image of each class fits; a smaller patch where it does not divide
        both sides.
        """
        height, width, _ = image_shape
        side, ipc = max(height, width), budget.ipc(image_shape)
        rows = TINY if side <= 96 else SUBSETS
        if side <= 48:
            rows = CIFAR100 if budget.num_classes >= 100 else CIFAR10
        which = min((ipc >= 10) + (ipc >= 50), len(rows) - 1)
        fields = dict(zip(FIELDS, rows[which], strict=True))
        both = math.gcd(height, width)
        fields["patch"] = next(n for n in range(fields["patch"], 0, -1) if both % n == 0)
        while True:
            given = fields | dict(options)
            codes = height * width // given["patch"] ** 2 * given["epitomes"]
            fields["nonzero"] = max(1, min(fields["nonzero"], codes))
            one = cls(*image_shape, images_per_class=1, **fields | dict(options))
            specs = one.array_specs(budget.num_classes).values()
            least = sum(ITEMSIZE[spec.dtype] * math.prod(spec.shape) for spec in specs)
            narrow = fields["epitome_width"] % (2 * fields["heads"])
            if narrow or least <= budget.num_classes * budget.bytes_per_class:
                return fields
            for name in ("epitomes", "epitome_width", "nonzero"):
                fields[name] = max(1, fields[name] // 2)

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """Returns random codes, epitomes and weights, and the mean of `images` as color."""
        shapes = self.shared_shapes()
        shapes[CODES] = (len(images), self.heads, self.num_patches, self.epitomes)
        params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
        for i, name in enumerate((CODES, EPITOMES, MIX, HIDDEN, OUT, PIXELS)):
            drawn = functools.partial(jax.random.normal, jax.random.fold_in(key, i), shapes[name])
            if name in (CODES, EPITOMES):
                params[name] = SPREAD * drawn()
            else:
                glorot = jax.nn.initializers.glorot_uniform()
                params[name] = glorot(jax.random.fold_in(key, i), shapes[name])
        params |= {name + SCALE: jnp.ones(shapes[name + SCALE]) for name in NORMS}
        color = images.mean((0, 1, 2))
        return params | {PIXELS + BIAS: jnp.tile(color, self.patch**2)}

    def quantized(self, params: dict[str, Array]) -> dict[str, Array]:
        """Returns the parameters with codes that are zero where none is stored."""
        shown = params | {CODES: _selected(params[CODES], self.nonzero)}
        return jax.tree.map(round_to_bfloat16, shown) if self.dtype == "bfloat16" else shown

    def mixed(self, params: Mapping[str, Array]) -> Float[Array, "m patches width"]:
        """Returns the sums of epitomes by all codes."""
        sliced = params[EPITOMES].reshape(self.epitomes, self.heads, -1)
        of_heads = einsum("mhpa,ahd->mphd", params[CODES], sliced)
        return of_heads.reshape(-1, self.num_patches, self.epitome_width)

    def penalty(self, params: dict[str, Array]) -> Float[Array, ""]:
        """Returns the weighted sum of all codes' absolute values."""
        return self.l1_weight * jnp.abs(params[CODES]).sum()

    def to_arrays(self, params: dict[str, Array]) -> dict[str, Array]:
        return _stored(self, params)

    def from_arrays(self, arrays: Mapping[str, Any]) -> dict[str, Array]:
        """Returns the parameters with all codes; raises UsageError if memory cannot hold them."""
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        count, what = len(arrays[VALUES]), f"the codes of {len(arrays[VALUES]):,} images"
        memory.check(what, 4 * count * self.heads * self.num_codes, COPIES)
        codes = np.zeros((count, self.heads, self.num_patches, self.epitomes), np.float32)
        image, head = np.ogrid[:count, : self.heads]
        at = image[..., None], head[..., None], arrays[PATCHES], arrays[ATOMS]
        codes[at] = arrays[VALUES]
        return on_device({n: arrays[n] for n in self.shared_shapes()} | {CODES: codes})

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes for all images at once, and of the codes."""
        codes = 2 * 4 * num_images * self.heads * self.num_codes
        return codes + num_images * super().working_bytes(1, height, width)


def _places(codes: Float[Array, "m h p a"], count: int) -> Int[Array, "m h {count}"]:
    """Returns the ascending places of the codes of the largest size, patch by patch."""
    sizes = jnp.abs(codes).reshape(*codes.shape[:2], -1)
    return jnp.sort(jax.lax.top_k(sizes, count)[1], axis=-1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _selected(codes: Float[Array, "m h p a"], count: int) -> Float[Array, "m h p a"]:
    """Returns zeros except for the `count` codes of the largest size, with derivative 1."""
    flat = codes.reshape(*codes.shape[:2], -1)
    places = _places(codes, count)
    kept = jnp.take_along_axis(flat, places, -1)
    zeros = jnp.zeros_like(flat)
    return jnp.put_along_axis(zeros, places, kept, -1, inplace=False).reshape(codes.shape)


@_selected.defjvp
def _straight_through(count, primals, tangents):
    return _selected(*primals, count), tangents[0]


@functools.partial(jax.jit, static_argnums=0)
def _stored(kind: SPEED, params: dict[str, Array]) -> dict[str, Array]:
    """Returns the arrays of a file."""
    shown, places = kind.quantized(params), _places(params[CODES], kind.nonzero)
    flat = shown[CODES].reshape(*places.shape[:2], -1)
    dtypes = kind.place_dtypes()
    return {n: shown[n] for n in kind.shared_shapes()} | {
        VALUES: jnp.take_along_axis(flat, places, -1),
        PATCHES: (places // kind.epitomes).astype(dtypes[PATCHES]),
        ATOMS: (places % kind.epitomes).astype(dtypes[ATOMS]),
    }
