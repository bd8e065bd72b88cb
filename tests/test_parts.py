"""Tests sets that are described, merged and cut, and sets of some classes of their data."""

import dataclasses
import json
import shlex
import subprocess
import sys

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

import gsdd_jax
from configs import demo
from gsdd_jax import data, exports, parameterizations
from gsdd_jax.config import adapt, default, own
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.trees import flat
from gsdd_jax.exports import hf
from gsdd_jax.formats import info, transforms
from gsdd_jax.report import document
from gsdd_jax.runs import experts
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.evaluation import compared, evaluate_file
from gsdd_jax.runs.progress import Display
from gsdd_jax.storage.workdir import OPERATIONAL, decisive
from launch import origin
from tests.commands import ROOT
from tests.test_arrays import FIELDS, arrays
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")

NUMBERS = ("pixels", "idc", "fred", "ddif")
FORMATS = [
    *[(name, {}) for name in ("gaussian", *NUMBERS, "ptq")],
    ("dct", {"step": 16.0}),
    ("rtp", {"bases": 24}),
    ("haba", {"hallucinators": 2, "base_channels": 1}),
    ("nsd", {"kernels": 2, "rank": 5}),
    ("static_dynamic", {"dtype": "bfloat16"}),
    ("speed", {}),
    ("hmn", {}),
    ("quantized", {"bits_per_gaussian": 64.0}),
    ("video_quantized", {"bits_per_gaussian": 80.0}),
    *[(name, {"dtype": "codes"}) for name in NUMBERS],
]
IDS = [f"{name}{'-codes' if 'dtype' in options else ''}" for name, options in FORMATS]
FAST = {"parameterization": {"name": "pixels"}, "init": {"images": "none"}}
NORMALIZE = {"name": "normalize", "mean": [0.5] * 3, "std": [0.25] * 3}


