"""Differentiable Siamese augmentation (DSA): one of six operations per call, for the whole batch.

Every operation is differentiable with respect to the images; the drawn numbers are constants.
Crop, scale and rotate share one bilinear resampling, whose derivative is written as a gather.
Automatic differentiation makes it a scatter-add: slow on a CPU, not deterministic on a GPU.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt32

from gsdd_jax.core.errors import UsageError

DSA = "color_crop_cutout_flip_scale_rotate"
"""Strategy of the experts, the objectives and the evaluation."""

MAX_SCALE = 1.2
MAX_ANGLE = math.radians(15)

PRNGKey = Key[Array, ""] | UInt32[Array, "2"]
Numbers = tuple[Shaped[Array, "_"], ...]  # for one image each, or one for all


@functools.partial(jax.jit, static_argnames=("strategy", "shared", "frames"))
def augment(
    key: PRNGKey,
    images: Float[Array, "b h w c"],
    *,
    strategy: str = DSA,
    shared: bool = False,
    frames: int = 1,
) -> Float[Array, "b h w c"]:
    """Applies one randomly drawn operation to the whole batch (DSA, Zhao & Bilen 2021).

    It is the same in all frames of a clip.

    Args:
        key: determines the operation and its numbers, given h, w and, unless `shared`, b.
        images: normalized or whitened images.
        strategy: names of equally likely operations joined by `_`; "" for none.
        shared: draw one set of numbers for all images, whatever b is: one key then treats real
            and synthetic images alike. Otherwise draw independent numbers per image.
        frames: frames of a clip, one after the other as channels.

    Raises UsageError for an unknown operation, ValueError for other than four axes of floats.
    """
    names = parse_strategy(strategy)
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"augment: got {images.dtype} images of shape {images.shape}, expected floating-point "
            "[b, h, w, c]; apply the data set's transform first"
        )
    if not names:
        return images
    num, height, width, _ = images.shape
    operation_key, number_key = jax.random.split(key)

    def branch(name, number_key, images):
        numbers = draw(name, number_key, 1 if shared else num, height, width)
        return apply(name, images, numbers, frames)

    branches = [functools.partial(branch, name) for name in names]
    index = jax.random.randint(operation_key, (), 0, len(names))
    return jax.lax.switch(index, branches, number_key, images)


def parse_strategy(strategy: str) -> tuple[str, ...]:
    """Returns the operations of a strategy, in its order; raises UsageError for an unknown one."""
    names = tuple(strategy.split("_")) if strategy else ()
    for name in names:
        if name not in OPERATIONS:
            raise UsageError(
                f"augmentation strategy {strategy!r}: unknown operation {name!r}, expected names "
                f"out of {', '.join(OPERATIONS)} joined by '_', or an empty string for none"
            )
    return names


def draw(operation: str, key: PRNGKey, num: int, height: int, width: int) -> Numbers:
    """Returns the random numbers of one operation for `num` images, as `apply` takes them."""
    return OPERATIONS[operation][0](key, num, height, width)


def apply(
    operation: str, images: Float[Array, "b h w c"], numbers: Numbers, frames: int = 1
) -> Float[Array, "b h w c"]:
    """Applies one operation with numbers of `draw`: one per image, or one for all."""
    if operation == "color":
        return color(images, *numbers, frames=frames)
    return OPERATIONS[operation][1](images, *numbers)


def draw_color(key: PRNGKey, num: int, height: int, width: int) -> Numbers:
    """Returns brightness, saturation and contrast, each uniform in [0, 1)."""
    return tuple(jax.random.uniform(key, (3, num)))


def color(
    images: Float[Array, "b h w c"],
    brightness: Float[Array, "#b"],
    saturation: Float[Array, "#b"],
    contrast: Float[Array, "#b"],
    frames: int = 1,
) -> Float[Array, "b h w c"]:
    """Adds brightness - ½, then scales by 2 saturation around each pixel's channel mean, then by
    contrast + ½ around each image's mean.

    A pixel of a clip has a channel mean in each frame, and a clip has one mean.
    """
    brightness, saturation, contrast = (
        r[:, None, None, None].astype(images.dtype) for r in (brightness, saturation, contrast)
    )
    images = images + (brightness - 0.5)
    # XLA's CPU reduction over a last axis this short is ten times slower than a sum of terms.
    colors = images.shape[3] // frames
    if frames == 1:
        mean = sum(images[..., k : k + 1] for k in range(colors)) / colors
    else:
        mean = (sum(images[..., k::colors] for k in range(colors)) / colors).repeat(colors, -1)
    images = (images - mean) * (2 * saturation) + mean
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return (images - mean) * (contrast + 0.5) + mean


def draw_crop(key: PRNGKey, num: int, height: int, width: int) -> Numbers:
    """Returns row and column shifts in pixels: uniform integers in ±⌊size / 8 + ½⌋."""
    row_key, column_key = jax.random.split(key)
    return tuple(
        jax.random.randint(k, (num,), -((size + 4) // 8), (size + 4) // 8 + 1)
        for k, size in ((row_key, height), (column_key, width))
    )


def crop(
    images: Float[Array, "b h w c"], row_shift: Int[Array, "#b"], column_shift: Int[Array, "#b"]
) -> Float[Array, "b h w c"]:
    """Moves pixel (i + row_shift, j + column_shift) to (i, j), with zeros outside."""
    one, zero = jnp.ones(row_shift.shape), jnp.zeros(row_shift.shape)
    shift = jnp.stack([row_shift, column_shift], axis=-1).astype(jnp.float32)
    return _resample(images, _matrix(one, zero, zero, one), shift, (1.0, 1.0))


def draw_cutout(key: PRNGKey, num: int, height: int, width: int) -> Numbers:
    """Returns the center's row and column: uniform integers in [0, size), or [0, size] if the
    side ⌊size / 2 + ½⌋ is even. The center of an even side lies between two pixels.
    """
    row_key, column_key = jax.random.split(key)
    return tuple(
        jax.random.randint(k, (num,), 0, size + 1 - (size + 1) // 2 % 2)
        for k, size in ((row_key, height), (column_key, width))
    )


def cutout(
    images: Float[Array, "b h w c"], row: Int[Array, "#b"], column: Int[Array, "#b"]
) -> Float[Array, "b h w c"]:
    """Zeroes rows row - ⌊side / 2⌋ to row - ⌊side / 2⌋ + side - 1, and columns likewise.

    The side is ⌊size / 2 + ½⌋ of each axis; the hole is clipped to the image.
    """

    def covered(center, size):
        side = (size + 1) // 2
        offset = jnp.arange(size) - (center[:, None] - side // 2)
        return (offset >= 0) & (offset < side)

    _, height, width, _ = images.shape
    hole = covered(row, height)[:, :, None, None] & covered(column, width)[:, None, :, None]
    return jnp.where(hole, 0, images)


def draw_flip(key: PRNGKey, num: int, height: int, width: int) -> Numbers:
    """Returns whether to flip, with probability ½."""
    return (jax.random.bernoulli(key, 0.5, (num,)),)


def flip(images: Float[Array, "b h w c"], flipped: Bool[Array, "#b"]) -> Float[Array, "b h w c"]:
    """Mirrors left and right where `flipped`."""
    return jnp.where(flipped[:, None, None, None], images[:, :, ::-1], images)


def draw_scale(key: PRNGKey, num: int, height: int, width: int) -> Numbers:
    """Returns the factors of rows and columns: independent, uniform in [1/1.2, 1.2]."""
    return tuple(jax.random.uniform(key, (2, num), minval=1 / MAX_SCALE, maxval=MAX_SCALE))


def scale(
    images: Float[Array, "b h w c"],
    row_factor: Float[Array, "#b"],
    column_factor: Float[Array, "#b"],
) -> Float[Array, "b h w c"]:
    """Multiplies the sampling grid by factors in [1/1.2, 1.2]; below 1 enlarges."""
    zero = jnp.zeros(row_factor.shape)
    matrix = _matrix(row_factor, zero, zero, column_factor)
    return _resample(images, matrix, jnp.zeros((1, 2)), (MAX_SCALE, MAX_SCALE))


def draw_rotate(key: PRNGKey, num: int, height: int, width: int) -> Numbers:
    """Returns the angle in radians, uniform in ±15°."""
    return (jax.random.uniform(key, (num,), minval=-MAX_ANGLE, maxval=MAX_ANGLE),)


def rotate(images: Float[Array, "b h w c"], angle: Float[Array, "#b"]) -> Float[Array, "b h w c"]:
    """Rotates the sampling grid by `angle`, in radians within ±15°.

    x' = x cos - y sin, y' = x sin + y cos, where the corner pixels' centers are at ±1.
    """
    _, height, width, _ = images.shape
    # In pixels those coordinates are no longer orthonormal; along an axis of one pixel they are 0.
    flat = min(height, width) == 1
    rows_per_column = 0.0 if flat else (height - 1) / (width - 1)
    columns_per_row = 0.0 if flat else (width - 1) / (height - 1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = _matrix(cos, sin * rows_per_column, -sin * columns_per_row, cos)
    # A row (cos, ratio · sin) of the inverse is longest at 15° if ratio >= tan 15°. Otherwise its
    # bound is √(1 + ratio²) <= 1 / cos 15°, which also bounds a flat image's 1 / cos.
    reach = tuple(
        max(1 / math.cos(MAX_ANGLE), math.cos(MAX_ANGLE) + ratio * math.sin(MAX_ANGLE))
        for ratio in (rows_per_column, columns_per_row)
    )
    return _resample(images, matrix, jnp.zeros((1, 2)), reach)


OPERATIONS = {
    "color": (draw_color, color),
    "crop": (draw_crop, crop),
    "cutout": (draw_cutout, cutout),
    "flip": (draw_flip, flip),
    "scale": (draw_scale, scale),
    "rotate": (draw_rotate, rotate),
}
"""(draw, apply) functions by operation."""


def _matrix(yy, yx, xy, xx):
    return jnp.stack([jnp.stack([yy, yx], axis=-1), jnp.stack([xy, xx], axis=-1)], axis=-2)


# Bilinear resampling: the output at pixel o is the image at A (o - m) + m + t, with m the middle
# of the image and pixels outside it zero. `matrix` [1 or b, 2, 2] is A and `shift` [1 or b, 2] is
# t, rows before columns, in pixels. An input pixel p has weight hat(A (o - m) + m + t - p), hat
# the product of max(0, 1 - |.|) over both axes, so only output pixels closer to
# A⁻¹ (p - m - t) + m than the absolute row sums of A⁻¹ receive anything from it. `reach` bounds
# those sums over all A that an operation can draw; an open interval of length 2 reach holds at
# most ⌈2 reach⌉ whole numbers, which makes the window of the transposed gather exact.


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _resample(images, matrix, shift, reach):
    _, height, width, _ = images.shape
    y, x = _positions(matrix, shift, *_grid(height, width), height, width)
    top, left = jnp.floor(y), jnp.floor(x)
    taps = _gather_window(images, top, left, 2, 2)
    below, right = y - top, x - left
    weights = [(1 - below) * (1 - right), (1 - below) * right, below * (1 - right), below * right]
    return _weighted_sum(taps, weights).astype(images.dtype)


def _resample_forward(images, matrix, shift, reach):
    return _resample(images, matrix, shift, reach), (matrix, shift)


def _resample_backward(reach, residuals, cotangent):
    matrix, shift = residuals
    _, height, width, _ = cotangent.shape
    rows, columns = (math.ceil(2 * r) for r in reach)
    (yy, yx), (xy, xx) = jnp.moveaxis(matrix, 0, -1)
    inverse = _matrix(xx, -yx, -xy, yy) / (yy * xx - yx * xy)[:, None, None]
    row_sums = jnp.abs(inverse).sum(axis=-1)[:, :, None, None]

    i, j = _grid(height, width)
    t = shift[:, :, None, None]
    y, x = _positions(inverse, 0 * shift, i - t[:, 0], j - t[:, 1], height, width)
    top, left = jnp.floor(y - row_sums[:, 0]) + 1, jnp.floor(x - row_sums[:, 1]) + 1
    weights = []
    for row in range(rows):
        for column in range(columns):
            y, x = _positions(matrix, shift, top + row, left + column, height, width)
            weights.append(_hat(y - i) * _hat(x - j))
    taps = _gather_window(cotangent, top, left, rows, columns)
    return _weighted_sum(taps, weights).astype(cotangent.dtype), None, None


_resample.defvjp(_resample_forward, _resample_backward)


def _grid(height, width):
    return jnp.arange(height, dtype=jnp.float32)[:, None], jnp.arange(width, dtype=jnp.float32)


def _positions(matrix, shift, i, j, height, width):
    """Returns A ((i, j) - m) + m + t."""
    i, j = i - (height - 1) / 2, j - (width - 1) / 2
    (yy, yx), (xy, xx) = jnp.moveaxis(matrix, 0, -1)[..., None, None]
    y, x = jnp.moveaxis(shift, -1, 0)[..., None, None]
    return yy * i + yx * j + (height - 1) / 2 + y, xy * i + xx * j + (width - 1) / 2 + x


def _hat(distance):
    return jnp.maximum(1 - jnp.abs(distance), 0)


def _gather_window(images, top, left, rows, columns):
    """Returns rows · columns arrays: pixels (top + row, left + column), zero outside."""
    num, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    flat = padded.reshape(num, -1, channels)
    # A window entirely outside the image is moved into the padding.
    top = jnp.clip(top.astype(jnp.int32) + rows, 0, height + rows)
    left = jnp.clip(left.astype(jnp.int32) + columns, 0, width + columns)
    stride = width + 2 * columns
    first = jnp.broadcast_to(top * stride + left, (num, height, width))
    take = jax.vmap(lambda pixels, index: pixels.at[index].get(mode="promise_in_bounds"))
    return [
        take(flat, first + (row * stride + column))
        for row in range(rows)
        for column in range(columns)
    ]


def _weighted_sum(taps, weights):
    return sum(tap * weight[..., None] for tap, weight in zip(taps, weights, strict=True))
