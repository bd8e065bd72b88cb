"""CIFAR-10, trajectory matching, IPC 10: published 75.5 ± 0.3 % (Table 11).

    python -m launch.train_experts --config=configs/cifar10_tm_ipc10.py
    python -m launch.distill --config=configs/cifar10_tm_ipc10.py --workdir=runs/cifar10_tm_ipc10

160 images per class of 42 Gaussians. All TM configs of this data set share experts.
"""

from configs import cifar10_tm_ipc1


def get_config():
    """Config of CIFAR-10 at IPC 1 with the fields that differ."""
    config = cifar10_tm_ipc1.get_config()
    config.budget.ipc, config.budget.gpc = 10, 160  # 42 Gaussians each
    config.matching.options.batch_syn = 380
    return config
