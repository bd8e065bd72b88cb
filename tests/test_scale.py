"""What is counted of compiled programs, and the plan that follows, against counting by hand."""

import itertools
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import optax
import pytest
from conftest import QUICKLY
from jax import lax
from PIL import Image

from benchmarks import hlo, plan, scale
from gsdd_jax import UsageError, networks
from gsdd_jax.data.prepare import prepare
from gsdd_jax.networks import conv

ROOT = pathlib.Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def counted(function, *arguments):
    compiled = jax.jit(function).lower(*arguments).compile()
    return hlo.count(compiled.as_text()), compiled


@pytest.fixture(scope="module")
def found():
    """Of `tests.known_programs`, on four devices."""
    forced = f"{QUICKLY.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    result = subprocess.run(
        [sys.executable, "-m", "tests.known_programs"],
        capture_output=True,
        text=True,
        env={**os.environ, **QUICKLY, "XLA_FLAGS": forced, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_collectives_are_counted_as_often_as_they_run(found):
    known = found["known"]
    assert known["products"] == 2 * 2 * 6 * 10  # of one device's two rows
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


def convnet_products(side, width, classes, images):
    """Of a block and the classifier: forward, and of the gradients of their weights and inputs."""
    pairs = (3 * side - 2) ** 2  # of a pixel and a neighbour within the image
    block = 2 * images * 3 * width * pairs
    classifier = 2 * images * (side // 2) ** 2 * width * classes
    return block, classifier


def test_devices_share_the_products_of_a_step(found):
    """A student step: forward and the gradient of it, recomputed, and both differentiated."""
    one, four = found["tm"]
    assert one["products"] == 4 * four["products"] > 0
    assert one["calls"] == {}
    parameters = (27 * 4 + 3 * 4) + (16 * 16 * 4 * 10 + 10)
    longer = found["tm, longer"][0]
    more = longer["moved"]["all-reduce"] - four["moved"]["all-reduce"]
    # The gradients of all 40 images, not of the 24 drawn, once; of each step more, the student's.
    of_students = more - 16 * 32 * 32 * 3 * 4
    assert 3 * 4 * parameters <= of_students <= 3 * 3 * 4 * parameters
    # Whitening, and back: of the images that are drawn, or of all 40.
    whitening = 2 * 2 * 3072**2
    assert longer["products"] - 40 * whitening / 4 == 2 * (four["products"] - 24 * whitening / 4)
    block, classifier = convnet_products(32, 4, 10, images=8)
    gradient = 2 * block + 3 * classifier
    assert 3 * gradient < (one["products"] - 24 * whitening) / 3 < 5 * gradient


def test_distribution_matching_adds_up_means(found):
    one, four = found["dm"]
    block, _ = convnet_products(32, 4, 10, images=1)
    # 80 real images forward; 40 synthetic ones forward and, into the images, back.
    # And the weighted sums of the real ones' features.
    assert one["products"] == (80 + 2 * 40) * block + 2 * 80 * 16 * 16 * 4
    # On several devices the means of the synthetic ones are weighted sums as well.
    assert four["products"] == (one["products"] + 2 * 40 * 16 * 16 * 4) / 4


def test_distribution_matching_sends_no_images(found):
    """Two devices divide the classes, and two the images of a class."""
    moved = found["dm"][1]["moved"]
    means = 5 * (16 * 16 * 4) * 4
    gradients = 40 * (12288 // (4 * 18)) * 9 * 4  # of four images a class
    # Means of real and of synthetic images, the gradient of the latter, the loss.
    assert moved["all-reduce"] == gradients + 3 * means + 4
    chosen = 50_000 * 4  # the random numbers by which real images are drawn
    assert moved.keys() == {"all-reduce", "all-gather"} and moved["all-gather"] <= chosen


def test_experts_send_each_other_nothing(found):
    (row,) = found["experts"]
    assert row["calls"] == {} and row["moved"] == {}
    block, classifier = convnet_products(32, 4, 10, images=50_000)
    assert row["products"] == 2 * block + 3 * classifier  # of each device's one


@pytest.mark.parametrize("stride, padding, size", [(1, 1, 7), (2, 0, 6), (2, 2, 5)])
def test_products_of_a_convolution_and_its_gradients(stride, padding, size):
    def convolved(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    x, kernel = jnp.ones((2, size, size, 3)), jnp.ones((3, 3, 3, 5))
    out = jax.eval_shape(convolved, x, kernel).shape[1]
    pairs = sum(
        0 <= o * stride + k - padding < size and 0 <= p * stride + m - padding < size
        for o, p, k, m in itertools.product(range(out), range(out), range(3), range(3))
    )
    expected = 2 * 2 * 3 * 5 * pairs
    assert counted(convolved, x, kernel)[0].products == expected
    g = jnp.ones((2, out, out, 5))
    back, _ = counted(lambda x, k, g: jax.vjp(convolved, x, k)[1](g), x, kernel, g)
    assert back.products == 2 * expected


def test_products_of_the_convnet(monkeypatch):
    monkeypatch.setattr(conv, "_form", lambda *_: "lax")
    network = networks.build("convnet", image_shape=(16, 16, 3), num_classes=7, width=8, depth=2)

    def loss(params, images, labels):
        logits = network.apply(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    params = jax.eval_shape(network.init, jax.random.key(0))
    images, labels = jnp.zeros((5, 16, 16, 3)), jnp.zeros(5, jnp.int32)
    first, second = 2 * 5 * 3 * 8 * 46**2, 2 * 5 * 8 * 8 * 22**2
    classifier = 2 * 5 * (4 * 4 * 8) * 7
    assert counted(loss, params, images, labels)[0].products == first + second + classifier
    both, _ = counted(jax.value_and_grad(loss), params, images, labels)
    # No gradient goes into the images.
    assert both.products == 2 * first + 3 * second + 3 * classifier


def test_bytes_and_products_are_xlas_where_there_is_no_loop():
    def function(x, w, i):
        y = jnp.tanh(x @ w)
        rows = lax.dynamic_slice_in_dim(y, i, 3)
        return lax.dynamic_update_slice_in_dim(y, jnp.sin(rows), i + 1, 0), y.sum()

    counts, compiled = counted(function, jnp.ones((64, 32)), jnp.ones((32, 48)), jnp.int32(2))
    theirs = compiled.cost_analysis()
    assert counts.products == 2 * 64 * 32 * 48
    assert counts.products == pytest.approx(theirs["flops"], rel=0.1)  # it counts sines as well
    assert counts.bytes == pytest.approx(theirs["bytes accessed"], rel=0.02)


def test_a_loop_counts_as_often_as_it_runs_and_a_branch_by_its_share():
    def product(x):
        return jnp.tanh(x @ x)

    x, once = jnp.ones((16, 16)), 2 * 16**3
    looped, compiled = counted(lambda x: lax.fori_loop(0, 9, lambda _, x: product(x), x), x)
    assert looped.products == 9 * once
    assert hlo.count_once(compiled.as_text()).products == once
    drawn, _ = counted(lambda i, x: lax.switch(i, [product, jnp.sin, jnp.cos], x), jnp.int32(0), x)
    assert drawn.products == pytest.approx(once / 3)

    def until(x):
        return lax.while_loop(lambda x: x[0, 0] < 3, product, x)

    text = jax.jit(until).lower(x).compile().as_text()
    with pytest.raises(ValueError, match="the length of loop while"):
        hlo.count(text)
    assert hlo.count(text, unknown=5).products == 5 * once


@pytest.mark.parametrize(
    ("devices", "configs", "message"),
    [
        ("0", "", "--devices: expected numbers from 1 to 64, by commas, got '0'"),
        ("1,eight", "", "--devices: expected numbers from 1 to 64, by commas, got '1,eight'"),
        ("128", "", "--devices: expected numbers from 1 to 64, by commas, got '128'"),
        ("", "demo", "--configs: expected some of cifar10_tm_ipc1, .*, by commas, got 'demo'"),
    ],
)
def test_what_is_not_compiled(devices, configs, message):
    with pytest.raises(UsageError, match=message):
        scale.main(None, devices, configs)


ROW = dict(
    config="cifar100_tm_ipc50", part="distill", devices=8, products=2e12, bytes=3e9,
    operations=500.0, calls={"all-reduce": 4.0}, moved={"all-reduce": 8e6}, arguments=int(1e9),
    results=0, temporary=int(5e9), products_of_xla=1.0, bytes_of_xla=1.0,
)  # fmt: skip


def test_rows_are_written_as_they_come_and_others_stay(monkeypatch, tmp_path, capsys):
    path = tmp_path / "steps.json"
    path.write_text(json.dumps([ROW, ROW | dict(devices=1)]))
    new = ROW | dict(products=4e12)
    monkeypatch.setattr(scale, "compiled", lambda case, devices: iter([new]))
    scale.main(str(path), "8", "cifar100_tm_ipc50")
    assert json.loads(path.read_text()) == [ROW | dict(devices=1), new]
    assert "| cifar100_tm_ipc50 | distill | 8 | 4,000 | 3 | 500 | 4 all-reduce | 8 |" in (
        capsys.readouterr().out
    )


def test_seconds_of_a_step():
    machine = plan.Machine(
        bandwidth=1e12, products=1e13, inside=1e11, across=1e10, products_reached=0.5,
        bandwidth_reached=0.5, links_reached=0.5, launch=1e-6, latency_inside=1e-5,
        latency_across=1e-4,
    )  # fmt: skip
    seconds = plan.step_seconds(ROW, machine)
    # A ring sends what is added up twice, but for each device's own part.
    inside = 2 * 7 / 8 * 8e6 / 5e10 + 4e-5
    assert seconds == pytest.approx((0.4, 0.006, 0.0005, inside))
    assert seconds.total == pytest.approx(0.4 + inside) and seconds.limit == "products"
    across = plan.step_seconds(ROW | dict(devices=64), machine).network
    assert across == pytest.approx(2 * 63 / 64 * 8e6 / 5e9 + 4e-4)
    others = {"all-gather": 8e6, "reduce-scatter": 1e6, "collective-permute": 3.0}
    assert plan.sent(ROW | dict(moved=others)) == pytest.approx(7e6 + 7e6 + 3)


def test_sizes_of_an_experiment():
    numbers = 2 * 64 * 64 * 3 // 9 // 30 * 9  # of an image's Gaussians
    own = plan.sizes(plan.config_of("imagenet1k_dm_ipc1"))
    image = 64 * 64 * 3
    assert own == (30_000, 30_000 * numbers * 4, 1_281_167 * image, 256_000 * image, 0, 0)
    own = plan.sizes(plan.config_of("imagenet1k_tm_ipc1"))
    network = sum(9 * channels * 128 + 3 * 128 for channels in (3, 128, 128, 128))
    network += 4 * 4 * 128 * 1000 + 1000
    assert (own.read, own.store) == (2 * 4 * network, 50 * 51 * 4 * network)


def test_a_step_of_other_sizes():
    row = ROW | dict(devices=1, arguments=100e9, temporary=50e9)
    of = lambda name, ipc: plan.config_of(f"imagenet1k_{name}_ipc{ipc}")
    assert plan.scaled(row, of("tm", 1), of("tm", 1), 0) == row
    longer = plan.scaled(row, of("tm", 1), of("tm", 50), 0)
    # 30 student steps of 500 instead of 20 of 1000.
    assert longer["products"] == pytest.approx(0.75 * row["products"])
    assert longer["operations"] == pytest.approx(1.5 * row["operations"])
    assert longer["calls"] == {"all-reduce": 6.0}
    assert longer["moved"] == {"all-reduce": pytest.approx(1.5 * 8e6)}
    group = plan.scaled(row, of("dm", 1), of("dm", 50), 100)
    work = 0.1 * (256 + 3 * 400) / (256 + 3 * 30)
    assert group["products"] == pytest.approx(work * row["products"])
    few, many = (4 * 9 * 1000 * gpc * n for gpc, n in ((30, 91), (400, 341)))
    assert group["moved"] == {"all-reduce": pytest.approx(0.1 * many / few * 8e6)}
    # Parameters and two moments of every class; the images of the group, a gradient of every class.
    assert group["arguments"] == pytest.approx(100e9 + 3 * (many - few))
    assert group["temporary"] == pytest.approx(0.1 * 400 / 30 * (50e9 - few) + many)


def test_a_whole_run_by_hand():
    machine = plan.Machine()
    config = plan.config_of("imagenet1k_dm_ipc10")
    # A second each, by bytes alone.
    second = dict(
        products=0, operations=0, calls={}, moved={}, arguments=0, results=0, temporary=10,
        bytes=machine.bandwidth * machine.bandwidth_reached,
    )  # fmt: skip
    rows = [
        dict(config=name, part=part, devices=devices, **second)
        for name, part, devices in (
            ("imagenet1k_dm_ipc1", "distill", 8),
            ("imagenet1k_tm_ipc10", "fit", 8),
            ("imagenet1k_tm_ipc1", "experts", 1),
            ("imagenet1k_tm_ipc1", "evaluation", 1),
        )
    ]
    experiment = next(e for e in plan.EXPERIMENTS if e.config == "imagenet1k_dm_ipc10")
    run = plan.run(experiment, 8, rows, machine)
    assert (run.groups, run.experts) == (10, 0)
    assert run.fit == pytest.approx(50_000 / 3600)
    # A device has 13 of 100 classes instead of 125 of 1000: 256 real images, and 80 instead of 30.
    step = 13 / 125 * (256 + 3 * 80) / (256 + 3 * 30)
    assert config.distill.num_steps == 10 * 20_000  # as many passes as without groups
    assert run.distill == pytest.approx(step * 10 * 20_000 / 3600)
    # The set, the same only fitted, real images: once and four times as many as float32 ones.
    # Of five networks, which take a second for 30,000 images, each has a device of its own.
    images = 2 * 80_000 + 5 * 10_000
    expected = (config.evaluate.epochs + 1) * images / 30_000 / 5 / 3600
    assert run.evaluation == pytest.approx(expected)
    assert run.row == plan.scaled(rows[0], plan.config_of("imagenet1k_dm_ipc1"), config, 100)
    assert plan.run(experiment, 64, rows, machine) is None


def test_tiny_imagenet_is_made_of_its_archive(tmp_path):
    """By the commands of the document, from folders and a list as the archive has them."""
    text = (ROOT / "docs" / "own_data.md").read_text()
    (awk,) = re.findall(r"^(awk .*?val\.csv)$", text, re.DOTALL | re.MULTILINE)
    root = tmp_path / "tiny-imagenet-200"
    (root / "val" / "images").mkdir(parents=True)
    listed = ["n02", "n01", "n02"]
    for wnid in sorted(set(listed)):
        (root / "train" / wnid / "images").mkdir(parents=True)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
        for i in range(3):
            picture = Image.new("RGB", (64, 64), (40 * i, 80, 90))
            picture.save(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
    for i in range(len(listed)):
        Image.new("L", (64, 64), 50 * i).save(root / "val" / "images" / f"val_{i}.JPEG")
    (root / "val" / "val_annotations.txt").write_text(
        "".join(f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n" for i, wnid in enumerate(listed))
    )
    subprocess.run(["sh", "-c", awk], cwd=tmp_path, check=True)
    made = prepare(
        root / "train", "tiny_imagenet", test=root / "val" / "val.csv", data_dir=tmp_path / "sets"
    )
    assert made.class_names == ["n01", "n02"] and made.image_shape == (64, 64, 3)
    assert (made.train, made.test) == ([3, 3], [1, 2])


def test_the_document_has_the_plans_tables():
    rows = json.loads(plan.STEPS.read_text())
    document = plan.DOCUMENT.read_text()
    found = plan.tables(rows, plan.Machine())
    assert document == plan.renewed(document, found)
    assert all(f"<!-- {name} -->" in document for name in found)


def test_the_committed_rows_add_up():
    """That devices share a step, and that loops are counted: by the shapes of the experiments."""
    rows = json.loads(plan.STEPS.read_text())
    by_key = {(r["config"], r["part"], r["devices"]): r for r in rows}
    row = by_key["imagenet1k_dm_ipc1", "distill", 1]
    config = plan.config_of("imagenet1k_dm_ipc1")
    sides, channels = (64, 32, 16, 8), (3, 128, 128, 128)
    forward = [2 * c * 128 * (3 * s - 2) ** 2 for s, c in zip(sides, channels, strict=True)]
    real = 1000 * config.matching.options.batch_real * sum(forward)
    # Into the images, and forward once more for it: classes are recomputed.
    synthetic = 30_000 * (3 * sum(forward))
    assert row["products"] == pytest.approx(real + synthetic, rel=1e-3)
    epoch = by_key["imagenet1k_tm_ipc1", "experts", 1]
    tm = plan.config_of("imagenet1k_tm_ipc1")
    classifier = 2 * 4 * 4 * 128 * 1000
    gradient = 3 * (sum(forward) + classifier) - forward[0]
    expected = tm.experts.at_once * 1_281_167 * gradient
    assert epoch["products"] == pytest.approx(expected, rel=1e-3)
    for part, config, devices in ((r["part"], r["config"], r["devices"]) for r in rows):
        if part in ("distill", "fit") and devices == 1:
            assert by_key[config, part, 1]["calls"] == {}
    assert all(0.7 < r["products_of_xla"] <= 1.001 for r in rows if r["products"])
