"""Tests the report of runs: it shows the files' contents, also in a browser if there is one."""

import base64
import dataclasses
import functools
import html.parser
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from tensorboardX import SummaryWriter

import gsdd_jax
from configs import demo
from gsdd_jax import data, parameterizations
from gsdd_jax.core import memory
from gsdd_jax.rasterizer import gaussians
from gsdd_jax.report import curves, document, events, gallery, results, source
from gsdd_jax.runs import fits
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.setup import components, experiment
from tests.commands import ROOT
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")

# The page is tested in a browser if there is one (`apt-get install chromium`).
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(html.parser.HTMLParser):
    """Collects elements and texts of a page, in order."""

    def __init__(self, text):
        super().__init__()
        self.source, self.elements, self.pieces = text, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.lasttag != "title":  # shown under the pointer
            self.pieces.append(data)

    @functools.cached_property
    def text(self):
        return " ".join(" ".join(self.pieces).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self):
        """Returns the data of the first gallery."""
        found = re.search(r'<script type="application/json">(.*?)</script>', self.source)
        return json.loads(found.group(1))

    @property
    def sheets(self):
        """Returns the images as arrays."""
        prefix = "data:image/png;base64,"
        contents = [image["src"].removeprefix(prefix) for image in self.all("img")]
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(c)))) for c in contents]


def page_of(*workdirs, **settings):
    out = workdirs[0].parent / "page.html"
    document.write(workdirs, out, **settings)
    return Page(out.read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns the work directory of a tiny distillation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        config = demo.get_config()
        config.update_from_flattened_dict(TINY)
        workdir = tmp_path_factory.mktemp("runs") / "tiny"
        distill_to(config, workdir)
        yield workdir


@pytest.fixture(scope="module")
def page(run):
    return page_of(run)


@pytest.fixture
def copy(run, tmp_path):
    """Returns a copy of the work directory, to damage."""
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


def strongest(result):
    """Returns the arm of random real images with the highest mean accuracy, and that accuracy."""
    means = {a: np.mean(result[f"{a}_accuracies"]) for a in ("random_real", "random_real_uint8")}
    return max(means.items(), key=lambda arm: arm[1])


def test_the_numbers_are_those_of_the_result(run, page):
    result = json.loads((run / "result.json").read_text())
    best, reference = strongest(result)
    for arm in ("distilled", "fitted", "random_real", "random_real_uint8"):
        values = result[f"{arm}_accuracies"]
        assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f} %" in page.text
        if arm != best:
            assert f"{np.mean(values) - reference:+.1f}" in page.text
    for share in result["distilled_by_class"] + result[f"{best}_by_class"]:
        assert f"{share:.1f} %" in page.text
    used, there = 10 * result["bytes_per_class"], 10 * 4 * 8 * 8 * 3
    assert f"{used:,} of {there:,} bytes ({100 * used / there:.1f} %)" in page.text
    set_ = gsdd_jax.load(run / "distilled.safetensors")
    # Two bytes per number: mean 2, factor 3, color 3, opacity 1.
    for name, numbers in (("means", 2), ("cholesky", 3), ("colors", 3), ("opacities", 1)):
        size = 2 * numbers * 70 * set_.format.num_gaussians
        assert f"{name} {size:,} {100 * size / used:.1f} %" in page.text
        assert f"{name} {16 * numbers}.0" in page.text
    for version in (jax.__version__, result["provenance"]["data"]["fingerprint"][:16]):
        assert version in page.text


def test_the_confusion_is_that_of_the_result(run, page):
    counts = json.loads((run / "result.json").read_text())["distilled_confusion"]
    assert np.sum(counts) == 2 * 1000  # two networks
    titles = iter([cell["title"] for cell in page.all("td") if "title" in cell])
    names = re.findall(r"class ((?:\w+ ){10})airplane", page.text)[0].split()
    assert names[0] == "airplane" and names[9] == "truck"
    for i, name in enumerate(names):
        shares = [f"{100 * count / sum(counts[i]):.0f}" for count in counts[i]]
        assert f"{name} {' '.join(shares)} " in page.text
        for j, other in enumerate(names):
            assert next(titles) == f"{name} as {other}: {counts[i][j]:,} of 200"


