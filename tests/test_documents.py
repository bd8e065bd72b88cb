"""Runs the documents' Python, and checks that names in the documents exist."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import command, exports, parameterizations
from gsdd_jax.data import prepare
from launch import experiments
from tests.more_kinds import in_package
from tests.tiny import save_few_of_shipped
from tools import leaderboard

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


QUICK = {
    "network": {"options": {"width": 4, "depth": 1}},
    "matching": {"strategy": "flip"},
    "evaluate": {"num_networks": 1, "epochs": 2, "baselines": "fitted"},
}


def blocks(document):
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_readme_runs(tmp_path, quickly_compiled):
    a_set, names = tmp_path / "distilled.safetensors", {"QUICK": QUICK}
    save_few_of_shipped(a_set)
    smaller = {
        '"runs/demo/distilled.safetensors"': repr(str(a_set)),
        '"runs/mine.safetensors"': repr(str(tmp_path / "mine.safetensors")),
        "num_steps=500": "num_steps=5",
        "[:64]": "[:4]",
        "test=test)": "test=test, scale=0.002, **QUICK)",
    }
    for code in blocks("README.md"):
        for text, other in smaller.items():
            code = code.replace(text, other)
        exec(code, names)
    assert float(names["accuracy"]) >= 0
    assert gsdd_jax.load(tmp_path / "mine.safetensors").num_bytes <= 10 * 12_288
    assert names["larger"].shape == (30, 64, 64, 3)
    assert names["pixels"].shape == (2, 32, 32, 3)
    assert names["distilled"].images().shape == (30, 32, 32, 3)


def test_a_replay_memory_runs(tmp_path, quickly_compiled):
    short = {"init": {"num_steps": 2}, "distill": {"num_steps": 2, "steps_per_call": 2}}
    smaller = {
        '"cifar10_mini"': '"cifar10_mini", resolution=8',
        "61_440)": "20_000, **SHORT)",
        "range(5)": "range(2)",
        '"runs/memory"': repr(str(tmp_path / "memory")),
        "indices(test.labels)": "indices(test.labels[test.labels < 4])",
    }
    names = {"SHORT": QUICK | short}
    for code in blocks("docs/replay.md"):
        for text, other in smaller.items():
            code = code.replace(text, other)
        exec(code, names)
    memory = names["memory"]
    assert memory.num_bytes <= 20_000 and names["names"] == ("0", "1", "2", "3")
    assert 0 <= float(names["accuracy"]) <= 100 and names["known"].max() == 3


def test_federated_learning_runs(quickly_compiled):
    short = {"init": {"num_steps": 2}, "distill": {"num_steps": 2, "steps_per_call": 2}}
    smaller = {
        '"cifar10_mini"': '"cifar10_mini", resolution=8',
        "(32, 32, 3)": "(8, 8, 3)",
        "test=())": "test=(), **SHORT)",
        "evaluate([found], images, labels)": "evaluate([found], images, labels, **QUICK)",
        "6_144": "900",
    }
    some = {name: QUICK[name] for name in ("network", "matching")}
    names = {"SHORT": QUICK | short, "QUICK": some | {"evaluate": {"epochs": 2}}}
    for code in blocks("docs/federation.md"):
        for text, other in smaller.items():
            code = code.replace(text, other)
        exec(code, names)
    assert names["found"].num_bytes <= 2 * 900 < len(names["content"])
    assert 0 <= float(names["accuracy"]) <= 100 and len(set(names["labels"])) == 2


def test_privacy_runs(quickly_compiled, monkeypatch):
    """By a quick accountant; `test_privacy` has the numbers of the real one."""
    spent = lambda noise, rate, steps, delta: 30 * rate * steps**0.5 / noise
    monkeypatch.setattr(gsdd_jax.privacy, "_epsilon", spent)
    short = {"network": QUICK["network"], "budget": {"images_per_class": 3}}
    short["evaluate"] = {"num_networks": 1, "epochs": 2, "batch_size": 8}
    smaller = {
        '"cifar10_mini"': '"cifar10_mini", resolution=8',
        "batch, steps = 32, 100": "batch, steps = 32, 2",
        "test=(),": "test=(), **SHORT,",
    }
    names = {"SHORT": short}
    for code in blocks("docs/privacy.md"):
        for text, other in smaller.items():
            code = code.replace(text, other)
        exec(code, names)
    assert names["spent"]["steps"] == 2 and names["spent"]["epsilon"] <= 10
    assert 0 <= float(names["accuracy"]) <= 100


def test_distilling_clips_runs(quickly_compiled, tmp_path, monkeypatch):
    """Runs the code, and prepares the clips that it writes by the flags of the document."""
    monkeypatch.chdir(tmp_path)
    short = {"init": {"num_steps": 2}, "distill": {"num_steps": 2, "steps_per_call": 2}}
    quick = {"matching": QUICK["matching"], "evaluate": QUICK["evaluate"] | {"baselines": ""}}
    smaller = {
        "frames=8, side=16": "frames=4, side=8",
        "400, seed": "12, seed",
        "200, seed": "6, seed",
        "6_144": "800",
        '"minic3d"},': '"minic3d", "options": {"width": 8}}, **SHORT,',
    }
    names = {"SHORT": short | quick}
    for code in blocks("docs/video.md"):
        for text, other in smaller.items():
            code = code.replace(text, other)
        exec(code, names)
    assert names["shown"].shape[1:] == (4, 8, 8, 3) and names["distilled"].num_bytes <= 2 * 800
    mean, std = (names["clips"].mean((0, 1, 2, 3)), names["clips"].std((0, 1, 2, 3)))
    assert np.abs(names["inputs"] * std + mean - names["test_clips"]).max() < 0.01
    assert 0 <= names["accuracy"] <= 100
    text = (ROOT / "docs/video.md").read_text()
    shown = r"^python -m launch\.prepare --clips=(\S+) --name=(\w+) --frames=8$"
    ((source, name),) = re.findall(shown, text, re.MULTILINE)
    made = prepare.prepare(source, name, frames=4, resolution=8, data_dir=tmp_path)
    assert made.class_names == ["down", "right"] and made.image_shape == (4, 8, 8, 3)
    assert (made.train, made.test) == ([5, 5], [1, 1])


def test_using_a_set_runs(tmp_path):
    """Runs every block except PyTorch's, which `test_formats` covers."""
    description = {"name": "normalize", "mean": [0.5] * 3, "std": [0.25] * 3}
    kind = parameterizations.build("pixels", (8, 8, 3), ipc=1, images_per_class=1)
    params = {"pixels": jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))}
    labels = np.arange(2, dtype=np.int32)
    set_ = parameterizations.stored(kind, params, labels, 0.1, {"transform": description})
    gsdd_jax.save(tmp_path / "set.safetensors", set_)
    exports.export_transform(set_, tmp_path / "transform.safetensors")
    names = {}
    for code in blocks("docs/using.md"):
        if "import torch" not in code:
            for name in ("runs/demo/distilled.safetensors", "transform.safetensors"):
                path = tmp_path / ("set.safetensors" if "demo" in name else name)
                code = code.replace(f'"{name}"', repr(str(path)))
            exec(code, names)
    assert names["larger"].shape == (2, 64, 64, 3)
    assert names["pictures"].max() <= 1
    np.testing.assert_allclose(names["images"].sum(), (4 * params["pixels"] - 2).sum(), rtol=1e-3)


