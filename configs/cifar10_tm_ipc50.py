"""CIFAR-10, trajectory matching, IPC 50: published 77.7 ± 0.5 % (Table 11).

    python -m launch.train_experts --config=configs/cifar10_tm_ipc50.py
    python -m launch.distill --config=configs/cifar10_tm_ipc50.py --workdir=runs/cifar10_tm_ipc50

250 images a class of 136 Gaussians. The experts serve every TM config of this data set.
"""

from configs import common


def get_config():
    """See the module's docstring."""
    config = common.get_config()
    config.data.name = "cifar10"
    config.data.transform = "zca"
    config.budget.ipc, config.budget.gpc = 50, 250  # 136 Gaussians each
    config.matching.name = "tm"
    config.matching.batch_syn = 360
    config.matching.syn_steps = 60
    config.matching.max_start_epoch = 30
    config.matching.expert_epochs = 2
    config.matching.lr_lr = 1e-5
    config.distill.num_steps = 15_000
    config.distill.eval_every = 1000
    return config
