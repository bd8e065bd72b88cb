"""Fields of an experiment with their defaults; a config overrides some of them."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Default config: distribution matching at the smallest budget."""
    config = ConfigDict()
    config.seed = 0  # random seed of the run; the same seed gives the same bytes
    config.scale = 1.0  # below 1: a shrunk copy of the experiment; 0.01 takes minutes on a CPU

    config.mesh = ConfigDict()  # devices and how they share the work
    config.mesh.devices = 0  # number of devices; 0: all
    config.mesh.groups = 0  # device groups that divide classes or students; 0: automatic

    config.data = ConfigDict()
    config.data.name = "cifar10_mini"  # TFDS name, or cifar10_mini, which ships with the package
    config.data.subset = ""  # subset of imagenet2012: nette, woof, fruit, yellow, meow or squawk
    config.data.resolution = 0  # pixels per side; 0: as stored
    config.data.resize = "crop"  # resizing: crop (scale the shorter side, cut the centre) or squash
    config.data.transform = "normalize"  # normalize (per channel) or zca (whitening)
    config.data.dir = ""  # directory of TFDS data sets; empty: $TFDS_DATA_DIR, else the default
    config.data.on_device = "auto"  # training images: whole, streamed (from disk), auto (by size)

    config.budget = ConfigDict()
    config.budget.ipc = 1  # images per class: the budget is the bytes of this many float32 images
    config.budget.gpc = 30  # Gaussian images per class (section 4.1); 0: by data set

    config.parameterization = ConfigDict()
    config.parameterization.name = "gaussian"  # gaussian, quantized, pixels, idc, fred or ddif
    config.parameterization.options = ConfigDict()  # fields of the parameterization, e.g. ablations

    config.network = ConfigDict()  # network of the objective, the experts and the evaluation
    config.network.name = "convnet"  # convnet, alexnet, vgg11, resnet18 or vit
    config.network.precision = "default"  # matmuls: default (TF32 on a GPU), float32 or bfloat16
    config.network.options = convnet()  # convnet() or vit() below; none for the other networks

    config.init = ConfigDict()
    config.init.images = "real"  # fitted images: real, solid (mean colours) or none (no fit)
    config.init.num_steps = 50_000  # fit steps; published: 50,000
    config.init.learning_rate = 0.1  # fit rate; published 0.1 (CIFAR-10), 0.01; 0: by data set
    config.init.halve_means_every = 20_000  # steps between halvings of the means' rate; 0: never
    config.init.dir = ""  # directory of fits shared by several runs; empty: the run's own

    config.matching = ConfigDict()
    config.matching.name = "dm"  # objective: dm, dc or tm
    config.matching.strategy = "color_crop_cutout_flip_scale_rotate"  # DSA augmentations
    config.matching.precision = ""  # matmul precision of the objective; empty: network.precision
    config.matching.options = dm()  # dm(), dc() or tm() below

    config.experts = ConfigDict()  # experts of trajectory matching, augmented by matching.strategy
    config.experts.dir = ""  # directory of the experts; empty: runs/experts/<data and network>
    config.experts.num_experts = 100  # number of experts, networks trained on the real images
    config.experts.epochs = 50  # training epochs per expert
    config.experts.batch_size = 256  # batch size of expert training
    config.experts.learning_rate = 0.01  # constant SGD rate, without momentum or weight decay
    # By the compiled program's count, one at a time moves the fewest bytes per expert.
    config.experts.at_once = 1  # experts trained in parallel per GPU; a CPU trains one at a time
    config.experts.seed = 0  # seed of the experts; not config.seed, so that runs share experts

    config.distill = ConfigDict()
    config.distill.num_steps = 20_000  # distillation steps
    config.distill.learning_rate = 1e-3  # learning rate of the images' parameters
    config.distill.average = 0.0  # decay of a parameter average (1 / (1 - decay) steps); 0: none
    config.distill.steps_per_call = 50  # steps per compiled call; no effect on the result
    config.distill.checkpoint_every = 500  # steps between checkpoints
    config.distill.eval_every = 0  # steps between evaluations, to keep the best set; 0: last only
    config.distill.snapshot_every = 0  # steps between snapshots of the images, for figures; 0: none

    config.evaluate = ConfigDict()
    config.evaluate.num_networks = 5  # networks trained per set, from different initializations
    config.evaluate.optimizer = "sgd"  # sgd; or adam, sgd_cosine, adamw for other architectures
    config.evaluate.learning_rate = 0.01  # learning rate where the objective learns none
    config.evaluate.epochs = 1000  # training epochs (sgd: one more, as published); 0: by data set
    config.evaluate.batch_size = 256  # batch size; published 256 (TM), 128 (DM, DC); 0: by data set
    config.evaluate.beside = "fitted,random_real,random_real_uint8"  # baselines to evaluate
    return config


