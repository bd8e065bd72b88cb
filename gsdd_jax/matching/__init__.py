"""Distillation objectives, one file each."""

from gsdd_jax.matching.base import Matching, RealData, Synthetic, real_data
from gsdd_jax.matching.distribution import DistributionMatching

__all__ = ["DistributionMatching", "Matching", "RealData", "Synthetic", "real_data"]
