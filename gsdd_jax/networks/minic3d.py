"""MiniC3D, the small 3-D ConvNet of video distillation."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.core.fields import Shrink, field
from gsdd_jax.formats.base import MAX_FRAMES
from gsdd_jax.formats.clips import in_frames
from gsdd_jax.networks.base import Architecture, Classifier, Precision, Shape
from gsdd_jax.networks.layers import Convolutional, Linear
from gsdd_jax.ops.conv import Method
from gsdd_jax.ops.pool import max_pool

DEPTH = 3
DROPOUT = 0.5


@dataclasses.dataclass(frozen=True)
class MiniC3D(Architecture):
    """Network of clips of Wang et al., "Dancing with Still Images" (CVPR 2024).

    As `ConvNet3D` of their code: blocks of a 3×7×7 convolution, of stride 2 in space, ReLU and 2×2
    maximum pooling, which also halves the frames after the first block. Half of the last block's
    features, averaged over space and over neighboring frames, are dropped in training. The logits
    are maxima over time. Features are those of the last block, before the average.
    """

    name: ClassVar[str] = "minic3d"
    width: int = field(
        128, "channels per layer, half of them in the first; published: 128", 2, 4096,
        shrink=Shrink(0.5, 4),
    )  # fmt: skip
    depth: int = field(
        0, "number of blocks; 0: automatic (3 from 43 x 43 and 4 frames on, as published)", 0, 6
    )
    frames: int = field(0, "frames of a clip; 0: those of the data set", 0, MAX_FRAMES)

    def of_clips(self, frames: int) -> Architecture:
        return dataclasses.replace(self, frames=self.frames or frames)

    def smallest(self, size: int) -> int:
        return _smallest(self._depth(size))

    def check(self, image_shape: Shape) -> None:
        channels, frames = image_shape[-1], self.frames or 1
        if channels % frames:
            raise UsageError(
                f"minic3d: frames: expected a divisor of the {counted(channels, 'channel')}, got "
                f"{frames}"
            )
        super().check(image_shape)
        if frames < (least := 2 ** (self._depth(min(image_shape[:2])) - 1)):
            raise UsageError(f"minic3d needs clips of {least} frames or more, not {frames}")

    def body(self, image_shape: Shape, conv: Method, precision: Precision) -> nn.Module:
        depth = self._depth(min(image_shape[:2]))
        return _Body(conv, precision, self.width, depth, self.frames or 1)

    def classifier(self, body: nn.Module, num_classes: int, precision: Precision) -> Classifier:
        return _OverTime(body, num_classes, precision)

    def _depth(self, size: int) -> int:
        """Returns the blocks: by default the published ones that size and frames allow."""
        frames = self.frames or 1
        fit = [n for n in range(1, DEPTH + 1) if _smallest(n) <= size and 2 ** (n - 1) <= frames]
        return self.depth or max(fit, default=1)


def _smallest(depth: int) -> int:
    """Returns the fewest pixels per side of which `depth` blocks leave one."""
    size = 1
    for _ in range(depth):
        size = 4 * size - 1  # ceil(n / 2) by the stride, floor(n / 2) by the pooling
    return size


class _Body(Convolutional):
    width: int
    depth: int
    frames: int

    @property
    def frames_left(self) -> int:
        """Frames after the last block."""
        return self.frames >> (self.depth - 1)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b f"]:
        x = in_frames(x, self.frames)
        for block in range(self.depth):
            x = nn.relu(self._in_time(x, self.width if block else self.width // 2))
            b, t = x.shape[:2]
            x = max_pool(x.reshape(-1, *x.shape[2:])).reshape(b, t, *self._half(x), x.shape[-1])
            if block:
                x = x[:, : t // 2 * 2].reshape(b, t // 2, 2, *x.shape[2:]).max(2)
        return x.reshape(len(x), -1)

    def _half(self, x: Array) -> tuple[int, int]:
        return x.shape[2] // 2, x.shape[3] // 2

    def _in_time(self, x: Array, features: int) -> Array:
        """Convolves clips in three frames: images of these frames' channels, side by side."""
        b, t = x.shape[:2]
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
        three = jnp.concatenate([padded[:, i : i + t] for i in range(3)], -1)
        y = self.conv(features, size=7, stride=2, padding=3)(three.reshape(-1, *three.shape[2:]))
        return y.reshape(b, t, *y.shape[1:])


class _OverTime(Classifier):
    """Linear layer of the mean features of neighboring frames; maxima over time."""

    def head(self, features: Float[Array, "b f"]) -> Float[Array, "b k"]:
        frames, width = self.body.frames_left, self.body.width
        width = width if self.body.depth > 1 else width // 2
        x = features.reshape(len(features), frames, -1, width).mean(2)
        if frames > 1:
            x = (x[:, 1:] + x[:, :-1]) / 2
        x = nn.Dropout(DROPOUT, deterministic=not self.has_rng("dropout"))(x)
        return Linear(self.num_classes, precision=self.precision)(x).max(1)
