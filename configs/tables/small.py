"""Settings of the small tables: full CIFAR-10, IPC 1, a narrow network.

Networks have width 16, four experts train for seven epochs, and distillation takes a few hundred
steps. The settings reproduce no row of the paper. The student's rate of every method is learned
from the same start: published ones, such as 1e-7 from 0.01 for pixels, suit thousands of steps.
"""

from ml_collections import ConfigDict

from configs import cifar10_tm_cpu, common, demo
from configs.tables.methods import Method, num_images, stored_as
from gsdd_jax.setup.experiment import build_schedule

SEEDS = (0, 1, 2)
EVALUATION_STEPS = 400  # of each network, whatever the number of images
# Networks as an evaluation trains them: at a tenth of the rate from halfway on.
LATE = {
    "optimizer": "sgd", "network_learning_rate": 0.2, "last_rate": 0.1, "min_start_step": 400,
    "max_start_step": 800, "syn_steps": 20, "batch_syn": 128, "batch_real": 100, "pool_size": 5,
    "augment_real": False,
}  # fmt: skip
GAUSSIAN_RATE = 1e-2  # the best of four on training images, by TM (docs/results.md)


def get_config(objective: str) -> ConfigDict:
    """Returns the config of Gaussians by an objective: "tm", "dm" or "frepo"."""
    if objective == "tm":
        config = cifar10_tm_cpu.get_config()
        config.distill.num_steps = 100
        config.distill.eval_every = 0
    else:
        config = demo.get_config()
        if objective != "dm":
            common.matched_by(config, objective)
        config.data.name = "cifar10"
        config.network.options.width = 16
        config.init.num_steps = 2000
    config.distill.checkpoint_every = 50
    config.evaluate.num_networks = 3
    config.evaluate.batch_size = 0  # equal parts: sets of other sizes train alike
    return config


def through_training(config: ConfigDict, learning_rate: float) -> ConfigDict:
    """Returns the config by back-propagation through training instead."""
    config = common.matched_by(config.copy_and_resolve_references(), "bptt")
    config.matching.options.update(LATE)
    config.distill.update(num_steps=400, learning_rate=learning_rate)
    return config


def by_characteristic_functions(config: ConfigDict) -> ConfigDict:
    """Returns the config of DM by characteristic functions instead, with four experts of its own.

    They train faster than those of TM, whose parameters are followed.
    """
    batch_real = config.matching.options.batch_real
    config = common.matched_by(config.copy_and_resolve_references(), "ncfm")
    config.matching.options.batch_real = batch_real
    config.experts.update(num_experts=4, epochs=15, learning_rate=0.05, batch_size=128)
    return config


def gaussians() -> ConfigDict:
    """Returns the `cifar` table's row of Gaussians by TM, at the rate chosen there."""
    config = get_config("tm")
    config.distill.learning_rate = GAUSSIAN_RATE
    evaluate_as_long(config, 10 * config.budget.images_per_class)
    return config


def evaluate_as_long(config: ConfigDict, images: int, steps: int = EVALUATION_STEPS) -> None:
    """Sets epochs so that networks on that many images train for the common steps."""
    config.evaluate.epochs = build_schedule(config).with_steps(steps, images).epochs


def stored(objective: str, method: Method) -> ConfigDict:
    """Returns a config of another method; every network trains for the same number of steps."""
    base = get_config(objective)
    config = stored_as(base, method)
    if objective == "tm":
        student = base.matching.options
        config.matching.options.update(lr_init=student.lr_init, lr_lr=student.lr_lr)
    evaluate_as_long(config, num_images(config))
    if method.name == "ddif":  # as good as 5000 steps at 5e-4
        config.init.num_steps, config.init.learning_rate = 600, 5e-3
    return config
