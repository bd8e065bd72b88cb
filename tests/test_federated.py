"""Tests federated learning in one shot: who has which images, and what a server refuses."""

import dataclasses
import importlib
import sys
import types
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import federated, parameterizations
from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats import file, gaussian
from tests.commands import ROOT

pytestmark = pytest.mark.usefixtures("quickly_compiled")

LABELS = np.repeat(np.arange(10), 30)
EXPECTED = dict(client="client 3", most_bytes=20_000, classes=["cat", "dog"], image_shape=(8, 8, 3))


def a_set(names=("cat", "dog"), seed=0):
    kind = parameterizations.build("pixels", (8, 8, 3), ipc=2, images_per_class=1)
    params = {"pixels": jax.random.uniform(jax.random.key(seed), (2 * len(names), 8, 8, 3))}
    labels = np.repeat(np.arange(len(names), dtype=np.int32), 2)
    made = {
        "data": {"class_names": list(names), "name": "private"},
        "config": {"data.dir": "/home"},
    }
    return parameterizations.stored(kind, params, labels, 0.1, made)


def test_a_set_arrives_with_its_bits_and_without_its_origin():
    sent = a_set()
    content = federated.pack(sent)
    found = federated.receive(content, **EXPECTED)
    np.testing.assert_array_equal(found.arrays["pixels"], sent.arrays["pixels"])
    assert found.class_names == ("cat", "dog") and found.labels.tolist() == [0, 0, 1, 1]
    assert found.provenance == {"data": {"class_names": ["cat", "dog"]}}
    assert b"private" not in content and b"/home" not in content


def test_a_private_set_says_its_epsilon_to_whoever_reads_the_file(tmp_path):
    private = {"epsilon": 2.5, "delta": 1e-5, "sampling_rate": 0.1}
    made = a_set()
    made = dataclasses.replace(made, provenance=made.provenance | {"privacy": private})
    path = tmp_path / "sent.safetensors"
    path.write_bytes(federated.pack(made))
    assert gsdd_jax.info(file.load(path))["privacy"] == {"epsilon": 2.5, "delta": 1e-5}
    found = federated.receive(path.read_bytes(), **EXPECTED)
    assert "privacy" not in found.provenance  # the server cannot check it


@pytest.mark.parametrize("odd", [{}, {"epsilon": 1.0}, {"epsilon": {"a": "/home"}, "delta": 1e-5}])
def test_what_is_no_cost_in_privacy_stays(odd):
    made = a_set()
    made = dataclasses.replace(made, provenance=made.provenance | {"privacy": odd})
    assert b"privacy" not in federated.pack(made)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            federated.pack(a_set(["cat", "fox"])),
            "its set: expected classes among cat, dog, got fox",
        ),
        (b"", "its set: not a readable safetensors file"),
        (b"\x80\x04K\x01.", "its set: not a readable safetensors file"),
        (federated.pack(a_set())[:-5], "its set: not a readable safetensors file"),
        (b"x" * 20_001, "expected at most 20,000 bytes, got 20,001"),
    ],
)
def test_a_file_is_refused_with_the_name_of_its_client(content, message):
    with pytest.raises(UsageError) as error:
        federated.receive(content, **EXPECTED)
    assert str(error.value).startswith(f"client 3: {message}")
    assert "\n" not in str(error.value) and "/" not in str(error.value)


def test_other_damage_is_refused_too():
    content = bytearray(federated.pack(a_set()))
    content[-2000] ^= 1
    for damaged, more, message in (
        (bytes(content), {}, "client 3: its set: .* damaged"),
        (federated.pack(a_set()), {"image_shape": (8, 8, 1)}, r"expected images of \(8, 8, 1\)"),
        (federated.pack(a_set()), {"client": "a\nb"}, None),
    ):
        if message is None:
            assert federated.receive(damaged, **EXPECTED | more).source == r"a\nb"
            continue
        with pytest.raises(UsageError, match=message):
            federated.receive(damaged, **EXPECTED | more)
    huge = dataclasses.replace(a_set(), arrays={"pixels": np.full((4, 8, 8, 3), 3e38, np.float32)})
    with pytest.raises(
        UsageError, match="client 3: its set: expected pixels of about 0 to 1, got 3e"
    ):
        federated.receive(federated.pack(huge), **EXPECTED)
    with pytest.raises(UsageError, match="expected class names, got none"):
        federated.pack(dataclasses.replace(a_set(), provenance={}))


