"""CIFAR-10, trajectory matching, IPC 10: published 75.5 ± 0.3 % (Table 11).

    python -m launch.train_experts --config=configs/cifar10_tm_ipc10.py
    python -m launch.distill --config=configs/cifar10_tm_ipc10.py --workdir=runs/cifar10_tm_ipc10

160 images a class of 42 Gaussians. The experts serve every TM config of this data set.
"""

from configs import common


def get_config():
    """See the module's docstring."""
    config = common.get_config()
    config.data.name = "cifar10"
    config.data.transform = "zca"
    config.budget.ipc, config.budget.gpc = 10, 160  # 42 Gaussians each
    config.matching.name = "tm"
    config.matching.batch_syn = 380
    config.matching.syn_steps = 60
    config.matching.max_start_epoch = 30
    config.matching.expert_epochs = 2
    config.matching.lr_lr = 1e-5
    config.distill.num_steps = 15_000
    config.distill.eval_every = 1000
    return config
