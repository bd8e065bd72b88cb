"""Accuracy on the subsets of ImageNet by TM.

python -m launch.reproduce --table=imagenet128_tm --size=paper
"""

from configs.tables import imagenet
from gsdd_jax.tables.table import Table


def get_table(size: str) -> Table:
    """Returns the table; see `configs.tables.imagenet`."""
    return imagenet.get_table("tm", size)
