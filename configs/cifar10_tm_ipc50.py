"""CIFAR-10, trajectory matching, IPC 50: published 77.7 ± 0.5 % (Table 11).

    python -m launch.train_experts --config=configs/cifar10_tm_ipc50.py
    python -m launch.distill --config=configs/cifar10_tm_ipc50.py --workdir=runs/cifar10_tm_ipc50

250 images per class of 136 Gaussians. All TM configs of this data set share experts.
"""

from configs import cifar10_tm_ipc1


def get_config():
    """Config of CIFAR-10 at IPC 1 with the fields that differ."""
    config = cifar10_tm_ipc1.get_config()
    config.budget.ipc, config.budget.gpc = 50, 250  # 136 Gaussians each
    config.matching.options.batch_syn = 360
    return config
