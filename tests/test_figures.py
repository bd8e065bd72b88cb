"""Tests figures by the launch script on tiny runs, and their numbers by other computations."""

import copy
import csv
import dataclasses
import functools
import json
import math
import os
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

import gsdd_jax
from configs import demo
from gsdd_jax import data, figures, networks, parameterizations
from gsdd_jax.data import transforms
from gsdd_jax.figures import (
    convergence,
    difficulty,
    ellipses,
    escape,
    geometry,
    inputs,
    landscape,
    pruning,
)
from gsdd_jax.figures import draw as drawing
from gsdd_jax.matching import real_data
from gsdd_jax.rasterizer import gaussians
from gsdd_jax.runs import evaluation
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.setup import experiment
from gsdd_jax.storage import workdir as workdirs
from gsdd_jax.training import distill
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")


SMALLER = {"budget.images_per_class": 3, "evaluate.baselines": "fitted"}
# For runs whose accuracies do not matter.
HARDLY_EVALUATED = {"evaluate.baselines": "", "evaluate.num_networks": 1, "distill.eval_every": 0}


def tiny(**fields):
    config = demo.get_config()
    config.update_from_flattened_dict(TINY | SMALLER | fields)
    return config


@pytest.fixture(scope="module", autouse=True)
def cheap(tmp_path_factory):
    """Caches in a folder of its own, and draws few pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(drawing._STYLE, "savefig.dpi", 60)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns the work directory of a tiny distillation of Gaussians."""
    workdir = tmp_path_factory.mktemp("gaussians")
    distill_to(tiny(), workdir)
    return workdir


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """Returns the work directory of the same distillation as pixels."""
    workdir = tmp_path_factory.mktemp("pixels")
    distill_to(tiny(**{"parameterization.name": "pixels", "distill.eval_every": 0}), workdir)
    return workdir


@functools.cache
def command():
    """Runs the launch script in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from ml_collections loading a config
        from launch import figure
    flags.FLAGS.mark_as_parsed()
    return figure


def draw(name, **values):
    """Runs `python -m launch.figure NAME` with these flags."""
    figure = command()
    with flagsaver.flagsaver(**values):
        figure.main(name)


def rows_of(folder, name):
    """Returns a figure's CSV; checks that its pictures lie next to it."""
    with Image.open(folder / f"{name}.png") as image:
        assert image.size[0] > 50
        assert len(image.getcolors(1 << 24)) > 3
    assert b"<svg" in (folder / f"{name}.svg").read_bytes()[:1000]
    for path in (folder / file for file in figures.files(name)):
        drawing.check_place(path)  # may be replaced
    with open(folder / f"{name}.csv") as file:
        return list(csv.DictReader(file))


def test_every_figure_has_its_module():
    assert set(command().FIGURES) == set(figures.NAMES)
    for name in figures.NAMES:
        assert name == figures.load(name).NAME


@pytest.mark.parametrize("name", ["decode.png", "decode.svg", "decode.csv"])
def test_nothing_but_a_figure_is_replaced(tmp_path, monkeypatch, name):
    from benchmarks import decode

    monkeypatch.setattr(decode, "rows", lambda *_: pytest.fail("measures first"))
    mine = drawing.MARK if name == "decode.csv" else "figure,decode\n"
    (tmp_path / name).write_text(mine)
    with pytest.raises(gsdd_jax.UsageError, match=f"{name}: not a file of an earlier figure; move"):
        draw("decode", out=str(tmp_path))
    with pytest.raises(gsdd_jax.UsageError, match=f"{name}: not a file of an earlier figure; move"):
        drawing.write(tmp_path / name, b"")
    assert (tmp_path / name).read_text() == mine
    assert os.listdir(tmp_path) == [name]


# Ellipses


@pytest.mark.parametrize("prefilter", [False, True])
def test_ellipses_are_the_eigenvectors_of_the_covariance(prefilter):
    g = gaussians.init(jax.random.key(0), 3, 8, height=20, width=30)
    g = dataclasses.replace(g, cholesky=4 * g.cholesky - 2)  # of both signs
    found = geometry.ellipses(g, 20, 30, prefilter)
    for index in np.ndindex(3, 8):
        a, b, c = np.asarray(g.cholesky[index], float)
        factor = np.array([[a + 0.5, 0], [b, c + 0.5]])
        covariance = factor @ factor.T + prefilter * np.eye(2) / 12
        values, vectors = np.linalg.eigh(covariance)
        np.testing.assert_allclose(found.axes[index], np.sqrt(values[::-1]), rtol=1e-6)
        angle = np.radians(found.angles[index])
        along = abs(vectors[:, 1] @ [np.cos(angle), np.sin(angle)])
        assert along == pytest.approx(1, abs=1e-6)
        u, v = np.asarray(g.means[index], float)
        np.testing.assert_allclose(found.centers[index], [15 * (u + 1), 10 * (v + 1)], rtol=1e-6)


