"""Tests sets at URLs, and sets by name."""

import base64
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import zoo
from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats import remote
from tests.tiny import save_few_of_shipped


@pytest.fixture
def content(tmp_path):
    save_few_of_shipped(tmp_path / "set.safetensors")
    return (tmp_path / "set.safetensors").read_bytes()


def put(url, content):
    with fsspec.open(url, "wb") as file:
        file.write(content)
    return url


def test_a_set_at_a_url(content, tmp_path):
    found = gsdd_jax.load(put("memory://sets/mine.safetensors", content))
    np.testing.assert_array_equal(
        found.images(), gsdd_jax.load(tmp_path / "set.safetensors").images()
    )
    assert found.source == "memory://sets/mine.safetensors"
    gsdd_jax.save(tmp_path / "again.safetensors", found)
    assert (tmp_path / "again.safetensors").read_bytes() == content


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("hf://some-one/a_set", "hf://datasets/some-one/a_set/distilled.safetensors"),
        ("hf://datasets/some-one/a_set@v1/", "hf://datasets/some-one/a_set@v1/distilled.safetensors"),
        ("hf://datasets/some-one/a_set/b.safetensors", None),
        ("https://host/one/two", None),
    ],
)  # fmt: skip
def test_where_a_repository_has_its_set(url, expected):
    assert remote.place(url, "distilled.safetensors") == (expected or url)


def test_what_cannot_be_read_is_said_in_one_line(content, monkeypatch):
    damaged = put("memory://sets/damaged.safetensors", content[:-9])
    for url, message in (
        ("memory://sets/none.safetensors", "cannot be read"),
        ("nothing://host/set.safetensors", "cannot be read .*nothing"),
        ("http://127.0.0.1:9/set.safetensors", "cannot be read .*a network"),
        ("github://host", "cannot be read .TypeError: .*'org' and 'repo'"),
        ("simplecache::nothing://host/a", "cannot be read .*nothing"),
        (damaged, "not a readable safetensors file"),
        ("data:text/plain,abc", "not a readable safetensors file"),
    ):
        with pytest.raises(UsageError, match=message) as error:
            gsdd_jax.load(url)
        assert str(error.value).startswith(f"{url}: ") and "/tmp" not in str(error.value)
    monkeypatch.setattr(remote, "LARGEST", len(content) - 1)
    with pytest.raises(UsageError, match="expected at most"):
        gsdd_jax.load(put("memory://sets/large.safetensors", content))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "load: path: expected a path, got None"),
        (3, "load: path: expected a path, got 3"),
        (b"x", "load: path: expected a path, got b'x'"),
        ("", "load: path: expected a path, got ''"),
        ("a\0b", r"load: path: .*without NUL"),
        ("x" * 5000, "no such file or work directory"),
        ("x" * 5000 + ".safetensors", "expected a distilled set"),
        ("data:," + "x" * 5000, "not a readable"),
        ("memory://" + "x" * 5000, "cannot be read"),
    ],
    ids=lambda v: repr(v)[:20],
)
def test_a_path_that_is_none_and_a_long_one_are_one_short_line(path, message):
    with pytest.raises(UsageError, match=message) as error:
        gsdd_jax.load(path)
    assert len(str(error.value)) < 1000


def test_a_set_in_a_url_of_data_and_in_an_archive(content, tmp_path):
    url = f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"
    with zipfile.ZipFile(tmp_path / "sets.zip", "w") as archive:
        archive.writestr("set.safetensors", content)
    for place in (url, f"zip://set.safetensors::{tmp_path}/sets.zip"):
        found = gsdd_jax.load(place)
        assert len(found.labels) == 30 and len(found.source) <= 300


@pytest.mark.parametrize("path", ["set.safetensors", "/a/b://c", "c:/sets", "~/hf:/x", "://x"])
def test_a_path_is_no_url(path):
    assert not remote.is_url(path)


def test_a_set_by_name(tmp_path, monkeypatch):
    """Loads every set of the zoo, unless a file or folder has its name."""
    assert "cifar10-12kB" in zoo.names()
    assert gsdd_jax.load(Path("cifar10-12kB")).num_classes == 10
    for name in zoo.names():
        found = gsdd_jax.load(name)
        data, first = name.split("-")[0], found.class_names[0]
        budget = {"cifar10": 12_288, "cifar100": 8_192, "imagenette": 98_304}[data]
        expected = {"cifar10": "airplane", "cifar100": "apple", "imagenette": "tench"}[data]
        assert found.num_bytes <= budget * found.num_classes and first == expected
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10-12kB").mkdir()
    save_few_of_shipped(tmp_path / "cifar10-12kB" / "distilled.safetensors")
    assert len(gsdd_jax.load("cifar10-12kB").labels) == 30
    with pytest.raises(UsageError, match=r"cifar-10: no such .*; by name there are cifar10-12kB"):
        gsdd_jax.load("cifar-10")
    assert zoo.find("../zoo/cifar10-12kB") is None
