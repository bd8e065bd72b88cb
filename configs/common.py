"""What configs have in common."""

from ml_collections import ConfigDict

from gsdd_jax.config import component_options, default, stored_as

__all__ = ["get_config", "matched_by", "quantized", "stored_as"]


def get_config() -> ConfigDict:
    """The default config: distribution matching at the smallest budget."""
    return default()


def matched_by(config: ConfigDict, name: str) -> ConfigDict:
    """Changes `config` to another objective at its defaults, and returns it."""
    config.matching.name, config.matching.options = name, component_options("matching", name)
    return config


def quantized(config: ConfigDict, gpc: int, soft_labels: bool = False) -> ConfigDict:
    """Changes `config` to codes of 40 bits per Gaussian and `gpc` images, and returns it.

    Soft labels pay where classes are few: every image stores a value per class.
    """
    config.parameterization.name = "quantized"
    config.parameterization.options = ConfigDict({"bits_per_gaussian": 40.0})
    config.budget.gpc = gpc
    if soft_labels:
        config.matching.options.soft_labels = True
    return config