@pytest.fixture
def gray(tmp_path):
    """Builds the example parameterization from its file, in a folder without others."""
    (code,) = (code for code in blocks("docs/architecture.md") if "class Gray" in code)
    (tmp_path / "gray.py").write_text(code)
    with in_package(parameterizations, tmp_path):
        yield parameterizations.build("gray", (8, 8, 3), ipc=3, images_per_class=1)


WITHOUT_JAX = """
import importlib.util, sys
sys.modules["jax"] = None
import gsdd_jax
spec = importlib.util.find_spec("gsdd_jax.parameterizations")
spec.submodule_search_locations.append(sys.argv[1])
original = importlib.util.find_spec
importlib.util.find_spec = lambda name: spec if name == spec.name else original(name)
try:
    gsdd_jax.load(sys.argv[2])
except gsdd_jax.UsageError as error:
    print(error)
"""


def test_what_the_architecture_adds_is_read_and_rendered(gray, tmp_path):
    """Reads a set whose parameterization has no format of its own and needs JAX."""
    assert gray.images_per_class == 9
    images = np.random.default_rng(0).random((18, 8, 8, 3), np.float32)
    params = gray.init(jax.random.key(0), jax.numpy.asarray(images))
    labels = np.repeat(np.arange(2, dtype=np.int32), 9)
    path = tmp_path / "set.safetensors"
    gsdd_jax.save(path, parameterizations.stored(gray, params, labels, 0.1))
    loaded = gsdd_jax.load(path)
    expected = images.mean(-1, keepdims=True).repeat(3, -1)
    np.testing.assert_allclose(loaded.images(), expected, atol=1e-6)
    np.testing.assert_allclose(parameterizations.images(loaded), expected, atol=1e-6)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAX, tmp_path, path], capture_output=True, text=True,
        check=True, cwd=ROOT,
    )  # fmt: skip
    assert "parameterization gray: reading it needs jax, which is not" in done.stdout


