"""Images as patches that a network makes of sparse sums of shared epitomes (SPEED)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import resize, summed
from gsdd_jax.formats.base import PLAIN, Format, Spec, dtype_field
from gsdd_jax.formats.layers import gelu, layer_norm, linear
from gsdd_jax.formats.shapes import Float
from gsdd_jax.rasterizer.limits import MAX_SIDE

VALUES, PATCHES, ATOMS, EPITOMES = "values", "patches", "atoms", "tokens"
MIX, HIDDEN, OUT, PIXELS = "mix", "hidden", "out", "pixels"  # linear layers
NORMS = ("norm_mixed", "norm_out")
BIAS, SCALE, SHIFT = "_bias", "_scale", "_shift"
MOST_EPITOMES = 1 << 14
BYTE = 256  # places that a byte counts


@dataclasses.dataclass(frozen=True)
class SPEED(Format):
    """Sparse codes per image, epitomes and a network that all images share.

    A head is a slice of the epitomes. Per head a code is the weight of an epitome in a patch. Each
    block adds the sums, by its own weights, to the features of the block before. Then it applies a
    network of one hidden layer. A linear layer shows the pixels of a patch.
    """

    name: ClassVar[str] = "speed"
    patch: int = field(
        ..., "pixels per side of a patch; must divide both; published: 4, 8", most=MAX_SIDE
    )
    epitomes: int = field(
        ..., "epitomes that all images share; published: 16 to 256", most=MOST_EPITOMES
    )
    epitome_width: int = field(
        ..., "numbers of an epitome, and features; published: 32 to 384", most=4096
    )
    heads: int = field(
        ..., "slices with codes of their own; must divide the width; published: 2 to 8", most=4096
    )
    blocks: int = field(..., "recurrences of the features; published: 1 to 3", most=16)
    nonzero: int = field(
        ..., "codes per head and image that are not zero; published: 48 to 384", most=1 << 20
    )
    dtype: str = dtype_field(PLAIN)

    def __post_init__(self):
        sides, widths = (self.height, self.width), (self.epitome_width,)
        for name, whole, of in (
            ("patch", sides, "the height and the width"), ("heads", widths, "epitome_width"),
        ):  # fmt: skip
            part = getattr(self, name)
            if any(length % part for length in whole):
                raise UsageError(
                    f"parameterization speed: {name}: expected a divisor of {of}, "
                    f"{' and '.join(map(str, whole))}, got {part}"
                )
        if self.nonzero > self.num_codes:
            raise UsageError(
                f"parameterization speed: nonzero: expected at most {self.num_codes}, epitomes "
                f"times patches, got {self.nonzero}"
            )

    @property
    def rows(self) -> int:
        return self.height // self.patch

    @property
    def num_patches(self) -> int:
        return self.rows * (self.width // self.patch)

    @property
    def num_codes(self) -> int:
        """Codes of a head, most of them zero."""
        return self.num_patches * self.epitomes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {VALUES: (self.heads, self.nonzero)}

    def shared_shapes(self) -> dict[str, tuple[int, ...]]:
        width, pixels = self.epitome_width, self.patch**2 * self.channels
        shapes = {EPITOMES: (self.epitomes, width), PIXELS: (width, pixels)}
        shapes[PIXELS + BIAS] = (pixels,)
        for name in (MIX, HIDDEN, OUT):
            shapes[name], shapes[name + BIAS] = (self.blocks, width, width), (self.blocks, width)
        return shapes | {n + kind: (self.blocks, width) for n in NORMS for kind in (SCALE, SHIFT)}

    def place_dtypes(self) -> dict[str, str]:
        """Returns the types of the arrays that place the codes."""
        most = {PATCHES: self.num_patches, ATOMS: self.epitomes}
        return {name: "uint8" if count <= BYTE else "int32" for name, count in most.items()}

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        specs = super().array_specs(num_images)
        shape = specs[VALUES].shape
        return specs | {name: Spec(shape, dtype) for name, dtype in self.place_dtypes().items()}

    def check_arrays(self, arrays: Mapping[str, Any]) -> None:
        """Raises UsageError unless the places exist and ascend within each head."""
        for name, count in ((PATCHES, self.num_patches), (ATOMS, self.epitomes)):
            found = np.asarray(arrays[name])
            if len(wrong := found[(found < 0) | (found >= count)]):
                raise UsageError(f"{name}: expected 0 to {count - 1}, got {wrong[0]}")
        places = np.asarray(arrays[PATCHES]).astype(np.int64) * self.epitomes + arrays[ATOMS]
        if wrong := int((np.diff(places) <= 0).any(-1).sum()):
            raise UsageError(
                f"{PATCHES}, {ATOMS}: expected places in ascending order, each once, got others in "
                f"{wrong} of {places.shape[0] * places.shape[1]} heads"
            )

    def mixed(self, params: Mapping[str, Any]) -> Float[Any, "m patches width"]:
        """Returns the sum of the epitomes that each patch has, by the codes of each head."""
        sliced = params[EPITOMES].reshape(self.epitomes, self.heads, -1).swapaxes(0, 1)
        atoms, patches = (params[name].astype(np.int32) for name in (ATOMS, PATCHES))
        chosen = sliced[np.arange(self.heads)[:, None], atoms]
        of_heads = summed(params[VALUES][..., None] * chosen, patches, self.num_patches)
        return of_heads.swapaxes(1, 2).reshape(-1, self.num_patches, self.epitome_width)

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        mixed, x = self.mixed(params), 0.0
        for i in range(self.blocks):
            of = {name: params[name][i] for name in self.shared_shapes() if name not in _OUTSIDE}
            layer = lambda x, name, of=of: linear(x, of[name], of[name + BIAS])
            norm = lambda x, name, of=of: layer_norm(x, of[name + SCALE], of[name + SHIFT])
            x = norm(x + layer(mixed, MIX), NORMS[0])
            x = norm(x + layer(gelu(layer(x, HIDDEN)), OUT), NORMS[1])
        pixels = linear(x, params[PIXELS], params[PIXELS + BIAS])
        sides = self.rows, -1, self.patch, self.patch, self.channels
        images = pixels.reshape(len(pixels), *sides).swapaxes(2, 3)
        return resize(images.reshape(-1, *self.image_shape), height, width, resample)

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes of the codes' epitomes and of a layer's features, for one image."""
        features = (4 * self.num_patches + self.nonzero) * self.epitome_width
        return 4 * features + super().working_bytes(num_images, height, width)


_OUTSIDE = (EPITOMES, PIXELS, PIXELS + BIAS)  # arrays that no block has of its own
