"""Demo on a CPU: the shipped subset of CIFAR-10, distribution matching, IPC 1.

    python -m launch.distill --config=configs/demo.py --workdir=runs/demo

Takes minutes on two cores, with a narrow ConvNet and short schedules. No row of the paper: it
compares distilled Gaussians with random real images of the same bytes.
"""

from gsdd_jax.config import own, stored_as


def get_config():
    """Returns the config of the experiment: that of your own data, in Gaussians as published."""
    config = stored_as(own(), "gaussian")
    config.data.name = "cifar10_mini"
    config.budget.images_per_class = 30
    config.init.learning_rate = 0.1
    config.teacher.epochs = 30
    config.evaluate.rates = ""
    config.evaluate.epochs = 150
    config.evaluate.batch_size = 300  # the whole set: one program to compile instead of two
    return config