def many(count, mixes=0, **fields):
    """Returns a client's file of `count` tiny images per class."""
    kind = parameterizations.build("gaussian", (8, 8, 3), ipc=1, images_per_class=count, **fields)
    count = kind.images_per_class
    params = kind.init(jax.random.key(0), jnp.zeros((2 * count, 8, 8, 3)))
    labels = np.repeat(np.arange(2, dtype=np.int32), count)
    made = {"data": {"class_names": ["cat", "dog"]}}
    found = parameterizations.stored(kind, params, labels, 0.1, made)
    if mixes:
        soft = np.zeros((2 * count * (1 + mixes), 2), np.float32)
        every = np.tile(labels, 1 + mixes)
        found = dataclasses.replace(
            found, labels=every, soft_labels=soft, label_bits=2, mixes=mixes
        )
    return federated.pack(found)


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (many(10, mixes=64), {}, "expected at most 1,250 images, got 1,300"),
        (many(4), {"most_images": 7}, "expected at most 7 images, got "),
        (many(4, samples_per_side=16), {}, "samples_per_side: expected at most 4, got 16"),
        (many(4), {"image_shape": (32, 32, 3)}, "expected images of (32, 32, 3), got (8, 8, 3)"),
    ],
)
def test_what_takes_much_work_is_refused_before_it_is_decoded(content, more, message, monkeypatch):
    monkeypatch.setattr(gaussian.Gaussian, "unpack", None)
    with pytest.raises(UsageError) as error:
        federated.receive(content, **EXPECTED | more)
    assert str(error.value).startswith(f"client 3: its set: {message}")


def test_only_the_class_names_of_a_provenance_are_kept():
    made = {"data": {"class_names": ["cat", "dog"], "name": "../etc"}, "config": {"seed": 3}}
    content = file.encoded(dataclasses.replace(a_set(), provenance=made))
    found = federated.receive(content, **EXPECTED)
    assert found.provenance == {"data": {"class_names": ["cat", "dog"]}}


def test_a_server_hears_each_client_once(monkeypatch):
    flwr = types.ModuleType("flwr")
    parts = {
        "app": ["ArrayRecord", "ConfigRecord", "Context", "Message", "MetricRecord", "RecordDict"],
        "serverapp": ["Grid", "ServerApp"],
        "serverapp.strategy": ["FedAvg"],
    }
    for name, members in parts.items():
        module = types.ModuleType(f"flwr.{name}")
        vars(module).update(dict.fromkeys(members, unittest.mock.MagicMock()))
        monkeypatch.setitem(sys.modules, f"flwr.{name}", module)
    monkeypatch.setitem(sys.modules, "flwr", flwr)
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "federated"))
    server = importlib.import_module("oneshot.server_app")
    config = {"clients": 3}
    assert server.sender(config, {"set": {"client": 2, "file": b"x"}}, {1}) == (2, b"x")
    for wrong in (
        {},
        {"client": 1},
        {"client": -1},
        {"client": 3},
        {"client": "2"},
        {"client": True},
        {"file": 5},
    ):
        content = {"set": {"client": 2, "file": b"x"} | wrong} if wrong else {}
        with pytest.raises(UsageError, match="client"):
            server.sender(config, content, {1})
    with pytest.raises(UsageError, match="client"):
        server.sender(config, {"set": {}}, {1})


