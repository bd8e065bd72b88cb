"""Images and clips as quantized cosine coefficients of 8 x 8 blocks, entropy-coded, like JPEG."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core import memory
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.formats import coefficients
from gsdd_jax.formats.arrays import einsum, namespace, resize, sides
from gsdd_jax.formats.base import CodedTogether, Contents, Format, Spec
from gsdd_jax.formats.coefficients import SIDE
from gsdd_jax.formats.shapes import Float, Int
from gsdd_jax.rasterizer.limits import MAX_SIDE

CODES, WEIGHTS, STEP = "codes", "weights", "step"
LEAST_STEP, MOST_STEP = 1.0, 4096.0  # gray levels of 255
# Relative step of planes of half the sides, whose coefficients stand for more pixels: measured.
SUBSAMPLED_STEP = 0.65
DAMPING = 0.2  # toward averages of pixels: fewer bits
OUTWARD = 0.04  # steps by which values beyond 0 lie farther out than their code
COPIES = 16  # memory of decoding codes, in copies of the coefficients
# BT.601, full range.
TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], np.float32)


@dataclasses.dataclass(frozen=True)
class DCT(CodedTogether, Format):
    """Blocks of luma and two chroma planes; images of other than three channels by channel.

    A clip has planes of each frame, which know those of the frame before. All coefficients have one
    quantizer's step, which the file holds.
    """

    name: ClassVar[str] = "dct"
    takes_clips: ClassVar[bool] = True
    bytes_per_class: int = field(0, "budget; follows from the config")
    num_classes: int = field(1, "classes; follows from the data set")
    side: int = field(
        0, "longer side of stored images in pixels; 0: the original side", 0, MAX_SIDE
    )
    step: float = field(
        0.0, "quantizer's step in gray levels, 1 to 4096; 0: smallest that fits the budget",
        most=MOST_STEP,
    )  # fmt: skip
    subsampled: bool = field(True, "True: chroma planes have half the resolution (4:2:0)")
    rate_weight: float = field(1.0, "weight of bits beyond the budget, relative to the budget")

    def __post_init__(self):
        longer = max(self.height, self.width)
        if self.side and not SIDE <= self.side <= longer:
            raise UsageError(
                f"parameterization dct: side: expected 0 or from {SIDE} to the images' {longer} "
                f"pixels, got {self.side}"
            )
        if 0 < self.step < LEAST_STEP:
            raise UsageError(
                f"parameterization dct: step: expected 0 or from {LEAST_STEP:g} to {MOST_STEP:g}, "
                f"got {self.step}"
            )

    @property
    def is_color(self) -> bool:
        return self.colors == 3

    @functools.cached_property
    def planes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each stored plane: by color, then by frame."""
        share = self.side / max(self.height, self.width) if self.side else 1
        shrunk = lambda by: tuple(
            max(1, math.ceil(round(share * n) / by)) for n in (self.height, self.width)
        )
        return tuple(
            shrunk(2 if color and self.is_color and self.subsampled else 1)
            for color in range(self.colors)
            for _ in range(self.frames)
        )

    @property
    def blocks(self) -> list[tuple[int, int]]:
        return [(-(-height // SIDE), -(-width // SIDE)) for height, width in self.planes]

    @property
    def num_codes(self) -> int:
        return self.num_images * sum(math.prod(n) * SIDE**2 for n in self.blocks)

    def steps(self, plane: int) -> float:
        """Returns the step of a plane, relative to that of the first."""
        return SUBSAMPLED_STEP if self.planes[plane] != self.planes[0] else 1.0

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the parameters of `decode`: coefficients in steps, and the step."""
        of_planes = {f"plane_{i}": (*n, SIDE, SIDE) for i, n in enumerate(self.blocks)}
        return of_planes | {STEP: ()}

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        return {
            CODES: Spec((None,), "uint8"),
            WEIGHTS: Spec((coefficients.num_weights(self.channels),), "uint8"),
            STEP: Spec((1,), "float32"),
        }

    def check_arrays(self, arrays: Mapping[str, Any]) -> None:
        step = float(arrays[STEP][0])
        if not LEAST_STEP <= step <= MOST_STEP:
            raise UsageError(f"{STEP}: expected from {LEAST_STEP:g} to {MOST_STEP:g}, got {step:g}")
        self.check_bytes(arrays)

    def pack(self, codes: list[Int[np.ndarray, "m _ _ 8 8"]], step: float) -> dict[str, np.ndarray]:
        flat = [plane.reshape(*plane.shape[:3], -1) for plane in codes]
        coded, weights = coefficients.encode(flat)
        return {CODES: coded, WEIGHTS: weights, STEP: np.array([step], np.float32)}

    def divided(self, arrays: Mapping[str, np.ndarray]) -> Contents:
        count = self.num_images
        memory.check(f"the coefficients of {count:,} images", 4 * self.num_codes, COPIES)
        planes = coefficients.decode(
            np.asarray(arrays[CODES]),
            np.asarray(arrays[WEIGHTS]),
            [(count, *n) for n in self.blocks],
        )
        codes = {
            f"plane_{i}": plane.reshape(*plane.shape[:3], SIDE, SIDE)
            for i, plane in enumerate(planes)
        }
        return Contents(codes, {}, {STEP: np.asarray(arrays[STEP])})

    def repacked(self, contents: Contents) -> dict[str, np.ndarray]:
        planes = [contents.by_image[f"plane_{i}"] for i in range(self.channels)]
        return self.pack(planes, float(contents.shared[STEP][0]))

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self.divided(arrays)
        params = {n: values_of(codes.astype(np.float32)) for n, codes in found.by_image.items()}
        return params | {STEP: np.full(self.num_images, found.shared[STEP][0], np.float32)}

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        vectors = coefficients.cosines().astype(np.float32)
        planes = []
        for i, (rows, columns) in enumerate(self.planes):
            blocks = einsum("uy,mijuv,vx->miyjx", vectors, params[f"plane_{i}"], vectors)
            whole = blocks.reshape(len(blocks), SIDE * blocks.shape[1], -1)[:, :rows, :columns]
            levels = self.steps(i) / 255 * params[STEP][:, None, None] * whole
            planes.append(resize(levels[..., None], self.height, self.width, "bilinear"))
        images = namespace(planes[0]).concatenate(planes, -1) + self._offsets / 255
        images = images.reshape(*images.shape[:3], self.colors, self.frames).swapaxes(3, 4)
        if self.is_color:
            images = einsum("mhwtd,cd->mhwtc", images, TO_RGB)
        images = images.reshape(*images.shape[:3], -1)
        return resize(images, height, width, resample)

    def planes_of(self, images: Float[Any, "m h w c"]) -> dict[str, Any]:
        """Returns coefficients, in gray levels, of planes whose enlargements approximate the
        images."""
        xp = namespace(images)
        frames = images.reshape(*images.shape[:3], self.frames, self.colors)
        if self.is_color:
            frames = einsum("mhwtc,dc->mhwtd", frames, np.linalg.inv(TO_RGB))
        levels = frames.swapaxes(3, 4).reshape(images.shape) * 255 - self._offsets
        vectors = coefficients.cosines().astype(np.float32)
        found = {}
        for i, (rows, columns) in enumerate(self.planes):
            plane = levels[..., i : i + 1]
            plane = sides(_shrink(self.height, rows), plane, _shrink(self.width, columns))[..., 0]
            after = (0, -rows % SIDE), (0, -columns % SIDE)
            plane = xp.pad(plane, ((0, 0), *after), mode="edge")
            blocks = plane.reshape(len(plane), *np.ravel([(n, SIDE) for n in self.blocks[i]]))
            blocks = einsum("uy,miyjx,vx->mijuv", vectors, blocks, vectors)
            found[f"plane_{i}"] = blocks / self.steps(i)
        return found

    @property
    def _offsets(self) -> Float[np.ndarray, "planes"]:
        """Levels at which planes are 0: the middle one, and no chroma."""
        levels = np.full(self.channels, 128, np.float32)
        if self.is_color:
            levels[self.frames :] = 0
        return levels


def _shrink(count: int, native: int) -> Float[np.ndarray, "{native} {count}"]:
    """Returns the inverse of resizing from `native` to `count` pixels: least squares, damped."""
    enlarge = resize(np.eye(native, dtype=np.float32)[None, ..., None], count, native, "bilinear")
    enlarge = enlarge[0, ..., 0]
    averages = enlarge.T / enlarge.sum(0)[:, None]
    squares = enlarge.T @ enlarge + DAMPING * np.eye(native, dtype=np.float32)
    return np.linalg.solve(squares, enlarge.T + DAMPING * averages)


def values_of(codes: Float[Any, "*s 8 8"]) -> Float[Any, "*s 8 8"]:
    outward = np.full((SIDE, SIDE), OUTWARD, np.float32)
    outward[0, 0] = 0.0
    return codes + outward * namespace(codes).sign(codes)
