"""ImageNet subsets at 128 x 128, trajectory matching, IPC 10.

    python -m launch.train_experts --config=configs/imagenet_tm_ipc10.py --config.data.subset=nette
    python -m launch.distill --config=configs/imagenet_tm_ipc10.py --config.data.subset=nette \\
        --workdir=runs/imagenet_tm_ipc10_nette

The paper gives settings and a figure for this row, no table of accuracies.
"""

from configs import common


def get_config():
    """See the module's docstring."""
    config = common.get_config()
    config.data.name = "imagenet2012"
    config.data.subset = "nette"  # or woof, fruit, yellow, meow, squawk
    config.data.resolution = 128
    config.budget.ipc, config.budget.gpc = 10, 640  # 170 Gaussians each
    config.matching.name = "tm"
    config.matching.batch_syn = 160
    config.matching.syn_steps = 20
    config.matching.max_start_epoch = 40
    config.matching.expert_epochs = 2
    config.matching.lr_lr = 1e-5
    config.distill.num_steps = 15_000
    config.distill.eval_every = 1000
    return config