def test_the_concepts_count_as_they_say():
    (code,) = blocks("docs/concepts.md")
    names = {}
    exec(code, names)
    counted = names["budget"], names["num_gaussians"], names["used"]
    assert code.rstrip().endswith("# " + " ".join(map(str, counted)))
    assert counted == (32 * 32 * 3 * 4, 32 * 32 * 3 * 4 // (9 * 2 * 30), 30 * 22 * 9 * 2)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_that_are_shown_are_there(path):
    """Checks that modules, experiments and make targets in commands exist."""
    text = path.read_text()
    known = command.commands()
    for name in re.findall(r"(?:python3? -m launch\.|`gsdd |^ *gsdd )(\w+)", text, re.MULTILINE):
        assert name in {*known, "COMMAND", "NAME"}, name
    for name in re.findall(r"--config=([\w./]+)", text):
        assert experiments.folder(name) or experiments.find(name)
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"^(?:`|    )?make ([\w-]+)", text, re.MULTILINE):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


def test_the_leaderboard_is_what_its_tool_writes():
    """Compares the page with its data, and its sums with sums made here."""
    page = (ROOT / "docs" / "leaderboard.md").read_text()
    assert leaderboard.page(page) == page == leaderboard.page(page.replace("12,328", "1"))

    def rows(name):
        table = page.partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0].strip()
        cells = (line[2:-2].split(" | ") for line in table.splitlines()[2:])
        return {first.partition(" ([")[0]: others for first, *others in cells}

    given = json.loads((ROOT / "docs" / "leaderboard.json").read_text())["methods"]
    published = json.loads((ROOT / "configs" / "tables" / "published.json").read_text())["cifar"]
    assert published["rows"].keys() <= {row["method"] for row in given}
    for row in given:
        name, counts_all = row["method"], {"cifar10": {}, "cifar100": {}}
        assert row["source"] and (row.get("adds") == counts_all or row["why"]), name
        printed = [cell.strip("*") for cell in rows(row["labels"])[name][2:]]
        accuracies = row.get("accuracies") or published["rows"][name]
        assert printed == ["" if number is None else str(number) for number in accuracies], name
    numbers = [(32 * 32 * 3 + classes) * images for classes in (10, 100) for images in (1, 10, 50)]
    assert rows("everything")["FRePo"][:6] == [f"{4 * number:,}" for number in numbers]
    wide, images, labeled, codes, narrow, best, *_ = rows("ours").values()
    for row, expected in ((images, "64.9 ± 0.5"), (codes, "62.1 ± 0.7")):
        assert row[3] == expected  # docs/results.md, "Distillation on top of it"
    assert wide[2:4] == ["12,255", "70.7"]  # docs/results.md, "At the published width"
    assert labeled[2:4] == ["12,270", "64.0 ± 0.4"]  # docs/results.md, "A stored labeler"
    assert narrow[2:4] == ["12,255", "60.5 ± 0.6"]  # docs/zoo.md
    assert best[2:4] == ["12,227", "58.9 ± 0.4"]  # docs/results.md, "The strongest baseline"


