"""Images decoded from memories of the data set, of their class and of their own (HMN)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import einsum, namespace, resize
from gsdd_jax.formats.base import PLAIN, Format, Spec, dtype_field
from gsdd_jax.formats.idc import check_factor
from gsdd_jax.formats.layers import linear
from gsdd_jax.formats.shapes import Float
from gsdd_jax.rasterizer.limits import MAX_SIDE

OF_DATA_SET, OF_CLASSES, OF_IMAGES = "of_data_set", "of_classes", "of_images"  # memories
EXTRACTORS, HIDDEN, PIXELS, BIAS = "extractors", "hidden", "pixels", "_bias"
CLASS = "class"  # parameter of `decode`: the class of each image
KERNEL = 3  # cells per side of the convolution's kernel
SLOPE = 0.2  # of the leaky ReLU where it is negative


@dataclasses.dataclass(frozen=True)
class HMN(Format):
    """Memories at three levels, an extractor per class, and a decoder that all images share.

    The class's extractor maps the memory of the data set. The result, the class's memory and the
    image's own memory are joined along channels. The decoder is a convolution, a leaky ReLU and a
    transposed convolution from each cell to a patch of pixels.
    """

    name: ClassVar[str] = "hmn"
    factor: int = field(
        ..., "pixels per side of a cell of the memories; must divide both", most=MAX_SIDE
    )
    image_channels: int = field(..., "channels of an image's own memory", most=1024)
    features: int = field(
        ..., "channels of the memories of classes and of the data set; half of the decoder's",
        most=4096,
    )  # fmt: skip
    dtype: str = dtype_field(PLAIN)

    def __post_init__(self):
        check_factor(self)

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the memories."""
        return self.height // self.factor, self.width // self.factor

    @property
    def inputs(self) -> int:
        """Channels of the joined memories."""
        return 2 * self.features + self.image_channels

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {OF_IMAGES: (*self.cells, self.image_channels)}

    def class_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of one class's arrays, by name."""
        return {OF_CLASSES: (*self.cells, self.features), EXTRACTORS: 2 * (self.features,)}

    def shared_shapes(self) -> dict[str, tuple[int, ...]]:
        hidden, pixels = 2 * self.features, self.factor**2 * self.channels
        return {
            OF_DATA_SET: (*self.cells, self.features),
            HIDDEN: (KERNEL, KERNEL, self.inputs, hidden),
            HIDDEN + BIAS: (hidden,),
            PIXELS: (hidden, pixels),
            PIXELS + BIAS: (pixels,),
        }

    def is_shared(self, name: str) -> bool:
        return name not in (OF_IMAGES, CLASS)

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        classes = num_images // self.images_per_class
        of_classes = {n: Spec((classes, *s), self.dtype) for n, s in self.class_shapes().items()}
        return super().array_specs(num_images) | of_classes

    def _axes(self) -> dict[str, str]:
        return super()._axes() | dict.fromkeys(self.class_shapes(), "by_class")

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays, and the class of every image; float32, since differentiated."""
        classes = np.arange(len(arrays[OF_CLASSES]), dtype=np.float32)
        return dict(arrays) | {CLASS: np.repeat(classes, self.images_per_class)}

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        of, own = params[CLASS].astype(np.int32), params[OF_IMAGES]
        xp = namespace(own)
        extracted = einsum("yxi,mio->myxo", params[OF_DATA_SET], params[EXTRACTORS][of])
        x = _around(xp.concatenate([extracted, params[OF_CLASSES][of], own], -1))
        x = linear(x, params[HIDDEN].reshape(x.shape[-1], -1), params[HIDDEN + BIAS])
        pixels = linear(xp.maximum(x, np.float32(SLOPE) * x), params[PIXELS], params[PIXELS + BIAS])
        patches = pixels.reshape(len(own), *self.cells, self.factor, self.factor, self.channels)
        images = patches.swapaxes(2, 3).reshape(-1, *self.image_shape)
        return resize(images, height, width, resample)

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes of the images, and of one image's features and class."""
        return super().working_bytes(num_images, height, width) + self.bytes_of_features

    @property
    def bytes_of_features(self) -> int:
        """Bytes of an image's features and of its class's extractor in float32."""
        rows, columns = self.cells
        features = (KERNEL**2 + 2) * self.inputs + 6 * self.features
        return 4 * (rows * columns * features + self.features**2)


def _around(x: Float[Any, "m y x i"]) -> Float[Any, "m y x j"]:
    """Returns the channels of the cells around each cell, those outside as zeros."""
    rows, columns = x.shape[1:3]
    side, xp = KERNEL // 2, namespace(x)
    padded = xp.pad(x, ((0, 0), (side, side), (side, side), (0, 0)))
    places = np.ndindex(KERNEL, KERNEL)
    return xp.concatenate([padded[:, i : i + rows, j : j + columns] for i, j in places], -1)
