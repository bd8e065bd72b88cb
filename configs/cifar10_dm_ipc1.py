"""CIFAR-10, distribution matching, IPC 1: no row of the paper, its DM rows being ImageNet's.

    python -m launch.distill --config=configs/cifar10_dm_ipc1.py --workdir=runs/cifar10_dm_ipc1

30 images a class of 22 Gaussians, per-channel normalisation, the CIFAR budget of the TM row.
"""

from configs import common


def get_config():
    """See the module's docstring."""
    config = common.get_config()
    config.data.name = "cifar10"
    config.budget.ipc, config.budget.gpc = 1, 30  # 22 Gaussians each
    config.matching.name, config.matching.options = "dm", common.dm()
    config.matching.options.batch_real = 256
    config.distill.num_steps = 20_000
    config.distill.eval_every = 2000
    config.evaluate.batch_size = 128
    return config
