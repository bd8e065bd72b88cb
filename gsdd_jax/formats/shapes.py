"""Shapes in signatures: jaxtyping's, or anything where it is not installed."""

from typing import Any

try:
    from jaxtyping import Bool, Float, Int, UInt8
except ImportError:

    class Float:
        """Stands for jaxtyping's types."""

        def __class_getitem__(cls, _):
            return Any

    Bool = Int = UInt8 = Float

__all__ = ["Bool", "Float", "Int", "UInt8"]
