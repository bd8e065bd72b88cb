"""Tests the ranges of a config's fields: each is declared once, and checked before all else."""

import dataclasses
import math
import pathlib

import numpy as np
import pytest

import gsdd_jax
from configs import common, demo, own
from gsdd_jax import UsageError, data, matching, networks, parameterizations
from gsdd_jax.config import fields as config_fields
from gsdd_jax.config import validate
from gsdd_jax.core import memory
from gsdd_jax.core.fields import meaning
from gsdd_jax.core.trees import dotted
from gsdd_jax.runs import baselines, experts
from gsdd_jax.runs.progress import Reporter
from gsdd_jax.setup import experiment
from launch import cli

SENSELESS = (-1, 10**20, math.nan, "1", True)
KINDS = {"int": int, "float": float}


def kind_of(field):
    """The name of its type: a module may have its annotations as texts."""
    return field.type if isinstance(field.type, str) else field.type.__name__


def numeric_fields():
    """Returns (field, how to set it in a config) for the default config and every component."""
    fields = []
    for name, value in dotted(common.get_config().to_dict()).items():
        if type(value) in (int, float) and ".options." not in name:
            fields.append((name, {}))
    for group, package in (
        ("parameterization", parameterizations),
        ("network", networks),
        ("matching", matching),
    ):
        for name, kind in package.known().items():
            for field in dataclasses.fields(kind):
                if kind_of(field) in KINDS and field.name not in kind.derived:
                    fields.append((f"{group}.options.{field.name}", {f"{group}.name": name}))
    return fields


FIELDS = numeric_fields()
RANGES = {  # type, least and largest value of every config's numbers
    name: (kind_of(of), *(end for end in (said.least, said.most)))
    for name, of in config_fields.known().items()
    if kind_of(of) in KINDS
    for said in [meaning(of)]
}
RANGES = {
    name: (kind, 1 if least is None else least, (2**31 - 1) if most is None else most)
    for name, (kind, least, most) in RANGES.items()
}


def type_of(field):
    """Returns a field's type: True for a float is converted to 1.0 by ConfigDict."""
    return type(dotted(common.get_config().to_dict()).get(field))


def changed(config, fields):
    with config.ignore_type(), config.unlocked():
        for name, value in fields.items():
            *groups, last = name.split(".")
            node = config
            for group in groups:
                node = node[group]
            if last == "name" and "options" in node:  # its options belong to another component
                node.options = type(config)()
            node[last] = value
    return config


@pytest.fixture
def nothing_is_opened(monkeypatch):
    """Fails if data are opened or anything is built."""

    def opened(*args, **kwargs):
        raise AssertionError("data were opened")

    monkeypatch.setattr(data.dataset.prepared, "find", opened)


@pytest.mark.parametrize("field, others", FIELDS, ids=str)
def test_a_number_that_makes_no_sense_is_refused_before_anything(
    field, others, nothing_is_opened, capsys
):
    """Checks configs as commands do, including fields that wait for the data set."""
    makers = [(common, SENSELESS)] if others else [(common, SENSELESS), (own, SENSELESS[:1])]
    for made_by, values in makers:
        config = changed(made_by.get_config(), others | {"data.name": "cifar10_mini"})
        for value in values:
            if value is True and type_of(field) is float:
                continue
            with pytest.raises(UsageError) as raised:
                cli.experiment(changed(config, {field: value}))
            line = str(raised.value)
            assert field.rpartition(".")[2] in line, line
            assert "expected" in line and "\n" not in line
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("field", RANGES)
def test_the_ends_of_a_range_are_in_it(field):
    kind, least, most = RANGES[field]
    beyond = (least - 1, most + 1) if kind == "int" else (-1e-9, most * 1.01)
    for value in (least, most):
        validate.value(field, value)
        if kind == "float":
            assert np.isfinite(np.float32(value)) and np.float32(value) >= least * 0.9999
        else:
            assert np.uint32(value) == value
    for value in beyond:
        with pytest.raises(UsageError, match=rf"^config\.{field}: expected an? (integer|number)"):
            validate.value(field, value)


