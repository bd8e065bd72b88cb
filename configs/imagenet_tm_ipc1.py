"""ImageNet subsets at 128 x 128, trajectory matching, IPC 1.

    python -m launch.train_experts --config=configs/imagenet_tm_ipc1.py --config.data.subset=nette
    python -m launch.distill --config=configs/imagenet_tm_ipc1.py --config.data.subset=nette \\
        --workdir=runs/imagenet_tm_ipc1_nette

Published accuracy (%), nette / woof / fruit / yellow / meow / squawk:
76.4 / 46.4 / 51.2 / 72.4 / 53.8 / 73.2 (Table 1).
"""

from configs import common


def get_config():
    """Config of the experiment."""
    config = common.get_config()
    config.data.name = "imagenet2012"
    config.data.subset = "nette"  # or woof, fruit, yellow, meow, squawk
    config.data.resolution, config.data.resize = 128, "squash"
    config.init.learning_rate = 0.01
    config.budget.ipc, config.budget.gpc = 1, 64  # 170 Gaussians each
    common.matched_by(config, "tm")
    config.matching.options.batch_syn = 150
    config.matching.options.syn_steps = 20
    config.matching.options.max_start_epoch = 40
    config.matching.options.expert_epochs = 2
    config.matching.options.lr_lr = 1e-6
    config.distill.num_steps = 15_000
    config.distill.eval_every = 1000
    return config
