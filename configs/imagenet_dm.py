"""ImageNet subsets at 128 x 128, distribution matching, IPC 1.

    python -m launch.distill --config=imagenet_dm --config.data.subset=nette \\
        --workdir=runs/imagenet_dm_nette

Published accuracy (%), nette / woof / fruit / yellow / meow / squawk:
74.6 / 43.4 / 52.0 / 69.4 / 48.2 / 73.6 (Table 2).
"""

from configs import common


def get_config():
    """Returns the config of the experiment."""
    config = common.imagenet_subset()
    config.budget.ipc, config.budget.images_per_class = 1, 200  # 54 Gaussians each
    config.matching.options.batch_real = 1024
    config.matching.options.batch_syn = 0  # all 2000
    config.matching.options.per_class_updates = True  # as published
    config.matching.options.class_by_class = True
    config.distill.num_steps = 20_000
    config.distill.eval_every = 2000
    config.evaluate.batch_size = 128
    return config