@pytest.fixture
def few_frames(monkeypatch):
    monkeypatch.setattr(ellipses, "FRAMES", 3)  # fewer lengths of a call are compiled


def test_ellipses_while_fitting_and_distilling(run, few_frames, tmp_path):
    draw("ellipses", workdir=[str(run)], images=2, steps=["0", "20"], out=str(tmp_path))
    rows = rows_of(tmp_path, "ellipses")
    columns = list(dict.fromkeys((r["phase"], int(r["step"])) for r in rows))
    assert columns == [("fit", 0), ("fit", 20), *(("distill", s) for s in (0, 3, 6))]
    # The last ones are the distilled set's Gaussians, one image per class.
    means = gsdd_jax.load(run / "distilled.safetensors").arrays["means"]
    last = [r for r in rows if (r["phase"], r["step"]) == ("distill", "6")]
    assert len(last) == 2 * means.shape[1]
    for row in last:
        center = 4 * (means[int(row["image"]), int(row["gaussian"])] + 1)
        np.testing.assert_allclose([float(row["x"]), float(row["y"])], center, rtol=1e-5)
    # The fit equals the run's: it ends where distillation began.
    fitted = [r for r in rows if (r["phase"], r["step"]) == ("fit", "20")]
    began = [r for r in rows if (r["phase"], r["step"]) == ("distill", "0")]
    for a, b in zip(fitted, began, strict=True):
        assert float(a["x"]) == pytest.approx(float(b["x"]), abs=0.02)  # of bfloat16
    with Image.open(tmp_path / "ellipses.gif") as animation:
        assert animation.n_frames > 5


