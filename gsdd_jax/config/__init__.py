"""Configs: fields, checks and adaptation."""

from gsdd_jax.config.adapt import (
    bytes_per_class,
    in_codes,
    matched_by,
    scaled,
    stored_as,
    suited,
    swapped,
)
from gsdd_jax.config.fields import component_options, default
from gsdd_jax.config.own import own

__all__ = ["bytes_per_class", "component_options", "default", "in_codes", "matched_by",
           "own", "scaled", "stored_as", "suited", "swapped"]  # fmt: skip