def test_of_many_classes_the_most_frequent_confusions_are_told(copy):
    counts = np.diag(np.full(21, 60))
    counts[3, 20], counts[17, 2], counts[0, 1] = 40, 20, 30
    counts[5] = 0  # a class without test images
    result = json.loads((copy / "result.json").read_text())
    result["distilled_confusion"] = counts.tolist()
    (copy / "result.json").write_text(json.dumps(result))
    page = page_of(copy)
    rows = "cat class 20 40.0 % airplane automobile 33.3 % class 17 bird 25.0 %"
    assert f"class predicted as share of its test images {rows}" in page.text
    assert page.text.count("0.0 %") - page.text.count("40.0 %") >= results.PAIRS - 3
    assert not [cell for cell in page.all("td") if "style" in cell]
    result["distilled_confusion"] = counts[:20, :20].tolist()
    (copy / "result.json").write_text(json.dumps(result))
    assert len([cell for cell in page_of(copy).all("td") if "style" in cell]) == 400


@pytest.mark.parametrize(
    "value",
    [None, [3], [[]], [[1, 2]], [[1, 2], [3]], [[1, -2], [3, 4]], [[1.5]], [[2**40]]],
)
def test_what_is_no_confusion_is_not_shown(value):
    result = {"distilled_confusion": value}
    run = source.Run("", {}, result, {}, events.Events({}, [], None), {}, None, {})
    assert results.confusion(run) is None


def test_a_config_shows_what_differs_first(page):
    listed = re.search(r"Config(.*?)(\d+) fields at their defaults(.*?)Provenance", page.text)
    changed, count, same = listed.groups()
    # demo.py changes two further fields.
    both = {**TINY, "evaluate.batch_size": 300, "network.options.width": 4}
    del both["evaluate.baselines"]  # the default
    for name, value in both.items():
        shown = "empty" if value == "" else str(value)
        assert f"{name} {shown} " in changed, name
        assert f" {name} " not in same, name
    assert "distill.learning_rate 0.02 0.001 learning rate of the synthetic images" in changed
    assert "matching.options.batch_syn 0 synthetic images per class and step; 0: all" in same
    assert changed.count(".") + int(count) >= 30


class Chart:
    """Reads a chart of a page: `read` at its places, `lines` by color as points [n, 2]."""

    def __init__(self, figure):
        self.title = re.search(r"<h3>(.*?)</h3>", figure).group(1)
        texts = re.findall(r'<rect x="([^"]*)"[^>]*><title>(.*?)</title>', figure, re.DOTALL)
        self.places = [float(x) for x, _ in texts]
        self.read = [text.split("\n") for _, text in texts]
        self.lines = {}
        path = r'<path d="([^"]*)"[^>]*style="fill: none; stroke: var\(--c(\d)\)'
        for points, color in re.findall(path, figure):
            numbers = np.array(re.findall(r"-?[\d.]+", points), float)
            self.lines[int(color)] = numbers.reshape(-1, 2)
        self.bands = len(re.findall(r"fill-opacity: 0.16", figure))
        self.legend = re.findall(r"</i>(.*?)</li>", figure, re.DOTALL)


def charts_of(page):
    figures = re.findall(r"<figure>.*?</figure>", page.source, re.DOTALL)
    return [Chart(figure) for figure in figures]


def assert_drawn(points, x, y):
    """Checks that coordinates are affine in the values, and grow to the right and upward."""
    for drawn, values, sign in ((points[:, 0], x, 1), (points[:, 1], y, -1)):
        slope, offset = np.polyfit(values, drawn, 1)
        assert slope * sign > 0
        np.testing.assert_allclose(np.polyval([slope, offset], values), drawn, atol=1e-3)


def test_curves_are_those_of_the_files(run, page):
    accuracy, objective = charts_of(page)
    assert (accuracy.title, objective.title) == ("Accuracy", "Objective")
    found = dict(events.read(run / "tensorboard").scalars["distill/loss"])
    assert list(found) == [2, 3, 4, 6]  # where calls end
    assert_drawn(objective.lines[0], list(found), list(found.values()))
    assert [text[0] for text in objective.read] == [f"distillation step {step}" for step in found]
    read = [float(text[1]) for text in objective.read]
    np.testing.assert_allclose(read, list(found.values()), rtol=1e-3)
    # A strip surrounds its point.
    edges = [*objective.places, np.inf]
    for x, left, right in zip(objective.lines[0][:, 0], edges, edges[1:], strict=False):
        assert left - 0.1 <= x < right
    records = json.loads((run / "evaluations.json").read_text())
    read = {int(first.split()[-1]): texts for first, *texts in accuracy.read}
    names = {0: "fitted", 3: "step 3", 6: "distilled"}
    for color, split in enumerate(("test", "train")):
        found = {s: records[n][split] for s, n in names.items() if records[n].get(split)}
        assert len(found) > 1
        assert_drawn(accuracy.lines[color], list(found), [np.mean(v) for v in found.values()])
        for step, values in found.items():
            spread = np.std(values, ddof=1)
            shown = f"{np.mean(values):.4g}" + (f" ± {spread:.2g}" if spread else "")
            assert f"{split.replace('train', 'training')} images: {shown}" in read[step]
    reference = strongest(json.loads((run / "result.json").read_text()))[1]
    assert accuracy.legend[-1].split() == (
        f"the best real images at the same bytes, {reference:.4g}".split()
    )
    assert accuracy.bands >= 1


