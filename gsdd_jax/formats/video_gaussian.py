"""Clips as sets of Gaussians in space and time; a frame is a set of 2-D Gaussians again."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats.arrays import namespace
from gsdd_jax.formats.clips import folded
from gsdd_jax.formats.gaussian import Gaussian, Gaussians
from gsdd_jax.formats.shapes import Float

GAUSSIAN_COPIES = 3  # memory of the Gaussians of all frames
LEAST_EXTENT = 1 / 128  # in durations of a clip


@dataclasses.dataclass(frozen=True)
class Moving(Gaussians):
    """Base of formats of Gaussians in space and time.

    Frame k of t is at τ = (k + 1/2) / t. There a Gaussian has its center at
    means + velocities (τ - times), and the opacity opacities exp(-((τ - times) / extents)² / 2).
    """

    takes_clips: ClassVar[bool] = True

    @property
    def drawn_channels(self) -> int:
        return self.colors

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        """Rasterizes every frame at that size in NumPy, clip by clip; see `Gaussians.decode`."""
        ends = np.cumsum(counts := params["counts"])
        return np.stack([
            self._decoded(
                {name: a[first:last] for name, a in params.items() if name != "counts"},
                *(height, width, resample),
            )
            for first, last in zip(ends - counts, ends, strict=True)
        ])  # fmt: skip

    def _decoded(self, clip, height, width, resample) -> Float[np.ndarray, "h w c"]:
        slices = of_frames(**clip, frames=self.frames)
        frames, each, _ = slices["means"].shape
        flat = {name: a.reshape(-1, *a.shape[2:]) for name, a in slices.items()}
        return folded(
            super().decode(flat | {"counts": np.full(frames, each)}, height, width, resample)
        )

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes of one frame's sample points, and of the Gaussians of all frames.

        The rasterizer takes those of all clips at once.
        """
        gaussians = num_images * self.frames * self.most_gaussians
        of_frames = GAUSSIAN_COPIES * 4 * gaussians * (self.colors + 6)
        return super().working_bytes(num_images, height, width) + of_frames


@dataclasses.dataclass(frozen=True)
class VideoGaussian(Moving, Gaussian):
    """Thirteen numbers per Gaussian of a color clip, in bfloat16."""

    name: ClassVar[str] = "video_gaussian"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        last = {
            "means": (2,), "times": (), "velocities": (2,), "cholesky": (3,), "extents": (),
            "colors": (self.colors,), "opacities": (),
        }  # fmt: skip
        if not self.opacity:
            del last["opacities"]
        return {name: (self.num_gaussians, *shape) for name, shape in last.items()}

    def check_arrays(self, arrays: Mapping[str, Any]) -> None:
        """Raises UsageError for extents that are not positive."""
        if (least := np.min(arrays["extents"])) <= 0:
            raise UsageError(f"extents: expected positive numbers, got {least:g}")


def of_frames(
    means: Float[Any, "*m n 2"],
    times: Float[Any, "*m n"],
    velocities: Float[Any, "*m n 2"],
    cholesky: Float[Any, "*m n 3"],
    extents: Float[Any, "*m n"],
    colors: Float[Any, "*m n c"],
    opacities: Float[Any, "*m n"],
    *,
    frames: int,
) -> dict[str, Any]:
    """Returns the 2-D Gaussians of each frame, by field: arrays [*m, frames, n, ...]."""
    xp = namespace(means)
    at = (np.arange(frames, dtype=np.float32)[:, None] + 0.5) / frames
    since = at - times[..., None, :]
    each = (*since.shape, 1)
    return {
        "means": means[..., None, :, :] + velocities[..., None, :, :] * since[..., None],
        "cholesky": xp.broadcast_to(cholesky[..., None, :, :], (*each[:-1], 3)),
        "colors": xp.broadcast_to(colors[..., None, :, :], (*each[:-1], colors.shape[-1])),
        "opacities": opacities[..., None, :] * xp.exp(-((since / extents[..., None, :]) ** 2) / 2),
    }
