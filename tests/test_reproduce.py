"""Tests tables: their pieces, sharing, choice of rates, and output."""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from configs import common, demo
from configs.tables import NAMES as TABLES
from configs.tables import load, methods
from gsdd_jax import networks
from gsdd_jax.core.errors import InUseError, UsageError
from gsdd_jax.core.files import locked, write_json
from gsdd_jax.runs import baselines, evaluation, experts, fits
from gsdd_jax.runs.progress import OneLine
from gsdd_jax.setup import cost
from gsdd_jax.setup import experts as stored
from gsdd_jax.setup.experiment import build_schedule
from gsdd_jax.tables import reproduce, table
from gsdd_jax.tables.table import Cell, Found, Mean, Table
from gsdd_jax.training import fit
from tools import merge_tables

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RATE = "distill.learning_rate"
ROOT = pathlib.Path(__file__).parent.parent


class World:
    """Replaces slow runs by results that count how often they were made."""

    def __init__(self, patch):
        self.runs, self.evaluations, self.trained, self.fitted = [], [], [], []
        self.diverge = self.taken = self.others = None
        patch.setattr(reproduce, "distill_to", self.distill)
        patch.setattr(evaluation, "evaluate_file", self.evaluate)
        patch.setattr(baselines, "evaluate_real", self.real)
        patch.setattr(experts, "train_all", self.train)
        patch.setattr(
            fits, "fit_to_share", lambda config, display: self.fitted.append(config.init.dir)
        )
        patch.setattr(fits, "is_there", lambda config: config.init.dir in self.fitted)
        patch.setattr(stored, "are_there", lambda config: config.experts.dir in self.trained)
        patch.setattr(reproduce, "why_not", lambda table_, piece: "")
        patch.setattr(reproduce, "cost_of", lambda piece: cost.Cost(10.0, 0))
        patch.setattr(reproduce, "WAIT", 0.0)

    def distill(self, config, workdir, display):
        rate = config.distill.learning_rate
        if rate == self.diverge:
            raise UsageError("distill: the loss is nan at step 3")
        if self.taken:
            self.taken -= 1
            raise InUseError("another process runs there")
        self.runs.append((rate, config.seed))
        accuracy = 50 - 10 * abs(math.log10(rate / 1e-2)) + config.seed
        result = {
            "distilled_accuracies": [accuracy - 1, accuracy + 1],
            "distilled_train_accuracy": accuracy,
        }
        write_json(workdir / "result.json", result)

    def evaluate(self, path, *, display, baselines, **settings):
        self.evaluations.append((path.parent.name, settings))
        return {"distilled_accuracies": [7.0], "corrupted": {"noise_accuracies": [3.0, 5.0]}}

    def real(self, config, arm, workdir, display):
        return {f"{arm}_accuracies": [15.0, 17.0]}

    def train(self, config, reporter):
        if self.others:
            self.others -= 1
            if not self.others:
                self.trained.append(config.experts.dir)
            raise InUseError("another process trains there")
        self.trained.append(config.experts.dir)


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def config(objective="dm"):
    made = common.get_config()
    common.matched_by(made, objective)
    return made


def run(tmp_path, *cells, means=()):
    table_ = Table("some-small", "Some", cells, means)
    stream = io.StringIO()
    found, failed = reproduce.reproduce(table_, tmp_path, OneLine(stream))
    assert bool(failed) == any(f.reason for f in found)
    return table_, found, stream.getvalue()


def test_the_rate_is_chosen_on_training_images_and_the_other_seeds_take_it(tmp_path, world):
    trials = tuple({RATE: rate} for rate in (1e-3, 1e-2, 1e-1))
    _, (found,), _ = run(tmp_path, Cell("a", "b", config(), trials=trials, seeds=(0, 1, 2)))
    assert sorted(world.runs) == [(1e-3, 0), (1e-2, 0), (1e-2, 1), (1e-2, 2), (1e-1, 0)]
    assert len(world.fitted) == 3  # one per seed, shared by the trials
    assert found.chosen == {RATE: 1e-2}
    assert found.accuracies == {0: [49.0, 51.0], 1: [50.0, 52.0], 2: [51.0, 53.0]}
    assert (found.mean, found.deviation) == (51.0, 1.0)


