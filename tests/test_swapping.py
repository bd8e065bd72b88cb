"""Swaps networks, objectives and parameterizations by flags only."""

import itertools

import numpy as np
import pytest

from configs import common, demo
from gsdd_jax import UsageError, generators, matching, networks, parameterizations
from gsdd_jax.config import adapt, component_options
from gsdd_jax.generators.vae import VAE
from gsdd_jax.setup import experiment, experts

STORED = parameterizations.known()


def swapped(before=None, **given):
    """Returns a file's config, by default the demo's, with flags."""
    before = before or demo.get_config()
    given = {name.replace("__", "."): value for name, value in given.items()}
    config = before.copy_and_resolve_references()
    for name, value in given.items():  # as flags do, including fields without a type
        *groups, last = name.split(".")
        node = config
        for group in groups:
            node = node[group]
        node[last] = value
    return adapt.swapped(config, before, given)


@pytest.fixture
def with_experts(monkeypatch):
    stand_in = type("Store", (), {"epochs": 3})()
    monkeypatch.setattr(experts, "open_store", lambda *_: stand_in)


@pytest.fixture(scope="module")
def with_generator(tmp_path_factory):
    """Names the weights of a generator of zeros."""
    kind, path = VAE(32, 32, 3), tmp_path_factory.mktemp("weights") / "vae.safetensors"
    generators.save(path, kind, {n: np.zeros(s) for n, s in kind.weight_shapes().items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(generators.VARIABLE, str(path))
        yield


NETWORKS = list(networks.known())
PAIRS = itertools.product(enumerate(matching.known()), enumerate(STORED))


# Every objective with every other part, but not every network with every parameterization.
@pytest.mark.parametrize(
    ("objective", "network", "kind"),
    [(objective, NETWORKS[(i + j) % len(NETWORKS)], k) for (i, objective), (j, k) in PAIRS],
)
def test_each_goes_with_each(objective, network, kind, with_experts, with_generator):
    names = dict(matching__name=objective, network__name=network, parameterization__name=kind)
    if kind == "static_dynamic":  # a memory of four images takes the bytes of nearly three
        names["budget__ipc"] = 3
    config = adapt.scaled(swapped(**names, scale=0.01))
    parts = experiment.build(adapt.suited(config, (32, 32, 3), num_classes=10, largest=300))
    assert parts.problem.matching.name == objective
    assert parts.problem.parameterization.name == kind


def test_what_is_named_has_its_own_defaults_and_what_is_given():
    config = swapped(matching__name="tm", matching__options__syn_steps=7, network__name="vit")
    assert config.matching.options.to_dict() == component_options("matching", "tm").to_dict() | {
        "syn_steps": 7
    }
    assert config.network.options.to_dict() == component_options("network", "vit").to_dict()
    # A name that the file has itself changes nothing.
    assert swapped(matching__name="dm", network__name="convnet") == demo.get_config()


def test_a_parameterization_is_started_as_its_authors_publish_it():
    ours = swapped(parameterization__name="ddif", init__num_steps=30)
    theirs = common.stored_as(demo.get_config(), "ddif")
    assert ours.distill.learning_rate == theirs.distill.learning_rate == 5e-5
    assert (ours.init.learning_rate, ours.init.num_steps) == (5e-4, 30)
    back = swapped(common.stored_as(demo.get_config(), "pixels"), parameterization__name="gaussian")
    assert back.init.num_steps == common.get_config().init.num_steps
    codes = common.quantized(demo.get_config(), 60)
    assert not swapped(codes, parameterization__name="gaussian").parameterization.options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            dict(network__name="resnet18", network__options__width=8),
            "unknown option 'width'; resnet18 has none",
        ),
        (
            dict(matching__name="dc", matching__options__class_by_class=True),
            "unknown option 'class_by_class'; dc has batch_real, batch_syn, classes_per_step",
        ),
        (
            dict(parameterization__name="idc", parameterization__options__opacity=False),
            "unknown option 'opacity'; idc has ",
        ),
    ],
)
def test_what_is_given_and_not_known_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        experiment.build(swapped(**given))
