"""Clips of Fashion-MNIST pictures in motion, by distribution matching: minutes on two CPU cores.

    python examples/moving_fashion.py fashion_mnist moving_fashion
    python -m launch.prepare --clips=moving_fashion --name=moving_fashion
    python -m launch.distill --config=moving_fashion_dm_cpu --workdir=runs/moving_fashion

Twenty of the forty classes, 8 frames of 32 x 32, in the bytes of one float32 clip per class: 23
clips of 64 Gaussians in space and time. MiniC3D has a quarter of its published width.
"""

from gsdd_jax.config import component_options, own, stored_as

THINGS = ("top", "trousers", "sandal", "sneaker", "bag")
MOTIONS = ("right", "down", "turns", "zooms")


def get_config():
    """Returns the config of the experiment."""
    config = own()
    config.data.name, config.data.resolution, config.data.frames = "moving_fashion", 32, 8
    config.data.classes = ",".join(f"{thing} {motion}" for thing in THINGS for motion in MOTIONS)
    stored_as(config, "video_gaussian")
    config.budget.images_per_class = 23
    config.network.name = "minic3d"
    config.network.options = component_options("network", "minic3d")
    config.network.options.width = 32
    config.init.num_steps, config.init.learning_rate = 300, 0.1
    config.matching.strategy = "crop_scale_cutout"  # a mirrored clip would be of another class
    config.matching.options.batch_real = 16
    config.distill.num_steps, config.distill.learning_rate = 100, 3e-3
    config.teacher.epochs = 30
    config.evaluate.num_networks, config.evaluate.learning_rate = 2, 0.03
    config.evaluate.rates = ""
    config.evaluate.epochs = 99  # 200 steps
    config.evaluate.baselines = "fitted,random_real_uint8"
    return config
