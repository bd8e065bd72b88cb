"""Every field of an experiment, with its default and its reason; a config changes what differs."""

import math

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Distribution matching at the smallest budget; not an experiment of its own."""
    config = ConfigDict()
    config.seed = 0  # of everything random; the same seed gives the same bytes
    config.scale = 1.0  # below 1: a shrunk copy of the experiment, 0.01 for minutes on a CPU

    config.mesh = ConfigDict()
    config.mesh.devices = 0  # that share the work; 0: all there are
    config.mesh.groups = 0  # of them, that divide classes or students; 0: by the number of these

    config.data = ConfigDict()
    config.data.name = "cifar10_mini"  # a TFDS name, or the set that ships with the package
    config.data.subset = ""  # of imagenet2012: nette, woof, fruit, yellow, meow or squawk
    config.data.resolution = 0  # pixels a side; 0: as stored
    config.data.resize = "crop"  # to it: the shorter side, then the centre; or squash, both sides
    config.data.transform = "normalize"  # per channel; or zca
    config.data.dir = ""  # where TFDS keeps its sets; empty: TFDS_DATA_DIR, else its default
    config.data.on_device = (
        "auto"  # training images: whole, or streamed from disk; auto: if it fits
    )

    config.budget = ConfigDict()
    config.budget.ipc = 1  # bytes of this many float32 images a class
    config.budget.gpc = 30  # Gaussian images a class (section 4.1); 0: by the data set

    config.parameterization = ConfigDict()
    config.parameterization.name = "gaussian"  # or quantized, or stored_as() one of the others
    config.parameterization.options = ConfigDict()  # fields of its dataclass, e.g. the ablations

    config.network = ConfigDict()  # of matching, of its experts and of the evaluation
    config.network.name = "convnet"  # or alexnet, vgg11, resnet18, vit
    config.network.precision = "default"  # of matmuls: default (TF32 on a GPU), float32, bfloat16
    config.network.options = convnet()  # the network's own: convnet() or vit() below; others: none

    config.init = ConfigDict()
    config.init.images = "real"  # to fit at the start; solid: their mean colours; none: no fit
    config.init.num_steps = 50_000  # of the fit, as published
    config.init.learning_rate = 0.1  # as published on CIFAR-10; elsewhere 0.01; 0: by the data set
    config.init.halve_means_every = 20_000  # steps, of the means' rate; 0: never
    config.init.dir = ""  # where fits are kept for several runs; empty: in the run's own directory

    config.matching = ConfigDict()
    config.matching.name = "dm"  # or tm, dc
    config.matching.strategy = "color_crop_cutout_flip_scale_rotate"  # of the augmentation (DSA)
    config.matching.precision = ""  # of its networks, as network.precision; empty: that one
    config.matching.options = dm()  # the objective's own: dm(), dc() or tm() below

    config.experts = ConfigDict()  # of trajectory matching; their augmentation is matching's
    config.experts.dir = ""  # where they are kept; empty: runs/experts/<data and network>
    config.experts.num_experts = 100  # networks trained on the real images
    config.experts.epochs = 50
    config.experts.batch_size = 256
    config.experts.learning_rate = 0.01  # of SGD, constant, without momentum and weight decay
    # Trained side by side on each GPU; a CPU takes one. By the compiled program one moves least.
    config.experts.at_once = 1
    config.experts.seed = 0  # of their own, so that runs of any seed share them

    config.distill = ConfigDict()
    config.distill.num_steps = 20_000  # of the images by the objective
    config.distill.learning_rate = 1e-3  # of the images' parameters
    config.distill.average = 0.0  # of the parameters, over about 1 / (1 - it) steps; 0: the last
    config.distill.steps_per_call = 50  # in one compiled call; no influence on the result
    config.distill.checkpoint_every = 500  # steps
    config.distill.eval_every = 0  # steps, to find the best set on the way; 0: only the last
    config.distill.snapshot_every = 0  # steps; the images as they change, for figures; 0: never

    config.evaluate = ConfigDict()
    config.evaluate.num_networks = 5  # trained on each set, from different starts
    config.evaluate.optimizer = "sgd"  # or adam, sgd_cosine, adamw, for other architectures
    config.evaluate.learning_rate = 0.01  # where the objective learns none
    config.evaluate.epochs = 1000  # of theirs; 0: by the data set
    config.evaluate.batch_size = 256  # as published for TM; DM and DC: 128; 0: by the data set
    config.evaluate.beside = "fitted,random_real,random_real_uint8"  # what else is, at the end
    return config


def convnet() -> ConfigDict:
    """The options of ConvNet."""
    options = ConfigDict()
    options.width = 128  # channels; the published width
    options.depth = 0  # blocks; 0: 3 at 32 x 32, 5 at 128 x 128
    return options


def vit() -> ConfigDict:
    """The options of the vision transformer."""
    options = ConfigDict()
    options.depth = 0  # blocks; 0: 6, and 10 from 128 x 128 on
    return options


def dm() -> ConfigDict:
    """The options of distribution matching."""
    options = ConfigDict()
    options.batch_real = 256  # real images a class and step
    options.batch_syn = 0  # synthetic images a class and step; 0: all
    options.per_class_updates = False  # True: update after each class in turn
    options.classes_per_step = 0  # that are compared, a divisor of all; 0: all
    options.class_by_class = False  # True: the memory of one class (needed at 128 x 128)
    return options


def dc() -> ConfigDict:
    """The options of gradient matching; published loops: 1/1, 10/50, 50/10 at IPC 1, 10, 50."""
    options = ConfigDict()
    options.batch_real = 256  # real images a class and update
    options.batch_syn = 0  # synthetic images a class and update; 0: all
    options.classes_per_step = 0  # that are compared, a divisor of all; 0: all
    options.outer_loops = 1  # updates of the images for each fresh network
    options.inner_loops = 1  # epochs of that network between two updates
    return options


def tm() -> ConfigDict:
    """The options of trajectory matching."""
    options = ConfigDict()
    options.syn_steps = 60  # SGD steps of the student
    options.batch_syn = 0  # images a student step; 0: all
    options.max_start_epoch = 30  # it starts where an expert was before this epoch
    options.min_start_epoch = 0  # nor earlier than this
    options.grow_start_from = 1  # max_start_epoch grows from this to what it is
    options.grow_start_over = 0  # over so many steps; 0: it does not grow
    options.expert_epochs = 2  # and should arrive where the expert was so much later
    options.lr_init = 0.01  # of the student, then learned
    options.lr_lr = 1e-5  # at which it is learned
    options.experts_per_step = 1  # side by side, losses averaged
    options.soft_labels = False  # True: what it learns of each image is learned, within the budget
    options.label_bits = 4  # of each of their numbers, of an image and a class
    options.labels_lr = 0.02  # at which they are learned, by Adam
    # Of so many student steps one keeps its activations, the others recompute them. 0: none does,
    # which moves the fewest bytes; 1: all do; -1: as many as a GPU's memory holds, none on a CPU.
    options.keep_every = 0
    return options


def stored_as(config: ConfigDict, name: str) -> ConfigDict:
    """`config` with another parameterization, started and distilled as its authors publish it.

    What they publish for an objective or space of their own, or not at all, stays as it is: the
    rate of FreD, that of pixels but for TM. Changes `config` and returns it.
    """
    init, distill = config.init, config.distill
    if name == "pixels":
        init.num_steps = 0  # they start as real images
        if config.matching.name == "tm":
            distill.learning_rate = 100.0  # of SGD, on whitened images (MTT, IPC 1)
            config.matching.options.lr_lr = 1e-7
    elif name == "idc":
        init.num_steps = 0  # they start as real images made smaller
        distill.learning_rate = 5e-3  # of SGD, for an objective of its own
    elif name == "fred":
        init.num_steps = 0  # the coefficients kept of real images are the best fit
    elif name == "ddif":
        init.num_steps, init.learning_rate = 5000, 5e-4  # of Adam
        init.halve_means_every = 0  # that of the Gaussians' means
        distill.learning_rate = 1e-4  # of Adam
    else:
        raise ValueError(f"stored_as: expected pixels, idc, fred or ddif, got {name!r}")
    config.parameterization.name = name
    return config


def quantized(config: ConfigDict, gpc: int, soft_labels: bool = False) -> ConfigDict:
    """`config` with codes of 40 bits a Gaussian instead of nine bfloat16, for more images; with
    soft labels, which pay where classes are few: each takes bits in every image.

    Changes `config` and returns it.
    """
    config.parameterization.name = "quantized"
    config.parameterization.options = ConfigDict({"bits_per_gaussian": 40.0})
    config.budget.gpc = gpc
    if soft_labels:
        config.matching.options.soft_labels = True
    return config


# Fields that are 0 where the data set decides.
OPEN = ("budget.gpc", "init.learning_rate", "evaluate.batch_size", "evaluate.epochs")


def is_open(config: ConfigDict) -> bool:
    """Whether `suited` has something to decide."""
    return any(_get(config, name) == 0 for name in OPEN)


def suited(
    config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int, largest: int
) -> ConfigDict:
    """The config with every field of `OPEN` that is 0 as suits images of that shape and as many
    classes, of which the largest has `largest` training images.

    - `budget.gpc`: so many that each has 22 Gaussians at 32 x 32, as published, and twice as many
      at twice the side; no more than the largest class has, for each starts from another image
      there. A smaller class starts several from one.
    - `init.learning_rate`: the published ones, 0.1 up to 32 x 32 and 0.01 above.
    - `evaluate.batch_size`: equal parts of all distilled images, of at most 256.
    - `evaluate.epochs`: about 200 steps, but from 30 to 200 epochs.
    """
    config = config.copy_and_resolve_references()
    height, width, channels = image_shape
    if config.budget.gpc == 0:
        side = math.sqrt(height * width)
        in_budget = 2 * config.budget.ipc * height * width * channels // (6 + channels)
        config.budget.gpc = max(1, min(int(in_budget / (22 * side / 32)), largest))
    if config.init.learning_rate == 0:
        config.init.learning_rate = 0.1 if max(height, width) <= 32 else 0.01
    num_images = num_classes * config.budget.gpc
    if config.evaluate.batch_size == 0:
        config.evaluate.batch_size = -(-num_images // -(-num_images // 256))
    if config.evaluate.epochs == 0:
        steps_per_epoch = -(-num_images // config.evaluate.batch_size)
        config.evaluate.epochs = max(30, 200 // steps_per_epoch)
    return config


def _get(config: ConfigDict, name: str):
    group, field = name.split(".")
    return config[group][field]


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
        ("init.halve_means_every", 1),
        ("distill.num_steps", 10),
        ("distill.eval_every", 5),
        ("evaluate.epochs", 2),
        ("evaluate.num_networks", 2),
        ("experts.num_experts", 2),
        ("experts.epochs", 3),
    ):
        shrink(name, scale, least)
    size = scale**0.5
    shrink("budget.gpc", size, 1)
    if "width" in config.network.options:
        shrink("network.options.width", size, 4)
    options = config.matching.options
    for name, least in (
        ("batch_real", 1),
        ("syn_steps", 2),
        ("inner_loops", 1),
        ("outer_loops", 1),
    ):
        if name in options:
            shrink(f"matching.options.{name}", size, least)
    if options.get("batch_syn"):  # the same part of the images
        part = options.batch_syn / gpc
        least = 2 if config.matching.name == "tm" else 1  # of all images, or of a class
        options.batch_syn = max(least, int(part * config.budget.gpc))
    if config.matching.name == "tm":
        last = config.experts.epochs - options.expert_epochs + 1
        options.max_start_epoch = min(options.max_start_epoch, last)
        options.min_start_epoch = min(options.min_start_epoch, options.max_start_epoch - 1)
        options.grow_start_from = min(options.grow_start_from, options.max_start_epoch)
        shrink("matching.options.grow_start_over", scale, 0)
    return config
