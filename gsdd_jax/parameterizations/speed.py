"""SPEED (Wei et al., 2023): patches by a network from sparse sums of shared epitomes."""

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
from gsdd_jax.formats.base import bytes_of
from gsdd_jax.formats.speed import (
    ATOMS,
    BIAS,
    EPITOMES,
    HIDDEN,
    MIX,
    NORMS,
    PATCHES,
    PIXELS,
    SCALE,
    VALUES,
)  # fmt: skip
from gsdd_jax.parameterizations.base import Budget, Options, Shape, on_device
from gsdd_jax.parameterizations.sharing import Sharing
from gsdd_jax.rasterizer.gaussians import round_to_bfloat16

CODES = "codes"  # all of an image, of which the largest are shown and stored
STILL = 4.0  # constant of the first features, in sizes of the sums
LEAST = 1e-6  # size that is divided
COPIES = 4  # memory of codes read from a file, in copies
FIELDS = ("patch", "epitomes", "epitome_width", "heads", "blocks", "nonzero")
# Published settings for IPC 1, 10 and 50: CIFAR-10, CIFAR-100, Tiny ImageNet (1 and 10), subsets of
# ImageNet at 128 x 128 (1 and 10).
CIFAR10 = (
    (4, 16, 32, 2, 1, 48),
    (4, 64, 96, 3, 1, 48),
    (4, 64, 192, 6, 3, 48),
)
CIFAR100 = (
    (4, 64, 96, 3, 2, 48),
    (4, 64, 192, 6, 3, 48),
    (4, 64, 192, 6, 3, 166),
)
TINY = ((8, 128, 256, 8, 2, 48), (8, 128, 256, 8, 2, 128))
SUBSETS = ((8, 256, 192, 4, 2, 192), (8, 256, 384, 6, 2, 384))