def test_parts_of_several_machines_are_merged(tmp_path, monkeypatch, capsys):
    trials = ({RATE: 0.1}, {RATE: 0.2})
    cells = tuple(Cell(row, "b", config(), "distilled", trials) for row in "abcd")
    table_ = Table("some-small", "Some", cells)

    def found(accuracies, *tried):
        known = zip(trials, [*tried, None, None], strict=False)
        return Found(accuracies, trials[0], tuple((t, tried, "") for t, tried in known), "why")

    half, more, tried = found({0: [1.0]}), found({0: [2.0], 1: [3.0]}), found({}, 7.0)
    table.write(table_, [half, half, found({}), Found()], tmp_path / "one")
    table.write(table_, [more, found({0: [4.0]}), tried, Found()], tmp_path / "two")
    table.write(table_, [more, half, tried, Found()], tmp_path / "expected")
    monkeypatch.setattr(merge_tables.tables, "load", lambda name, size: table_)
    one, two = (tmp_path / folder / "some-small.json" for folder in ("one", "two"))

    def main(*paths):
        flags = ("--table=codes", f"--out={tmp_path}", *map(str, paths))
        monkeypatch.setattr(sys, "argv", ["merge_tables.py", *flags])
        merge_tables.main()

    def changed(change):
        other = json.loads(two.read_text())
        change(other["cells"][0])
        write_json(tmp_path / "other.json", other)
        return tmp_path / "other.json"

    base = changed(lambda cell: cell["config"]["distill"].update(learning_rate=0.9))  # unused
    for paths in ((one, two), (two, one, base)):
        main(*paths)
        for kind in ("json", "csv", "md"):
            name = f"some-small.{kind}"
            if paths[0] == one:
                assert (tmp_path / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
        assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "some-small.json").read_text())["cells"][1]["mean"] == 4.0
    for change in (
        lambda cell: cell["config"].update(seed=9),
        lambda cell: cell["trials"][1]["settings"].update({RATE: 0.3}),
    ):
        main(one, changed(change))
        assert "other.json: a, b: left out, with other settings" in capsys.readouterr().out
        assert json.loads((tmp_path / "some-small.json").read_text())["cells"][0]["mean"] == 1.0
    for change, line in (
        (lambda cell: cell.update(row="e"), "e, b: no cell of this table"),
        (lambda cell: cell.pop("trials"), "expected files that launch.reproduce wrote"),
    ):
        with pytest.raises(SystemExit, match=line):
            main(one, changed(change))


def test_only_a_part_is_run_and_all_results_are_written(tmp_path, world):
    changed = lambda rate: {"config": config(), "trials": ({RATE: rate},), "seeds": (0, 1)}
    cells = [Cell(row, "x", **changed(rate)) for row, rate in (("a", 1e-2), ("b", 0.1))]
    table_ = Table("some-small", "Some", (*cells, Cell("b", "y", config(), seeds=(0, 1))))
    reproduce.reproduce(table_, tmp_path, OneLine(io.StringIO()), table_.part(["a"]))
    assert world.runs == [(1e-2, 0), (1e-2, 1)]
    part = table_.part(["b"], ["y"], 1)
    names = [name for name, *_ in reproduce.plan(table_, tmp_path, part) if "run" in name]
    (found, missing, other), _ = reproduce.reproduce(table_, tmp_path, OneLine(io.StringIO()), part)
    assert world.runs[2:] == [(1e-3, 0)] and len(names) == 1
    assert found.accuracies.keys() == {0, 1} and other.accuracies.keys() == {0}
    assert not missing.accuracies and table_.part() == table_.cells
    wrong = ({"rows": ["z"]}, {"columns": ["z"]}, {"rows": ["a"], "columns": ["y"]}, {"seeds": 3})
    for given in wrong:
        with pytest.raises(UsageError, match=r"expected (one|0 \(all\) to 2)"):
            table_.part(**given)


def test_what_is_done_is_not_run_again_and_what_is_shared_once(tmp_path, world):
    one = Cell("a", "b", config("tm"), seeds=(0, 1))
    other = Cell("c", "b", config("tm"), evaluation={"resolution": 64})
    run(tmp_path, one, other)
    assert world.runs == [(1e-3, 0), (1e-3, 1)]
    assert len(world.evaluations) == 1
    assert len(world.fitted) == len(world.trained) == 2  # each seed has its own
    run(tmp_path, one, other)
    assert len(world.runs) == len(world.trained) == 2 and len(world.evaluations) == 1
    world.trained.clear()
    world.fitted.clear()
    run(tmp_path, one, other)  # the results are enough
    assert not world.trained and not world.fitted
    other_experts = config("tm")
    other_experts.experts.epochs = 3
    run(tmp_path, Cell("a", "b", other_experts))
    assert len(world.trained) == 1


