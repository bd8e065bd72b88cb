"""Shapes in signatures: jaxtyping's, if installed; annotations are not evaluated."""

try:
    from jaxtyping import Bool, Float, Int, UInt8
except ImportError:
    Bool = Float = Int = UInt8 = None

__all__ = ["Bool", "Float", "Int", "UInt8"]
