"""Tests that every config has the published values, and that its shrunk copy is consistent."""

import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

import configs
from configs import common, tables
from configs.tables import methods
from gsdd_jax import UsageError, matching, parameterizations
from gsdd_jax.config import adapt
from gsdd_jax.core import trees
from gsdd_jax.rasterizer import gaussians
from gsdd_jax.setup import components, cost, experiment, experts
from launch import cli, experiments

HERE = pathlib.Path(common.__file__).parent
NAMES = [
    f"{name}:{variant}" if variant else name
    for name in sorted(experiments.titles(HERE))
    for variant in ["", *re.findall(r"^\| (ipc=\S+) \|", (HERE / f"{name}.py").read_text(), re.M)]
]
# GPC, Gaussians, syn_steps, max_start_epoch, lr_lr, batch_syn, transform
TM = {
    "cifar10_tm:ipc=1": (30, 22, 60, 30, 1e-5, 300, "zca"),
    "cifar10_tm:ipc=10": (160, 42, 60, 30, 1e-5, 380, "zca"),
    "cifar10_tm:ipc=50": (250, 136, 60, 30, 1e-5, 360, "zca"),
    "cifar100_tm:ipc=1": (30, 22, 60, 30, 1e-5, 512, "zca"),
    "cifar100_tm:ipc=10": (80, 85, 60, 30, 1e-5, 512, "zca"),
    "cifar100_tm:ipc=50": (400, 85, 60, 30, 1e-5, 640, "zca"),
    "imagenet_tm:ipc=1": (64, 170, 20, 40, 1e-6, 150, "normalize"),
    "imagenet_tm:ipc=10": (640, 170, 20, 40, 1e-5, 160, "normalize"),
}


def load(name):
    config = configs.load(name)
    return adapt.suited(config, (32, 32, 3), num_classes=10, largest=300)


@pytest.mark.parametrize("name", TM)
def test_trajectory_matching_rows(name):
    config = load(name)
    size = config.data.resolution or 32
    ipc = int(name.split("ipc=")[1])
    assert config.budget.ipc == ipc
    assert config.data.name == {"cifar10": "cifar10", "cifar100": "cifar100"}.get(
        name.split("_")[0], "imagenet2012"
    )
    o = config.matching.options
    count = gaussians.gaussians_within_budget(12 * ipc * size**2, config.budget.images_per_class)
    row = (
        config.budget.images_per_class,
        count,
        o.syn_steps,
        o.max_start_epoch,
        o.lr_lr,
        o.batch_syn,
    )
    assert (*row, config.data.transform) == TM[name]
    assert (config.matching.name, o.expert_epochs, o.lr_init) == ("tm", 2, 0.01)
    assert (config.distill.num_steps, config.distill.learning_rate) == (15_000, 1e-3)
    assert (config.experts.num_experts, config.experts.epochs) == (100, 50)
    assert_as_published(config, evaluate_batch=256)


@pytest.mark.parametrize(
    ("name", "matching", "batch_real", "steps"),
    [("imagenet_dm", "dm", 1024, 20_000), ("imagenet_dc", "dc", 720, 5_000)],
)
def test_other_rows(name, matching, batch_real, steps):
    config = load(name)
    assert gaussians.gaussians_within_budget(12 * 128**2, config.budget.images_per_class) == 54
    o = config.matching.options
    # All 200 images per class: 2000 for ten classes.
    assert (config.matching.name, o.batch_real, o.batch_syn) == (matching, batch_real, 0)
    assert config.distill.num_steps == steps
    assert config.data.transform == "normalize"
    assert matching != "dm" or o.per_class_updates
    assert_as_published(config, evaluate_batch=128)


def assert_as_published(config, evaluate_batch):
    """Checks the values that all rows of a data set share."""
    cifar10 = config.data.name == "cifar10"
    init = config.init
    assert (init.num_steps, init.halve_means_every) == (50_000, 20_000)
    assert init.learning_rate == (0.1 if cifar10 else 0.01)
    size = (config.data.resolution, config.data.resize)
    assert size == ((128, "squash") if config.data.name == "imagenet2012" else (0, "crop"))
    evaluate = config.evaluate
    assert (evaluate.epochs, evaluate.num_networks, evaluate.optimizer) == (1000, 5, "sgd")
    assert evaluate.batch_size == evaluate_batch


def test_pixels_are_matched_with_their_own_settings():
    config = load("cifar10_tm_pixels")
    o = config.matching.options
    assert (config.parameterization.name, config.data.transform) == ("pixels", "zca")
    assert (o.syn_steps, o.expert_epochs, o.max_start_epoch, o.lr_lr) == (50, 2, 2, 1e-7)
    assert (o.lr_init, config.distill.learning_rate) == (0.01, 100.0)