def test_a_cell_of_an_evaluation_takes_the_value_it_names(tmp_path, world):
    cells = [
        Cell("a", "own", config(), evaluation={"resolution": 64}),
        Cell(
            "a", "noise", config(), evaluation={"corrupted": ["noise"]},
            value="corrupted/noise_accuracies",
        ),
        Cell("real", "own", config(), arm="random_real"),
    ]  # fmt: skip
    _, found, _ = run(tmp_path, *cells)
    assert [f.mean for f in found] == [7.0, 4.0, 16.0]


def test_a_failed_piece_costs_its_cells_only(tmp_path, world):
    world.diverge = 1e-1
    trials = ({RATE: 1e-2}, {RATE: 1e-1})
    cells = (
        Cell("searched", "b", config(), trials=trials),
        Cell("searched", "c", config(), trials=trials),
        Cell("lost", "b", config(), trials=({RATE: 1e-1},)),
        Cell("fine", "b", config(), trials=({RATE: 1e-3},)),
    )
    table_, (searched, again, lost, fine), _ = run(tmp_path, *cells)
    assert searched.chosen == {RATE: 1e-2} and searched.mean == 50.0
    assert lost.mean is None and lost.reason == "distill: the loss is nan at step 3"
    assert fine.mean == 40.0
    text = table.markdown(table_, [searched, again, lost, fine])
    assert "- lost (b): distill: the loss is nan at step 3" in text
    tried = "(and 1 more of the same): distill.learning_rate=0.01: 50.0 (taken); "
    assert text.count(tried) == 1 and f"- searched, b {tried}" in text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("Unable to allocate 9 TiB"), "out of memory (Unable to allocate 9 TiB)"),
        (
            jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\n..."
            ),
            "out of memory (Out of memory allocating 9 bytes.)",
        ),
        (TypeError("no such\nthing"), "TypeError: no such"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_piece_raises_the_others_go_on(tmp_path, monkeypatch, world, error, reason):
    distill = world.distill

    def raising(config, *rest):
        if config.distill.learning_rate == 1e-1:
            raise error
        distill(config, *rest)

    monkeypatch.setattr(reproduce, "distill_to", raising)
    cells = [Cell(f"{rate:g}", "b", config(), trials=({RATE: rate},)) for rate in (1e-1, 1e-3)]
    _, (lost, fine), _ = run(tmp_path, *cells)
    assert (lost.mean, lost.reason, fine.mean) == (None, reason, 40.0)
    assert f"- 0.1 (b): {reason}" in (tmp_path / "some-small.md").read_text()


def test_a_damaged_result_costs_its_cell_only(tmp_path, world):
    cells = [Cell(f"{rate:g}", "b", config(), trials=({RATE: rate},)) for rate in (1e-2, 1e-3)]
    _, (first, _), _ = run(tmp_path, *cells)
    assert first.mean == 50.0
    damaged, _ = sorted(tmp_path.rglob("result.json"), key=lambda p: p.stat().st_mtime_ns)
    damaged.write_text("{")
    _, (lost, fine), _ = run(tmp_path, *cells)
    assert (lost.mean, fine.mean) == (None, 40.0) and str(damaged) in lost.reason


def test_the_command_says_that_pieces_failed(tmp_path):
    script = """
import runpy, sys
from configs.tables import cifar
from gsdd_jax.tables import reproduce, table
found = [table.Found() for _ in cifar.get_table("small").cells]
reproduce.reproduce = lambda *_: (found, {"run a": "out of memory", "run b": "why"})
sys.argv = ["-m", "--table=cifar", *sys.argv[1:]]
runpy.run_module("launch.reproduce", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, f"--root={tmp_path}"], cwd=ROOT, text=True,
        capture_output=True, env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert f"written to {tmp_path / 'cifar-small'}.md" in done.stdout
    assert done.stderr == "error: 2 pieces failed, the first is run a: out of memory\n"
    assert done.returncode == 2


def test_a_run_waits_for_experts_that_another_process_trains(tmp_path, world, monkeypatch):
    """Waits for experts and for a run's directory; a run that needs no experts goes first."""
    world.others, world.taken, begun = 3, 3, []

    def distill(config, workdir, display):
        begun.append((config.matching.name, config.experts.dir in world.trained))
        world.distill(config, workdir, display)

    monkeypatch.setattr(reproduce, "distill_to", distill)
    cells = (Cell("a", "tm", config("tm")), Cell("a", "dm", config("dm")))
    _, (tm, dm), _ = run(tmp_path, *cells)
    assert begun[0] == ("dm", False) and ("tm", True) in begun and ("tm", False) not in begun
    assert tm.mean == dm.mean == 40.0 and not tm.reason


def test_experts_that_fail_cost_only_those_who_need_them(tmp_path, world, monkeypatch):
    def train(config, reporter):
        raise UsageError("experts: the loss is nan at epoch 3")

    monkeypatch.setattr(experts, "train_all", train)
    tm = Cell("a", "tm", config("tm"))
    seen = dataclasses.replace(tm, column="seen", evaluation={"resolution": 64})
    _, found, _ = run(tmp_path, tm, seen, Cell("a", "dm", config("dm")))
    assert [f.reason for f in found] == ["experts: the loss is nan at epoch 3"] * 2 + [""]
    assert [f.mean for f in found] == [None, None, 40.0] and not world.evaluations


def test_evaluations_of_two_processes_do_not_meet(tmp_path, world):
    cell = Cell("real", "b", config(), arm="random_real")
    piece = reproduce.Folder(tmp_path).piece(cell, {}, 0)
    piece.result.parent.mkdir(parents=True)
    with locked(piece.result.parent, "taken"), pytest.raises(InUseError):
        piece.run(OneLine(io.StringIO()))


def test_the_files_hold_our_number_the_published_one_and_the_difference(tmp_path, world):
    cells = (
        Cell("a", "x", config(), published=39.5),
        Cell("b", "x", config(), trials=({RATE: 1e-2},)),
    )
    run(tmp_path, *cells, means=(Mean("mean", "x", ("a", "b"), 44.0),))
    text = (tmp_path / "some-small.md").read_text()
    assert "| a | 40.0 ± 1.4 (39.5, +0.5) |" in text
    assert "| b | 50.0 ± 1.4 |" in text
    assert "| mean | 45.0 (44.0, +1.0) |" in text
    rows = list(csv.DictReader(io.StringIO((tmp_path / "some-small.csv").read_text())))
    assert [(r["row"], float(r["mean"])) for r in rows] == [
        ("a", 40.0),
        ("b", 50.0),
        ("mean", 45.0),
    ]
    assert float(rows[0]["difference"]) == 0.5 and rows[1]["published"] == ""
    kept = json.loads((tmp_path / "some-small.json").read_text())
    assert kept["cells"][0]["accuracies"] == {"0": [39.0, 41.0]}
    assert kept["cells"][0]["config"]["distill"]["learning_rate"] == 1e-3


def test_a_deviation_of_one_seed_is_that_of_its_networks():
    assert Found({0: [1.0, 3.0]}, {}).deviation == pytest.approx(2**0.5)
    assert Found({0: [1.0, 3.0], 1: [4.0, 4.0]}, {}).deviation == pytest.approx(2**0.5)
    assert Found({0: [1.0]}, {}).deviation is None


def test_the_line_says_what_is_done_and_what_is_left(tmp_path, world):
    _, _, text = run(tmp_path, *(Cell(str(i), "b", config(), seeds=(i,)) for i in range(3)))
    first, *_, last = text.splitlines()
    assert first.startswith("some-small 0/3 cells, fit gaussian ")
    assert first.endswith("01:00 left") and "2/3 cells, run cifar10_mini-dm-gaussian-seed2-" in last


@pytest.mark.parametrize("size", ["small", "paper"])
@pytest.mark.parametrize("name", TABLES)
def test_every_table(name, size, monkeypatch):
    """Each row stands in each column once, and every config makes an experiment's parts."""
    table_ = load(name, size)
    places = [(cell.row, cell.column) for cell in table_.cells]
    assert len(places) == len(set(places))
    assert table_.needs_gpu == (size == "paper")
    monkeypatch.setattr(cost, "_step", lambda network: cost.Cost(1e-4, 1000))
    monkeypatch.setattr(cost, "_fit_step", lambda stored, images: cost.Cost(1e-5, 1000))
    folder, pieces = reproduce.Folder("somewhere"), {}
    for cell in table_.cells:
        needed = folder.piece(cell, cell.trials[0], cell.seeds[0]).in_order()
        pieces |= {piece.name: piece for piece in needed}
    assert all(piece.cost().seconds > 0 for piece in pieces.values())
    if size == "small" and name == "cifar":
        searched = [c for c in table_.cells if c.arm == "distilled"]
        assert {len(c.trials) for c in searched} == {4} and {len(c.seeds) for c in searched} == {3}


def test_a_labeler_costs_its_training_and_a_look_at_every_view(monkeypatch):
    """Expects a step to cost the network's width, and a look a third of the labeler's."""
    monkeypatch.setattr(
        cost, "_step", lambda network: cost.Cost(network.module.body.width / 1000, 1)
    )
    config = demo.get_config()  # 3 networks of width 32, 3,000 training and 1,000 test images
    config.evaluate.update(rates="", epochs=10, num_networks=3)
    config.teacher.update(epochs=5, num_networks=2)
    config.labels.width = 8
    seconds = lambda arm: cost.of_evaluation(config, {"arm": arm} if arm else {}).seconds
    images = 10 * 300 * (3 + 3)  # of all epochs and networks, those of 3 trials, too
    teacher = cost.COMPILING + 5 * 3000 * 8 / 1000
    more = seconds("random_real_dct_labeler") - seconds("random_real_dct")
    assert more == pytest.approx(images * 8 / 3000 + teacher)
    before = seconds("")
    config.labels.source = "labeler"
    assert seconds("") - before == pytest.approx(10 * 300 * 3 * 8 / 3000)


@pytest.mark.parametrize("name", ["gaussian", "quantized"])
def test_the_cost_of_a_fit_has_every_gaussian_once(name):
    """Expects the memory of the real fit, whichever images the timed step has."""
    made = demo.get_config()
    if name == "quantized":
        common.quantized(made, 120)
    estimated = cost.of_fit(made).bytes - cost.sizes(made).numbers
    kind = cost.build_stored(made, cost.sizes(made))
    images = jnp.zeros((10 * kind.images_per_class, 32, 32, 3))
    state = jax.eval_shape(lambda: fit.start(kind, jax.random.key(0), images, 0.1))
    compiled = fit.run.lower(kind, state, images, 0.1, 1).compile()
    taken = compiled.memory_analysis().temp_size_in_bytes
    assert 0.3 < estimated / taken < 3, (estimated, taken)


def test_published_numbers_are_the_papers():
    cifar = load("cifar", "paper")
    published = {(c.row, c.column): c.published for c in cifar.cells}
    assert published["Gaussians", "cifar10_ipc1"] == 67.6
    assert published["DDiF", "cifar100_ipc50"] == 49.9
    assert published["pixels", "cifar10_ipc10"] == 65.3
    assert published["NSD", "cifar100_ipc10"] == 46.1 and published["HMN", "cifar10_ipc1"] == 65.7
    assert published["FRePo, pixels", "cifar100_ipc1"] == 28.7
    assert published["FRePo, Gaussians", "cifar100_ipc1"] is None
    named = {name for name, number in methods.PUBLISHED["cifar"]["rows"].items() if number[0]}
    rows = {method.published for method in (methods.METHODS | methods.SHARING).values()}
    assert named - rows == {"TM", "FRePo"}
    tm = load("imagenet128_tm", "paper")
    published = {(c.row, c.column): c.published for c in tm.cells}
    assert published["SPEED", "squawk"] == 60.9
    dc = load("imagenet128_dc", "paper")
    published = {(c.row, c.column): c.published for c in dc.cells}
    assert published["Gaussians", "squawk"] == 69.4 and published["DDiF", "yellow"] is None
    across = load("cross_architecture", "paper")
    published = {(c.row, c.column): c.published for c in across.cells}
    averages = {(m.row, m.column): m.published for m in across.means}
    for optimizer in ("SGD", "Adam"):
        assert published["Gaussians, ViT", f"meow, {optimizer}"] == 25.8
        assert averages["FreD, mean", f"nette, {optimizer}"] == 36.2


@pytest.mark.parametrize("size", ["paper", "small"])
def test_other_networks_are_trained_by_both_optimizers(size):
    """SGD of the published code, and what it takes for the Adam of the paper's text."""
    cells = load("cross_architecture", size).cells
    found = {
        (c.row, c.column.rpartition(", ")[2]): c.evaluation["overrides"]["evaluate.optimizer"]
        for c in cells
    }
    names = {"SGD": "sgd_cosine", "Adam": "adamw"}
    rows = {row for row, _ in found}
    assert len(rows) == {"paper": 5, "small": 10}[size] * 4
    assert found == {(r, s): o for r in rows for s, o in names.items()}
    rates = {"alexnet": 1e-3, "vgg11": 1e-2, "resnet18": 1e-2, "vit": 5e-5}
    assert {name: networks.find(name).rate_across for name in rates} == rates


@pytest.mark.parametrize("name", ["cifar", "cross_architecture", "cross_resolution", "gpc_sweep"])
def test_sets_of_small_tables_train_alike(name):
    """About as many steps for every set, in batches of nearly equal size."""
    cells = load(name, "small").cells
    for cell in cells:
        config = cell.config.copy_and_resolve_references()
        overrides = cell.evaluation.get("overrides", {})
        config.update_from_flattened_dict({k: v for k, v in overrides.items() if "evaluate" in k})
        schedule, images = build_schedule(config), methods.num_images(config)
        aim, batch = 80 if overrides else 400, schedule.batch(images)
        parts = math.ceil(images / batch)
        assert aim <= schedule.num_steps(images) < aim + parts, (cell.row, cell.column)
        assert batch <= 256 and parts * batch - images < parts


def tiny(made):
    """Returns a table's config, shrunk for tests, on the shipped set."""
    made = made.copy_and_resolve_references()
    small = demo.get_config()
    made.data = small.data
    made.data.resolution = 8
    made.network.options.width, made.network.options.depth = 2, 1
    made.matching.strategy = ""
    made.init.num_steps = min(made.init.num_steps, 2)
    made.distill.num_steps, made.distill.checkpoint_every = 1, 10
    made.distill.eval_every = 0
    made.evaluate.num_networks, made.evaluate.epochs = 1, 1
    made.teacher.num_networks, made.teacher.epochs = 1, 1
    made.budget.ipc, made.budget.images_per_class = 1, min(made.budget.images_per_class, 2)
    options = made.matching.options
    if made.matching.name == "tm":
        made.experts.num_experts, made.experts.epochs = 1, 1
        options.syn_steps, options.batch_syn = 2, 10
        options.max_start_epoch, options.expert_epochs = 1, 1
    else:
        options.batch_real = 4
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Returns one root for all tables: shared pieces are made once."""
    return tmp_path_factory.mktemp("tables")


# TM, DM and DC; Gaussians, codes and shared arrays; evaluations of other networks and worse images.
KINDS = ("cross_architecture", "cross_resolution", "imagenet128_dc", "codes")


@pytest.mark.parametrize("name", KINDS)
def test_a_tiny_cell_of_every_kind_runs(name, root, monkeypatch):
    monkeypatch.setattr(reproduce.jax, "clear_caches", lambda: None)  # programs are alike here
    made = load(name, "small")
    cell = next(c for c in reversed(made.cells) if c.arm == "distilled")
    evaluation = dict(cell.evaluation)
    if "overrides" in evaluation:  # a network that takes seconds
        evaluation["overrides"] = {"network.name": "convnet", "network.options.width": 2}
    long = ("distill.num_steps", "experts.epochs", "matching.options.max_start_epoch")
    trial = {field: value for field, value in cell.trials[0].items() if field not in long}
    shrunk = Cell(
        cell.row, cell.column, tiny(cell.config), trials=(trial,),
        evaluation=evaluation, value=cell.value,
    )  # fmt: skip
    stream = io.StringIO()
    table_ = Table(made.name, made.title, (shrunk,))
    (found,), _ = reproduce.reproduce(table_, root, OneLine(stream))
    assert found.reason == "" and 0 <= found.mean <= 100
    assert (root / f"{made.name}.md").read_text().count(cell.row) == 1
    left = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    reproduce.reproduce(table_, root, OneLine(stream))
    again = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert {p.name for p in left if left[p] != again[p]} <= {
        f"{made.name}.{kind}" for kind in ("md", "csv", "json")
    }


def test_what_keeps_many_pieces_from_running_is_said_once():
    long = "no: no data: " + "a data set that is not on disk; " * 8
    pieces = [(f"run {i}", long, cost.Cost(3600.0, 2**30)) for i in range(3)]
    pieces += [("run 3", "no: no GPU", None), ("fit", "done", cost.Cost(7200.0, 0))]
    text = table.listed(pieces)
    lines = text.splitlines()
    assert text.count("not on disk") == 8
    assert lines[1] == "    1.00    1.0  run 0: no, (1)"
    assert lines[4].endswith("run 3: no: no GPU")
    assert lines[6].startswith("    3.00 hours on this machine for what is not done, 5 pieces")
    assert lines[7] == f"(1) {long.removeprefix('no: ')}"
