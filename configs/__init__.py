"""The experiments, one family per file; `tables/` has one table per file."""

import importlib


def load(name: str):
    """Returns the config of an experiment file, or of a variant such as "cifar10_tm:ipc=10"."""
    module, colon, variant = name.partition(":")
    get_config = importlib.import_module(f"configs.{module}").get_config
    return get_config(variant) if colon else get_config()
