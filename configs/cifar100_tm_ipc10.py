"""CIFAR-100, trajectory matching, IPC 10: published 47.4 ± 0.3 % (Table 11).

    python -m launch.train_experts --config=configs/cifar100_tm_ipc10.py
    python -m launch.distill --config=configs/cifar100_tm_ipc10.py --workdir=runs/cifar100_tm_ipc10

80 images per class of 85 Gaussians. All TM configs of this data set share experts.
"""

from configs import cifar10_tm_ipc1


def get_config():
    """Config of CIFAR-10 at IPC 1 with the fields that differ."""
    config = cifar10_tm_ipc1.get_config()
    config.data.name = "cifar100"
    config.init.learning_rate = 0.01
    config.budget.ipc, config.budget.gpc = 10, 80  # 85 Gaussians each
    config.matching.options.batch_syn = 512
    return config