def test_a_long_line_of_many_magnitudes_is_thinned_and_logarithmic(copy):
    steps, values = np.arange(1200), 1000 ** np.linspace(0, 1, 1200)
    with SummaryWriter(str(copy / "tensorboard"), filename_suffix="2") as writer:
        for step, value in zip(steps, values, strict=True):
            writer.add_scalar("fit/psnr", value, step)
    chart = next(c for c in charts_of(page_of(copy)) if c.title == "Fit to real images")
    kept = [int(text[0].removeprefix("step of the fit ").replace(",", "")) for text in chart.read]
    assert (kept[0], kept[-1], len(kept)) == (0, 1199, curves.MOST_POINTS)
    np.testing.assert_allclose([float(t[1]) for t in chart.read[:-1]], values[kept[:-1]], rtol=1e-3)
    x, y = chart.lines[0].T
    np.testing.assert_allclose(np.polyval(np.polyfit(x, y, 1), x), y, atol=0.1)
    assert np.ptp(y) > 50


def test_sheets_are_the_images(run, page):
    data, sheets = page.data, page.sheets
    assert [f["step"] for f in data["frames"]] == [0, 3, 6]
    for frame, sheet in zip(data["frames"], sheets, strict=False):
        set_ = gsdd_jax.load(run / "snapshots" / f"{frame['step']}.safetensors")
        expected = 255 * np.clip(np.asarray(set_.images()), 0, 1).reshape(10, 7, 8, 8, 3)
        assert frame["images"] == 10 * [7]
        for row, column in np.ndindex(10, 7):
            found = sheet[9 * row : 9 * row + 8, 9 * column : 9 * column + 8]
            np.testing.assert_allclose(found, expected[row, column], atol=0.51)
    # The real images next to them are the targets of the fit.
    config = demo.get_config()
    config.update_from_flattened_dict(TINY)
    real = fits.images_of(config, experiment.build_fit_parts(config)).reshape(10, 7, 8, 8, 3)
    assert data["real"] == gallery.SHOWN
    for row, column in np.ndindex(10, gallery.SHOWN):
        found = sheets[3][9 * row : 9 * row + 8, 9 * column : 9 * column + 8]
        np.testing.assert_array_equal(found, np.round(255 * real[row, column]))
    fewer = page_of(run, per_class=2)
    for few, sheet in zip(fewer.sheets[:3], sheets, strict=False):
        np.testing.assert_array_equal(few, sheet[:, : 2 * 9 - 1])
    assert "This file has 2 of 7 images per class" in fewer.text
    assert "airplane" in page.text
    assert "truck" in page.text


def by_eigenvalues(set_, kept):
    """Returns Gaussians' centers, axes and longer axis' directions, by their covariances."""
    kind, box = set_.format, np.eye(2) / 12
    for mean, (a, b, c) in zip(kept.means, kept.cholesky, strict=True):
        factor = np.array([[a + 0.5, 0], [b, c + 0.5]], float)
        values, vectors = np.linalg.eigh(factor @ factor.T + kind.prefilter * box)
        yield (np.asarray(mean, float) + 1) / 2, np.sqrt(values[::-1]), vectors[:, 1]


def check_outlines(set_, packed, kept, counts):
    """Compares outlines with the stored Gaussians, one by one."""
    assert packed["counts"] == counts
    records = np.frombuffer(base64.b64decode(packed["records"]), "<i2").astype(float)
    assert len(records) == 9 * sum(counts)  # as script.js reads them
    records = records.reshape(-1, 9)
    for i, (center, axes, along) in enumerate(by_eigenvalues(set_, kept)):
        np.testing.assert_allclose(records[i, :2] / 2**14, center, atol=1e-4)
        np.testing.assert_allclose(records[i, 2:4] / 64, axes, atol=0.01)
        if axes[0] > 1.05 * axes[1]:  # a circle has no direction
            angle = np.radians(records[i, 4] / 100)
            assert abs(along @ [np.cos(angle), np.sin(angle)]) == pytest.approx(1, abs=1e-5)
    shown = np.column_stack([kept.colors, kept.opacities])
    np.testing.assert_allclose(records[:, 5:], 255 * np.clip(shown, 0, 1), atol=0.51)


