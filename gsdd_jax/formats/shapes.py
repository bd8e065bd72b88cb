"""Shapes in signatures: jaxtyping's, if installed; annotations are not evaluated."""

try:
    from jaxtyping import Float, Int, UInt8
except ImportError:
    Float = Int = UInt8 = None

__all__ = ["Float", "Int", "UInt8"]
