"""Accuracy on the subsets of ImageNet by DM.

python -m launch.reproduce --table=imagenet128_dm --size=paper
"""

from configs.tables import imagenet
from gsdd_jax.tables.table import Table


def get_table(size: str) -> Table:
    """Returns the table; see `configs.tables.imagenet`."""
    return imagenet.get_table("dm", size)