def flat(params):
    return jax.tree.map(lambda a: np.asarray(a).reshape(-1, *a.shape[2:]), params)


def test_outlines_are_the_covariances(run, page):
    for frame in page.data["frames"]:
        set_ = gsdd_jax.load(run / "snapshots" / f"{frame['step']}.safetensors")
        count = set_.format.num_gaussians
        kept = flat(parameterizations.of(set_)[1])
        check_outlines(set_, frame["gaussians"], kept, [count] * 70)


@pytest.mark.parametrize("options", [{"prefilter": False}, {"opacity": False}], ids=str)
def test_outlines_of_the_ablations(options):
    kind = parameterizations.build("gaussian", (8, 8, 3), ipc=1, images_per_class=3, **options)
    params = kind.init(jax.random.key(0), jnp.zeros((3, 8, 8, 3)))
    params = kind.from_arrays(kind.to_arrays(params))
    set_ = parameterizations.stored(kind, params, np.zeros(3, np.int32), 0.01)
    if not options.get("opacity", True):
        np.testing.assert_array_equal(params.opacities, 1)
    check_outlines(set_, gallery.gaussians(set_), flat(params), [kind.num_gaussians] * 3)


def test_outlines_of_images_of_which_some_have_one_more():
    kind = parameterizations.build("quantized", (8, 8, 3), ipc=2, images_per_class=2, num_classes=2)
    drawn = gaussians.init(jax.random.key(1), 1, kind.num_gaussians, height=8, width=8)
    params = kind.init(jax.random.key(0), jnp.zeros((4, 8, 8, 3)))
    counts = kind.counts
    assert len(set(counts)) == 2
    params = dataclasses.replace(params, gaussians=jax.tree.map(lambda a: a[0], drawn))
    params = kind.from_arrays(kind.to_arrays(params))
    labels = np.repeat([0, 1], 2).astype(np.int32)
    set_ = parameterizations.stored(kind, params, labels, 0.01)
    kept = jax.tree.map(np.asarray, kind.quantized(params))
    check_outlines(set_, gallery.gaussians(set_), kept, counts.tolist())
    # A part of each class has the same images.
    some = gallery.chosen(set_, 1)
    assert some.labels.tolist() == [0, 1]
    first, third = (np.cumsum(counts) - counts)[[0, 2]]
    chosen = [*range(first, first + counts[0]), *range(third, third + counts[2])]
    part = jax.tree.map(lambda a: a[chosen], kept)
    check_outlines(some, gallery.gaussians(some), part, counts[[0, 2]].tolist())
    # Classes are shown in label order, whatever the order of the set.
    mixed = dataclasses.replace(set_, labels=np.array([1, 0, 1, 0], np.int32))
    assert gallery.gaussians(gallery.chosen(mixed, 2))["counts"] == counts[[1, 3, 0, 2]].tolist()


def test_what_has_no_gaussians_has_no_switch(copy):
    kind = parameterizations.build("pixels", (8, 8, 3), ipc=1, images_per_class=1)
    pixels = kind.init(jax.random.key(1), jax.random.uniform(jax.random.key(0), (10, 8, 8, 3)))
    old = gsdd_jax.load(copy / "distilled.safetensors")
    labels = np.arange(10, dtype=np.int32)
    set_ = parameterizations.stored(kind, pixels, labels, 0.01, old.provenance)
    shutil.rmtree(copy / "snapshots")
    gsdd_jax.save(copy / "distilled.safetensors", set_)
    page = page_of(copy)
    assert not [i for i in page.all("input") if i.get("class") == "ellipses"]
    assert page.data["frames"][0]["gaussians"] is None
    assert "bits per Gaussian" not in page.text
    size = 10 * 8 * 8 * 3 * 4
    assert f"{size:,} of {size:,} bytes (100.0 %)" in page.text


def test_the_same_files_give_the_same_bytes_that_need_nothing_else(run, page):
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "lines.linewidth": 9}):
        assert page_of(run).source == page.source
    for _, attributes in page.elements:
        for name in ("src", "srcset", "data", "action"):
            assert attributes.get(name, "data:").startswith("data:")
    assert not re.search(r"https?://", page.source)
    assert not re.search(r"url\((?!#)", page.source)
    assert not re.search(r"href=\"(?!#)", page.source)
    assert "@import" not in page.source
    policy = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(set(ids)) == len(ids)
    for label in page.all("label"):
        assert label.get("for") is None or label["for"] in ids


