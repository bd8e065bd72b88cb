"""Every field of an experiment, with its default and its reason; a config changes what differs."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Distribution matching at the smallest budget; not an experiment of its own."""
    config = ConfigDict()
    config.seed = 0  # of everything random; the same seed gives the same bytes
    config.scale = 1.0  # below 1: a shrunk copy of the experiment, 0.01 for minutes on a CPU

    config.data = ConfigDict()
    config.data.name = "cifar10_mini"  # a TFDS name, or the set that ships with the package
    config.data.subset = ""  # of imagenet2012: nette, woof, fruit, yellow, meow or squawk
    config.data.resolution = 0  # pixels a side, after resize and centre crop; 0: as stored
    config.data.transform = "normalize"  # per channel; or zca
    config.data.dir = ""  # where TFDS keeps its sets; empty: TFDS_DATA_DIR, else its default

    config.budget = ConfigDict()
    config.budget.ipc = 1  # bytes of this many float32 images a class
    config.budget.gpc = 30  # Gaussian images a class; the Gaussians of each follow (section 4.1)

    config.parameterization = ConfigDict()
    config.parameterization.name = "gaussian"  # or pixels
    config.parameterization.options = ConfigDict()  # fields of its dataclass, e.g. the ablations

    config.network = ConfigDict()  # of matching, of its experts and of the evaluation
    config.network.name = "convnet"
    config.network.width = 128  # channels; the published width
    config.network.depth = 0  # blocks; 0: 3 at 32 x 32, 5 at 128 x 128
    config.network.precision = "default"  # of matmuls: default (TF32 on a GPU), float32, bfloat16

    config.init = ConfigDict()
    config.init.real = True  # start from fitted real images, else from random parameters
    config.init.num_steps = 50_000  # of the fit, as published
    config.init.learning_rate = 0.1

    config.matching = ConfigDict()
    config.matching.name = "dm"  # or tm, dc
    config.matching.strategy = "color_crop_cutout_flip_scale_rotate"  # of the augmentation (DSA)
    config.matching.batch_syn = 0  # synthetic images a step (dm, dc) or student step (tm); 0: all
    config.matching.precision = ""  # of its networks: as network.precision's; empty: that one
    # dm and dc
    config.matching.batch_real = 256  # real images a class and step
    # dm
    config.matching.per_class_updates = False  # True: update after each class in turn
    config.matching.class_by_class = False  # True: the memory of one class (needed at 128 x 128)
    # dc; the published loops are 1/1, 10/50 and 50/10 at IPC 1, 10 and 50
    config.matching.outer_loops = 1  # updates of the images for each fresh network
    config.matching.inner_loops = 1  # epochs of that network between two updates
    # tm
    config.matching.syn_steps = 60  # SGD steps of the student
    config.matching.max_start_epoch = 30  # it starts where an expert was before this epoch
    config.matching.expert_epochs = 2  # and should arrive where the expert was so much later
    config.matching.lr_init = 0.01  # of the student, then learned
    config.matching.lr_lr = 1e-5  # at which it is learned
    config.matching.experts_per_step = 1  # side by side, losses averaged
    config.matching.rematerialize = True  # False: memory grows with syn_steps

    config.experts = ConfigDict()  # of trajectory matching; their augmentation is matching's
    config.experts.dir = ""  # where they are kept; empty: runs/experts/<data and network>
    config.experts.num_experts = 100
    config.experts.epochs = 50
    config.experts.batch_size = 256
    config.experts.learning_rate = 0.01  # of SGD, constant, without momentum and weight decay
    config.experts.at_once = (
        4  # side by side on a GPU, as many as its memory holds; a CPU takes one
    )
    config.experts.seed = 0  # of their own, so that runs of any seed share them

    config.distill = ConfigDict()
    config.distill.num_steps = 20_000
    config.distill.learning_rate = 1e-3  # of the images' parameters
    config.distill.steps_per_call = 50  # in one compiled call; no influence on the result
    config.distill.checkpoint_every = 500  # steps
    config.distill.eval_every = 0  # steps; 0: only at the end

    config.evaluate = ConfigDict()
    config.evaluate.num_networks = 5
    config.evaluate.optimizer = "sgd"  # or adam, for other architectures
    config.evaluate.learning_rate = 0.01  # where the objective learns none
    config.evaluate.epochs = 1000
    config.evaluate.batch_size = 256
    return config


def scaled(config: ConfigDict) -> ConfigDict:
    """The experiment at `config.scale`: lengths shrink by it, sizes by its square root.

    Whatever must fit together still does; the resolution, the data set and the objective stay.
    """
    scale = config.scale
    if not 0 < scale <= 1:
        raise ValueError(f"config.scale: expected a number in (0, 1], got {scale}")
    if scale == 1:
        return config
    config = config.copy_and_resolve_references()
    gpc = config.budget.gpc

    def shrink(name: str, factor: float, least: int) -> None:
        *parents, last = name.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = min(node[last], max(least, round(node[last] * factor)))

    for name, least in (
        ("init.num_steps", 20),
        ("distill.num_steps", 10),
        ("distill.eval_every", 5),
        ("evaluate.epochs", 2),
        ("evaluate.num_networks", 2),
        ("experts.num_experts", 2),
        ("experts.epochs", 3),
    ):
        shrink(name, scale, least)
    size = scale**0.5
    for name, least in (
        ("network.width", 4),
        ("budget.gpc", 1),
        ("matching.batch_real", 1),
        ("matching.syn_steps", 2),
        ("matching.inner_loops", 1),
        ("matching.outer_loops", 1),
    ):
        shrink(name, size, least)
    if config.matching.name != "tm":
        config.matching.batch_syn = 0  # all
    elif config.matching.batch_syn:  # the same part of the images
        part = config.matching.batch_syn / gpc
        config.matching.batch_syn = max(2, int(part * config.budget.gpc))
    config.matching.max_start_epoch = min(
        config.matching.max_start_epoch, config.experts.epochs - config.matching.expert_epochs + 1
    )
    return config
