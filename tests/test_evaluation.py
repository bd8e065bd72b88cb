"""Tests evaluation of a distilled set from its file, and checks of its provenance."""

import copy
import dataclasses
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from configs import demo
from gsdd_jax import data, networks, parameterizations
from gsdd_jax.core.trees import flat
from gsdd_jax.runs import evaluation
from gsdd_jax.runs.progress import Display
from gsdd_jax.setup import components, experiment, provenance
from gsdd_jax.storage.workdir import OPERATIONAL
from gsdd_jax.training import evaluate

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RESOLUTION = 8
RESULTS = pathlib.Path(__file__).parent.parent / "benchmarks" / "results"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Makes a cache of decoded data sets for these tests only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def tiny():
    """Returns a set as a run stores it: one image per class, of random Gaussians."""
    config = demo.get_config()
    config.data.resolution = RESOLUTION
    config.budget.images_per_class = 1
    config.network.options.width = 4
    config.network.options.depth = 1
    config.matching.strategy = "flip"
    config.evaluate.num_networks = 2
    config.evaluate.epochs = 1
    dataset = data.load("cifar10_mini", resolution=RESOLUTION)
    kind = parameterizations.build("gaussian", dataset.image_shape, ipc=1, images_per_class=1)
    params = kind.init(jax.random.key(0), jnp.zeros((10, *dataset.image_shape)))
    settings = {name: v for name, v in flat(config).items() if name not in OPERATIONAL}
    provenance = {
        "config": settings,
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint},
    }
    labels = np.arange(10, dtype=np.int32)
    return parameterizations.stored(kind, params, labels, 0.01, provenance)


def refusal(tmp_path, set_, **overrides):
    """Returns the one-line error that refuses to evaluate a set."""
    path = tmp_path / "set.safetensors"
    gsdd_jax.save(path, set_)
    with pytest.raises(gsdd_jax.UsageError) as raised:
        evaluation.evaluate_file(path, overrides=overrides)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message


def changed(tiny, **fields):
    """Returns the set with other fields in the config of its provenance (None: without)."""
    provenance = copy.deepcopy(tiny.provenance)
    for name, value in fields.items():
        provenance["config"][name] = value
        if value is None:
            del provenance["config"][name]
    return dataclasses.replace(tiny, provenance=provenance)


def test_a_provenance_that_says_nothing(tmp_path, tiny):
    for part in ("config", "data"):
        for wrong in (None, [], 3, "x", [1, 2], {}):
            provenance = tiny.provenance | {part: wrong}
            bad = dataclasses.replace(tiny, provenance=provenance)
            assert f"provenance.{part}" in refusal(tmp_path, bad)
        del provenance[part]
        bad = dataclasses.replace(tiny, provenance=provenance)
        assert f"provenance.{part}" in refusal(tmp_path, bad)
    for wrong in (None, 3, ["a"], {"a": 1}):
        bad = tiny.provenance | {"data": {"fingerprint": wrong}}
        bad = dataclasses.replace(tiny, provenance=bad)
        assert "provenance.data.fingerprint" in refusal(tmp_path, bad)
    other = tiny.provenance | {"data": {"fingerprint": "0" * 64}}
    other = dataclasses.replace(tiny, provenance=other)
    assert "another version of cifar10_mini" in refusal(tmp_path, other)


def test_each_arm_has_the_best_of_the_rates_on_training_images(tmp_path, tiny, monkeypatch):
    """Includes the set's 0.01, and a rate at which a network diverges, which is never chosen."""
    path, asked = tmp_path / "set.safetensors", []
    gsdd_jax.save(path, tiny)
    really = evaluate.train

    def train(network, *arguments, learning_rate, num_students, **more):
        asked.append((learning_rate, num_students))
        return really(
            network, *arguments, learning_rate=learning_rate, num_students=num_students, **more
        )

    monkeypatch.setattr(evaluate, "train", train)
    overrides = {"evaluate.rates": "1e-6,0.03,1e3,0.01", "evaluate.epochs": 10}
    found = evaluation.evaluate_file(path, overrides=overrides)
    low, good, high, own = (float(np.float32(rate)) for rate in (1e-6, 0.03, 1e3, 0.01))
    trials = [(own, 1), (low, 1), (good, 1), (high, 1)]
    assert asked[:4] == trials and asked[5:9] == trials
    assert found["learning_rate"] in (own, low, good)
    assert asked[4] == (found["learning_rate"], 2) and len(asked) == 10
    _, config, parts = evaluation.opened(path, overrides)
    held_out = {}
    for rate in (own, low, good):
        config.evaluate.rates, config.evaluate.num_networks = "", 1
        set_ = dataclasses.replace(tiny, learning_rate=rate)
        monkeypatch.setattr(
            evaluation, "stream", lambda seed, name: components.stream(seed, "rates")
        )
        of = evaluation.distilled(config, parts, set_, "", Display(), chosen=True)
        held_out[rate] = float(of.train[0])
    assert found["learning_rate"] == max(held_out, key=held_out.get)