def test_nothing_in_a_file_becomes_markup(copy, page):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    config = json.loads((copy / "config.json").read_text())
    config["init"]["dir"] = config["experts"]["dir"] = evil
    config[evil] = evil
    (copy / "config.json").write_text(json.dumps(config))
    result = json.loads((copy / "result.json").read_text())
    result["provenance"]["versions"]["jax"] = evil
    result["provenance"]["data"]["name"] = evil
    (copy / "result.json").write_text(json.dumps(result))
    with SummaryWriter(str(copy / "tensorboard"), filename_suffix="2") as writer:
        for step in range(3):
            writer.add_scalar("<b>" + evil.replace("/", "|"), step, step)
    named = copy.rename(copy.parent / "<i>&amp;")
    spoilt = page_of(named)
    for tag in ("script", "img", "b", "i"):
        assert len(spoilt.all(tag)) == len(page.all(tag)), tag
    assert not any("onerror" in a for _, a in spoilt.elements)
    assert spoilt.text.count("alert(1)") >= 5
    assert "<i>&amp;" in spoilt.text
    assert spoilt.data == page.data
    assert not re.search(r"[<&]", re.search(r'json">(.*?)</script>', spoilt.source).group(1))


def test_a_report_needs_no_device(run, tmp_path):
    """Needs neither a device nor a file's name if given a folder."""
    command = [sys.executable, "-m", "launch.report", run, f"--out={tmp_path}"]
    environment = {**os.environ, "JAX_PLATFORMS": "banana"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


# Missing parts

EVERYTHING = ("result.json", "evaluations.json", "tensorboard", "snapshots", "best.safetensors",
              "distilled.safetensors")  # fmt: skip


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("gone", "sentences"),
    [
        (EVERYTHING, ["the run has not ended", "No accuracies yet",
                      "There is no evaluations.json: nothing was evaluated",
                      "No numbers in TensorBoard event files",
                      "No images yet: the run has neither ended nor left a snapshot"]),
        (["result.json"], ["There is no result.json: the run has not ended"]),
        (["snapshots"], ["No snapshots; --config.distill.snapshot_every=N saves the images"]),
    ],
    ids=lambda v: v[0],
)  # fmt: skip
def test_what_is_not_there_is_said(copy, gone, sentences):
    for name in gone:
        remove(copy / name)
    page = page_of(copy)
    for sentence in sentences:
        assert sentence in page.text
    assert "Config" in page.text


def test_a_run_that_goes_on_shows_its_newest_images(copy, run):
    for name in ("result.json", "distilled.safetensors", "snapshots/6.safetensors"):
        remove(copy / name)
    page = page_of(copy)
    assert [frame["step"] for frame in page.data["frames"]] == [0, 3]
    records = json.loads((run / "evaluations.json").read_text())
    assert f"{np.mean(records['distilled']['test']):.1f} ±" in page.text


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("result.json", b"{", "result.json: expected a run's result, a JSON object"),
        ("result.json", b'{"distilled_accuracies": ["a"], "stored": 3, "provenance": []}',
         "No accuracies yet"),
        ("evaluations.json", b'{"identity": "x", "distilled": 3}', "is no evaluation"),
        ("snapshots/3.safetensors", b"damaged", "3.safetensors: not a readable safetensors file"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_damaged_is_said(copy, name, content, sentence):
    (copy / name).write_bytes(content)
    page = page_of(copy)
    assert sentence in page.text
    assert "Provenance" in page.text


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (None, "There is no real.safetensors"),
        ({"images": np.zeros((10, 5, 8, 8, 3), np.float32)}, "expected images as uint8"),
        ({"images": np.zeros((50, 8, 8, 3), np.uint8)}, "got uint8 [50, 8, 8, 3]"),
        ({"images": np.zeros((10, 5, 9, 8, 3), np.uint8)}, "not of the images of this run"),
    ],
    ids=["absent", "floats", "flat", "shape"],
)
def test_real_images_that_are_not_there_are_said(copy, arrays, sentence):
    (copy / "real.safetensors").unlink()
    if arrays is not None:
        (copy / "real.safetensors").write_bytes(safetensors.numpy.save(arrays))
    page = page_of(copy)
    assert sentence in page.text
    assert "airplane" in page.text
    assert page.data["real"] == 0


