"""Fits a parameterization to real images by mean squared error (equation 8)."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.gaussians import GaussianImages
from gsdd_jax.parameterizations.base import Parameterization, Params
from gsdd_jax.parameterizations.gaussian import Gaussian


class FitState(NamedTuple):
    """Everything a fit holds between steps; a pytree."""

    params: Params
    optimizer: Any
    step: Int[Array, ""]


def start(
    parameterization: Parameterization,
    key: Key[Array, ""],
    images: Float[Array, "m h w c"],
    learning_rate: float,
) -> FitState:
    """The state before the first step, from the parameterization's own initial values."""
    # A copy: the state is donated, and pixels start as the images themselves.
    params = jax.tree.map(jnp.copy, parameterization.init(key, images))
    optimizer = parameterization.optimizer(learning_rate).init(params)
    return FitState(params, optimizer, jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnums=(0, 3, 4), donate_argnums=1)
def run(
    parameterization: Parameterization,
    state: FitState,
    images: Float[Array, "m h w c"],
    learning_rate: float,
    num_steps: int,
) -> tuple[FitState, Float[Array, "m"]]:
    """`num_steps` steps on all images at once; also each image's squared error before the last.

    The loss is the sum over images of each one's mean squared error, so how well an image is
    fitted does not depend on how many others are.
    """
    optimizer = parameterization.optimizer(learning_rate)

    def loss(params):
        errors = ((parameterization.render(params) - images) ** 2).mean((1, 2, 3))
        return errors.sum(), errors

    def step(carry, _):
        state, _ = carry
        gradient, errors = jax.grad(loss, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = parameterization.project(optax.apply_updates(state.params, updates))
        return (FitState(params, optimizer_state, state.step + 1), errors), None

    (state, errors), _ = jax.lax.scan(
        step, (state, jnp.full(len(images), jnp.inf)), length=num_steps
    )
    return state, errors


@functools.partial(jax.jit, static_argnums=0)
def psnr(
    parameterization: Parameterization, params: Params, images: Float[Array, "m h w c"]
) -> Float[Array, "m"]:
    """Peak signal-to-noise ratio of each image, in dB, for a peak of 1."""
    errors = ((parameterization.render(params) - images) ** 2).mean((1, 2, 3))
    return -10 * jnp.log10(errors)


def fit_images(
    key: Key[Array, ""],
    images: Float[Array, "m h w c"],
    num_gaussians: int,
    *,
    num_steps: int,
    learning_rate: float = 0.1,
) -> tuple[GaussianImages, Float[Array, "m"]]:
    """Fits `num_gaussians` Gaussians to each image by Adam, all images at once (section 3.1).

    Parameters are rounded to bfloat16 in every forward pass and means clipped after every step,
    as in distillation.

    Args:
      key: for the random initial Gaussians.
      images: in [0, 1].
      num_gaussians: N, of each image.
      num_steps: of Adam; the published runs take 50,000.
      learning_rate: of Adam.

    Returns:
      The Gaussians (float32) and each image's PSNR in dB, rendered from bfloat16.

    Raises:
      ValueError: if images is not [M, H, W, C] or a number is below 1.
    """
    images = jnp.asarray(images, jnp.float32)
    if images.ndim != 4:
        raise ValueError(f"images: expected shape [M, H, W, C], got {images.shape}")
    for name, value in (("num_gaussians", num_gaussians), ("num_steps", num_steps)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    _, height, width, channels = images.shape
    parameterization = Gaussian(height, width, channels, 1, num_gaussians)
    state = start(parameterization, key, images, learning_rate)
    state, _ = run(parameterization, state, images, learning_rate, num_steps)
    return state.params, psnr(parameterization, state.params, images)
