"""CIFAR-10, distribution matching, IPC 1: no row of the paper, whose DM rows are ImageNet.

    python -m launch.distill --config=cifar10_dm --workdir=runs/cifar10_dm

30 images per class of 22 Gaussians, with per-channel normalization. The budget is the TM row's.
"""

from configs import common


def get_config():
    """Returns the config of the experiment."""
    config = common.get_config()
    config.data.name = "cifar10"
    config.budget.ipc, config.budget.images_per_class = 1, 30  # 22 Gaussians each
    config.distill.num_steps = 20_000
    config.distill.eval_every = 2000
    config.evaluate.batch_size = 128
    return config