def test_no_data_set_is_opened_whatever_a_directory_names(copy, monkeypatch):
    """Checks configs that name any data set, or classes that would be imported."""
    monkeypatch.setattr(data, "load", lambda *_, **__: pytest.fail("opened"))
    monkeypatch.setattr(components, "load_data", lambda *_: pytest.fail("opened"))
    config = json.loads((copy / "config.json").read_text())
    config["data"] |= {"name": "somebody_s", "dir": str(copy)}
    (copy / "config.json").write_text(json.dumps(config))
    assert page_of(copy).data["real"] == gallery.SHOWN


def test_a_config_of_numbers_that_no_run_has_is_shown(copy):
    config = json.loads((copy / "config.json").read_text())
    fields = {
        "seed": 2**62,
        "budget.ipc": -1,
        "scale": float("nan"),
        "data.resolution": "\ud800",
        "distill.num_steps": [1],
        "evaluate.epochs": float("inf"),
    }
    for field, value in fields.items():
        *groups, last = field.split(".")
        functools.reduce(dict.__getitem__, groups, config)[last] = value
    (copy / "config.json").write_text(json.dumps(config))
    text = page_of(copy).text
    assert all(field in text for field in fields)


def test_integers_that_no_computer_counts_to_are_refused(copy):
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(text.replace('"seed": 0', f'"seed": {2**70}', 1))
    line = "config.json: expected a run's config, a JSON object .an integer of more than 64 bits"
    with pytest.raises(gsdd_jax.UsageError, match=line):
        page_of(copy)


@pytest.mark.parametrize(
    ("confusion", "said"), [([[1, 2], [3]], "is no evaluation"), ([[2**70]], "more than 64 bits")]
)
def test_records_that_no_run_writes_are_no_evaluations(copy, confusion, said):
    (copy / "result.json").unlink()
    records = json.loads((copy / "evaluations.json").read_text())
    records["distilled"]["confusion"] = confusion
    (copy / "evaluations.json").write_text(json.dumps(records))
    assert said in page_of(copy).text


def test_only_steps_name_snapshots(copy):
    snapshot = next((copy / "snapshots").iterdir())
    for name in ("²", "٣", "-1", "1e3", "9" * 30):
        shutil.copy(snapshot, snapshot.with_name(f"{name}.safetensors"))
    assert [frame["step"] for frame in page_of(copy).data["frames"]] == [0, 3, 6]


def test_images_that_memory_does_not_hold_are_said(run, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 100_000)
    page = page_of(run)
    assert re.search(r"of memory, expected at most the 0\.1 MiB|images of 8x8x3: ", page.text)
    assert not page.all("img")
    assert "Provenance" in page.text


@pytest.mark.parametrize("content", [None, b"{"])
def test_what_is_no_work_directory_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(gsdd_jax.UsageError, match="expected a run's"):
        page_of(tmp_path)


# Event files


def test_event_files_are_read_as_far_as_they_go(tmp_path):
    with SummaryWriter(str(tmp_path), filename_suffix=".1") as writer:
        for step in range(5):
            writer.add_scalar("loss", 10.0 - step, step)
        writer.add_scalar("loss", float("nan"), 5)
        writer.add_image("image", np.zeros((4, 4, 3), np.uint8), 5, dataformats="HWC")
    found = events.read(tmp_path)
    assert found.scalars == {"loss": [(step, 10.0 - step) for step in range(5)]}
    first, last = found.times
    assert 0 <= last - first < 60
    # Restarted: for repeated steps the last values count.
    with SummaryWriter(str(tmp_path), filename_suffix=".2") as writer:
        writer.add_scalar("loss", 3.0, 4)
        writer.add_scalar("loss", 2.0, 6)
    paths = sorted(tmp_path.iterdir())
    assert events.read(tmp_path).scalars["loss"][3:] == [(3, 7.0), (4, 3.0), (6, 2.0)]
    content = paths[1].read_bytes()
    for length in (0, 5, 11, len(content) - 1):
        paths[1].write_bytes(content[:length])
        assert events.read(tmp_path).scalars["loss"][:4] == [(s, 10.0 - s) for s in range(4)]
    assert events.read(tmp_path / "nowhere").scalars == {}


# Several runs


def test_event_files_of_any_times_and_sizes(tmp_path):
    with SummaryWriter(str(tmp_path), filename_suffix=".1") as writer:
        for wall_time in (float("nan"), 1e300, -1.0, 1e9, float("inf")):
            writer.add_scalar("loss", 1.0, 7, walltime=wall_time)
    (path,) = tmp_path.iterdir()
    first, last = events.read(tmp_path).times
    assert first == 1e9 and last < 1e10  # start of the file
    with open(path, "r+b") as file:  # a hole, whose records are all empty
        file.truncate(2**40)
    assert events.read(tmp_path).scalars == {"loss": [(7, 1.0)]}
    with open(path, "r+b") as file:  # and a record that claims the whole file
        head = struct.pack("<Q", 2**39)
        file.write(head + struct.pack("<I", events._checksum(head)))
    assert events.read(tmp_path).scalars == {}


