"""Tiny ImageNet at 64 x 64, distribution matching, IPC 50: no row of the paper.

    python -m launch.distill --config=configs/tiny_imagenet_dm_ipc50.py \\
        --workdir=runs/tiny_imagenet_dm_ipc50

Published accuracy (%) at these bytes: DM 24.1 ± 0.3.

400 images per class of 341 Gaussians.
"""

from configs import tiny_imagenet_dm_ipc1


def get_config():
    """Config of IPC 1 with the fields that differ."""
    config = tiny_imagenet_dm_ipc1.get_config()
    config.budget.ipc, config.budget.gpc = 50, 400  # 341 Gaussians each
    return config