def test_ellipses_of_a_run_that_kept_no_snapshots(run, few_frames, tmp_path):
    """Shows the fit and the distilled set of a run without snapshots, such as the demo's."""
    for name in ("config.json", "distilled.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    draw("ellipses", workdir=[str(tmp_path)], images=2, steps=["0", "20"])
    rows = rows_of(tmp_path, "ellipses")
    columns = list(dict.fromkeys((r["phase"], int(r["step"])) for r in rows))
    assert columns == [("fit", 0), ("fit", 20), ("distill", 6)]


def test_ellipses_of_what_has_none(pixels, tmp_path):
    (tmp_path / "config.json").write_bytes((pixels / "config.json").read_bytes())
    with pytest.raises(gsdd_jax.UsageError, match=r"no set yet; expected a run that has ended"):
        draw("ellipses", workdir=[str(tmp_path)])
    with pytest.raises(gsdd_jax.UsageError, match="expected gaussian, got pixels"):
        draw("ellipses", workdir=[str(pixels)])
    with pytest.raises(gsdd_jax.UsageError, match="expected a set of Gaussians, got one of pixels"):
        draw("antialias", distilled=[str(pixels)])


def test_a_fit_alone_has_ellipses_too(few_frames, tmp_path):
    draw("ellipses", config=tiny(), images=1, steps=["0", "3"], out=str(tmp_path))
    rows = rows_of(tmp_path, "ellipses")
    assert {(r["phase"], r["step"]) for r in rows} == {("fit", "0"), ("fit", "3")}


# Snapshots


def test_snapshots_are_the_same_after_an_interruption(run, tmp_path, monkeypatch):
    """Stops after every call in turn, with other call lengths: the bytes stay the same."""
    really_run, left = distill.run, [0]

    def run_until(*arguments):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return really_run(*arguments)

    monkeypatch.setattr(distill, "run", run_until)
    config = tiny(**{"distill.steps_per_call": 4})
    for calls in (1, 1, 1):  # computed parts are kept
        left[0] = calls
        with pytest.raises(KeyboardInterrupt):
            distill_to(config, tmp_path)
    monkeypatch.undo()
    distill_to(config, tmp_path)
    names = {p.name for p in (run / "snapshots").iterdir()}
    assert names == {f"{step}.safetensors" for step in (0, 3, 6)}
    assert {p.name for p in (tmp_path / "snapshots").iterdir()} == names
    for name in (*(f"snapshots/{n}" for n in sorted(names)), "distilled.safetensors"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes(), name
    last = run / "snapshots" / "6.safetensors"
    assert last.read_bytes() == (run / "distilled.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["ellipses", "antialias"])
def test_images_that_are_not_finite_are_not_drawn(run, tmp_path, name):
    good = gsdd_jax.load(run / "distilled.safetensors")
    huge = np.full_like(good.arrays["colors"], 1.75 * 2**127)
    bad = dataclasses.replace(good, arrays=good.arrays | {"colors": huge})
    gsdd_jax.save(tmp_path / "distilled.safetensors", bad)
    shutil.copy(run / "config.json", tmp_path)
    flag = "workdir" if name == "ellipses" else "distilled"
    with pytest.raises(gsdd_jax.UsageError, match=r"distilled.safetensors: expected finite images"):
        draw(name, steps=["0"], out=str(tmp_path / "out"), **{flag: [str(tmp_path)]})
    assert not (tmp_path / "out").exists()


# Overview


def test_overview_has_the_images_that_the_set_started_from(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(drawing, "image", lambda axes, image: seen.append(np.asarray(image)))
    draw("overview", distilled=[str(run)], image=1, out=str(tmp_path))
    dataset = data.load("cifar10_mini", resolution=8)
    set_ = gsdd_jax.load(run / "distilled.safetensors")
    for label, (real, distilled) in enumerate(zip(seen[:10], seen[10:], strict=True)):
        of_class = dataset.train.images[dataset.train.labels == label] / 255
        assert np.abs(of_class - real).max((1, 2, 3)).min() < 1e-6
        np.testing.assert_allclose(distilled, set_.images()[3 * label + 1], atol=1e-5)
    assert len(seen) == 2 * dataset.num_classes


# Anti-aliasing


def test_antialias_shows_where_it_matters_most(run, tmp_path):
    draw("antialias", distilled=[str(run)], images=2, out=str(tmp_path))
    rows = rows_of(tmp_path, "antialias")
    set_ = gsdd_jax.load(run / "distilled.safetensors")
    means, cholesky, colors, opacities = jax.tree.leaves(parameterizations.of(set_)[1])
    render = lambda **settings: np.asarray(
        gsdd_jax.rasterize(
            means, cholesky, colors, opacities, height=8, width=8, backend="reference", **settings
        ),
        float,
    )
    both, neither = render(), render(samples_per_side=1, prefilter=False)
    expected = [10 * math.log10(1 / e) for e in ((both - neither) ** 2).mean((1, 2, 3))]
    found = [float(r["psnr_neither"]) for r in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    drawn = {i for i, r in enumerate(rows) if r["drawn"] == "1"}
    assert drawn == set(np.argsort(expected)[:2])


def test_codes_are_shown_as_gaussians(tmp_path):
    config = tiny(**{"parameterization.name": "quantized", "budget.images_per_class": 4})
    with workdirs.prepared(tmp_path, config):
        pass
    parts = experiment.build_fit_parts(config)
    kind, path = parts.parameterization, tmp_path / "distilled.safetensors"
    params = kind.init(jax.random.key(0), jnp.full((len(parts.labels), 8, 8, 3), 0.5))
    made = {"step": 6, "data": {"name": "cifar10_mini"}}
    gsdd_jax.save(path, parameterizations.stored(kind, params, parts.labels, 0.01, made))
    set_ = gsdd_jax.load(path)
    counts = set_.params["counts"]
    assert counts.max() == counts.min() + 1  # some are filled up
    shown = inputs.load_gaussians(path)
    np.testing.assert_allclose(shown.images(), set_.images(), atol=1e-5)
    filled = np.flatnonzero(counts < counts.max())
    for order in pruning.ORDERS:  # padding Gaussians go first
        first = pruning.removal_order(shown, order, jax.random.key(0))[:, 0]
        assert (shown.arrays["opacities"][filled, first[filled]] == 0).all()
    draw("ellipses", workdir=[str(tmp_path)], images=2)
    rows = rows_of(tmp_path, "ellipses")
    assert {(r["phase"], r["step"]) for r in rows} == {("distill", "6")}
    assert len(rows) == counts[[0, set_.format.images_per_class]].sum()


# Escape


def test_escape_runs_its_arms_and_a_stress(tmp_path, monkeypatch):
    for arm, options in escape.ARMS.items():
        made = escape.with_options(tiny(), options).parameterization.options
        kind = parameterizations.build("gaussian", (8, 8, 3), ipc=1, images_per_class=1, **made)
        assert kind.clip_means == ("clip" in arm)
        assert (kind.boundary_weight > 0) == ("loss" in arm)
    # Each compiles its own programs.
    few = {arm: escape.ARMS[arm] for arm in ("loss and clip", "neither")}
    monkeypatch.setattr(escape, "ARMS", few)
    monkeypatch.setattr(escape, "WEIGHTS", (0.1,))
    config = tiny(**{"distill.num_steps": 2, "init.num_steps": 60}, **HARDLY_EVALUATED)
    config.distill.steps_per_call = 1
    draw("escape", config=config, stress_steps=3, out=str(tmp_path))
    centers = rows_of(tmp_path, "escape")
    with open(tmp_path / "escape_shares.csv") as file:
        shares = {r["arm"]: r for r in csv.DictReader(file)}
    assert list(shares) == list(escape.ARMS)
    for arm, share in shares.items():
        mine = [(float(r["u"]), float(r["v"])) for r in centers if r["arm"] == arm]
        count = sum(1 for u, v in mine if abs(u) > 1 or abs(v) > 1)
        assert (int(share["gaussians"]), int(share["outside"])) == (len(mine), count)
        assert ("clip" in arm) == (count == 0), arm
        made = gsdd_jax.load(tmp_path / "escape" / arm.replace(" ", "_") / "distilled.safetensors")
        np.testing.assert_allclose(np.ravel(made.arrays["means"]), np.ravel(mine), rtol=1e-6)
        assert made.format.clip_means == ("clip" in arm)
        assert (made.format.boundary_weight > 0) == ("loss" in arm)
    stress = rows_of(tmp_path, "escape_stress")
    assert len(stress) == 2 * len(escape.WEIGHTS) * len(escape.STARTS)
    for row in stress:
        assert row["clip"] == "0" or row["outside"] == row["never_returned"] == "0"
        assert int(row["never_returned"]) <= int(row["outside"]) <= int(row["gaussians"])
    # A second call computes nothing.
    before = (tmp_path / "escape_stress.png").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill, "run", None)
        draw("escape", config=config, stress_steps=3, out=str(tmp_path))
    assert (tmp_path / "escape_stress.png").read_bytes() == before


def test_the_stress_tells_who_is_lost():
    """Checks that centers far outside have no gradient without the clip, and never return."""
    options = {"clip_means": False, "boundary_weight": 0.1}
    config = escape.with_options(tiny(), options)
    parts = experiment.build(config)
    params = parts.parameterization.init(jax.random.key(0), jnp.zeros((30, 8, 8, 3)))
    count = params.opacities.shape[1]
    means = np.zeros((30, count, 2), np.float32)
    means[:, 0] = [0.2, 9.0]
    means[:, 1] = [-1 - 1e-6, 0.0]  # so little outside that it can come back
    params = dataclasses.replace(params, means=jnp.asarray(means))
    found = escape.endure(parts, config, params, 3, "test")
    assert all(found[name][:, 0].all() for name in ("outside", "never_returned", "no_gradient"))
    assert not found["no_gradient"][:, 2:].any() and not found["never_returned"][:, 2:].any()
    # Both ways happen to those on the border; who is inside now is not lost.
    assert not found["never_returned"][:, 1][~found["outside"][:, 1]].any()
    assert not found["outside"][:, 1].all()


def test_starts_are_where_their_names_say():
    g = gaussians.init(jax.random.key(1), 5, 40, height=8, width=8)
    moved, starts = escape.started(jax.random.key(2), g)
    furthest = np.abs(np.asarray(moved.means)).max(-1)
    for start, least, most in ((0, 0, 0.9), (1, 0.995, 0.995), (2, 1, 1), (3, 1.02, 1.5)):
        mine = furthest[starts == start]
        assert len(mine) == 50
        assert np.float32(least) <= mine.min() and mine.max() <= np.float32(most)
    assert (np.asarray(escape.outside(moved.means)) == (starts == 3)).all()


# Pruning


@pytest.mark.parametrize("order", ["large", "small"])
def test_pruning_removes_the_gaussians_it_says(run, order):
    set_ = gsdd_jax.load(run / "distilled.safetensors")
    kind, params = parameterizations.of(set_)
    scaled = params.opacities * jnp.linspace(-0.5, 1, 14)
    set_ = inputs.with_params(set_, kind, dataclasses.replace(params, opacities=scaled))
    params = parameterizations.of(set_)[1]
    ranks = pruning.removal_order(set_, order, jax.random.key(0))
    pruned = pruning.without(set_, ranks, 0.4)
    assert pruned.format.num_gaussians == 14 - 6  # 5.6 of them
    for image in range(30):
        sizes = []
        for n in range(14):
            a, b, c = np.asarray(params.cholesky[image, n], float)
            factor = np.array([[a + 0.5, 0], [b, c + 0.5]])
            area = math.pi * math.sqrt(np.linalg.det(factor @ factor.T + np.eye(2) / 12))
            sizes.append(area * abs(float(params.opacities[image, n])))
        gone = sorted(range(14), key=lambda n: sizes[n], reverse=order == "large")[:6]
        left = [n for n in range(14) if n not in gone]
        for name in ("means", "cholesky", "colors", "opacities"):
            expected = np.asarray(getattr(params, name))[image, left]
            np.testing.assert_array_equal(pruned.arrays[name][image], expected)


def test_pruning_at_random_is_a_permutation(run):
    set_ = gsdd_jax.load(run / "distilled.safetensors")
    ranks = pruning.removal_order(set_, "random", jax.random.key(0))
    assert (np.sort(ranks) == np.arange(14)).all()
    assert (ranks[0] != ranks[1]).any()
    assert pruning.without(set_, ranks, 1.0).format.num_gaussians == 1
    whole = pruning.without(set_, ranks, 0.0)
    np.testing.assert_array_equal(whole.images(), set_.images())


def test_pruning_through_the_command(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pruning, "PERCENT", (0, 50))
    draw("pruning", distilled=[str(run)], num_networks=2, out=str(tmp_path))
    rows = rows_of(tmp_path, "pruning")
    assert [r["gaussians_left"] for r in rows] == ["14", "7"] * 3
    whole = evaluation.evaluate_file(run / "distilled.safetensors", overrides={})
    for row in rows[::2]:
        assert float(row["accuracy"]) == pytest.approx(whole["distilled_accuracy"])
    # Evaluations are kept; those of another set are refused.
    monkeypatch.setattr(evaluation, "distilled", None)
    draw("pruning", distilled=[str(run)], num_networks=2, out=str(tmp_path))
    with pytest.raises(gsdd_jax.UsageError, match=r"pruning\.json: of other inputs or settings"):
        draw("pruning", distilled=[str(run)], num_networks=1, out=str(tmp_path))


# Convergence


def test_convergence_is_what_the_runs_recorded(run, pixels, tmp_path):
    draw("convergence", workdir=[str(run), str(pixels)], out=str(tmp_path))
    rows = rows_of(tmp_path, "convergence")
    records = json.loads((run / "evaluations.json").read_text())
    mine = {int(r["step"]): r for r in rows if r["run"] == "gaussian"}
    for step, name in ((0, "fitted"), (3, "step 3"), (6, "distilled")):
        accuracies = records[name]["test"]
        assert float(mine[step]["accuracy"]) == pytest.approx(np.mean(accuracies), rel=1e-6)
        assert float(mine[step]["std"]) == pytest.approx(np.std(accuracies, ddof=1), rel=1e-5)
    assert sorted(mine) == [0, 3, 6]
    assert [r["step"] for r in rows if r["run"] == "pixels"] == ["0", "6"]
    draw("convergence", workdir=[str(run), str(pixels)], out=str(tmp_path / "again"))
    for kind in ("png", "svg", "csv"):
        again = (tmp_path / "again" / f"convergence.{kind}").read_bytes()
        assert (tmp_path / f"convergence.{kind}").read_bytes() == again


def test_runs_of_other_budgets_are_not_compared(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    config["budget"]["ipc"] = 10
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(gsdd_jax.UsageError, match=r"config\.budget\.ipc is 10, and 1 in"):
        draw("convergence", workdir=[str(run), str(tmp_path)])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(gsdd_jax.UsageError, match=f"^{tmp_path}: not a config of this version"):
        draw("convergence", workdir=[str(run), str(tmp_path)])
    (tmp_path / "evaluations.json").write_text('{"identity": "x"}')
    with pytest.raises(gsdd_jax.UsageError, match="no evaluations yet"):
        convergence.curve(tmp_path)


# Landscape


def test_directions_have_the_norm_of_each_field_of_each_image():
    params = gaussians.init(jax.random.key(0), 4, 5, height=8, width=8)
    params = dataclasses.replace(params, colors=params.colors * jnp.arange(4)[:, None, None])
    found = landscape.direction(jax.random.key(1), params)
    for field in ("means", "cholesky", "colors", "opacities"):
        for image in range(4):
            expected = np.linalg.norm(np.ravel(getattr(params, field)[image]))
            norm = np.linalg.norm(np.ravel(getattr(found, field)[image]))
            assert norm == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_landscape_around_the_loss_at_the_set(run, tmp_path):
    values = dict(distilled=[str(run)], points=3, draws=2, radius=0.5)
    draw("landscape", out=str(tmp_path), **values)
    rows = rows_of(tmp_path, "landscape")
    assert len(rows) == 9
    (center,) = (float(r["loss"]) for r in rows if float(r["first"]) == 0 == float(r["second"]))
    # The same draws, step by step.
    set_ = gsdd_jax.load(run / "distilled.safetensors")
    parts = experiment.build(inputs.config_of(run, None))
    matching, train = parts.problem.matching, parts.dataset.train
    real = real_data(train.images, train.labels, 10, parts.transform)
    key = jax.random.split(landscape.stream(0, "landscape"), 3)[2]
    images = np.asarray(parts.transform(jax.device_put(set_.images()))).reshape(-1, 8, 8, 3)
    features_of, losses = jax.jit(matching.network.features), []
    for step_key in jax.random.split(key, 2):
        carry = matching.begin(jax.random.split(step_key, 3)[0], real, None)
        features = np.asarray(features_of(carry.network, images)).reshape(
            10, -1, carry.means.shape[1]
        )
        losses.append(((features.mean(1) - np.asarray(carry.means)) ** 2).sum())
    assert center == pytest.approx(np.mean(losses), rel=1e-4)
    assert np.std([float(r["loss"]) for r in rows]) > 0
    # Kept rows give the same bytes, and nothing is computed.
    before = (tmp_path / "landscape.svg").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(landscape, "plane", None)
        draw("landscape", out=str(tmp_path), **values)
    assert (tmp_path / "landscape.svg").read_bytes() == before


def test_a_landscape_of_a_set_that_does_not_say_how_it_was_made(run, tmp_path):
    set_ = gsdd_jax.load(run / "distilled.safetensors")
    provenance = copy.deepcopy(set_.provenance)
    del provenance["config"]["matching.name"]
    gsdd_jax.save(tmp_path / "a.safetensors", dataclasses.replace(set_, provenance=provenance))
    with pytest.raises(gsdd_jax.UsageError, match=r"a\.safetensors: not a config of this version"):
        draw("landscape", distilled=[str(tmp_path / "a.safetensors")], points=3)


# Difficulty


def test_difficulty_is_counted(tmp_path):
    rng = np.random.default_rng(0)
    wrong, right = rng.random((7, 60)) < rng.random(60), rng.random((3, 60)) < 0.4
    rows = difficulty.by_difficulty(100 * wrong.mean(0), right)
    assert sum(r["images"] for r in rows) == 60
    for row in rows:
        last = row["to"] == 100
        mine = [
            i for i in range(60)
            if row["from"] <= 100 * wrong[:, i].sum() / 7 < row["to"] + last
        ]  # fmt: skip
        assert row["images"] == len(mine)
        accuracies = [100 * sum(right[s, i] for i in mine) / len(mine) for s in range(3)]
        assert row["accuracy"] == pytest.approx(np.mean(accuracies))
        assert row["std"] == pytest.approx(np.std(accuracies, ddof=1))


def test_mistakes_are_those_of_each_network():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (23, 8, 8, 3), np.uint8), np.arange(23) % 5
    network = networks.build("convnet", image_shape=(8, 8, 3), num_classes=5, width=4, depth=1)
    params = jax.vmap(network.init)(jax.random.split(jax.random.key(0), 3))
    transform = transforms.Normalize(jnp.full(3, 0.5), jnp.full(3, 0.25))
    real = transforms.to_device(images, transform)
    wrong = difficulty.mistakes(network, params, real, labels)
    seen = np.float32((images / 255 - 0.5) / 0.25)
    every = jax.jit(jax.vmap(network.apply, (0, None)))(params, seen)
    for found, logits in zip(wrong, np.asarray(every), strict=True):
        np.testing.assert_array_equal(found, logits.argmax(-1) != labels)


def test_difficulty_through_the_command(run, pixels, tmp_path):
    values = dict(distilled=[str(run), str(pixels)], judge_width=2, judge_epochs=1)
    draw("difficulty", judges=1, out=str(tmp_path / "resumed"), **values)
    draw("difficulty", judges=2, out=str(tmp_path / "resumed"), **values)
    draw("difficulty", judges=2, out=str(tmp_path / "whole"), **values)
    for name in ("difficulty_judges.json", "difficulty.csv", "difficulty.png", "difficulty.json"):
        resumed, whole = ((tmp_path / d / name).read_bytes() for d in ("resumed", "whole"))
        assert resumed == whole, name
    rows = rows_of(tmp_path / "whole", "difficulty")
    number = len(data.load("cifar10_mini").test.labels)
    for label in ("gaussian, 3 per class", "pixels, 1 per class"):
        mine = [r for r in rows if r["set"] == label]
        assert sum(int(r["images"]) for r in mine) == number
    # Over all bins the accuracy equals the run's own.
    mine = [r for r in rows if r["set"].startswith("gaussian")]
    total = sum(int(r["images"]) * float(r["accuracy"]) for r in mine) / number
    measured = json.loads((run / "result.json").read_text())["distilled_accuracy"]
    assert total == pytest.approx(measured, abs=1e-3)
    with pytest.raises(gsdd_jax.UsageError, match=r"difficulty_judges\.json: of other inputs"):
        draw("difficulty", judges=2, out=str(tmp_path / "whole"), **values | {"judge_width": 3})


# Decode


def test_decode_measures_both_and_keeps_what_it_measured(tmp_path, monkeypatch):
    from benchmarks import decode, measure, rasterize, storage

    monkeypatch.setattr(measure, "TURN", 1e-3)
    sweeps = {"bytes": [rasterize.Shape(2, 5, 16, 2)], "storage": [1]}
    monkeypatch.setattr(decode, "SWEEPS", sweeps)
    assert len(storage.names()) >= 12 and "generator" not in storage.names()
    monkeypatch.setattr(storage, "names", lambda: ["pixels", "idc"])
    monkeypatch.setattr(rasterize, "FIT_STEPS", 2)
    draw("decode", seconds=0.01, out=str(tmp_path))
    rows = rows_of(tmp_path, "decode")
    sets = [(r["what"], r["value"], r["batch"], r["measured"]) for r in rows[6:]]
    counts = {"pixels": "10", "idc": "40"}
    assert sorted(sets) == sorted(
        (what, "12288", count, measured)
        for what, count in counts.items()
        for measured in ("forward", "both")
    )
    assert all(int(r["peak_bytes"]) >= int(r["batch"]) * 3072 * 4 for r in rows[6:])
    rows = rows[:6]
    assert {row["what"] for row in rows} == {"Gaussians", "SIREN", "reference"}
    for row in rows:
        assert 0 < float(row["seconds"]) < 10
        assert int(row["peak_bytes"]) >= 2 * 16 * 16 * 3 * 4  # at least the images
        assert abs(int(row["bytes_an_image"]) / int(row["value"]) - 1) < 0.35
    assert {int(r["bytes_an_image"]) for r in rows if r["what"] == "Gaussians"} == {90}
    before = (tmp_path / "decode.csv").read_bytes()
    monkeypatch.setattr(decode, "measure", None)
    draw("decode", seconds=0.01, out=str(tmp_path))
    assert (tmp_path / "decode.csv").read_bytes() == before
    with pytest.raises(
        gsdd_jax.UsageError, match="--sweeps: expected some of bytes,storage, got 'size'"
    ):
        draw("decode", sweeps=["size"], out=str(tmp_path))


def test_continual_draws_the_cells_that_were_run(tmp_path):
    cells = [
        {"row": row, "column": f"{data}, step {step} of 5", "mean": mean, "deviation": None}
        for data, row, step, mean in (
            ("cifar10", "codes", 1, 80.0),
            ("cifar10", "codes", 2, None),
            ("cifar100", "codes, a tenth", 2, 60.5),
        )
    ]
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"cells": cells}))
    draw("continual", from_table=str(path))
    one = {"figure": "continual", "stored": "codes", "of": "5", "std": "0"}
    assert rows_of(tmp_path, "continual") == [
        one | {"data": "cifar10", "memory": "", "step": "1", "accuracy": "80"},
        one | {"data": "cifar100", "memory": "a tenth", "step": "2", "accuracy": "60.5"},
    ]
    for column in ("TM", "cifar10, hop 1 by 5", "cifar10, step 6 of 5"):
        path.write_text(json.dumps({"cells": [cells[0] | {"column": column}]}))
        with pytest.raises(gsdd_jax.UsageError, match="expected the continual table's JSON"):
            draw("continual", from_table=str(path))


A_CELL = {"row": "a", "column": "9 bytes", "mean": 1.0, "deviation": 0.5}


def test_budgets_draws_accuracy_by_bytes(tmp_path):
    cells = [
        {"row": "codes", "column": f"{size} bytes", "mean": mean, "deviation": 0.5}
        for size, mean in (("12,288", 50.0), ("1,228", 40.0), ("3,072", None))
    ]
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"cells": cells}))
    draw("budgets", from_table=str(path))
    one = {"figure": "budgets", "stored": "codes", "std": "0.5"}
    found = rows_of(tmp_path, "budgets")
    assert found[:2] == [
        one | {"bytes": "1228", "accuracy": "40"},
        one | {"bytes": "12288", "accuracy": "50"},
    ]
    published = {12288: "67.6", 122880: "75.5", 614400: "77.7"}  # of 1, 10 and 50 float32 images
    assert {int(row["bytes"]): row["accuracy"] for row in found[2:]} == published
    for column in ("DM", "12,288 images", "0 bytes", "-5 bytes", f"{10**30} bytes"):
        path.write_text(json.dumps({"cells": [cells[0] | {"column": column}]}))
        with pytest.raises(gsdd_jax.UsageError, match="expected the budgets table's JSON"):
            draw("budgets", from_table=str(path))


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (3, "with a list of cells"),
        ([3], "cell 0: expected an object, got 3"),
        ([{"row": "a", "column": "9 bytes"}], "cell 0: no field 'mean'"),
        ([{"row": [], "column": "9 bytes"}], r"cell 0: row: expected a text, got \[\]"),
        ([{"row": "a", "column": 12}], "cell 0: column: expected a text, got 12"),
        ([A_CELL, A_CELL], "cell 1: the second one of a, 9 bytes"),
        ([A_CELL | {"column": "DM"}], "cell 0: expected a number of bytes, got DM"),
        ([A_CELL | {"mean": True}], "cell 0: expected percent from 0 to 100, got True"),
        ([A_CELL | {"deviation": "1"}], "cell 0: expected percent from 0 to 100, got '1'"),
        ([A_CELL | {"deviation": -1}], "cell 0: expected percent from 0 to 100, got -1"),
    ],
)
def test_a_damaged_table_is_refused_by_cell(tmp_path, cells, reason):
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"cells": cells}))
    with pytest.raises(gsdd_jax.UsageError, match=reason):
        draw("budgets", from_table=str(path))