def test_runs_beside_each_other(run, page, copy):
    config = json.loads((copy / "config.json").read_text())
    config["distill"]["learning_rate"] = 0.5
    del config["distill"]["average"]
    (copy / "config.json").write_text(json.dumps(config))
    result = json.loads((copy / "result.json").read_text())
    result["distilled_accuracies"] = [60.0, 70.0]
    (copy / "result.json").write_text(json.dumps(result))
    both = page_of(run, copy)
    assert "2 runs" in both.text
    assert f"{65:.1f} ± {np.std([60, 70], ddof=1):.1f} %" in both.text
    differ = re.search("Differences of the configs(.*?)Accuracy", both.text).group(1)
    assert "distill.learning_rate 0.02 0.5" in differ
    assert "distill.average 0.0 none" in differ
    assert "seed" not in differ
    objective = next(chart for chart in charts_of(both) if chart.title == "Objective")
    assert objective.legend == ["tiny", "copy"]
    assert set(objective.lines) == {0, 1}
    losses = events.read(run / "tensorboard").scalars["distill/loss"]
    assert objective.read[0][1:] == [f"{n}: {losses[0][1]:.4g}" for n in ("tiny", "copy")]
    assert "cannot be compared" not in both.text
    config["budget"]["ipc"] = 2
    (copy / "config.json").write_text(json.dumps(config))
    assert "The runs differ in budget.ipc" in page_of(run, copy).text
    # A directory given twice is one run.
    assert page_of(run, run).source == page.source


