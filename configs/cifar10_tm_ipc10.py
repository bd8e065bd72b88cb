"""CIFAR-10, trajectory matching, IPC 10: published 75.5 ± 0.3 % (Table 11).

    python -m launch.train_experts --config=configs/cifar10_tm_ipc10.py
    python -m launch.distill --config=configs/cifar10_tm_ipc10.py --workdir=runs/cifar10_tm_ipc10

160 images a class of 42 Gaussians. The experts serve every TM config of this data set.
"""

from configs import cifar10_tm_ipc1


def get_config():
    """The IPC 1 row of CIFAR-10 but for what differs."""
    config = cifar10_tm_ipc1.get_config()
    config.budget.ipc, config.budget.gpc = 10, 160  # 42 Gaussians each
    config.matching.options.batch_syn = 380
    return config
