"""The counts of compiled programs, and the plan that follows, against counting by hand."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks import hlo, plan, scale
from configs import load
from gsdd_jax import UsageError, rasterize
from gsdd_jax.rasterizer import gaussians
from tests.conftest import QUICKLY

ROOT = pathlib.Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def counted(function, *arguments):
    compiled = jax.jit(function).lower(*arguments).compile()
    return hlo.count(compiled), compiled.cost_analysis()


def product(x):
    return jnp.tanh(x @ x)


ONCE = 2 * 16**3  # FLOPs of `product` on 16 x 16; XLA counts hyperbolic tangents by themselves


def test_a_program_without_loops_costs_what_xla_says():
    def function(x, w, i):
        y = jnp.tanh(x @ w)
        rows = lax.dynamic_slice_in_dim(y, i, 3)
        return lax.dynamic_update_slice_in_dim(y, jnp.sin(rows), i + 1, 0), y.sum()

    row, theirs = counted(function, jnp.ones((64, 32)), jnp.ones((32, 48)), jnp.int32(2))
    assert (row["flops"], row["bytes"]) == (theirs["flops"], theirs["bytes accessed"])
    assert 2 * 64 * 32 * 48 < row["flops"] < 1.1 * 2 * 64 * 32 * 48


@pytest.mark.parametrize(
    "times, function",
    [
        (9, lambda x: lax.fori_loop(0, 9, lambda _, x: product(x), x)),
        (12, lambda x: lax.fori_loop(
            0, 4, lambda _, x: lax.fori_loop(0, 3, lambda _, x: product(x), x), x)),
        (1, lambda x: lax.while_loop(lambda x: x[0, 0] < 3, product, x)),  # nobody knows how often
    ],
)  # fmt: skip
def test_a_loop_costs_as_often_as_it_runs(times, function):
    row, _ = counted(function, jnp.ones((16, 16)))
    assert times * ONCE <= row["flops"] < 1.01 * times * ONCE + 10


def test_a_branch_costs_its_share():
    x, branches = jnp.ones((16, 16)), [product, jnp.sin, jnp.cos]
    row, theirs = counted(lambda i, x: lax.switch(i, branches, x), jnp.int32(0), x)
    assert row["flops"] == pytest.approx(ONCE / 3, rel=0.01) and theirs["flops"] >= ONCE


def test_bytes_of_custom_calls_and_of_fused_gathers():
    g = gaussians.init(jax.random.key(0), 2, 5, height=8, width=8)
    parameters = g.means, g.cholesky, g.colors, g.opacities
    render = lambda *p: rasterize(*p, height=8, width=8, backend="native")
    row, theirs = counted(render, *parameters)
    assert theirs["bytes accessed"] < 0  # XLA does not know
    assert row["bytes"] == 4 * (2 * 5 * 9 + 2 * 8 * 8 * 3) and row["flops"] == 0
    x, chosen = jnp.ones((1000, 64)), jnp.arange(7)
    row, theirs = counted(lambda x, i: jnp.sin(x[i]), x, chosen)
    assert row["bytes"] == 4 * (2 * 7 * 64 + 7) and theirs["bytes accessed"] > x.nbytes


@pytest.fixture(scope="module")
def found():
    """The rows of `tests.known_programs`, on one device and on four."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.known_programs"],
        capture_output=True,
        text=True,
        env={**os.environ, **QUICKLY},
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_collectives_are_counted_as_often_as_they_run(found):
    known = found["known"]
    assert known["calls"] == {
        "all-reduce": 7,
        "all-gather": 3 * 4,
        "reduce-scatter": 1,
        "collective-permute": 1,
        "all-to-all": 1,
    }
    assert known["moved"] == {
        "all-reduce": 7 * 5 * 4,  # floats of four bytes
        "all-gather": 12 * (4 * 2 * 10) * 4,
        "reduce-scatter": 2 * 4,
        "collective-permute": 2 * 3 * 4,
        "all-to-all": 4 * 2 * 4,
    }


