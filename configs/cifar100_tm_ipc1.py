"""CIFAR-100, trajectory matching, IPC 1: published 43.0 ± 0.1 % (Table 11).

    python -m launch.train_experts --config=configs/cifar100_tm_ipc1.py
    python -m launch.distill --config=configs/cifar100_tm_ipc1.py --workdir=runs/cifar100_tm_ipc1

30 images a class of 22 Gaussians. The experts serve every TM config of this data set.
"""

from configs import common


def get_config():
    """See the module's docstring."""
    config = common.get_config()
    config.data.name = "cifar100"
    config.data.transform = "zca"
    config.budget.ipc, config.budget.gpc = 1, 30  # 22 Gaussians each
    config.matching.name = "tm"
    config.matching.batch_syn = 512
    config.matching.syn_steps = 60
    config.matching.max_start_epoch = 30
    config.matching.expert_epochs = 2
    config.matching.lr_lr = 1e-5
    config.distill.num_steps = 15_000
    config.distill.eval_every = 1000
    return config