@pytest.mark.parametrize(
    ("name", "fit", "rate"),
    [
        ("pixels", (0, 0.1, 20_000), 100.0),
        ("idc", (0, 0.1, 20_000), 1.0),  # not published for TM
        ("fred", (0, 0.1, 20_000), 10.0),  # for shorter runs than the published ones
        ("ddif", (5000, 5e-4, 0), 1e-4),
        ("rtp", (0, 0.1, 20_000), 3e-3),  # not published for TM
        ("haba", (0, 0.1, 20_000), 3e-3),  # not published for Adam
        ("speed", (0, 0.1, 20_000), 3e-3),  # not published for Adam
        ("nsd", (0, 0.1, 20_000), 3e-3),  # unknown
        ("hmn", (0, 0.1, 20_000), 3e-3),  # unknown
    ],
)
def test_other_parameterizations_as_published(name, fit, rate):
    config = common.stored_as(load("cifar10_tm:ipc=1"), name)
    init = config.init
    assert (config.parameterization.name, config.distill.learning_rate) == (name, rate)
    assert (init.num_steps, init.learning_rate, init.halve_means_every) == fit
    assert config.matching.options.lr_lr == (1e-7 if name == "pixels" else 1e-5)
    # Nothing else changes.
    before = load("cifar10_tm:ipc=1")
    for same in ("data", "budget", "network", "experts", "evaluate"):
        assert config[same].to_dict() == before[same].to_dict()
    with pytest.raises(UsageError, match=r"parameterization\.name: expected one of dct.*'voxels'"):
        common.stored_as(before, "voxels")


@pytest.mark.parametrize("table", tables.NAMES)
def test_every_cell_of_the_papers_tables_builds(table):
    """Uses at most as many images as a class has; the published rates are among those tried."""
    for cell in tables.load(table, "paper").cells:
        config = cell.variant(cell.trials[0], 0)
        sizes = cost.sizes(config)
        kind = cost.build_stored(config, sizes)
        assert kind.images_per_class <= sizes.examples // sizes.classes, (cell.row, cell.column)
        matching.build(
            config.matching.name,
            network=cost.network_of(config.network, sizes),
            num_classes=sizes.classes,
            images_per_class=kind.images_per_class,
            strategy=config.matching.strategy,
            labels=components.labels_of(config),
            **config.matching.options,
        )


def test_published_rates_are_tried():
    found = {}
    for table in ("cifar", "imagenet128_tm", "imagenet128_dm"):
        for cell in tables.load(table, "paper").cells:
            tried = [trial.get("distill.learning_rate", 0) for trial in cell.trials]
            found.setdefault((table, cell.row), set()).update(tried)
    assert {100.0, 1e3, 1e5} <= found["cifar", "pixels"]
    near = lambda rates, rate: any(abs(math.log(r / rate)) < math.log(1.3) for r in rates)
    assert near(found["cifar", "FreD"], 980) and near(found["imagenet128_tm", "FreD"], 780)
    assert near(found["imagenet128_dm", "FreD"], 0.78)
    assert 1e-4 in found["cifar", "DDiF"] and 5e-5 in found["imagenet128_dm", "DDiF"]


@pytest.mark.parametrize(
    ("table", "row", "column", "transform", "student"),
    [
        # syn_steps, expert_epochs, max_start_epoch, lr_lr, lr_init of each method's own code
        ("cifar", "FreD", "cifar10_ipc1", "normalize", (50, 2, 5, 1e-7, 0.01)),
        ("cifar", "FreD, bfloat16", "cifar10_ipc50", "normalize", (30, 2, 40, 1e-5, 0.001)),
        ("cifar", "FreD", "cifar100_ipc10", "normalize", (20, 2, 40, 1e-5, 0.01)),
        ("cifar", "pixels", "cifar10_ipc1", "zca", (50, 2, 2, 1e-7, 0.01)),
        ("cifar", "pixels", "cifar100_ipc1", "zca", (20, 3, 20, 1e-5, 0.01)),
        ("cifar", "pixels", "cifar10_ipc10", "zca", (60, 2, 30, 1e-5, 0.01)),
        ("cifar", "DDiF", "cifar10_ipc1", "zca", (60, 2, 10, 1e-5, 0.01)),
        ("cifar", "HaBa", "cifar10_ipc10", "zca", (30, 2, 20, 1e-5, 0.001)),
        ("cifar", "RTP", "cifar10_ipc10", "zca", (60, 2, 30, 1e-5, 0.01)),
        ("cifar", "NSD", "cifar10_ipc10", "zca", (60, 2, 30, 1e-5, 0.01)),  # unknown
        ("cifar", "Gaussians", "cifar10_ipc1", "zca", (60, 2, 30, 1e-5, 0.01)),
        ("imagenet128_tm", "FreD", "nette", "normalize", (20, 2, 10, 1e-6, 0.01)),
        ("imagenet128_tm", "pixels", "meow", "normalize", (20, 2, 10, 1e-6, 0.01)),
    ],
)
def test_other_methods_have_the_settings_of_their_own_code(table, row, column, transform, student):
    cells = tables.load(table, "paper").cells
    [config] = [c.config for c in cells if (c.row, c.column) == (row, column)]
    o = config.matching.options
    found = o.syn_steps, o.expert_epochs, o.max_start_epoch, o.lr_lr, o.lr_init
    assert (config.data.transform, found) == (transform, student)