@pytest.mark.parametrize(
    "field, value",
    [
        ("labels", "Soft"), ("counted", "pixels"), ("method", "a|b"),
        ("adds", {"cifar10": {"x": 1}}), ("accuracies", [1.0]), ("accuracies", [float("nan")] * 6),
        ("source", None),
    ],
)  # fmt: skip
def test_a_row_that_the_leaderboard_cannot_show(monkeypatch, field, value):
    texts = "paper", "url", "objective", "network", "source"
    row = {"method": "new", "accuracies": [None] * 6} | dict.fromkeys(texts, "x")
    row |= {"labels": "hard", "counted": [], "not_counted": []}
    read = lambda path: {"methods": [row], "cifar": {"rows": {}}}
    monkeypatch.setattr(leaderboard, "_read", read)
    assert leaderboard.methods() == [row]
    monkeypatch.setitem(row, field, value)
    with pytest.raises(SystemExit, match=f"leaderboard.json: .*: {field}: invalid"):
        leaderboard.methods()


def build_site(root, out):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=root, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_the_site_is_built_and_needs_nobody_else(tmp_path):
    pytest.importorskip("mkdocs")
    status, said = build_site(ROOT, tmp_path)
    assert status == 0, said
    home = (tmp_path / "index.html").read_text()
    assert 'href="results/">Results</a>' in home  # by title, where the README has a path
    (sized,) = re.findall(r'<img src="([^"]+)" width', home)
    assert (tmp_path / sized).is_file()
    results = (tmp_path / "results" / "index.html").read_text()
    pictures = re.findall(r'<img [^>]*src="([^"]+)"', results)
    assert pictures and all((tmp_path / "results" / picture).is_file() for picture in pictures)
    interface = (tmp_path / "api" / "index.html").read_text()
    assert 'id="gsdd_jax.rasterizer.rasterize.rasterize"' in interface
    fetched = re.compile(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="http')
    for page in tmp_path.rglob("*.html"):
        assert not fetched.search(page.read_text()), page


def test_a_link_that_leads_nowhere_is_refused(tmp_path):
    pytest.importorskip("mkdocs")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in ROOT.iterdir():
        others = "LICENSE", "CITATION.cff", "notebooks", "benchmarks", "examples"
        if path.suffix == ".md" or path.name in others:
            (copy / path.name).symlink_to(path)
    for folder in ("docs", "tools"):
        shutil.copytree(ROOT / folder, copy / folder)
    settings, plugin, rest = (ROOT / "mkdocs.yml").read_text().partition("  - mkdocstrings:\n")
    assert plugin
    rest = rest[rest.index("markdown_extensions:") :]  # without the slow half, the interface
    (copy / "mkdocs.yml").write_text(settings + rest)
    dead = ["nothere.md", "nothere.png", "../nothere.py", "results.md#no-such-heading"]
    with open(copy / "docs" / "concepts.md", "a") as file:
        file.write(" ".join(f"[a]({link})" for link in dead))
    status, said = build_site(copy, tmp_path / "site")
    assert status == 1
    assert [link for link in dead if f"'{link}'" not in said] == []
    assert said.count("WARNING") == len(dead), said