@pytest.mark.parametrize(
    ("field", "wrong", "expected"),
    [
        ("rates", "0.1,fast", "numbers, by commas"), ("rates", "nan", "a number from"),
        ("rates", "-1", "a number from"), ("rates", "0", "a number from"),
        ("rates", "1e18", "a number from 1e-30 to 1000, got 1e[+]18"),
        ("rates", "0.1,,0.3", "different entries, comma-separated, got an empty one"),
        ("rates", "0.1,0.3,0.1", "different entries, comma-separated, got '0.1' twice"),
        ("rates", "0.1,1e-1", "different numbers, got '0.1,1e-1'"), ("rates", ",", "different"),
        ("baselines", "fitted,fitted", "different entries, comma-separated, got 'fitted' twice"),
        ("baselines", "fitted,", "different entries, comma-separated, got an empty one"),
        ("baselines", "fited", "some of fitted,"),
    ],
)  # fmt: skip
def test_lists_of_different_entries(field, wrong, expected):
    config = demo.get_config()
    config.evaluate[field] = wrong
    check = {"rates": experiment.rates, "baselines": experiment.check_baselines}[field]
    with pytest.raises(
        gsdd_jax.UsageError, match=rf"config\.evaluate\.{field}: expected {expected}"
    ):
        check(config)
    with pytest.raises(gsdd_jax.UsageError, match="corrupted: expected different entries"):
        evaluation.evaluate_file("none", corrupted=["blur", "blur"])


@pytest.mark.parametrize("field", provenance.FIELDS)
def test_every_field_of_the_config_that_is_read(tmp_path, tiny, field):
    if field not in provenance.SINCE:
        assert f"[{field!r}] is missing" in refusal(tmp_path, changed(tiny, **{field: None}))
    value = tiny.provenance["config"][field]
    wrong = [[], [value], {}, {"a": 1}, True, "3" if not isinstance(value, str) else 3]
    wrong += [] if isinstance(value, str) else [10**30, math.nan, math.inf, "9" * 5000, -1]
    wrong += [] if isinstance(value, float) else [1.5]
    for w in wrong:
        assert field in refusal(tmp_path, changed(tiny, **{field: w}))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.name", "no such\nset", r"unknown data set 'no such\\nset'"),
        ("data.subset", "nette", "no subset 'nette'"),
        ("data.resolution", 100_000, "['data.resolution']: expected an integer from 0 to 4096"),
        ("data.resolution", 16, "expected height and width of the set, (8, 8)"),
        ("data.resize", "stretch", "expected one of crop, squash, got 'stretch'"),
        ("data.transform", "wavelet", "expected one of normalize, zca"),
        ("network.name", "perceptron", "config.network.name: expected one of alexnet"),
        ("network.options.depth", 2**30, "config.network.options.depth: expected an integer from"),
        ("network.options.width.x", 4, "config.network.options: unknown option 'width.x'"),
        ("network.options.a\nb", 1, r"config.network.options: unknown option 'a\nb'"),
        ("network.precision", "float8", "unknown precision"),
        ("matching.strategy", "flip_blur", "unknown operation 'blur'"),
        ("evaluate.optimizer", "lion", "expected one of sgd, adam, sgd_cosine, adamw, got 'lion'"),
    ],
)
def test_a_config_that_makes_no_sense(tmp_path, tiny, field, value, message):
    assert message.replace(r"\\n", r"\n") in refusal(tmp_path, changed(tiny, **{field: value}))


def test_a_set_of_other_classes_than_its_data(tmp_path, tiny):
    arrays = {name: a[:5] for name, a in tiny.arrays.items()}
    fewer = dataclasses.replace(tiny, arrays=arrays, labels=tiny.labels[:5])
    message = refusal(tmp_path, fewer)
    assert "(8, 8, 3, 10), as for cifar10_mini, got (8, 8, 3, 5)" in message


def test_names_that_no_config_has_are_not_read(tiny):
    strange = {"seed.x": 1, "network": 3, "network.name.y": 2, "": 0, ".": [], "data.dir": "/x"}
    config = provenance.resolve(changed(tiny, **strange).provenance, {})
    assert config == provenance.resolve(tiny.provenance, {})
    assert config.data.dir == ""  # a file must not set the data's location


