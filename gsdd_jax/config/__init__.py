"""Configs: fields, checks and adaptation."""

from gsdd_jax.config.adapt import scaled, stored_as, suited, swapped
from gsdd_jax.config.fields import component_options, default

__all__ = ["component_options", "default", "scaled", "stored_as", "suited", "swapped"]
