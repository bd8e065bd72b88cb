"""ImageNet subsets at 128 x 128, gradient matching, IPC 1.

    python -m launch.distill --config=imagenet_dc --config.data.subset=nette \\
        --workdir=runs/imagenet_dc_nette

Published accuracy (%), nette / woof / fruit / yellow / meow / squawk:
70.2 / 42.4 / 47.8 / 64.0 / 43.2 / 69.4 (Table 2).
"""

from configs import common


def get_config():
    """Returns the config of the experiment."""
    config = common.matched_by(common.imagenet_subset(), "dc")
    config.budget.ipc, config.budget.images_per_class = 1, 200  # 54 Gaussians each
    config.matching.options.batch_real = 720
    config.matching.options.batch_syn = 0  # all 2000
    config.distill.num_steps = 5_000
    config.distill.eval_every = 500
    config.evaluate.batch_size = 128
    return config
