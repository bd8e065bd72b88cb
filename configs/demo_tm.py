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
    config.matching.options.update(
        syn_steps=20, batch_syn=60, max_start_epoch=6, expert_epochs=2, lr_init=0.05, lr_lr=1e-4
    )
    config.experts.update(num_experts=3, epochs=8, batch_size=64)
    config.distill.num_steps = 100
    config.distill.learning_rate = 3e-3  # as of the flagship made short
    return config