def convnet() -> ConfigDict:
    """Options of ConvNet."""
    options = ConfigDict()
    options.width = 128  # channels per layer; published: 128
    options.depth = 0  # blocks; 0: by the resolution, 3 at 32 x 32 and 5 at 128 x 128
    return options


def vit() -> ConfigDict:
    """Options of the vision transformer."""
    options = ConfigDict()
    options.depth = 0  # blocks; 0: by the resolution, 10 from 128 x 128 on, else 6
    return options


def dm() -> ConfigDict:
    """Options of distribution matching."""
    options = ConfigDict()
    options.batch_real = 256  # real images per class and step
    options.batch_syn = 0  # synthetic images per class and step; 0: all
    options.per_class_updates = False  # True: update after each class in turn
    options.classes_per_step = 0  # classes compared per step, a divisor of their number; 0: all
    options.class_by_class = False  # True: one class at a time, for memory (needed at 128 x 128)
    return options


def dc() -> ConfigDict:
    """Options of gradient matching; published loops: 1/1, 10/50, 50/10 at IPC 1, 10, 50."""
    options = ConfigDict()
    options.batch_real = 256  # real images per class and update
    options.batch_syn = 0  # synthetic images per class and update; 0: all
    options.classes_per_step = 0  # classes compared per step, a divisor of their number; 0: all
    options.outer_loops = 1  # image updates per fresh network
    options.inner_loops = 1  # training epochs of the network between two image updates
    return options


def tm() -> ConfigDict:
    """Options of trajectory matching."""
    options = ConfigDict()
    options.syn_steps = 60  # SGD steps of the student
    options.batch_syn = 0  # synthetic images per student step; 0: all
    options.max_start_epoch = 30  # exclusive upper bound of the student's start epoch
    options.min_start_epoch = 0  # lower bound of the student's start epoch
    options.grow_start_from = 1  # value from which max_start_epoch grows, if grow_start_over > 0
    options.grow_start_over = 0  # distillation steps over which max_start_epoch grows; 0: constant
    options.expert_epochs = 2  # expert epochs between the student's start and its target
    options.lr_init = 0.01  # initial learning rate of the student, which is learned
    options.lr_lr = 1e-5  # learning rate of the student's learning rate
    options.experts_per_step = 1  # experts followed per step; their losses are averaged
    options.soft_labels = False  # True: learn soft labels, whose bytes count towards the budget
    options.label_bits = 4  # bits per soft-label value, one value per image and class
    options.labels_lr = 0.02  # Adam learning rate of the soft labels
    # The other student steps recompute their activations. 0 moves the fewest bytes; -1 keeps as
    # many as a GPU's memory holds, none on a CPU.
    options.keep_every = 0  # one student step in this many keeps activations; 0: none; -1: auto
    return options


STORED_AS = ("pixels", "idc", "fred", "ddif")
START = ("num_steps", "learning_rate", "halve_means_every")  # of config.init


def stored_as(config: ConfigDict, name: str) -> ConfigDict:
    """Changes `config` to another parameterization with its authors' settings, and returns it.

    Settings that the authors give for another objective or space, or not at all, stay unchanged:
    the rate of FreD, and the rate of pixels except for TM.
    """
    init, distill = config.init, config.distill
    if name == "pixels":
        init.num_steps = 0  # the start is real images
        if config.matching.name == "tm":
            distill.learning_rate = 100.0  # SGD on whitened images (MTT, IPC 1)
            config.matching.options.lr_lr = 1e-7
    elif name == "idc":
        init.num_steps = 0  # the start is downsampled real images
        distill.learning_rate = 5e-3  # SGD, published for IDC's own objective
    elif name == "fred":
        init.num_steps = 0  # truncating real images' coefficients is the best fit
    elif name == "ddif":
        init.num_steps, init.learning_rate = 5000, 5e-4  # Adam
        init.halve_means_every = 0  # applies to Gaussians' means only
        distill.learning_rate = 1e-4  # Adam
    else:
        raise ValueError(f"stored_as: expected pixels, idc, fred or ddif, got {name!r}")
    config.parameterization.name = name
    return config