def test_fields_of_the_papers_tables_are_of_normalized_images():
    for table in ("cifar", "imagenet128_dm", "cross_architecture", "bytes"):
        for size, space in (("paper", "normalized"), ("small", "unit")):
            if size == "small" and table == "imagenet128_dm":
                continue  # the paper's, shrunk
            stored = [c.config.parameterization for c in tables.load(table, size).cells]
            spaces = {s.options.get("space", "unit") for s in stored if s.name == "ddif"}
            assert spaces == {space}, (table, size)


def test_the_students_rate_of_small_tables_is_the_same_for_every_method():
    cells = tables.load("cifar", "small").cells
    students = [c.config.matching.options for c in cells if c.config.matching.name == "tm"]
    assert {(o.lr_init, o.lr_lr) for o in students} == {(0.05, 1e-4)}
    # Where the published rate of pixels is taken, its start is, too.
    pixels = common.stored_as(load("cifar10_tm_cpu"), "pixels").matching.options
    assert (pixels.lr_init, pixels.lr_lr) == (0.01, 1e-7)


@pytest.mark.parametrize(
    ("shape", "classes", "widths"),
    [
        ((32, 32, 3), 10, (6, 6, 20)),
        ((32, 32, 3), 100, (10, 15, 30)),
        ((128, 128, 3), 10, (20, 20, 40)),
    ],
)
def test_published_networks_of_ddif(shape, classes, widths):
    for ipc, width in zip((1, 10, 50), widths, strict=True):
        kind = parameterizations.build(
            "ddif", shape, ipc=ipc, images_per_class=1, num_classes=classes
        )
        assert kind.layer_width == width
    row = common.stored_as(load("imagenet_dm"), "ddif")
    assert not row.matching.options.per_class_updates and row.distill.learning_rate == 5e-5


@pytest.mark.parametrize(
    ("kind", "objective", "rate"),
    [
        ("pixels", "dm", 1.0),  # the published code of DM
        ("pixels", "dc", 0.1),  # and of DC
        ("pixels", "ncfm", None),
        ("ptq", "dm", 1.0),
        ("idc", "dc", 5e-3),
    ],
)
def test_sgd_has_the_rate_of_the_objectives_own_code_or_the_configs(kind, objective, rate):
    config = load("demo")
    config.matching.name = objective
    expected = rate or config.distill.learning_rate
    assert common.stored_as(config, kind).distill.learning_rate == expected


@pytest.mark.parametrize("objective", ["dm", "tm"])
@pytest.mark.parametrize("row", ["pixels", "IDC", "FreD", "DDiF", "Gaussians"])
def test_rates_by_default_are_within_those_that_small_tables_try(row, objective):
    """A rate of Adam would leave parameters that SGD moves where they are."""
    method = methods.METHODS[row]
    config = common.stored_as(
        load("cifar10_dm" if objective == "dm" else "cifar10_tm"), method.name
    )
    tried = method.rates[objective]
    assert min(tried) / 3 <= config.distill.learning_rate <= max(tried)
    for cell in tables.load("bytes", "small").cells:
        if (
            cell.row.startswith(row + ",")
            and cell.column == objective.upper()
            and row in "IDC FreD"
        ):
            assert [trial["distill.learning_rate"] for trial in cell.trials] == list(tried)