def test_names_of_runs_tell_them_apart(run, tmp_path):
    for folder in ("a/1.5", "a/1.6", "b/1.5"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(run / "config.json", tmp_path / folder)
    paths = [tmp_path / folder for folder in ("a/1.5", "a/1.6", "b/1.5")]
    assert [r.name for r in source.read_all(paths)] == ["a/1.5", "a/1.6", "b/1.5"]


# Size of the file


def test_a_share_keeps_the_file_small_and_the_last_step_whole():
    def shares(per_class, classes, side, steps, asked=0):
        kind = parameterizations.build(
            "gaussian", (side, side, 3), ipc=per_class, images_per_class=per_class
        )
        labels = np.repeat(np.arange(classes), per_class).astype(np.int32)
        set_ = gsdd_jax.DistilledSet(kind, {}, labels, 0.01)
        run = source.Run(
            "", {}, {}, {}, events.Events({}, [], None), dict.fromkeys(range(steps), set_), None, {}
        )
        return gallery.share(run, 1, asked)

    last, before = shares(30, 10, 32, 11)
    assert last == 30
    assert gallery.SHOWN <= before < 30
    pixels = 10 * 32 * 32 * (last + 10 * before)
    assert pixels <= gallery.PIXELS
    assert shares(30, 10, 32, 11, asked=20) == (20, 20)
    assert shares(30, 10, 32, 11, asked=99) == (30, 30)
    assert shares(200, 10, 128, 2) == (gallery.LEAST, gallery.LEAST)
    assert shares(1, 2, 8, 1) == (1, 1)


# The look


def test_colors_are_seen_in_light_and_dark():
    """Computes contrast as WCAG does: 4.5 for text, 3 for lines."""
    style = (document.FOLDER / "style.css").read_text()
    pairs = dict(re.findall(r"--(\w+): light-dark\(([^)]*)\)", style))
    pairs = {name: value.split(", ") for name, value in pairs.items()}

    def luminance(color):
        parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        parts = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return parts @ [0.2126, 0.7152, 0.0722]

    def mixed(color, page):
        of = lambda text, i: int(text[i : i + 2], 16)
        part = 0.5  # of a share of 100 %
        return "#" + "".join(
            f"{round(part * of(color, i) + (1 - part) * of(page, i)):02x}" for i in (1, 3, 5)
        )

    def contrast(a, b, i):
        high, low = sorted([luminance(pairs[a][i]), luminance(pairs[b][i])], reverse=True)
        return (high + 0.05) / (low + 0.05)

    for i in range(2):
        assert contrast("ink", "page", i) > 10
        assert contrast("soft", "page", i) > 4.5
        for color in range(curves.COLORS):
            assert contrast(f"c{color}", "page", i) > 3, (color, i)
        for color in ("c0", "c1"):  # of the largest confusion
            pairs["mixed"] = [mixed(pairs[color][k], pairs["page"][k]) for k in range(2)]
            assert contrast("ink", "mixed", i) > 4.5, (color, i)


# In a browser

PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const seen = {};
  const pixels = () => {
    const canvas = document.querySelector(".made canvas");
    const { width, height } = canvas;
    return [width, height, ...canvas.getContext("2d").getImageData(0, 0, width, height).data];
  };
  const slider = document.querySelector(".step");
  const move = (value) => {
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  };
  seen.last = pixels();
  move(0);
  seen.first = pixels();
  seen.step = [document.querySelector("output").textContent, slider.getAttribute("aria-valuetext")];
  const place = (chart, what) => chart.querySelector(what).getBoundingClientRect().left;
  const charts = [...document.querySelectorAll(".chart")];
  seen.now = charts.map((chart) => [place(chart, ".now"), place(chart, "rect:has(title)")]);
  seen.cells = document.querySelectorAll(".made canvas").length;
  document.querySelector(".all").click();
  seen.all = document.querySelectorAll(".made canvas").length;
  document.querySelector(".ellipses").click();
  seen.ellipses = pixels();
  const colors = () => [
    getComputedStyle(document.body).backgroundColor,
    getComputedStyle(document.querySelector(".chart path[style*='--c0']")).stroke,
    getComputedStyle(document.querySelector(".chart text")).fill,
  ];
  seen.before = colors();
  document.querySelector("#theme input").click();
  seen.after = colors();
  charts[0].scrollIntoView();
  const chart = charts[0].getBoundingClientRect();
  const under = document.elementFromPoint(chart.left + 0.9 * chart.width, chart.top + 40);
  seen.tip = under.querySelector("title")?.textContent;
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  seen.shades = [...document.querySelectorAll(".confusion td")].map((cell) =>
    [Number(cell.textContent), getComputedStyle(cell).backgroundColor]);
  seen.wide = document.documentElement.scrollWidth <= innerWidth;
  document.title = JSON.stringify(seen);
}, 0));
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_a_browser_shows_it(run, page, tmp_path):
    probed = tmp_path / "page.html"
    probed.write_text(page.source.replace("</body>", PROBE + "</body>"))
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=390,844",
        f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=5000", "--dump-dom",
        probed.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, done.stderr[-2000:]
    seen = json.loads(html.unescape(title.group(1)))
    for when, frame in (("first", 0), ("last", 2)):
        width, height, *values = seen[when]
        assert (width, height) == (8, 8)
        shown = np.array(values).reshape(8, 8, 4)[..., :3]
        np.testing.assert_array_equal(shown, page.sheets[frame][:8, :8])
    assert seen["step"] == ["0", "0"]
    (now, first), (without, left) = seen["now"]
    assert now == pytest.approx(first, abs=1)
    assert without < left - 100  # the losses begin with those up to step 2
    assert (seen["cells"], seen["all"]) == (10 * gallery.SHOWN, 70)
    assert all(a != b for a, b in zip(seen["before"], seen["after"], strict=True))
    assert seen["tip"].startswith("distillation step 6\n")
    assert seen["wide"]
    # The larger a share, the less its color lets through.
    shades = sorted((share, float(color.split("/")[1][:-1])) for share, color in seen["shades"])
    assert len(shades) == 100
    assert shades[0][1] == 0 and shades[-1][1] > 0.15
    assert all(
        shade == pytest.approx(0.5 * (share / 100) ** 0.5, abs=0.04) for share, shade in shades
    )
    # Pixels are drawn where the first image's ellipses lie.
    set_ = gsdd_jax.load(run / "snapshots" / "0.safetensors")
    count = set_.format.num_gaussians
    width, height, *values = seen["ellipses"]
    ink = np.array(values).reshape(height, width, 4)[..., 3] > 0
    y, x = np.mgrid[:height, :width] + 0.5
    inside, around = np.zeros_like(ink), np.zeros_like(ink)
    kept = jax.tree.map(lambda a: a[:count], flat(parameterizations.of(set_)[1]))
    for center, axes, along in by_eigenvalues(set_, kept):
        offset = np.stack([x, y], -1) * 8 / width - 8 * center
        long, short = offset @ along, offset @ [-along[1], along[0]]
        for mask, room in ((inside, -0.1), (around, 0.15)):
            long_axis, short_axis = np.maximum(axes + room, 1e-3)
            mask |= (long / long_axis) ** 2 + (short / short_axis) ** 2 < 1
    assert inside.any()
    assert not (inside & ~ink).any()
    assert not (ink & ~around).any()
