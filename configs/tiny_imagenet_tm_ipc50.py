"""Tiny ImageNet at 64 x 64, trajectory matching, IPC 50: no row of the paper.

    python -m launch.train_experts --config=configs/tiny_imagenet_tm_ipc50.py
    python -m launch.distill --config=configs/tiny_imagenet_tm_ipc50.py \\
        --workdir=runs/tiny_imagenet_tm_ipc50

Published accuracy (%) at these bytes: MTT 28.0 ± 0.3, DATM 39.7 ± 0.3 (with soft labels, whitened).

400 images per class of 341 Gaussians. All TM configs of this data set share experts.
"""

from configs import tiny_imagenet_tm_ipc1


def get_config():
    """Config of IPC 1 with the fields that differ."""
    config = tiny_imagenet_tm_ipc1.get_config()
    config.budget.ipc, config.budget.gpc = 50, 400  # 341 Gaussians each
    options = config.matching.options
    options.syn_steps = 20
    options.min_start_epoch, options.max_start_epoch = 40, 60
    options.grow_start_from = 46
    return config