def made(name="pixels", options=(), *, seed=0, names=("a", "b", "c"), **more):
    """Returns a set of three classes in a format, at the parameterization's own start."""
    sizes = dict(ipc=3, images_per_class=4, num_classes=3)
    shape = (8, 8, 3) if name == "dct" else (16, 12, 3)  # dct is coded position by position
    kind = parameterizations.build(name, shape, **sizes, **dict(options))
    if "quantized" in name:  # equally many Gaussians in every image
        kind = dataclasses.replace(kind, num_gaussians=12 * (kind.num_gaussians // 12))
    count = 3 * kind.images_per_class
    images = np.random.default_rng(seed).random((count, *shape), np.float32).cumsum(1) / 16
    params = jax.jit(kind.init)(jax.random.key(1), images)
    provenance = {
        "config": {"evaluate.epochs": 3, "budget.bytes": 0, "data.name": "mine"},
        "data": {"name": "mine", "class_names": list(names), "fingerprint": "f" * 64},
        "transform": NORMALIZE,
        "step": 7,
    }
    labels = np.repeat(np.arange(3, dtype=np.int32), kind.images_per_class)
    set_ = parameterizations.stored(kind, params, labels, 0.02, provenance)
    return dataclasses.replace(set_, **more)


def read_again(path, set_):
    gsdd_jax.save(path, set_)
    return gsdd_jax.load(path)


@pytest.mark.parametrize(("name", "options"), FORMATS, ids=IDS)
def test_images_keep_their_bits(tmp_path, name, options):
    """Cuts a set in two, in another order and smaller, and merges the parts."""
    whole = read_again(tmp_path / "whole", made(name, options))
    each = whole.format.images_per_class
    fewer = each - getattr(whole.format, "partners", 1)  # of one base or spectrum tensor
    images = whole.images()
    images = images.reshape(3, each, *images.shape[1:])
    parts = []
    for i, classes in enumerate((["c", "a"], ["1"])):
        cut = gsdd_jax.subset(whole, classes, images_per_class=fewer)
        parts.append(read_again(tmp_path / f"{i}", cut))
    merged = read_again(tmp_path / "merged", gsdd_jax.merge(parts))
    assert merged.class_names == ("c", "a", "b")
    np.testing.assert_array_equal(merged.labels, np.repeat(np.arange(3), fewer))
    expected = images[[2, 0, 1], :fewer].reshape(-1, *images.shape[2:])
    np.testing.assert_array_equal(merged.images(), expected)
    assert merged.num_bytes < whole.num_bytes
    assert all(part.num_bytes < merged.num_bytes for part in parts)
    back = gsdd_jax.merge([gsdd_jax.subset(whole, ["a"]), gsdd_jax.subset(whole, ["b", "c"])])
    for key, array in whole.arrays.items():
        np.testing.assert_array_equal(back.arrays[key], array)


def test_a_merged_set_is_a_set(tmp_path):
    one, other = made(), made(seed=1, names=("d", "e", "f"))
    merged = read_again(tmp_path / "set", gsdd_jax.merge([one, other]))
    images, targets = merged.numpy()
    np.testing.assert_array_equal(
        images, np.concatenate([part.numpy().images for part in (one, other)])
    )
    assert len(merged.grain()) == len(images) == len(next(merged.batches(100))[1])
    np.testing.assert_array_equal(targets, np.repeat(np.arange(6), len(images) // 6))
    assert merged.provenance["parts"] == [one.provenance, other.provenance]
    assert merged.provenance["config"]["budget.bytes"] == 3 * 4 * 16 * 12 * 3
    assert one.provenance["config"]["budget.bytes"] == 0
    said = gsdd_jax.info(merged)
    assert [part["classes"] for part in said["parts"]] == [["a", "b", "c"], ["d", "e", "f"]]
    assert (said["num_classes"], said["num_bytes"]) == (6, sum(said["bytes"].values()))


def soft(set_):
    logits = np.float32(8 / 3) * np.random.default_rng(0).integers(0, 4, (len(set_.labels), 3))
    return dataclasses.replace(set_, soft_labels=logits.astype(np.float32), label_bits=2)


def of_provenance(**more):
    set_ = made(names=("d", "e", "f"))
    return dataclasses.replace(set_, provenance=set_.provenance | more)


OTHERS = {  # what the second set is refused for
    "format: expected 'pixels', as in set 1, got 'idc'": lambda: made("idc", names="def"),
    "images_per_class: expected 3, as in set 1, got 2": lambda: gsdd_jax.subset(
        made(names="def"), images_per_class=2
    ),
    "dtype: expected 'float32', as in set 1, got 'bfloat16'": lambda: gsdd_jax.subset(
        made(options={"dtype": "bfloat16"}, names="def"), images_per_class=3
    ),
    "learning_rate: expected 0.02, as in set 1, got 0.1; give one for all": lambda: made(
        names="def", learning_rate=0.1
    ),
    "class names: expected other classes than in the sets before, got 'a'": lambda: made(
        names="dea"
    ),
    "class names: expected them in every set or in none": lambda: of_provenance(data={}),
    "soft labels: expected none": lambda: soft(made(names="def")),
    "transform: mean: expected": lambda: of_provenance(
        transform=NORMALIZE | {"mean": [0.5, 0.5, 0.4]}
    ),
    "transform: name: expected 'normalize', as in set 1, got 'zca'": lambda: of_provenance(
        transform={"name": "zca", "epsilon": 0.1, "images_sha256": "0" * 64}
    ),
    "config.evaluate.epochs: expected 3, as in set 1, got 4": lambda: of_provenance(
        config={"evaluate.epochs": 4}
    ),
    "labels: expected images in the order": lambda: made(
        names="def", labels=np.tile(np.arange(3, dtype=np.int32), 3)
    ),
}


@pytest.mark.parametrize("message", OTHERS)
def test_sets_that_differ_are_not_merged(message):
    with pytest.raises(UsageError) as raised:
        gsdd_jax.merge([made(), OTHERS[message]()])
    assert str(raised.value).startswith(f"set 2: {message}")


def test_sets_that_share_what_differs_are_refused_by_name():
    step = {"dtype": "codes"}
    sets = made(options=step), made(options=step, seed=1, names="def")
    with pytest.raises(UsageError, match="set 2: pixels: its images share 'step'"):
        gsdd_jax.merge(sets)
    sets = made("rtp"), made("rtp", seed=1, names="def")
    with pytest.raises(UsageError, match="set 2: rtp: its images share 'bases'"):
        gsdd_jax.merge(sets)
    set_ = made("quantized")
    kind = set_.format
    uneven = parameterizations.build(
        "quantized", (16, 12, 3), images_per_class=kind.images_per_class, num_classes=3,
        bytes_per_class=kind.bytes_per_class,
    )  # fmt: skip
    assert uneven.num_gaussians % 12
    params = jax.jit(uneven.init)(jax.random.key(0), np.zeros((12, 16, 12, 3), np.float32))
    set_ = parameterizations.stored(uneven, params, set_.labels, 0.02, set_.provenance)
    in_order = gsdd_jax.subset(set_, ["a", "c"]).images()
    np.testing.assert_array_equal(in_order, np.delete(set_.images(), np.s_[4:8], 0))
    with pytest.raises(UsageError, match="subset: quantized: expected images of equally many"):
        gsdd_jax.subset(set_, ["c", "a"])


def test_soft_labels_of_fewer_classes():
    set_ = soft(made())
    cut = gsdd_jax.subset(set_, ["c", "b"], images_per_class=1)
    each = set_.format.images_per_class
    odds = np.exp(np.float64(set_.soft_labels))[[2 * each, each]][:, [2, 1]]
    np.testing.assert_allclose(cut.targets, odds / odds.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("name", ["pixels", "ptq"])
def test_as_many_images_as_bytes_hold(name):
    set_ = made(name)
    sizes = [gsdd_jax.subset(set_, ["a"], images_per_class=i + 1).num_bytes for i in range(3)]
    for there in (sizes[1] - 1, sizes[1], sizes[2] - 1):
        cut = gsdd_jax.subset(set_, ["a"], bytes_per_class=there)
        assert cut.format.images_per_class == sum(size <= there for size in sizes)
    with pytest.raises(UsageError, match=f"bytes_per_class: expected at least {sizes[0]}, which"):
        gsdd_jax.subset(set_, ["a"], bytes_per_class=sizes[0] - 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["z"],), "classes: expected 0 to 2, or .*'c'.*, got 'z'"),
        (([3],), "classes: expected 0 to 2, or .*, got 3"),
        ((["a", "0"],), "classes: expected different ones, got '0' again"),
        (([],), "classes: expected one or more"),
    ],
)
def test_classes_that_are_not_there(arguments, message):
    with pytest.raises(UsageError, match=f"^subset: {message}"):
        gsdd_jax.subset(made(), *arguments)
    with pytest.raises(UsageError, match="images_per_class: expected 1 to 3, got 4"):
        gsdd_jax.subset(made(), images_per_class=4)


NOT_ARGUMENTS = {
    "subset: of: expected a distilled set, got 'a'": lambda _: gsdd_jax.subset("a"),
    "subset: classes: expected a list of texts or integers, got 3": lambda s: gsdd_jax.subset(s, 3),
    "subset: classes: expected a list .*, got [1.0]": lambda s: gsdd_jax.subset(s, [1.0]),
    "subset: classes: expected a list .*, got [True]": lambda s: gsdd_jax.subset(s, [True]),
    "subset: classes: expected a list .*, got {1}": lambda s: gsdd_jax.subset(s, {1}),
    "subset: classes: expected a list .*, got 'a'": lambda s: gsdd_jax.subset(s, "a"),
    "subset: images_per_class: expected an integer, got 1.5": lambda s: gsdd_jax.subset(
        s, images_per_class=1.5
    ),
    "subset: bytes_per_class: expected an integer, got 'x'": lambda s: gsdd_jax.subset(
        s, bytes_per_class="x"
    ),
    "merge: sets: expected a list of distilled sets, got Dist": lambda s: gsdd_jax.merge(s),
    "merge: sets: expected a list of distilled sets, got ['a', 'b']": lambda _: gsdd_jax.merge(
        ["a", "b"]
    ),
    "merge: sets: expected a list of distilled sets, got <gen": lambda s: gsdd_jax.merge(
        s for _ in range(2)
    ),
    "merge: learning_rate: expected a number, got 'x'": lambda s: gsdd_jax.merge([s, s], "x"),
    "merge: learning_rate: expected a number from": lambda s: gsdd_jax.merge([s, s], float("nan")),
    "info: distilled: expected a distilled set, got 'name'": lambda _: gsdd_jax.info("name"),
    "save: path: expected a path, got Dist": lambda s: gsdd_jax.save(s, "set.safetensors"),
    "save: path: expected a path, got ''": lambda s: gsdd_jax.save("", s),
    "save: distilled: expected a distilled set, got 3": lambda _: gsdd_jax.save("set", 3),
    "only: classes: expected a text or a list of texts or integers, got 3": lambda _: data.only(
        data.from_arrays(*arrays()), 3
    ),
    "evaluate_file: path: expected a path, got 3": lambda _: evaluate_file(3),
    "distill_to: workdir: expected a path, got ''": lambda _: distill_to(default(), ""),
    "distill_to: config: expected a config dict, got {}": lambda _: distill_to({}, "run"),
}


@pytest.mark.parametrize("message", NOT_ARGUMENTS)
def test_arguments_that_the_signature_excludes(message):
    with pytest.raises(UsageError) as raised:
        NOT_ARGUMENTS[message](made())
    first, _, last = message.partition(".*")
    assert str(raised.value).startswith(first) and last in str(raised.value)
    chosen = gsdd_jax.subset(made(), np.array([2, 0]), images_per_class=np.int64(2))
    assert chosen.class_names == ("c", "a") and chosen.format.images_per_class == 2


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c", "d", "e", "f"], []], ids=len)
def test_a_wrong_number_of_names_is_no_names(tmp_path, names):
    """Cuts, merges, describes and exports a set whose file has more or fewer names than classes."""
    whole = read_again(tmp_path / "set", made(names=names))
    fewer = gsdd_jax.subset(whole, ["2"]), gsdd_jax.merge([whole, whole])
    for set_ in (whole, *fewer):
        assert set_.class_names is gsdd_jax.info(set_)["classes"] is None
    for to in ("png", "tfds", "hf"):
        exports.export(whole, tmp_path / to, to)
    assert sorted(path.name for path in (tmp_path / "png").glob("*/")) == ["0", "1", "2"]
    assert pq.read_schema(tmp_path / "hf" / hf.DATA).metadata[b"huggingface"].count(b'"2"') == 1


WITHOUT_JAX = """
import runpy, sys
for name in ("jax", "jaxlib", "jaxtyping", "flax", "optax", "orbax"):
    sys.modules[name] = None
sys.argv = ["-m", *sys.argv[1:]]
runpy.run_module(f"launch.{sys.argv.pop(1)}", run_name="__main__", alter_sys=True)
"""


def run(*arguments):
    """Runs a command in a Python without JAX."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAX, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_commands_without_jax(tmp_path):
    (tmp_path / "work").mkdir()
    gsdd_jax.save(tmp_path / "work" / "distilled.safetensors", made())
    work, cut = tmp_path / "work", tmp_path / "cut.safetensors"
    status, out, _ = run("subset", work, "--classes=c,1", "--bytes=5000", f"--out={cut}")
    assert (status, out) == (
        0, f"{cut}: 2 classes of 2 images as pixels; 9,216 bytes, 4,608.0 per class\n"
    )  # fmt: skip
    status, out, err = run("subset", work, "--classes=c,1", f"--out={cut}")
    assert (status, out, err.count("\n")) == (2, "", 1) and "exists already" in err
    status, out, _ = run("info", cut, "--json")
    said = json.loads(out)
    assert (status, said["classes"], said["images_per_class"]) == (0, ["c", "b"], 2)
    assert said["bytes"] == {"pixels": 9216} and said["commands"] == []
    status, out, _ = run("info", work)
    lines = dict(line.split(None, 1) for line in out.splitlines())
    assert (status, lines["classes"], lines["step"]) == (0, "3: a, b, c", "7")
    assert lines["images"] == "3 images per class of 16x12x3"
    merged = tmp_path / "merged.safetensors"
    status, out, err = run("merge", work, cut, f"--out={merged}")
    assert status == 2 and not merged.exists()
    assert err == (
        f"error: {cut}: images_per_class: expected 3, as in {work}/distilled.safetensors, got 2\n"
    )
    assert run("merge", work, cut, "--out=s3://b/m") == (
        2, "", "error: --out: s3://b/m: expected a path on this machine, got a URL\n"
    )  # fmt: skip
    (tmp_path / "mine.safetensors").write_text("mine")
    mine = tmp_path / "mine.safetensors"
    status, _, err = run("subset", work, "--classes=a", f"--out={mine}", "--overwrite")
    assert status == 2 and mine.read_text() == "mine"
    assert run("subset", work, "--classes=a", f"--out={cut}", "--overwrite")[0] == 0
    assert run("info")[2] == "error: expected one distilled set, got none\n"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed": 3, "matching.strategy": "color_crop"},
        {"matching.name": "tm", "matching.options.syn_steps": 5, "labels.learned": True},
        {"parameterization.name": "fred", "network.name": "vit", "network.options.depth": 2},
    ],
)
def test_the_command_makes_the_config_again(changes):
    config = adapt.swapped(*with_flags(default(), changes))
    arguments = [shlex.split(text)[0] for text in origin.command(decisive(config))]
    (name,) = [a.removeprefix("--config=") for a in arguments if a.startswith("--config=")]
    given = dict(a.removeprefix("--config.").split("=", 1) for a in arguments if "config." in a)
    base = dict(origin._shipped())[name]
    there = flat(config)
    given = {n: type(there[n])(v) if there[n] is not True else True for n, v in given.items()}
    again = decisive(adapt.swapped(*with_flags(base, given)))
    assert {n: again[n] for n in decisive(config)} == decisive(config)
    assert len(arguments) < 30


def test_a_cut_says_that_it_leaves_out_mixtures(tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    _, out, _ = run("subset", "cifar10-12kB-real", "--images_per_class=3", f"--out={first}")
    said, _ = out.splitlines()
    assert said == "without the labels of mixtures, which are those of the whole set"
    assert gsdd_jax.load(first).mixes == 0
    assert run("subset", first, "--images_per_class=2", f"--out={second}")[1].count("\n") == 1


@pytest.mark.parametrize(
    "more", [{"bytes_per_class": 12_288}, {"images_per_class": 131}, {"classes": range(10)}]
)
def test_a_cut_of_nothing_keeps_mixtures(more):
    whole = gsdd_jax.load("cifar10-12kB-real")
    assert gsdd_jax.subset(whole, **more) is whole


@pytest.mark.parametrize(
    "more",
    [{"network.name": "unknown"}, {"network.name": 3}, {"distill.num_steps": "7"}, {"seed": None}],
    ids=str,
)
def test_the_config_of_no_run_has_no_command(more):
    fields = decisive(default())
    assert origin.command(fields) and origin.command({}) == []
    assert origin.command(fields | more) == []
    for name in more:
        del fields[name]
        assert origin.command(fields) == []
    assert origin.command({n: v for n, v in fields.items() if n.endswith(".name")}) == []


def test_the_command_of_your_own_data_is_that_of_own():
    """Sets open fields as a data set does: these alone do not make it another experiment."""
    for base, name in ((own(), "own"), (demo.get_config(), "demo")):
        base.data.name = "cifar10_mini" if name == "demo" else "mine"
        config = adapt.suited(base, (32, 32, 3), 10, 40)
        first, *flags = origin.command(decisive(config))
        assert first == f"--config={name}" and ("--config.data.name=mine" in flags) == (
            name == "own"
        )


NEWS = "mine\nstep  99"


def test_no_value_of_a_file_is_another_line():
    data = {"name": NEWS, "class_names": ["a\x1b[2K", "b\u2028c", "c" * 999], "fingerprint": NEWS}
    more = {"step": NEWS, "versions": {NEWS: NEWS}, "begun_with": {"sha256": [NEWS] * 999}}
    of = made().provenance | more | {"data": data}
    said = gsdd_jax.info(dataclasses.replace(made(), provenance=of | {"parts": [of]}))
    lines = info.text(said).split("\n")
    assert [line.split("  ")[0] for line in lines].count("step") == 1 and len(lines) == 14
    assert all(line.isprintable() and len(line) <= 450 for line in lines)


def with_flags(base, given):
    config = base.copy_and_resolve_references()
    config.update_from_flattened_dict({n: v for n, v in given.items() if n in flat(config)})
    return config, base, given


def tiny(**more):
    config = default()
    fields = TINY | {"distill.eval_every": 0, "distill.snapshot_every": 0, "seed": 0}
    fields |= {"evaluate.baselines": "", "data.name": "cifar10_mini"}
    config.update_from_flattened_dict(fields | more)
    return config


def test_a_set_of_some_classes_is_evaluated_and_cut(tmp_path, monkeypatch):
    """Distills three classes of the data set by name, and evaluates the file and a part of it."""
    config = tiny(**{"data.classes": "ship,cat,5", "data.transform": "zca"})
    distill_to(config, tmp_path / "run", Display())
    set_ = gsdd_jax.load(tmp_path / "run")
    assert set_.class_names == ("ship", "cat", "dog")
    mini = data.load("cifar10_mini", resolution=8)
    reduced = data.only(mini, ["ship", "cat", "dog"])
    assert set_.data["fingerprint"] == reduced.fingerprint != mini.fingerprint
    assert (reduced.mean, reduced.std) == (mini.mean, mini.std)
    expected = [mini.train.images[mini.train.labels == c] for c in (8, 3, 5)]
    found = [reduced.train.images[reduced.train.labels == c] for c in range(3)]
    np.testing.assert_array_equal(found, expected)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # a whitening is made again
    matrix = transforms.fit_zca(reduced.train.images).whitening
    cut = gsdd_jax.subset(set_, ["dog", "ship"], images_per_class=2)
    np.testing.assert_allclose(cut.transform.whitening, matrix, atol=1e-5)
    result = evaluate_file(tmp_path / "run", display=Display(), baselines=False)
    assert np.sum(result["distilled_confusion"]) == 2 * 300  # two networks on three classes
    gsdd_jax.save(tmp_path / "cut", cut)
    result = evaluate_file(tmp_path / "cut", display=Display())
    assert np.sum(result["distilled_confusion"]) == 2 * 200
    others = [f"the {name}" for name in set_.class_names]  # than those of the prepared data
    renamed = set_.provenance | {"data": set_.data | {"class_names": others}}
    renamed = dataclasses.replace(set_, provenance=renamed)
    again = gsdd_jax.subset(renamed, ["the dog", "the ship"], images_per_class=2)
    gsdd_jax.save(tmp_path / "again", again)
    found = evaluate_file(tmp_path / "again", display=Display(), baselines=False)
    assert found["distilled_confusion"] == result["distilled_confusion"]
    (part,) = again.provenance["parts"]
    part["data"]["class_names"] = 3 * ["the dog"]
    gsdd_jax.save(tmp_path / "forged", again)
    with pytest.raises(
        UsageError, match=r"forged: provenance\.data\.class_names: .* got 'the dog'"
    ):
        evaluate_file(tmp_path / "forged", display=Display())
    merged = gsdd_jax.merge([
        gsdd_jax.subset(set_, ["dog"]), gsdd_jax.subset(set_, ["ship", "cat"])
    ])  # fmt: skip
    gsdd_jax.save(tmp_path / "merged", merged)
    assert len(evaluate_file(tmp_path / "merged", display=Display())["distilled_by_class"]) == 3


def test_sets_of_parts_of_the_classes_are_merged_and_evaluated(tmp_path):
    mini = data.load("cifar10_mini", resolution=8)
    names = np.array(mini.class_names)
    train = mini.train.images[:600], names[mini.train.labels[:600]]
    parts = [
        gsdd_jax.distill(
            *train, 800, class_names=mini.class_names, verbose=False,
            **FIELDS | FAST | {"data": {"classes": classes}},
        )
        for classes in ("0,1,2", "truck, cat")
    ]  # fmt: skip
    merged = gsdd_jax.merge(parts, learning_rate=0.03)  # each has chosen its own
    assert merged.class_names == ("airplane", "automobile", "bird", "truck", "cat")
    gsdd_jax.save(tmp_path / "merged", merged)
    with pytest.raises(UsageError, match=r"evaluate a merged set by gsdd_jax.evaluate"):
        evaluate_file(tmp_path / "merged")
    there = np.isin(names[mini.test.labels], merged.class_names)
    test = mini.test.images[there], names[mini.test.labels][there]
    assert len(gsdd_jax.evaluate(merged, *test, verbose=False).by_class) == 5


def test_a_class_distilled_alone_is_merged_with_others(tmp_path):
    """Distills one class, which nothing is evaluated on, next to a pair of others."""
    pixels = {"parameterization.name": "pixels", "init.images": "none", "distill.eval_every": 3}
    for name, classes in (("one", "cat"), ("two", "ship,dog")):
        result = distill_to(tiny(**pixels, **{"data.classes": classes}), tmp_path / name, Display())
        assert ("distilled_accuracy" in result) == (name == "two")
    assert compared(("distilled",), {}).startswith("none of a single class")
    one, two = (gsdd_jax.load(tmp_path / name) for name in ("one", "two"))
    assert (one.class_names, one.num_classes) == (("cat",), 1)
    assert one.provenance["step"] == 6
    assert gsdd_jax.merge([two, one]).class_names == ("ship", "dog", "cat")
    document.write([tmp_path / "one"], tmp_path / "report.html")
    line = "cifar10_mini: expected two classes or more, .*, got only '{}'$"
    gsdd_jax.save(tmp_path / "cut", gsdd_jax.subset(two, ["dog"]))
    for place, name in ((tmp_path / "one", "cat"), (tmp_path / "cut", "dog")):
        with pytest.raises(UsageError, match=line.format(name)):
            evaluate_file(place)


@pytest.mark.parametrize("more", [{"matching.name": "dc"}, {"labels.source": "teacher"}])
def test_a_class_alone_where_networks_compare_classes(tmp_path, more):
    config = tiny(**{"data.classes": "cat"}, **more)
    if "matching.name" in more:
        config = adapt.matched_by(config, "dc")
    with pytest.raises(UsageError, match=r"expected two classes or more, .*, got only 'cat'"):
        distill_to(config, tmp_path / "run", Display())
    with pytest.raises(UsageError, match=r"expected two classes or more, .*, got only 'cat'"):
        experts.train_all(config, Display())
    assert not (tmp_path / "run").exists()


def test_records_of_all_classes_are_those_of_earlier_versions():
    """Checks that a new field at its default changes neither a run's name nor its files."""
    assert "data.classes" not in decisive(default())
    assert decisive(tiny(**{"data.classes": "1,2"}))["data.classes"] == "1,2"
    assert not {"data.classes"} & OPERATIONAL.keys()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cat,cat", "expected different ones, got 'cat' again"),
        ("cat,zebra", "expected 0 to 9, or .*, got 'zebra'"),
        ("0,", "expected 0 to 9, or .*, got ''"),
    ],
)
def test_classes_that_the_data_lack(classes, message, tmp_path):
    with pytest.raises(UsageError, match=f"^config.data.classes: {message}"):
        distill_to(tiny(**{"data.classes": classes}), tmp_path / "run", Display())
    assert not (tmp_path / "run").exists()
