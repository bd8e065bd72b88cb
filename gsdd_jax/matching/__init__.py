"""Distillation objectives, one file each."""

from gsdd_jax.matching.base import Matching, RealData, Synthetic, real_data
from gsdd_jax.matching.distribution import DistributionMatching
from gsdd_jax.matching.gradient import GradientMatching
from gsdd_jax.matching.trajectory import Segments, TrajectoryMatching

__all__ = [
    "DistributionMatching",
    "GradientMatching",
    "Matching",
    "RealData",
    "Segments",
    "Synthetic",
    "TrajectoryMatching",
    "real_data",
]
