"""Tiny ImageNet at 64 x 64, distribution matching, IPC 10: no row of the paper.

    python -m launch.distill --config=configs/tiny_imagenet_dm_ipc10.py \\
        --workdir=runs/tiny_imagenet_dm_ipc10

Published accuracy (%) at these bytes: DM 12.9 ± 0.4.

80 images per class of 341 Gaussians.
"""

from configs import tiny_imagenet_dm_ipc1


def get_config():
    """Config of IPC 1 with the fields that differ."""
    config = tiny_imagenet_dm_ipc1.get_config()
    config.budget.ipc, config.budget.gpc = 10, 80  # 341 Gaussians each
    return config
