"""Derivatives that a function does not have, refused with a line that says so."""

from __future__ import annotations

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


# A tangent on its way into the function. Reverse mode only ever runs the transpose.
_tangent = Primitive("gsdd_reverse_mode_only")
_tangent.def_impl(_refuse)
_tangent.def_abstract_eval(lambda tangent: tangent)
ad.deflinear(_tangent, lambda cotangent: [cotangent])
batching.defvectorized(_tangent)
mlir.register_lowering(_tangent, _refuse)


@jax.custom_jvp
def forbid_forward_mode(array: Array) -> Array:
    """The array itself; forward mode through it is a TypeError."""
    return array


@forbid_forward_mode.defjvp
def _(primals, tangents):
    return forbid_forward_mode(*primals), _tangent.bind(*tangents)


@jax.custom_jvp
def forbid_derivatives(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    """The arrays themselves; a derivative through them, in any mode, is a TypeError."""
    return arrays


forbid_derivatives.defjvp(_refuse)


@contextlib.contextmanager
def explain_forward_mode():
    """Says it also where JAX is the first to see forward mode meet a custom_vjp."""
    try:
        yield
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise TypeError(MESSAGE) from None
