"""Clips as sets of Gaussians in space and time: parameters, initialization, rendering."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.formats.clips import folded, in_frames
from gsdd_jax.formats.video_gaussian import LEAST_EXTENT, of_frames
from gsdd_jax.rasterizer import gaussians
from gsdd_jax.rasterizer.gaussians import GaussianImages

GEOMETRY_NUMBERS = gaussians.GEOMETRY_NUMBERS + 4  # a time, 2 velocities, an extent
FIRST_EXTENT = 0.5  # standard deviation in time at the start


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianClips:
    """Clips, each of N Gaussians in space and time; a pytree.

    `formats.video_gaussian.VideoGaussian` says what a frame is.
    """

    means: Array | Any  # [*batch, N, 2]: (u, v) in [-1, 1] at `times`
    times: Array | Any  # [*batch, N], in [0, 1]
    velocities: Array | Any  # [*batch, N, 2]: change of the means over a clip
    cholesky: Array | Any  # [*batch, N, 3], as of images
    extents: Array | Any  # [*batch, N]: standard deviations in time, in durations of a clip
    colors: Array | Any  # [*batch, N, C], unbounded
    opacities: Array | Any  # [*batch, N], unbounded, at `times`
    frames: int = dataclasses.field(metadata={"static": True})
    height: int = dataclasses.field(metadata={"static": True})
    width: int = dataclasses.field(metadata={"static": True})

    def render(
        self,
        height: int,
        width: int,
        *,
        offsets: Int[Array, "bounds"] | None = None,
        **settings: Any,
    ) -> Float[Array, "*b h w c"]:
        """Renders all frames by one call of the rasterizer; they are the channels, in order.

        `offsets` and `settings` are those of `GaussianImages.render`.
        """
        slices = of_frames(**gaussians.fields_of(self), frames=self.frames)
        if offsets is not None:
            order, offsets = frame_by_frame(offsets, len(self.times), self.frames)
            slices = {n: _reordered(a.reshape(-1, *a.shape[2:]), order) for n, a in slices.items()}
        images = GaussianImages(**slices, height=self.height, width=self.width)
        images = images.render(height, width, offsets=offsets, **settings)
        if offsets is not None:
            images = images.reshape(-1, self.frames, *images.shape[1:])
        return folded(images)


def frame_by_frame(
    offsets: Int[Array, "bounds"], num_gaussians: int, frames: int
) -> tuple[Int[Array, "{num_gaussians}*{frames}"], Int[Array, "frame_bounds"]]:
    """Returns an order of the Gaussians of all frames, and where each frame of each clip begins.

    Gaussians of a ragged batch of clips come as those of the first frame, the second, ...; in that
    order those of a clip's frame stand together. Gaussians of no clip come last.
    """
    ends = jnp.append(offsets, num_gaussians)  # the rest is like one more clip
    each = jnp.arange(frames) * jnp.diff(ends)[:, None]
    bounds = (frames * ends[:-1, None] + each).ravel()
    slots = jnp.arange(num_gaussians * frames)
    clip, frame = jnp.divmod(jnp.searchsorted(bounds, slots, side="right") - 1, frames)
    within = slots - bounds[frames * clip + frame]
    return frame * num_gaussians + ends[clip] + within, bounds[: frames * (len(ends) - 2) + 1]


def _reordered(array, order):
    """Returns rows in another order; the gradient, too, is a permutation: no sum, the same bits."""
    return array.at[order].get(unique_indices=True, mode="promise_in_bounds")


def init(
    key: Key[Array, ""], images: Float[Array, "m h w c"], num_gaussians: int, frames: int
) -> GaussianClips:
    """Draws Gaussians as for images, at rest, with centers spread evenly in time.

    Colors are those of the clips' mean frames at the centers.
    """
    count, height, width, _ = images.shape
    mean = in_frames(images, frames).mean(1)
    size = dict(height=height, width=width, channels=mean.shape[-1])
    drawn = gaussians.init(key, count, num_gaussians, **size)
    shape = drawn.opacities.shape
    column, row = ((drawn.means + 1) / 2 * jnp.array([width, height])).astype(jnp.int32).T
    at = jnp.arange(count)[:, None], row.T.clip(0, height - 1), column.T.clip(0, width - 1)
    return GaussianClips(
        means=drawn.means,
        times=jnp.broadcast_to((jnp.arange(num_gaussians) + 0.5) / num_gaussians, shape),
        velocities=jnp.zeros((*shape, 2)),
        cholesky=drawn.cholesky,
        extents=jnp.full(shape, FIRST_EXTENT),
        colors=mean[at],
        opacities=drawn.opacities,
        frames=frames,
        height=height,
        width=width,
    )


def clip_times(clips: GaussianClips) -> GaussianClips:
    """Clips times to [0, 1], and extents from below, so that no frame divides by zero."""
    return dataclasses.replace(
        clips,
        times=jnp.clip(clips.times, 0, 1),
        extents=jnp.maximum(clips.extents, LEAST_EXTENT),
    )
