"""CIFAR-10, trajectory matching, IPC 1: published 67.6 ± 0.4 % (Table 11).

    python -m launch.train_experts --config=configs/cifar10_tm_ipc1.py
    python -m launch.distill --config=configs/cifar10_tm_ipc1.py --workdir=runs/cifar10_tm_ipc1

30 images per class of 22 Gaussians. All TM configs of this data set share experts.
"""

from configs import common


def get_config():
    """Config of the experiment."""
    config = common.get_config()
    config.data.name = "cifar10"
    config.data.transform = "zca"
    config.budget.ipc, config.budget.gpc = 1, 30  # 22 Gaussians each
    common.matched_by(config, "tm")
    config.matching.options.batch_syn = 300
    config.matching.options.syn_steps = 60
    config.matching.options.max_start_epoch = 30
    config.matching.options.expert_epochs = 2
    config.matching.options.lr_lr = 1e-5
    config.distill.num_steps = 15_000
    config.distill.eval_every = 1000
    return config
