"""Clips as sets of Gaussians in space and time; a frame is a set of 2-D Gaussians again."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats.arrays import namespace
from gsdd_jax.formats.base import Format
from gsdd_jax.formats.clips import folded
from gsdd_jax.formats.gaussian import Gaussian
from gsdd_jax.formats.shapes import Float

LEAST_EXTENT = 1 / 128  # in durations of a clip


@dataclasses.dataclass(frozen=True)
class VideoGaussian(Gaussian):
    """Thirteen numbers per Gaussian of a color clip, in bfloat16.

    Frame k of t is at τ = (k + 1/2) / t. There a Gaussian has its center at
    means + velocities (τ - times), and the opacity opacities exp(-((τ - times) / extents)² / 2).
    """

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

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.opacity:
            return dict(arrays)
        return {**arrays, "opacities": np.ones_like(arrays["times"])}

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        """Rasterizes every frame at that size in NumPy; see `Gaussians.decode`."""
        slices = of_frames(**params, frames=self.frames)
        count, frames, each, _ = slices["means"].shape
        flat = {n: a.reshape(-1, *a.shape[3:]) for n, a in slices.items()}
        counts = np.full(count * frames, each)
        images = super().decode(flat | {"counts": counts}, height, width, resample)
        return folded(images.reshape(count, frames, *images.shape[1:]))

    def rendered(
        self, params: Mapping[str, np.ndarray], height: int, width: int, resample: str
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        return Format.rendered(self, params, height, width, resample)  # clip by clip

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes of one frame's sample points, and of the Gaussians of all frames."""
        gaussians = 8 * self.frames * self.num_gaussians * (self.colors + 6)
        return super().working_bytes(num_images, height, width) + 4 * gaussians


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
