"""Real images: data sets, their transforms, and the augmentation."""

from gsdd_jax.data.arrays import from_arrays
from gsdd_jax.data.dataset import (
    IMAGENET_SUBSETS,
    Dataset,
    Split,
    load,
    only,
    untested,
    with_public_constants,
)

__all__ = ["IMAGENET_SUBSETS", "Dataset", "Split", "from_arrays", "load", "only", "untested",
           "with_public_constants"]  # fmt: skip
