"""Clips as still images and gray motion, combined by one convolution (static-dynamic memory)."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import einsum, namespace, resize
from gsdd_jax.formats.base import PLAIN, dtype_field
from gsdd_jax.formats.clips import folded, in_frames
from gsdd_jax.formats.pairs import PAIRS, Paired
from gsdd_jax.formats.shapes import Float

MEMORIES, KERNEL, BIAS = "memories", "kernel", "bias"
SIDE = 3  # of the convolution's kernel in time and space, as published


@dataclasses.dataclass(frozen=True)
class StaticDynamic(Paired):
    """Memories of `each` still images and as many gray clips; each image meets each of the clips.

    A memory has the channels of its images, then the frames of its clips. One convolution, which
    all classes share, makes a clip of an image, repeated in time, and a gray clip next to it.
    """

    name: ClassVar[str] = "static_dynamic"
    takes_clips: ClassVar[bool] = True
    held: ClassVar[str] = MEMORIES
    partner: ClassVar[str] = "clips_each"
    each: int = field(2, "still images, and gray clips, of a memory; published: 2", most=64)
    dtype: str = dtype_field(PLAIN)

    @property
    def clips_each(self) -> int:
        """Clips that a memory shows."""
        return self.each**2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of one memory."""
        return {MEMORIES: (self.height, self.width, self.each * (self.colors + self.frames))}

    def shared_shapes(self) -> dict[str, tuple[int, ...]]:
        return {KERNEL: (*3 * (SIDE,), self.colors + 1, self.colors), BIAS: (self.colors,)}

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        row, partner = params[PAIRS].astype(np.int32).T
        image, clip = partner // self.each, partner % self.each
        memories, xp = params[MEMORIES], namespace(params[MEMORIES])
        size, still = memories.shape[:3], self.each * self.colors
        images = memories[..., :still].reshape(*size, self.each, self.colors)
        motion = memories[..., still:].reshape(*size, self.each, self.frames)
        images = images.transpose(0, 3, 1, 2, 4)[row, image][:, None]
        motion = motion.transpose(0, 3, 4, 1, 2)[row, clip][..., None]
        images = xp.broadcast_to(images, (*motion.shape[:-1], self.colors))
        clips = _convolved(xp.concatenate([images, motion], -1), params[KERNEL]) + params[BIAS]
        return resize(folded(clips), height, width, resample)

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes of one clip's convolution: its input twice, and three outputs."""
        return 4 * 5 * self.frames * self.height * self.width * (self.colors + 1)


def of_clips(clips: Float[Any, "m e h w c"], frames: int) -> Float[Any, "m h w d"]:
    """Returns memories that show these folded clips: first frames, and changes of brightness."""
    xp = namespace(clips)
    moving = in_frames(clips, frames)
    first = moving[:, :, 0]
    motion = (moving - first[:, :, None]).mean(-1)
    count, _, height, width, _ = first.shape
    parts = first.transpose(0, 2, 3, 1, 4), motion.transpose(0, 3, 4, 1, 2)
    return xp.concatenate([part.reshape(count, height, width, -1) for part in parts], -1)


def _convolved(
    clips: Float[Any, "m t h w i"], kernel: Float[Any, "a a a i o"]
) -> Float[Any, "m t h w o"]:
    """Correlates clips with a kernel in time and space; zeros are around them."""
    xp, around = namespace(clips), SIDE // 2
    sides = (around, around)
    padded = xp.pad(clips, ((0, 0), sides, sides, sides, (0, 0)))
    _, frames, height, width, _ = clips.shape
    total = xp.zeros((), clips.dtype)
    for k, i, j in itertools.product(range(SIDE), repeat=3):
        seen = padded[:, k : k + frames, i : i + height, j : j + width]
        total = total + einsum("mtyxi,io->mtyxo", seen, kernel[k, i, j])
    return total
