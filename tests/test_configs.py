"""Every config is the published row, and shrinks to something that still fits together."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

from configs import common
from gsdd_jax import experiment, experts, gaussians

NAMES = sorted(
    p.stem for p in (pathlib.Path(common.__file__).parent).glob("*.py") if p.stem != "common"
)
# GPC, Gaussians, syn_steps, max_start_epoch, lr_lr, batch_syn, transform
TM = {
    "cifar10_tm_ipc1": (30, 22, 60, 30, 1e-5, 300, "zca"),
    "cifar10_tm_ipc10": (160, 42, 60, 30, 1e-5, 380, "zca"),
    "cifar10_tm_ipc50": (250, 136, 60, 30, 1e-5, 360, "zca"),
    "cifar100_tm_ipc1": (30, 22, 60, 30, 1e-5, 512, "zca"),
    "cifar100_tm_ipc10": (80, 85, 60, 30, 1e-5, 512, "zca"),
    "cifar100_tm_ipc50": (400, 85, 60, 30, 1e-5, 640, "zca"),
    "imagenet_tm_ipc1": (64, 170, 20, 40, 1e-6, 150, "normalize"),
    "imagenet_tm_ipc10": (640, 170, 20, 40, 1e-5, 160, "normalize"),
}


def load(name):
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.mark.parametrize("name", TM)
def test_trajectory_matching_rows(name):
    config = load(name)
    size = config.data.resolution or 32
    ipc = int(name.split("ipc")[1])
    assert config.budget.ipc == ipc
    assert config.data.name == {"cifar10": "cifar10", "cifar100": "cifar100"}.get(
        name.split("_")[0], "imagenet2012"
    )
    m = config.matching
    count = gaussians.gaussians_within_budget(ipc, config.budget.gpc, (size, size, 3))
    row = (config.budget.gpc, count, m.syn_steps, m.max_start_epoch, m.lr_lr, m.batch_syn)
    assert (*row, config.data.transform) == TM[name]
    assert (m.name, m.expert_epochs, m.lr_init) == ("tm", 2, 0.01)
    assert (config.distill.num_steps, config.distill.learning_rate) == (15_000, 1e-3)
    assert (config.experts.num_experts, config.experts.epochs) == (100, 50)


@pytest.mark.parametrize(
    ("name", "matching", "batch_real", "steps"),
    [("imagenet_dm_ipc1", "dm", 1024, 20_000), ("imagenet_dc_ipc1", "dc", 720, 5_000)],
)
def test_other_rows(name, matching, batch_real, steps):
    config = load(name)
    assert gaussians.gaussians_within_budget(1, config.budget.gpc, (128, 128, 3)) == 54
    m = config.matching
    assert (m.name, m.batch_real, m.batch_syn) == (matching, batch_real, 2000)
    assert config.distill.num_steps == steps
    assert config.data.transform == "normalize"


def test_pixels_are_matched_with_their_own_settings():
    config = load("cifar10_tm_ipc1_pixels")
    m = config.matching
    assert (config.parameterization.name, config.data.transform) == ("pixels", "zca")
    assert (m.syn_steps, m.expert_epochs, m.max_start_epoch, m.lr_lr) == (50, 2, 2, 1e-7)
    assert (m.lr_init, config.distill.learning_rate) == (0.01, 100.0)


@pytest.mark.parametrize("scale", [0.03, 0.01, 0.002])
@pytest.mark.parametrize("name", NAMES)
def test_every_config_shrinks(name, scale, monkeypatch):
    config = load(name)
    config.scale = scale
    small = common.scaled(config)
    assert small.distill.num_steps == max(10, round(config.distill.num_steps * scale))
    assert (small.matching.batch_syn == 0) >= (config.matching.batch_syn == 0)  # all stays all
    assert small.network.width <= 16 or scale > 0.01
    # On the data set at hand; its experts are another command's.
    small.data.name, small.data.subset, small.data.transform = "cifar10_mini", "", "normalize"
    # It has ten classes, CIFAR-100 has a hundred.
    small.matching.batch_syn = min(small.matching.batch_syn, 10 * small.budget.gpc)
    if small.data.resolution:
        small.data.resolution = 64
    stand_in = type("Store", (), {"epochs": small.experts.epochs})()
    monkeypatch.setattr(experts, "open_store", lambda *_: stand_in)
    parts = experiment.build(small)
    images = parts.problem.parameterization.images_per_class * parts.dataset.num_classes
    assert images <= 1000 or scale > 0.01
    assert parts.problem.matching.batch_syn <= images


@pytest.mark.parametrize("precision, dtype", [("", "float32"), ("bfloat16", "bfloat16")])
def test_a_student_of_another_precision_than_its_experts(precision, dtype, monkeypatch):
    config = load("cifar10_tm_ipc1_cpu")
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


def test_a_scale_out_of_range_is_refused():
    config = load("demo")
    config.scale = 2.0
    with pytest.raises(ValueError, match=r"config.scale: expected a number in \(0, 1\]"):
        common.scaled(config)