@pytest.mark.parametrize(
    ("name", "gaussians_each"),
    [
        ("cifar10_tm:ipc=1", 21), ("cifar10_tm:ipc=10", 42), ("cifar10_tm:ipc=50", 136),
        ("cifar100_tm:ipc=1", 22), ("cifar100_tm:ipc=10", 85), ("cifar100_tm:ipc=50", 246),
        ("imagenet_tm:ipc=1", 170), ("imagenet_tm:ipc=10", 545),
    ],
)  # fmt: skip
def test_rows_of_codes(name, gaussians_each):
    """Compares codes with the bfloat16 row: more images, each of about as many Gaussians."""
    row, codes = load(name), load(f"{name},codes")
    side, classes = row.data.resolution or 32, 100 if "cifar100" in name else 10
    kinds = [components.build_parameterization(c, (side, side, 3), classes) for c in (row, codes)]
    assert round(kinds[1].num_gaussians / kinds[1].num_images) == gaussians_each
    assert gaussians_each >= kinds[0].num_gaussians - 1
    assert kinds[1].num_images > classes * kinds[0].images_per_class
    differing = {n for n, v in trees.flat(codes).items() if trees.flat(row).get(n, v) != v}
    soft = {"labels.learned"} if classes == 10 else set()
    assert differing == {"budget.images_per_class", "parameterization.name"} | soft


# Variants differ by budget and parameterization: once is enough.
SCALES = [(n, scale) for n in NAMES for scale in (0.03, 0.002) if scale == 0.002 or ":" not in n]


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_every_config_shrinks(name, scale, monkeypatch):
    config = load(name)
    config.scale = scale
    small = adapt.scaled(config)
    assert small.distill.num_steps == max(10, round(config.distill.num_steps * scale))
    assert (small.matching.options.batch_syn == 0) == (config.matching.options.batch_syn == 0)
    assert small.network.options.width <= 16 or scale > 0.01
    # On the data set at hand; its experts are another command's.
    small.data.name, small.data.subset, small.data.transform = "cifar10_mini", "", "normalize"
    small.data.frames, small.data.classes = 0, ""
    # It has ten classes, CIFAR-100 has a hundred.
    options = small.matching.options
    options.batch_syn = min(options.batch_syn, 10 * small.budget.images_per_class)
    if options.get("classes_per_step"):
        options.classes_per_step = 5
    if small.data.resolution:
        small.data.resolution = 32
    stand_in = type("Store", (), {"epochs": small.experts.epochs})()
    monkeypatch.setattr(experts, "open_store", lambda *_: stand_in)
    parts = experiment.build(small)
    images = parts.problem.parameterization.images_per_class * parts.dataset.num_classes
    assert images <= 1000 or scale > 0.01
    assert parts.problem.matching.batch_syn <= images


@pytest.mark.parametrize("precision, dtype", [("", "float32"), ("bfloat16", "bfloat16")])
def test_a_student_of_another_precision_than_its_experts(precision, dtype, monkeypatch):
    config = load("cifar10_tm_cpu")
    config.data.name, config.data.transform = "cifar10_mini", "normalize"
    config.matching.precision = precision
    identities = []

    def open_store(config, dataset, network):
        identities.append((experts.identity(config, dataset, network), network.compute_dtype))
        return type("Store", (), {"epochs": config.experts.epochs})()

    monkeypatch.setattr(experts, "open_store", open_store)
    parts = experiment.build(config)
    student = parts.problem.matching.network
    assert parts.network.compute_dtype == "float32"
    [(identity, dtype_of_experts)] = identities
    assert (identity["network.precision"], dtype_of_experts) == ("default", "float32")
    assert not any("matching.precision" in field for field in identity)
    params = jax.eval_shape(student.init, jax.random.key(0))
    images = jnp.zeros((2, *student.image_shape))
    text = str(jax.make_jaxpr(jax.grad(lambda p: student.apply(p, images).sum()))(params))
    assert ("bf16" in text) == (dtype == "bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}


def test_what_is_given_is_not_shrunk_but_fits_the_rest(monkeypatch, capsys):
    config = load("cifar10_tm_cpu")
    config.scale, config.experts.num_experts = 0.1, 7
    config.matching.options.max_start_epoch = 20
    given = {"experts.num_experts": 7, "matching.options.max_start_epoch": 20, "scale": 0.1}
    monkeypatch.setattr(cli, "_given", lambda: given)
    shrunk = cli.experiment(config)
    assert shrunk.experts.num_experts == 7
    last = shrunk.experts.epochs - shrunk.matching.options.expert_epochs + 1
    assert shrunk.matching.options.max_start_epoch == last < 20
    line = f"config.matching.options.max_start_epoch shrinks from 20 to {last}"
    assert f"scale 0.1: {line}\n" in capsys.readouterr().out


def test_a_scale_out_of_range_is_refused():
    config = load("demo")
    config.scale = 2.0
    with pytest.raises(UsageError, match=r"config.scale: expected a number from 1e-30 to 1, got 2"):
        adapt.scaled(config)
