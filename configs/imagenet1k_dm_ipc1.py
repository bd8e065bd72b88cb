"""ImageNet-1K at 64 x 64, distribution matching, IPC 1: no row of the paper.

    python -m launch.distill --config=configs/imagenet1k_dm_ipc1.py \\
        --workdir=runs/imagenet1k_dm_ipc1

We know of no certain accuracy of DM itself; imagenet1k_tm_ipc1.py has that of trajectory matching
at these bytes.

30 images per class of 91 Gaussians, with DM's usual number of real images per class and of steps.
Each step makes one update on the loss of all classes; one update per class would be 1000 of all
Gaussians. docs/scale.md estimates the cost.
"""

from configs import common


def get_config():
    """Config of the experiment."""
    config = common.get_config()
    config.data.name = "imagenet2012"
    config.data.resolution, config.data.resize = 64, "squash"
    config.init.learning_rate = 0.01
    config.budget.ipc, config.budget.gpc = 1, 30  # 91 Gaussians each
    common.matched_by(config, "dm")
    config.matching.options.batch_real = 256
    config.matching.options.class_by_class = True
    config.distill.num_steps = 20_000
    config.evaluate.epochs = 300  # 1000 would be many more steps than for smaller sets
    config.evaluate.batch_size = 256
    return config