def test_another_network_has_its_own_options(tiny):
    def network(**overrides):
        overrides = {f"network.{name}": value for name, value in overrides.items()}
        config = provenance.resolve(tiny.provenance, overrides)
        return config.network.name, dict(config.network.options)

    own = dict(width=4, depth=1)
    assert network() == ("convnet", own)
    assert network(name=None) == ("convnet", own)
    assert network(name="convnet") == ("convnet", own)
    for name in ("alexnet", "vgg11", "resnet18"):
        assert network(name=name) == (name, {})
    assert network(name="vit") == ("vit", dict(depth=0))
    config = provenance.resolve(tiny.provenance, {"network.name": "vit"})
    assert (config.evaluate.optimizer, config.evaluate.num_networks) == ("adam", 3)
    assert config.evaluate.learning_rate == 5e-5
    config = provenance.resolve(
        tiny.provenance, {"network.name": "vgg11", "evaluate.optimizer": "sgd"}, 1.0
    )
    assert (config.evaluate.optimizer, config.evaluate.learning_rate) == ("sgd", 1)
    own = tiny.provenance["config"]["evaluate.learning_rate"]
    assert provenance.resolve(tiny.provenance, {}).evaluate.learning_rate == own
    assert network(**{"name": "vit", "options.depth": 2}) == ("vit", dict(depth=2))
    assert network(**{"options.width": 8}) == ("convnet", dict(width=8, depth=1))
    message = "config.network.options: unknown option 'width'; vit has depth"
    with pytest.raises(gsdd_jax.UsageError, match=message):
        network(**{"name": "vit", "options.width": 8})
    made_by_vit = {"network.name": "vit", "network.options.depth": 2, "network.options.width": None}
    made_by_vit = changed(tiny, **made_by_vit).provenance
    assert dict(provenance.resolve(made_by_vit, {}).network.options) == dict(depth=2)
    config = provenance.resolve(made_by_vit, {"network.name": "convnet"})
    assert dict(config.network.options) == dict(width=128, depth=0)


def test_a_committed_set_is_evaluated_by_the_network_of_its_config():
    set_ = gsdd_jax.load(RESULTS / "cifar10_tm_ipc1_cpu" / "distilled.safetensors")
    config = provenance.resolve(set_.provenance, {})
    assert dict(config.network.options) == dict(width=16, depth=0)
    network = networks.architecture(config.network.name, dict(config.network.options))
    network = network.build(image_shape=(32, 32, 3), num_classes=10)
    shapes = jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0)))
    # Each convolution has kernel, bias, scale and shift; the classifier kernel and bias.
    convolutions = 3 * 9 * 16 + 2 * 9 * 16 * 16 + 3 * 3 * 16
    assert sum(math.prod(leaf.shape) for leaf in shapes) == convolutions + (16 * 16 + 1) * 10


def test_a_rate_that_is_given_is_not_searched_for(tiny):
    made_by = changed(tiny, **{"evaluate.rates": "0.03,0.1"}).provenance
    assert provenance.resolve(made_by, {}).evaluate.rates == "0.03,0.1"
    config = provenance.resolve(made_by, {}, 0.02)
    assert (config.evaluate.rates, config.evaluate.learning_rate) == ("", 0.02)
    assert provenance.resolve(made_by, {"evaluate.rates": "0.1"}, 0.02).evaluate.rates == "0.1"


def test_any_set_is_evaluated_by_any_network(tmp_path, tiny):
    """Includes a set of trajectory matching whose experts are missing."""
    path = tmp_path / "set.safetensors"
    made_by = {"matching.name": "tm", "network.name": "vit", "evaluate.num_networks": 1}
    gsdd_jax.save(path, changed(tiny, **made_by))
    overrides = {"network.name": "convnet", "network.options.width": 2, "network.options.depth": 1}
    result = evaluation.evaluate_file(path, overrides=overrides, learning_rate=0.02)
    assert (result["network"], result["learning_rate"]) == ("convnet", 0.02)
    for arm in ("distilled", "random_real"):
        assert len(result[f"{arm}_accuracies"]) == 1
        assert 0 <= result[f"{arm}_accuracy"] <= 100


def test_wrong_overrides(tmp_path, tiny):
    message = refusal(tmp_path, tiny, **{"evaluate.epochs": 0})
    assert "config.evaluate.epochs: expected an integer from 1 to 100000, got 0" in message


def test_accuracies_have_one_mean_however_they_arrive():
    """Gives accuracies as the device's float32, or as a record's numbers."""
    accuracies = np.random.default_rng(0).integers(0, 1000, (200, 5)).astype(np.float32) / 10
    for row in accuracies:
        kept = [float(a) for a in row]
        assert evaluation.summary("x", row) == evaluation.summary("x", kept)
        mean = evaluation.summary("x", row)["x_accuracy"]
        assert mean == pytest.approx(sum(kept) / 5, rel=1e-15)


def test_a_set_whose_matching_had_other_options_still_evaluates(tiny):
    old = changed(tiny, **{"matching.options.rematerialize": True})
    now = evaluation.resolve(tiny.provenance, {})
    assert evaluation.resolve(old.provenance, {}).to_json() == now.to_json()
