"""Rejects derivatives that the native rasterizer lacks, by one clear line."""

import contextlib

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

MESSAGE = (
    "gsdd_jax.rasterize: the native rasterizer is differentiable once, in reverse mode "
    "(jax.grad, jax.vjp, jax.jacrev); backend='reference' has all derivatives"
)


def _refuse(*_, **__):
    raise TypeError(MESSAGE)


# Identity on tangents. Reverse mode runs only its transpose.
_tangent = Primitive("gsdd_reverse_mode_only")
_tangent.def_impl(_refuse)
_tangent.def_abstract_eval(lambda tangent: tangent)
ad.deflinear(_tangent, lambda cotangent: [cotangent])
batching.defvectorized(_tangent)
mlir.register_lowering(_tangent, _refuse)


@jax.custom_jvp
def forbid_forward_mode(array: Array) -> Array:
    """Returns the array; forward-mode differentiation raises TypeError."""
    return array


@forbid_forward_mode.defjvp
def _(primals, tangents):
    return forbid_forward_mode(*primals), _tangent.bind(*tangents)


@jax.custom_jvp
def forbid_derivatives(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    """Returns the arrays; differentiation in any mode raises TypeError."""
    return arrays


forbid_derivatives.defjvp(_refuse)


@contextlib.contextmanager
def explain_forward_mode():
    """Replaces JAX's error on forward mode through a `custom_vjp` by `MESSAGE`."""
    try:
        yield
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise TypeError(MESSAGE) from None
