"""Images as sets of 2-D Gaussians: parameters, initialization, rounding, budgets."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.rasterizer.rasterize import rasterize, rasterize_ragged

MEANS_LIMIT = 1 - 1e-3  # equation 11
GEOMETRY_NUMBERS = 6  # per Gaussian without color: 2 means, 3 cholesky, 1 opacity
BYTES_PER_NUMBER = 2  # bfloat16


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianImages:
    """Images, each a sum of N Gaussians (paper, section 3.1); a pytree.

    Arrays are float32 during optimization and bfloat16 in a file. Types are not checked: a pytree
    may hold anything during a JAX transformation.
    """

    means: Array | Any  # [*batch, N, 2]: (u, v) in [-1, 1]
    cholesky: Array | Any  # [*batch, N, 3]: (l11, l21, l22) without the 1/2, in pixels
    colors: Array | Any  # [*batch, N, C], unbounded
    opacities: Array | Any  # [*batch, N], unbounded
    # Native resolution in pixels, which `cholesky` refers to; None: that of the rendering.
    height: int | None = dataclasses.field(default=None, metadata={"static": True})
    width: int | None = dataclasses.field(default=None, metadata={"static": True})

    def render(
        self,
        height: int | None = None,
        width: int | None = None,
        *,
        samples_per_side: int = 2,
        prefilter: bool = True,
        clip_gradient: str = "stop",
        backend: str = "auto",
        offsets: Int[Array, "bounds"] | None = None,
    ) -> Float[Array, "*b h w c"]:
        """Renders at the native resolution or at any other.

        The rows of L scale with width and height. The pre-filter stays one pixel of the target.

        Args:
          height, width: pixels; None for the native resolution.
          offsets: renders a ragged batch, as `rasterize_ragged`; the arrays have one leading axis.
          samples_per_side, prefilter, clip_gradient, backend: as for `rasterize`.

        Raises:
          ValueError: if no resolution is known, and as `rasterize`.
        """
        height, width = height or self.height, width or self.width
        if not height or not width:
            raise ValueError("height, width: these Gaussians have no native resolution; give both")
        scale_x, scale_y = width / (self.width or width), height / (self.height or height)
        means, cholesky, colors, opacities = (
            p.astype(jnp.float32) for p in (self.means, self.cholesky, self.colors, self.opacities)
        )
        if (scale_x, scale_y) != (1, 1):
            half = jnp.array([0.5, 0.0, 0.5], jnp.float32)
            scale = jnp.array([scale_x, scale_y, scale_y], jnp.float32)
            cholesky = (cholesky + half) * scale - half
        settings = dict(
            height=height, width=width, samples_per_side=samples_per_side, prefilter=prefilter,
            clip_gradient=clip_gradient, backend=backend,
        )  # fmt: skip
        parameters = means, cholesky, colors, opacities
        if offsets is None:
            return rasterize(*parameters, **settings)
        return rasterize_ragged(*parameters, offsets, **settings)

    def astype(self, dtype) -> "GaussianImages":
        return jax.tree.map(lambda p: p.astype(dtype), self)

    @property
    def num_gaussians(self) -> int:
        """Number of Gaussians per image, N."""
        return self.opacities.shape[-1]

    @property
    def num_bytes(self) -> int:
        """Bytes of all parameters in their present type."""
        return sum(p.size * p.dtype.itemsize for p in jax.tree.leaves(self))


def fields_of(gaussians: Any) -> dict[str, Any]:
    """Returns the arrays of `GaussianImages` or `GaussianClips` by name."""
    names = [f.name for f in dataclasses.fields(gaussians) if "static" not in f.metadata]
    return {name: getattr(gaussians, name) for name in names}


def init(
    key: Key[Array, ""], num_images: int, num_gaussians: int, *, height: int, width: int,
    channels: int = 3,
) -> GaussianImages:  # fmt: skip
    """Draws random Gaussians: means U[-1, 1], cholesky and colors U[0, 1], opacities 1; float32."""
    keys = jax.random.split(key, 3)
    shape = (num_images, num_gaussians)
    return GaussianImages(
        means=jax.random.uniform(keys[0], (*shape, 2), jnp.float32, minval=-1.0),
        cholesky=jax.random.uniform(keys[1], (*shape, 3), jnp.float32),
        colors=jax.random.uniform(keys[2], (*shape, channels), jnp.float32),
        opacities=jnp.ones(shape, jnp.float32),
        height=height,
        width=width,
    )


@jax.custom_jvp
def round_to_bfloat16(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Rounds float32 to bfloat16 values, with derivative 1 (straight-through; section 3.2)."""
    # Not a pair of casts: XLA is free to cancel those.
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


@round_to_bfloat16.defjvp
def _straight_through(primals, tangents):
    return round_to_bfloat16(*primals), tangents[0]


def boundary_loss(means: Float[Array, "*b n 2"]) -> Float[Array, ""]:
    """Computes the mean of -ln(1 - u^2) over all mean coordinates (equation 10).

    Coordinates are clamped to ±(1 - 1e-6).
    """
    u = jnp.clip(means, -(1 - 1e-6), 1 - 1e-6)
    return -(jnp.log1p(u) + jnp.log1p(-u)).mean()


def clip_means(gaussians: Any) -> Any:
    """Clips means to ±(1 - 1e-3), as after every step (equation 11)."""
    means = jnp.clip(gaussians.means, -MEANS_LIMIT, MEANS_LIMIT)
    return dataclasses.replace(gaussians, means=means)


def budget_bytes(ipc: int, image_shape: tuple[int, int, int]) -> int:
    """Returns the bytes per class of IPC float32 images (section 4.1)."""
    height, width, channels = image_shape
    return 4 * ipc * height * width * channels


def gaussians_within_budget(
    bytes_per_class: int,
    images_per_class: int,
    channels: int = 3,
    bytes_per_number: int = BYTES_PER_NUMBER,
) -> int:
    """Returns N, the Gaussians per image if that many images share the bytes of a class.

    N = floor(2 IPC C H W / (9 GPC)) for color images in bfloat16, the bytes of IPC float32 images
    and GPC Gaussian images per class (section 4.1). 0: not one fits.
    """
    bytes_each = bytes_per_number * (GEOMETRY_NUMBERS + channels)
    return max(0, bytes_per_class) // (bytes_each * images_per_class)