@dataclasses.dataclass(frozen=True)
class SPEED(Sharing, speed.SPEED):
    """Codes of all places, of which those of the largest size are shown; all by Adam.

    Gradients reach the shown codes only; another is shown once one of them is smaller. The file
    holds the shown codes with their places, the epitomes and the network; the budget counts all.

    The start is made of real images. In the published code it is random, and SGD with momentum 0.95
    learns codes, epitomes and network by TM, at rates of 100, 10 and 0.01. All codes are shown
    there until the end, and a penalty makes them small.
    """

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
            least = bytes_of(one.array_specs(budget.num_classes).values())
            narrow = fields["epitome_width"] % (2 * fields["heads"])
            if narrow or least <= budget.num_classes * budget.bytes_per_class:
                return fields
            for name in ("epitomes", "epitome_width", "nonzero"):
                fields[name] = max(1, fields[name] // 2)

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """Returns a network that nearly shows the principal components of patches of `images`.

        Epitomes are components and real patches. A constant feature, and hidden layers that add
        nothing, keep the layer norms nearly linear.
        """
        of_features, of_mix, of_hidden, of_atoms = jax.random.split(key, 4)
        shapes, width = self.shared_shapes(), self.epitome_width
        split = images.reshape(len(images), self.rows, self.patch, -1, self.patch, self.channels)
        patches = split.swapaxes(2, 3).reshape(len(images), self.num_patches, -1)
        mean = patches.mean((0, 1))
        count = max(0, min(width - 2, len(mean)))  # components; norms take two directions
        spread = einsum("mpi,mpj->ij", patches - mean, patches - mean)
        components = jnp.linalg.eigh(spread)[1][:, ::-1][:, :count]
        numbers = einsum("mpi,ij->mpj", patches - mean, components)
        constant = STILL * jnp.sqrt((numbers**2).sum(-1).mean()) + LEAST
        # Component i is of head i % heads.
        each = -(-count // self.heads)
        numbers = jnp.pad(numbers, ((0, 0), (0, 0), (0, each * self.heads - count)))
        numbers = numbers.reshape(*numbers.shape[:2], each, self.heads).swapaxes(2, 3)
        atoms = _atoms(of_atoms, numbers, self.epitomes)
        rounds = min(self.epitomes, -(-2 * self.nonzero // self.num_patches))
        codes = _pursued(numbers, atoms, rounds)
        unused = width // self.heads - each
        epitomes = jnp.pad(atoms, ((0, 0), (0, 0), (0, unused))).swapaxes(0, 1)
        # Directions that norms remove, of the constant, and of each component.
        random = jax.random.normal(of_features, (width, width)).at[:, 0].set(1)
        directions = jnp.linalg.qr(random)[0].T
        place = np.arange(width).reshape(-1, self.heads).T.ravel()
        shown = place < count
        glorot = jax.nn.initializers.glorot_uniform()
        mix = glorot(of_mix, (width, width)).at[shown].set(directions[2 + place[shown]])
        to_pixels = einsum("if,pi->fp", directions[2 : 2 + count], components)
        params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
        params |= {name + SCALE: jnp.ones(shapes[name + SCALE]) for name in NORMS}
        return params | {
            CODES: codes,
            EPITOMES: epitomes.reshape(shapes[EPITOMES]),
            MIX: jnp.broadcast_to(mix, shapes[MIX]),
            MIX + BIAS: jnp.broadcast_to(constant * directions[1], shapes[MIX + BIAS]),
            HIDDEN: glorot(of_hidden, shapes[HIDDEN]),
            PIXELS: constant / math.sqrt(width) * to_pixels,
            PIXELS + BIAS: mean,
        }

    def quantized(self, params: dict[str, Array]) -> dict[str, Array]:
        """Returns the parameters with codes that are zero where none is stored."""
        shown = params | {CODES: _selected(params[CODES], self.nonzero)}
        return jax.tree.map(round_to_bfloat16, shown) if self.dtype == "bfloat16" else shown

    def mixed(self, params: Mapping[str, Any]) -> Float[Any, "m patches width"]:
        """Returns the sums of epitomes by all codes, or by those of a file."""
        if CODES not in params:
            return super().mixed(params)
        sliced = params[EPITOMES].reshape(self.epitomes, self.heads, -1)
        of_heads = einsum("mhpa,ahd->mphd", params[CODES], sliced)
        return of_heads.reshape(-1, self.num_patches, self.epitome_width)

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


def _selected(codes: Float[Array, "m h p a"], count: int) -> Float[Array, "m h p a"]:
    """Returns zeros except for the `count` codes of the largest size; others have no gradient."""
    shape = (*codes.shape[:2], codes.shape[2] * codes.shape[3])
    shown = jnp.zeros(shape, bool)
    shown = jnp.put_along_axis(shown, _places(codes, count), True, -1, inplace=False)
    return jnp.where(shown.reshape(codes.shape), codes, 0)


def _atoms(
    key: Key[Array, ""], numbers: Float[Array, "m p h n"], count: int
) -> Float[Array, "h {count} n"]:
    """Returns the unit vectors, then patches of random images of length 1."""
    flat = numbers.reshape(-1, *numbers.shape[2:])
    units = jnp.eye(numbers.shape[3])[:count]
    units = jnp.broadcast_to(units, (flat.shape[1], *units.shape))
    chosen = jax.random.randint(key, (count - units.shape[1],), 0, len(flat))
    drawn = flat[chosen].swapaxes(0, 1)
    length = jnp.sqrt((drawn**2).sum(-1, keepdims=True))
    return jnp.concatenate([units, drawn / jnp.maximum(length, LEAST)], 1)


def _pursued(
    numbers: Float[Array, "m p h n"], atoms: Float[Array, "h a n"], rounds: int
) -> Float[Array, "m h p a"]:
    """Returns codes by matching pursuit: in each round the atom that explains the most."""

    def step(_, state):
        left, codes = state
        found = einsum("mphn,han->mpha", left, atoms)
        best = jnp.abs(found).argmax(-1, keepdims=True) == np.arange(atoms.shape[1])
        more = jnp.where(best, found, 0)
        return left - einsum("mpha,han->mphn", more, atoms), codes + more

    codes = jnp.zeros((*numbers.shape[:3], atoms.shape[1]))
    return jax.lax.fori_loop(0, rounds, step, (numbers, codes))[1].swapaxes(1, 2)


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
