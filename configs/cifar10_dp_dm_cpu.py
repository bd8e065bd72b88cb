"""CIFAR-10 by private distribution matching, minutes on two CPU cores: no row of the paper.

    python -m launch.distill --config=cifar10_dp_dm_cpu --workdir=runs/private
    python -m launch.audit   --config=cifar10_dp_dm_cpu --shadows=6 --workdir=runs/audit

30 images per class of 22 Gaussians, from random parameters, under a ConvNet of width 16. The noise
gives epsilon 3 at delta 1e-5; docs/results.md has those of epsilon 1 and 10.
"""

from configs import demo
from gsdd_jax.config import matched_by

BATCH, STEPS = 64, 150


def get_config():
    """Returns the config of the experiment."""
    config = matched_by(demo.get_config(), "dp_dm")
    config.data.name = "cifar10"
    config.network.options.width = 16
    config.matching.options.update(batch_real=BATCH, noise=0.706)
    config.distill.num_steps, config.distill.learning_rate = STEPS, 0.03
    config.evaluate.num_networks = 2
    config.evaluate.epochs = 399  # 400 steps
    config.evaluate.baselines = ""
    return config