def quantized(config: ConfigDict, gpc: int, soft_labels: bool = False) -> ConfigDict:
    """Changes `config` to codes of 40 bits per Gaussian and `gpc` images, and returns it.

    Soft labels pay where classes are few: every image stores a value per class.
    """
    config.parameterization.name = "quantized"
    config.parameterization.options = ConfigDict({"bits_per_gaussian": 40.0})
    config.budget.gpc = gpc
    if soft_labels:
        config.matching.options.soft_labels = True
    return config


# The options of components that have some, by the components' names.
OPTIONS = {
    "network": {"convnet": convnet, "vit": vit},
    "matching": {"dm": dm, "dc": dc, "tm": tm},
}


def swapped(config: ConfigDict, before: ConfigDict, given: Mapping[str, Any]) -> ConfigDict:
    """`config`, in which flags name another network, objective or parameterization than `before`,
    with the defaults of what they name: its options, and of a parameterization how it is started
    and distilled. What flags `given` say prevails, by dotted fields.
    """
    config = config.copy_and_resolve_references()
    changed = lambda group: given.get(f"{group}.name", before[group].name) != before[group].name
    for group, kinds in OPTIONS.items():
        if changed(group):
            name = config[group].name
            options = kinds[name]() if name in kinds else {}
            config[group].options = _options(options, group, given)
    if changed("parameterization"):
        config.parameterization.options = _options({}, "parameterization", given)
        name = config.parameterization.name
        if before.parameterization.name in STORED_AS:
            default = get_config()
            config.init.update({field: default.init[field] for field in START})
            config.distill.learning_rate = default.distill.learning_rate
        if name in STORED_AS:
            stored_as(config, name)
        config.update_from_flattened_dict(given)
    return config


def _options(defaults: Mapping[str, Any], group: str, given: Mapping[str, Any]) -> ConfigDict:
    # Of a plain dict: the types of what is given are for the component to judge.
    start = f"{group}.options."
    own = {f.removeprefix(start): v for f, v in given.items() if f.startswith(start)}
    return ConfigDict({**defaults, **own})


# Fields whose value 0 means: chosen by the data set.
OPEN = ("budget.gpc", "init.learning_rate", "evaluate.batch_size", "evaluate.epochs")


def is_open(config: ConfigDict) -> bool:
    """Whether `suited` would change any field."""
    return any(_get(config, name) == 0 for name in OPEN)


def suited(
    config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int, largest: int
) -> ConfigDict:
    """Copy of the config whose fields of `OPEN` that are 0 are set to suit the data set.

    - `budget.gpc`: images of 22 Gaussians at 32 x 32, as published, and of twice as many at twice
      the side. At most `largest`, so that in the largest class each image starts from its own real
      image. Smaller classes start several images from one.
    - `init.learning_rate`: the published rates, 0.1 up to 32 x 32 and 0.01 above.
    - `evaluate.batch_size`: equal parts of all distilled images, of at most 256.
    - `evaluate.epochs`: about 200 steps, within 30 to 200 epochs.

    Args:
      config: the config, which stays as it is.
      image_shape: height, width and channels.
      num_classes: number of classes.
      largest: training images of the largest class.
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
    """Copy of the experiment with lengths shrunk by `config.scale` and sizes by its square root.

    Fields that depend on each other stay consistent. Resolution, data set and objective are kept.
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
    if config.matching.name == "tm":  # those that a file leaves out have to fit, too
        options.update({name: value for name, value in tm().items() if name not in options})
    for name, least in (
        ("batch_real", 1),
        ("syn_steps", 2),
        ("inner_loops", 1),
        ("outer_loops", 1),
    ):
        if name in options:
            shrink(f"matching.options.{name}", size, least)
    if options.get("batch_syn"):  # the same share of the images
        part = options.batch_syn / gpc
        least = 2 if config.matching.name == "tm" else 1  # images in all, or per class
        options.batch_syn = max(least, int(part * config.budget.gpc))
    if config.matching.name == "tm":
        last = config.experts.epochs - options.expert_epochs + 1
        options.max_start_epoch = min(options.max_start_epoch, last)
        options.min_start_epoch = min(options.min_start_epoch, options.max_start_epoch - 1)
        options.grow_start_from = min(options.grow_start_from, options.max_start_epoch)
        shrink("matching.options.grow_start_over", scale, 0)
    return config
