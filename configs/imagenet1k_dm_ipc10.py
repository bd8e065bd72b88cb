"""ImageNet-1K at 64 x 64, distribution matching, IPC 10: no row of the paper.

    python -m launch.distill --config=configs/imagenet1k_dm_ipc10.py \\
        --workdir=runs/imagenet1k_dm_ipc10

We know of no published accuracy of DM at these bytes.

80 images per class of 341 Gaussians.
"""

from configs import imagenet1k_dm_ipc1


def get_config():
    """Config of IPC 1 with the fields that differ."""
    config = imagenet1k_dm_ipc1.get_config()
    config.budget.ipc, config.budget.gpc = 10, 80  # 341 Gaussians each
    # A group at a time, and as many more steps.
    config.matching.options.classes_per_step = 100
    config.distill.num_steps *= 10
    config.evaluate.epochs = 100
    return config
