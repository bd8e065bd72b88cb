"""Tiny ImageNet at 64 x 64, trajectory matching, IPC 1: no row of the paper.

    python -m launch.train_experts --config=configs/tiny_imagenet_tm_ipc1.py
    python -m launch.distill --config=configs/tiny_imagenet_tm_ipc1.py \\
        --workdir=runs/tiny_imagenet_tm_ipc1

Published accuracy (%) at these bytes: MTT 8.8 ± 0.3, DATM 17.1 ± 0.3 (with soft labels, whitened).

30 images per class of 91 Gaussians. The epochs followed, the student's steps and the batch size are
DATM's; experts train for 100 epochs. tiny_imagenet_dm_ipc1.py has the commands that prepare the
data set.
"""

from configs import common


def get_config():
    """Config of the experiment."""
    config = common.get_config()
    config.data.name = "tiny_imagenet"
    config.data.resolution = 64
    config.init.learning_rate = 0.01
    config.budget.ipc, config.budget.gpc = 1, 30  # 91 Gaussians each
    config.experts.epochs = 100
    common.matched_by(config, "tm")
    options = config.matching.options
    options.batch_syn = 1000
    options.syn_steps = 40
    options.expert_epochs = 2
    options.min_start_epoch, options.max_start_epoch = 0, 20
    options.grow_start_from, options.grow_start_over = 15, 3_000
    options.lr_lr = 1e-4
    config.distill.num_steps = 10_000
    config.distill.eval_every = 1000
    return config
