"""Demo on a CPU: the shipped subset of CIFAR-10, distribution matching, IPC 1.

    python -m launch.distill --config=configs/demo.py --workdir=runs/demo

Takes minutes on two cores, with a narrow ConvNet and short schedules. No row of the paper: it
compares distilled Gaussians with random real images of the same bytes.
"""

from configs import common


def get_config():
    """Returns the config of the experiment."""
    config = common.get_config()
    config.data.name = "cifar10_mini"
    config.budget.ipc, config.budget.images_per_class = 1, 30
    config.network.options.width = 32
    config.init.num_steps = 500
    config.matching.options.batch_real = 64
    config.distill.num_steps = 200
    config.distill.learning_rate = 1.25e-3  # good on training images (docs/results.md)
    config.distill.steps_per_call = 10
    config.distill.checkpoint_every = 50
    config.evaluate.num_networks = 3
    config.evaluate.epochs = 150
    config.evaluate.baselines = common.BASELINES
    config.evaluate.batch_size = 300  # the whole set: one program to compile instead of two
    return config
