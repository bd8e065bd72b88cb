"""ImageNet-1K at 64 x 64, trajectory matching, IPC 1: no row of the paper.

    python -m launch.train_experts --config=configs/imagenet1k_tm_ipc1.py
    python -m launch.distill --config=configs/imagenet1k_tm_ipc1.py \\
        --workdir=runs/imagenet1k_tm_ipc1

Published accuracy (%) at these bytes: TESLA 7.7 ± 0.2 (with soft labels).

30 images per class of 91 Gaussians. The epochs followed, the student's steps and the batch size are
DATM's for this data set, the number of experts is TESLA's. docs/scale.md estimates the cost.
"""

from configs import common


def get_config():
    """Config of the experiment."""
    config = common.get_config()
    config.data.name = "imagenet2012"
    config.data.resolution, config.data.resize = 64, "squash"
    config.init.learning_rate = 0.01
    config.budget.ipc, config.budget.gpc = 1, 30  # 91 Gaussians each
    config.experts.num_experts = 50
    common.matched_by(config, "tm")
    options = config.matching.options
    options.batch_syn = 1000
    options.syn_steps = 20
    options.expert_epochs = 2
    options.min_start_epoch, options.max_start_epoch = 10, 20
    options.grow_start_from, options.grow_start_over = 14, 3_000
    options.lr_lr = 1e-4
    config.distill.num_steps = 10_000
    config.evaluate.epochs = 300  # 1000 would be many more steps than for smaller sets
    config.evaluate.batch_size = 256
    return config
