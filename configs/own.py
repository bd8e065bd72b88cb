"""Your own data set: distribution matching with settings chosen from the data.

    python -m launch.prepare --images=FOLDER --name=NAME
    python -m launch.distill --config=configs/own.py --config.data.name=NAME --workdir=runs/mine

The budget is the bytes of one float32 image per class. Takes minutes on two cores at 32 x 32: the
ConvNet is narrow, the schedules are short. Fields that are 0 here follow from the size of the
pictures, the number of classes and the largest class (`gsdd_jax.config.suited`). Flags override
them.
"""

from configs import common


def get_config():
    """Returns the config of the experiment."""
    config = common.get_config()
    config.data.name = ""  # yours
    config.budget.ipc, config.budget.images_per_class = 1, 0
    config.network.options.width = 32
    config.init.num_steps, config.init.learning_rate = 500, 0.0
    config.matching.options.batch_real = 64  # smaller classes give all their images
    config.distill.num_steps = 200
    config.distill.learning_rate = 1.25e-3  # as in the demo
    config.distill.steps_per_call = 10
    config.distill.checkpoint_every = 50
    config.evaluate.num_networks = 3
    config.evaluate.epochs, config.evaluate.batch_size = 0, 0
    config.evaluate.baselines, config.teacher.epochs = common.BASELINES, 0
    return config
