"""Fused instance norm, ReLU and 2×2 average pooling.

The forward pass reads the images once and writes the pooled images. Each of the first two
derivatives, which gradient and trajectory matching need, reads the images once more. Each pass
is one custom call, or `jax.numpy` where the call was not built.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gsdd_jax.core import native
from gsdd_jax.core.native import like
from gsdd_jax.ops.norm import EPSILON, instance_norm
from gsdd_jax.ops.pool import average_pool


def norm_pool(
    x: Float[Array, "b h w c"], scale: Float[Array, " c"], shift: Float[Array, " c"]
) -> Float[Array, "b h2 w2 c"]:
    """Computes `average_pool(relu(instance_norm(x, scale, shift)))`.

    Has reverse-mode derivatives of any order; the first two are fused.
    """
    fits = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0 and scale.dtype == jnp.float32
    if not fits or x.dtype not in (jnp.float32, jnp.bfloat16):
        return plain(x, scale, shift)
    return _pooled(*native.vary_alike((x, scale, shift)))[0]


def plain(
    x: Float[Array, "b h w c"], scale: Float[Array, " c"], shift: Float[Array, " c"]
) -> Float[Array, "b h2 w2 c"]:
    """Computes `norm_pool` layer by layer."""
    return average_pool(jax.nn.relu(instance_norm(x, scale, shift)))


# The custom calls take the statistics, mean and rate (1 / √variance), from the forward pass. Each
# derivative with respect to x includes the path through the statistics, which therefore get zeros.
# `jax.numpy` recomputes the statistics.


def _plain_pooled(x, scale, shift):
    unused = x[:, 0, 0].astype(jnp.float32)
    return plain(x, scale, shift), unused, unused


def _plain_gradient(x, scale, shift, mean, rate, g):
    # Per image, as the custom call returns them.
    def one(x, g):
        dx, *parts = jax.vjp(lambda *a: plain(a[0][None], *a[1:])[0], x, scale, shift)[1](g)
        return dx, *parts

    return jax.vmap(one)(x, g)


def _plain_second(x, scale, shift, mean, rate, g, *cotangents):
    def one(x, g, *cotangents):
        function = lambda x, scale, g: tuple(
            part[0] for part in _plain_gradient(x[None], scale, shift, mean, rate, g[None])
        )
        return jax.vjp(function, x, scale, g)[1](cotangents)

    return jax.vmap(one)(x, g, *cotangents)


@jax.custom_vjp
def _pooled(x, scale, shift):
    """Returns pooled images, and the means, relative to the middle pixel, and rates."""

    def call(x, scale, shift):
        *batch, h, w, c = x.shape
        outputs = [like(x, (*batch, h // 2, w // 2, c), x.dtype), *[like(x, (*batch, c))] * 2]
        epsilon = np.float32(EPSILON)
        return tuple(native.call("gsdd_norm_pool", outputs, x, scale, shift, epsilon=epsilon))

    return native.where_built(call, _plain_pooled, x, scale, shift)


def _pooled_forward(x, scale, shift):
    y, mean, rate = _pooled(x, scale, shift)
    return (y, mean, rate), (x, scale, shift, mean, rate)


def _pooled_backward(saved, cotangents):
    dx, d_scale, d_shift = _gradient(*saved, cotangents[0])
    return dx, d_scale.sum(0), d_shift.sum(0)


_pooled.defvjp(_pooled_forward, _pooled_backward)


@jax.custom_vjp
def _gradient(x, scale, shift, mean, rate, g):
    """Returns cotangents of x and, per image, of scale and shift."""

    def call(x, *others):
        outputs = [like(x, x.shape, x.dtype), *[like(x, mean.shape)] * 2]
        return tuple(native.call("gsdd_norm_pool_gradient", outputs, x, *others))

    return native.where_built(call, _plain_gradient, x, scale, shift, mean, rate, g)


def _gradient_backward(saved, cotangents):
    _, _, shift, mean, rate, _ = saved
    dx, d_scale, dg = _second(*saved, *cotangents)
    return dx, d_scale.sum(0), *map(jnp.zeros_like, (shift, mean, rate)), dg


_gradient.defvjp(lambda *operands: (_gradient(*operands), operands), _gradient_backward)


@jax.custom_vjp
def _second(x, scale, shift, mean, rate, g, a, a_scale, a_shift):
    """Differentiates `_gradient`: returns cotangents of x, of scale per image, and of g."""

    def call(x, *others):
        outputs = [like(x, x.shape, x.dtype), like(x, mean.shape), like(x, g.shape, g.dtype)]
        return tuple(native.call("gsdd_norm_pool_second", outputs, x, *others))

    operands = (x, scale, shift, mean, rate, g, a, a_scale, a_shift)
    return native.where_built(call, _plain_second, *operands)


_second.defvjp(
    lambda *operands: (_second(*operands), operands),
    # Third and higher derivatives, not fused.
    lambda operands, cotangents: jax.vjp(_plain_second, *operands)[1](cotangents),
)
