"""Checks the arguments of public functions by the annotations of their signatures."""

import functools
import inspect
import os
import re
import reprlib
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.files import URL, check_path

_NOUNS = {
    str: "text",
    int: "integer",
    float: "number",
    os.PathLike: "path",
    np.ndarray: "array",
    Callable: "function",
    Mapping: "dict",
    Sequence: "list",
}
F = TypeVar("F", bound=Callable)
_PARTS = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD


def checked(function: F) -> F:
    """Makes a function refuse arguments that its annotations exclude, by a UsageError.

    The function sees scalars of NumPy and JAX as Python's, an integer given for a number as a
    float, and an array given for a list as a list. A path is not empty. A text is no list, and a
    bool no number.
    """
    signature = inspect.signature(function)
    called = function.__qualname__.removesuffix(".__init__").rpartition(".")[-1]
    hints = functools.cache(lambda: typing.get_type_hints(function))

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python's error names the function
        for name, value in bound.arguments.items():
            if name not in hints() or signature.parameters[name].kind in _PARTS:
                continue
            with located(f"{called}: {name}"):
                try:
                    bound.arguments[name] = _as(hints()[name], value)
                except TypeError:
                    raise UsageError(
                        f"expected {_said(hints()[name])}, got {reprlib.repr(value)}"
                    ) from None
        return function(*bound.args, **bound.kwargs)

    return wrapper


def _as(hint: Any, value: Any) -> Any:
    """Returns a value as its annotation has it; raises TypeError for one that it excludes."""
    kinds = _kinds(hint)
    if Any in kinds:
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # of NumPy or JAX
    if os.PathLike in kinds and isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if not text or isinstance(text, bytes):
            raise TypeError
        if not URL.match(text):
            check_path(text)
        return value
    for kind in kinds:
        origin = typing.get_origin(kind) or kind
        if origin is Sequence:
            given = value.tolist() if isinstance(value, np.ndarray) else value
            if isinstance(given, Sequence) and not isinstance(given, str | bytes):
                (of,) = typing.get_args(kind)
                return [_as(of, one) for one in given]
        elif kind in (int, float):
            if type(value) is kind or (type(value) is int and abs(value) < sys.float_info.max):
                return kind(value)
        elif isinstance(value, origin):
            return value
    raise TypeError


def _kinds(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _said(hint: Any, plural: bool = False) -> str:
    """Returns an annotation as text, such as "a list of texts or integers"."""
    kinds, left_out = _kinds(hint), {types.NoneType}
    left_out |= {str} if os.PathLike in kinds else set()
    kinds = [kind for kind in kinds if kind not in left_out]
    return " or ".join(_noun(kind, plural) for kind in kinds)


def _noun(kind: Any, plural: bool) -> str:
    if kind is bool:
        return "True or False"
    origin = typing.get_origin(kind) or kind
    noun = _NOUNS.get(origin) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", origin.__name__).lower()
    if origin is Sequence:
        noun += f" of {_said(*typing.get_args(kind), plural=True)}"
    if plural:
        return f"{noun}s"
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
