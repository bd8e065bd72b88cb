"""Trajectory matching on CIFAR-10's small embedded subset, on a CPU: experts, then a set.

    python -m launch.train_experts --config=configs/demo_tm.py
    python -m launch.distill --config=configs/demo_tm.py --workdir=runs/demo_tm

Minutes on two cores: narrow networks, few and short experts, a short unroll. It is no row of the
paper; it shows the two commands, and what they leave.
"""

from configs import common, demo


def get_config():
    """Returns the demo's config with trajectory matching and its experts."""
    config = demo.get_config()
    config.network.options.width = 16
    common.matched_by(config, "tm")
    config.matching.options.syn_steps = 20
    config.matching.options.batch_syn = 60
    config.matching.options.max_start_epoch = 6
    config.matching.options.expert_epochs = 2
    config.matching.options.lr_init = 0.05
    config.matching.options.lr_lr = 1e-4
    config.experts.num_experts = 3
    config.experts.epochs = 8
    config.experts.batch_size = 64
    config.distill.num_steps = 100
    config.distill.learning_rate = 3e-3  # as of the flagship made short
    return config
