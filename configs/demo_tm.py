"""Trajectory matching on CIFAR-10's small embedded subset, on a CPU: experts, then a set.

    python -m launch.train_experts --config=configs/demo_tm.py
    python -m launch.distill --config=configs/demo_tm.py --workdir=runs/demo_tm

Minutes on two cores: narrow networks, few and short experts, a short unroll. It is no row of the
paper; it shows the two commands, and what they leave.
"""

from configs import demo
from gsdd_jax.config.own import shortened_tm


def get_config():
    """Returns the demo's config with trajectory matching and its experts."""
    config = demo.get_config()
    config.network.options.width = 16
    return shortened_tm(config)
