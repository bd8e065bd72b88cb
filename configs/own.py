"""A data set of your own: a start, with settings that suit its pictures.

    python -m launch.prepare --images=FOLDER --name=NAME
    python -m launch.distill --config=configs/own.py --config.data.name=NAME --workdir=runs/mine

Distribution matching at the bytes of one image a class, with a narrow ConvNet and short schedules:
minutes on two cores at 32 x 32. Whatever a flag gives prevails; what is 0 here follows from the
size of the pictures, the number of classes and the largest of them (`common.suited`).
"""

from configs import common


def get_config():
    """See the module's docstring."""
    config = common.get_config()
    config.data.name = ""  # yours
    config.budget.ipc, config.budget.gpc = 1, 0
    config.network.options.width = 32
    config.init.num_steps, config.init.learning_rate = 500, 0.0
    config.matching.options.batch_real = 64  # a class that has fewer gives all
    config.distill.num_steps = 200
    config.distill.learning_rate = 1.25e-3  # as of the demo
    config.distill.steps_per_call = 10
    config.distill.checkpoint_every = 50
    config.evaluate.num_networks = 3
    config.evaluate.epochs, config.evaluate.batch_size = 0, 0
    return config