def test_federated_draws_what_was_sent(tmp_path):
    cells = [
        {"row": row, "column": "iid", "bytes": sent, "mean": mean, "deviation": None}
        for row, sent, mean in (("averaging", 200, 9.5), ("averaging", 100, 8.0), ("alone", 0, 7.0))
    ]
    path = tmp_path / "federated-results.json"
    path.write_text(json.dumps({"cells": cells}))
    draw("federated", from_table=str(path))
    found = rows_of(tmp_path, "federated")
    assert [(row["method"], row["bytes"], row["accuracy"]) for row in found] == [
        ("averaging", "200", "9.5"), ("averaging", "100", "8"), ("alone", "0", "7"),
    ]  # fmt: skip
    path.write_text(json.dumps({"cells": [cells[0] | {"row": "$\\frac{$", "column": "\ud800\0"}]}))
    draw("federated", from_table=str(path))
    for wrong in ({"bytes": "many"}, {"bytes": -1}, {"bytes": True}, {"mean": 1e308},
                  {"deviation": -1}):  # fmt: skip
        path.write_text(json.dumps({"cells": [cells[0] | wrong]}))
        with pytest.raises(gsdd_jax.UsageError, match="expected the federated table's JSON"):
            draw("federated", from_table=str(path))


def test_guidance_draws_the_cells_that_were_run(tmp_path):
    cells = [
        {"row": row, "column": f"{images} images per class", "mean": mean, "deviation": 0.5}
        for row, images, mean in (("6 bits", 60, 41.0), ("6 bits", 112, None), ("8 bits", 60, 42.5))
    ]
    path = tmp_path / "guidance-small.json"
    path.write_text(json.dumps({"cells": cells}))
    draw("guidance", from_table=str(path))
    one = {"figure": "guidance", "images": "60", "std": "0.5"}
    assert rows_of(tmp_path, "guidance") == [
        one | {"bits": "6 bits", "accuracy": "41"},
        one | {"bits": "8 bits", "accuracy": "42.5"},
    ]
    for content, message in (("[]", "expected a table"), ("{}", "expected the guidance table"),
                             ('{"cells": []}', "no cell of this table was run")):  # fmt: skip
        path.write_text(content)
        with pytest.raises(gsdd_jax.UsageError, match=message):
            draw("guidance", from_table=str(path))


# User errors


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("pruning", {}, "--distilled: expected one set, got 0"),
        ("convergence", {}, "--workdir: expected one or more"),
        ("landscape", {"distilled": ["x"], "points": 4}, "points: expected an odd number"),
        ("antialias", {"distilled": ["x"], "images": 0}, "--images: expected at least 1, got 0"),
        ("ellipses", {"workdir": ["x", "y"]}, "--workdir: expected one"),
        ("difficulty", {"distilled": ["x"], "judges": 0}, "--judges: expected at least 1"),
        ("pruning", {"distilled": ["x.safetensors"]}, "x.safetensors: expected a distilled set"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(name, values, message):
    with pytest.raises(gsdd_jax.UsageError) as raised:
        draw(name, **values)
    assert message in str(raised.value)


def test_a_directory_without_anything_else_goes_beside_what_it_is_made_from(run):
    draw("antialias", distilled=[str(run / "distilled.safetensors")], images=1)
    rows_of(run, "antialias")
    assert ellipses.spread([0, 1, 2, 3, 4, 5, 6], 3) == [0, 3, 6]
