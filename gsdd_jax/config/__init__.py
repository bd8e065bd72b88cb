"""Configs: fields, checks and adaptation."""

from gsdd_jax.config.adapt import bytes_per_class, scaled, stored_as, suited, swapped
from gsdd_jax.config.fields import component_options, default

__all__ = ["bytes_per_class", "component_options", "default", "scaled", "stored_as", "suited",
           "swapped"]  # fmt: skip