def test_devices_share_a_step_of_trajectory_matching(found):
    one, four = found["tm"]
    assert one["flops"] == pytest.approx(4 * four["flops"], rel=0.01) and one["calls"] == {}
    assert one["sent"] == 0 < four["sent"]
    # Whitening, and back, of the images that are drawn or of all 40, is nearly all there is.
    whitening = 2 * 2 * 3072**2
    assert 24 * whitening < one["flops"] < 1.1 * 24 * whitening
    longer = found["longer"][0]
    more = longer["moved"]["all-reduce"] - four["moved"]["all-reduce"]
    # The gradients of all 40 images, not of the 24 drawn, once; of each step more, the student's.
    parameters = (27 * 4 + 3 * 4) + (16 * 16 * 4 * 10 + 10)
    of_students = more - 16 * 32 * 32 * 3 * 4
    assert 3 * 4 * parameters <= of_students <= 3 * 3 * 4 * parameters


def test_distribution_matching_adds_up_means_and_sends_no_images(found):
    one, four = found["dm"]
    # 80 real images forward; 40 synthetic ones forward and, into the images, back.
    forward = 2 * 3 * 4 * (3 * 32 - 2) ** 2  # pairs of a pixel and a neighbour within the image
    assert (80 + 2 * 40) * forward < one["flops"] < 1.5 * (80 + 2 * 40) * forward
    assert one["flops"] / 4 < four["flops"] < one["flops"] / 2  # every device draws on its own
    # Two devices divide the classes, and two the images of a class. They add up means of real and
    # of synthetic images, the gradient of the latter, that of four images per class, and the loss.
    means = 5 * (16 * 16 * 4) * 4
    gradients = 40 * (12288 // (4 * 18)) * 9 * 4
    assert four["moved"]["all-reduce"] == gradients + 3 * means + 4
    chosen = 50_000 * 4  # the random numbers by which real images are drawn
    assert four["moved"].keys() == {"all-reduce", "all-gather"}
    assert four["moved"]["all-gather"] <= chosen


def test_experts_send_each_other_nothing(found):
    (row,) = found["experts"]
    assert row["calls"] == {} and row["sent"] == 0
    forward = 2 * 50_000 * 3 * 4 * (3 * 32 - 2) ** 2
    classifier = 2 * 50_000 * 16 * 16 * 4 * 10
    gradient = 2 * forward + 3 * classifier
    assert gradient < row["flops"] < 1.5 * gradient  # of each device's one


@pytest.mark.parametrize(
    ("devices", "configs", "message"),
    [
        ("0", "", "--devices: expected numbers from 1 to 64, by commas, got '0'"),
        ("1,eight", "", "--devices: expected numbers from 1 to 64, by commas, got '1,eight'"),
        ("128", "", "--devices: expected numbers from 1 to 64, by commas, got '128'"),
        ("", "demo", "--configs: expected some of cifar100_tm:ipc=50, .*, by commas, got 'demo'"),
    ],
)
def test_what_is_not_compiled(devices, configs, message):
    with pytest.raises(UsageError, match=message):
        scale.main(None, devices, configs)


ROW = dict(
    config="cifar100_tm:ipc=50", part="distill", devices=8, flops=2e12, bytes=3e9,
    operations=500.0, calls={"all-reduce": 4.0}, moved={"all-reduce": 8e6}, sent=14e6,
    arguments=int(1e9), results=0, temporary=int(5e9),
)  # fmt: skip


def test_rows_are_written_as_they_come_and_others_stay(monkeypatch, tmp_path, capsys):
    path = tmp_path / "steps.json"
    path.write_text(json.dumps([ROW, ROW | dict(devices=1)]))
    new = ROW | dict(flops=4e12)
    monkeypatch.setattr(scale, "as_on_gpus", lambda count: None)
    monkeypatch.setattr(scale.programs, "rows", lambda *_: iter([new]))
    scale.main(str(path), "8", "cifar100_tm:ipc=50")
    assert json.loads(path.read_text()) == [ROW | dict(devices=1), new]
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line[:6] == ["cifar100_tm:ipc=50", "distill", "8", "4e+12", "3e+09", "500"]


def test_bytes_sent_in_rings():
    moved = {"all-reduce": 8e6, "all-gather": 8e6, "reduce-scatter": 1e6, "collective-permute": 3.0}
    # A ring sends what is added up twice, but for each device's own part.
    assert hlo.sent(moved, 8) == pytest.approx(2 * 7e6 + 7e6 + 7e6 + 3)
    assert hlo.sent({}, 1) == 0


def test_seconds_of_a_step():
    machine = plan.Machine(
        bandwidth=1e12, flops=1e13, inside=1e11, across=1e10, flops_reached=0.5,
        bandwidth_reached=0.5, links_reached=0.5, launch=1e-6, latency_inside=1e-5,
        latency_across=1e-4,
    )  # fmt: skip
    seconds = plan.step_seconds(ROW, machine)
    inside = 14e6 / 5e10 + 4e-5
    assert seconds == pytest.approx((0.4, 0.006, 0.0005, inside))
    assert seconds.total == pytest.approx(0.4 + inside) and seconds.limit == "flops"
    across = plan.step_seconds(ROW | dict(devices=64), machine).network
    assert across == pytest.approx(14e6 / 5e9 + 4e-4)


def test_sizes_of_an_experiment():
    numbers = 2 * 64 * 64 * 3 // 9 // 30 * 9  # of an image's Gaussians
    network = sum(9 * channels * 128 + 3 * 128 for channels in (3, 128, 128, 128))
    network = 4 * (network + 4 * 4 * 128 * 1000 + 1000)
    image, real = 64 * 64 * 3, 1_281_167 * 64 * 64 * 3
    own = plan.sizes("imagenet1k_dm:ipc=1")
    assert own == (1000, 30_000, 30_000 * numbers * 4, real, 256_000 * image, network, 0)
    own = plan.sizes("imagenet1k_tm:ipc=1")
    assert own == (1000, 30_000, 30_000 * numbers * 4, real, 0, network, 50 * 51 * network)
    # A hundred classes at a time.
    assert plan.sizes("imagenet1k_dm:ipc=10").drawn == 25_600 * image


def test_a_whole_run_by_hand():
    machine, config = plan.Machine(), load("imagenet1k_tm:ipc=10")
    # A second each, by bytes only.
    second = ROW | dict(
        flops=0, operations=0, calls={}, sent=0, bytes=machine.bandwidth * machine.bandwidth_reached
    )
    rows = dict.fromkeys(("distill", "fit", "experts", "evaluation"), second)
    run = plan.run("imagenet1k_tm:ipc=10", rows, machine)
    assert run.experts == pytest.approx(-(-50 // 8) * 50 / config.experts.at_once / 3600)
    assert run.fit == pytest.approx(50_000 / 3600) and run.distill == pytest.approx(10_000 / 3600)
    # The set, the same only fitted, real images: once and four times as many as float32 ones.
    images = (2 * 80_000 + 5 * 10_000) / 80_000
    assert run.evaluation == pytest.approx((config.evaluate.epochs + 1) * images / 3600)
    assert run.memory == 6e9 + 1_281_167 * 64 * 64 * 3
    dm = plan.run("imagenet1k_dm:ipc=10", rows, machine)
    assert dm.experts == 0 and dm.memory == 6e9 and dm.distill == pytest.approx(200_000 / 3600)


def test_the_document_has_the_plans_tables():
    document = plan.DOCUMENT.read_text()
    found = plan.tables(json.loads(plan.STEPS.read_text()), plan.Machine())
    assert document == plan.renewed(document, found)
    assert all(f"<!-- {name} -->" in document for name in found)


def test_the_committed_rows_add_up():
    """FLOPs by the shapes of the experiments: loops are counted, and devices share a step."""
    rows = json.loads(plan.STEPS.read_text())
    by_key = {scale.key(row): row for row in rows}
    row = by_key["imagenet1k_dm:ipc=1", "distill", 1]
    sides, channels = (64, 32, 16, 8), (3, 128, 128, 128)
    forward = [2 * c * 128 * (3 * s - 2) ** 2 for s, c in zip(sides, channels, strict=True)]
    # Into the images, and forward once more for it: classes are recomputed.
    expected = 1000 * 256 * sum(forward) + 30_000 * 3 * sum(forward)
    assert expected < row["flops"] < 1.01 * expected
    assert by_key["imagenet1k_dm:ipc=1", "distill", 8]["flops"] < 1.01 / 8 * row["flops"]
    epoch = by_key["imagenet1k_tm:ipc=1", "experts", 1]
    gradient = 3 * (sum(forward) + 2 * 4 * 4 * 128 * 1000) - forward[0]
    expected = load("imagenet1k_tm:ipc=1").experts.at_once * 1_281_167 * gradient
    assert expected < epoch["flops"] < 1.01 * expected
    assert all(row["calls"] == {} for row in rows if row["devices"] == 1)
