"""CIFAR-10, pixels instead of Gaussians, trajectory matching, IPC 1: published 46.3 ± 0.8 % (MTT).

    python -m launch.train_experts --config=cifar10_tm
    python -m launch.distill --config=cifar10_tm_pixels --workdir=runs/pixels

Checks the training loop with the settings of Cazenavette et al. (2022) with ZCA, not the paper's.
"""

from configs import cifar10_tm, common


def get_config():
    """Returns the config of the experiment."""
    config = common.stored_as(cifar10_tm.get_config(), "pixels")
    config.matching.options.batch_syn = 0  # all ten images
    config.matching.options.syn_steps = 50
    config.matching.options.max_start_epoch = 2
    config.distill.num_steps = 5000
    config.distill.eval_every = 500
    return config