def test_sets_of_clients_are_evaluated_together():
    """Two clients share a class, and each is alone with another."""
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[[0, 1, 2], ..., [0, 1, 2]] = 255  # red cats, green dogs, blue foxes
    kind = parameterizations.build("pixels", (8, 8, 3), ipc=1, images_per_class=1)
    sets = [
        parameterizations.stored(
            kind, {"pixels": jnp.asarray(images[chosen] / 255, jnp.float32)},
            np.arange(2, dtype=np.int32), 0.1, {"data": {"class_names": names}},
        )
        for chosen, names in (([0, 1], ["cat", "dog"]), ([1, 2], ["dog", "fox"]))
    ]  # fmt: skip
    fields = {"network": {"options": {"width": 8, "depth": 1}}, "matching": {"strategy": ""}}
    found = gsdd_jax.evaluate(
        sets, images, ["cat", "dog", "fox"], learning_rate=0.1, verbose=False,
        evaluate={"epochs": 30, "num_networks": 1}, **fields,
    )  # fmt: skip
    assert float(found) == 100 and found.confusion.tolist() == np.eye(3, dtype=int).tolist()
    unnamed = dataclasses.replace(sets[1], provenance={})
    for train, test, message in (
        ([sets[0], unnamed], ["cat", "dog", "fox"], "train: set 2: expected class names"),
        ([sets[0], 5], ["cat", "dog", "fox"], "train: set 2: expected a distilled set, got 5"),
        (sets, ["cat", "dog", "hen"], "test: expected classes among cat, dog, fox, got hen"),
    ):
        with pytest.raises(UsageError, match=message):
            gsdd_jax.evaluate(train, images, test)


@pytest.mark.parametrize("split", federated.SPLITS)
@pytest.mark.parametrize("clients", [1, 3, 10])
def test_every_image_goes_to_one_client(split, clients):
    classes = {"classes_per_client": 10 // min(clients, 5)}
    parts = federated.partition(LABELS, clients, split=split, seed=4, **classes)
    together = np.concatenate(parts)
    assert len(parts) == clients and all(map(len, parts))
    assert (np.diff(parts[0]) > 0).all() and len(set(together)) == len(together)
    owned = len(set(LABELS[together]))
    assert sorted(together) == np.flatnonzero(np.isin(LABELS, LABELS[together])).tolist()
    assert owned == 10 or (split == "classes" and clients == 3)
    again = federated.partition(LABELS, clients, split=split, seed=4, **classes)
    assert all(map(np.array_equal, parts, again))


def test_small_classes_reach_every_client():
    """Rounding leaves out other clients in each class."""
    parts = federated.partition(np.repeat(np.arange(10), 40), 100)
    assert len(parts) == 100 and sorted(map(len, parts))[0] >= 1
    texts = federated.partition(np.repeat(["a", "b"], 4), 2)
    assert sorted(np.concatenate(texts)) == list(range(8))


def test_the_splits_are_what_they_say():
    counts = lambda parts: np.array([np.bincount(LABELS[of], minlength=10) for of in parts])
    equal = counts(federated.partition(LABELS, 5))
    assert (equal == 6).all()
    two = counts(federated.partition(LABELS, 10, split="classes"))
    assert ((two > 0).sum(1) == 2).all() and ((two > 0).sum(0) == 2).all()
    assert set(two[two > 0]) == {15}
    skewed = lambda c: counts(federated.partition(LABELS, 5, split="dirichlet", concentration=c))
    assert skewed(0.1).std() > 2 * skewed(100.0).std()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LABELS, 0), "num_clients: expected"),
        ((LABELS, 301), "num_clients: expected"),
        ((LABELS[None], 3), "labels: expected integers or texts"),
        ((LABELS, 3, dict(seed=-1)), "seed: expected"),
        ((LABELS, 3, dict(split="random")), "split: expected one of iid, classes, dirichlet"),
        ((LABELS, 3, dict(split="classes", classes_per_client=11)), "classes_per_client: expected"),
        ((LABELS, 3, dict(concentration=0.0)), "concentration: expected"),
        ((np.zeros(4, int), 3, dict(split="dirichlet", concentration=1e-3)), "num_clients: "),
    ],
)
def test_a_wrong_partition_is_refused(arguments, message):
    *given, options = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    with pytest.raises(UsageError, match=message):
        federated.partition(*given, **options)
