"""ImageNet-1K at 64 x 64, distribution matching, IPC 50: no row of the paper.

    python -m launch.distill --config=configs/imagenet1k_dm_ipc50.py \\
        --workdir=runs/imagenet1k_dm_ipc50

No accuracy of DM itself is published at these bytes that we know of.

400 images a class of 341 Gaussians.
"""

from configs import imagenet1k_dm_ipc1


def get_config():
    """The IPC 1 row but for what differs."""
    config = imagenet1k_dm_ipc1.get_config()
    config.budget.ipc, config.budget.gpc = 50, 400  # 341 Gaussians each
    # A group at a time, and as many more steps.
    config.matching.options.classes_per_step = 100
    config.distill.num_steps *= 10
    config.evaluate.epochs = 30
    return config