@pytest.mark.parametrize("text", ["a\0b", "a\udcffb"])
@pytest.mark.parametrize(
    "field", ["data.dir", "experts.dir", "init.dir", "data.name", "data.subset"]
)
def test_a_path_that_no_file_has(field, text, nothing_is_opened):
    with pytest.raises(UsageError, match=rf"^config\.{field}: expected text in UTF-8, without NUL"):
        cli.experiment(changed(demo.get_config(), {field: text}))


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        (experiment.build_fit_parts, ("seed", "data.resolution", "budget.ipc", "init.num_steps")),
        (experiment.build, ("distill.num_steps", "evaluate.epochs", "matching.options.batch_real")),
        (lambda config: experts.train_all(config, Reporter(None)), ("experts.epochs",)),
        (
            lambda config: baselines.evaluate_real(
                config, "random_real", pathlib.Path(), Reporter(None)
            ),
            ("evaluate.epochs",),
        ),
    ],
)
def test_a_function_checks_what_it_uses(command, fields, nothing_is_opened):
    for field in fields:
        for value in (-1, 10**20):
            config = changed(demo.get_config(), {field: value})
            with pytest.raises(UsageError, match=f"{field}: expected an integer from"):
                command(config)


def test_what_a_function_does_not_use_may_be_anything():
    config = changed(demo.get_config(), {"distill.num_steps": -1})
    validate.ranges(config, "seed", "data", "experts")
    validate.ranges(type(config)(), "seed")  # a config may lack it


def test_every_config_is_in_its_ranges():
    for path in pathlib.Path(common.__file__).parent.glob("*.py"):
        namespace = {}
        exec(compile(path.read_text(), path, "exec"), namespace)
        if "get_config" in namespace:
            validate.every(namespace["get_config"](), automatic=True)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"budget.ipc": 100_000}, r"config\.budget: 11\.4 GiB"),
        ({"budget.ipc": 90_000, "parameterization.name": "pixels"}, r"config\.budget: 900,000 im"),
        ({"evaluate.num_networks": 10_000}, r"config\.evaluate\.num_networks: 10,000 networks of"),
        (
            {"evaluate.num_networks": 5000, "network.options.width": 1, "budget.ipc": 300},
            r"config\.evaluate\.num_networks: (15,000,000|60,000,000) real images for all of them",
        ),
        ({"network.options.width": 4096}, r"config\.evaluate\.num_networks: 2 networks of"),
        (
            {"matching.name": "bptt", "matching.options": {"pool_size": 10_000}},
            r"config\.matching\.options\.pool_size: 10,000 networks of",
        ),
    ],
)
def test_what_memory_does_not_hold_is_refused_before_whitening(monkeypatch, fields, line):
    there = 2 * 10**9
    monkeypatch.setattr(memory, "available", lambda: there)
    monkeypatch.setattr(
        experiment, "build_transform", lambda *args: pytest.fail("it is whitened first")
    )
    config = changed(demo.get_config(), {"evaluate.num_networks": 2, "init.images": "none"})
    changed(config, fields)
    with pytest.raises(UsageError, match=rf"^{line}.* at most the 1\.9 GiB that are free$"):
        experiment.build(config)


@pytest.mark.parametrize("resolution", [0, -1, 4097, 100_000, 10**20])
def test_a_resolution_that_there_is_not_is_no_damage(resolution):
    with pytest.raises(UsageError, match=r"^resolution: expected an integer from 1 to 4096"):
        data.load("cifar10_mini", resolution=resolution)


def test_a_name_that_no_folder_has():
    for name in ("x" * 3000, "é" * 200):
        with pytest.raises(UsageError, match=r"^unknown data set '.*': expected a name of at most"):
            data.load(name)


def test_what_others_write_is_shown_in_one_line():
    error = gsdd_jax.UsageError("a\x1b[2J\nb\ud800\u202ec é\\n")
    assert str(error) == r"a\x1b[2J\nb\ud800\u202ec é\n"
    assert str(UsageError(str(error))) == str(error)
