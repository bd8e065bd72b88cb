"""Tests baselines of real images, compressed to the bytes of the distilled set."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from configs import demo
from gsdd_jax import data
from gsdd_jax.config import own, suited
from gsdd_jax.core.errors import UsageError
from gsdd_jax.report import document
from gsdd_jax.runs import baselines, evaluation, teacher
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.progress import Reporter
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")

BYTES, CLASSES = 300, 10
ARMS = ("random_real_dct", "random_real_dct_soft", "random_real_dct_labeler")


def config_of(arms=ARMS):
    config = demo.get_config()
    config.update_from_flattened_dict(TINY)
    config.budget.bytes, config.budget.images_per_class = BYTES, 3
    config.distill.update(num_steps=2, eval_every=0, snapshot_every=0)
    config.evaluate.baselines = ",".join(arms)
    config.teacher.update(epochs=3, learning_rate=0.1, num_networks=2)
    config.labels.width = 4  # of a labeler: most of the bytes are images
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory, quickly_compiled):
    """Returns the work directory of a run with both arms, and its result."""
    workdir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "TRIALS", ((0.4, 1.0),))  # fewer images
        patch.setattr(baselines, "TEMPERATURES", baselines.TEMPERATURES[:1])
        config = config_of((*ARMS, "all_real"))
        return workdir, distill_to(config, workdir, Reporter(None))


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_is_a_set_of_real_images_in_the_bytes_of_the_budget(finished, arm):
    workdir, result = finished
    path = workdir / f"{arm}.safetensors"
    set_ = gsdd_jax.load(path)
    per_class = set_.format.images_per_class
    assert result[f"{arm}_images_per_class"] == per_class > 1
    assert 0.95 * BYTES * CLASSES < set_.num_bytes <= BYTES * CLASSES
    set_ = set_.without_mixes()
    np.testing.assert_array_equal(np.bincount(set_.labels), CLASSES * [per_class])
    # Each image is nearest to one of its class, in the mean over 100 much nearer than to others.
    train = data.load("cifar10_mini", resolution=8).train
    real = train.images.reshape(len(train.labels), -1) / 255
    every = max(1, per_class // 10)
    found = np.asarray(set_.images()).reshape(len(set_.labels), -1)[::every]
    distance = ((found[:, None] - real) ** 2).mean(-1)
    same = set_.labels[::every, None] == train.labels
    assert np.mean(np.where(same, distance, 9).min(1) < np.where(same, 9, distance).min(1)) > 0.8


def test_each_arm_has_its_labels(finished):
    hard, soft, labeled = (gsdd_jax.load(finished[0] / f"{arm}.safetensors") for arm in ARMS)
    assert hard.soft_labels is None and labeled.soft_labels is None
    assert hard.labeler is None and soft.labeler is None
    assert soft.soft_labels.shape == (len(soft.labels), CLASSES)
    assert (labeled.labeler.width, labeled.labeler.temperature) == (4, 1)
    found = labeled.labeler.probabilities(labeled.numpy().images)
    # Few epochs of a tiny network already tell something of the classes.
    for labels, set_ in ((soft.soft_labels, soft), (found, labeled)):
        assert (labels.argmax(1) == set_.labels).mean() > 1.5 / CLASSES


def test_the_run_names_them(finished, tmp_path):
    workdir, result = finished
    document.write([workdir], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    written = json.loads((workdir / "result.json").read_text())
    for arm in ARMS:
        assert written[f"{arm}_accuracy"] == result[f"{arm}_accuracy"]
        assert len(written[f"{arm}_accuracies"]) == 2
        set_ = gsdd_jax.load(workdir / f"{arm}.safetensors")
        side, count = set_.format.side or 8, set_.format.images_per_class
        assert (written[f"{arm}_side"], written[f"{arm}_images_per_class"]) == (side, count)
        temperature = set_.provenance["config"]["labels.temperature"]
        soft = f", temperature {temperature}" if arm == ARMS[1] else ""
        mixes = f", {set_.mixes} mixtures of each" if set_.mixes else ""
        bits = f", {set_.label_bits} bits" if soft else ""
        assert f", {count} per class at {side} pixels{soft}{mixes}{bits}<" in text
        assert written.get(f"{arm}_temperature") == (temperature if soft else None)
        assert written.get(f"{arm}_mixes") == (set_.mixes if soft else None)


def test_all_real_images_are_the_teacher_s(finished, tmp_path):
    workdir, result = finished
    config = config_of()
    taught = teacher.trained(config, evaluation.real_parts(config), workdir, Reporter(None))
    assert result["all_real_accuracies"] == taught.tested.test.tolist()
    means = {arm: np.mean(result[f"{arm}_accuracies"]) for arm in ("distilled", "all_real", *ARMS)}
    best = max(ARMS, key=means.get)
    assert result["strongest_real"] == best
    assert result["points_over_strongest_real"] == pytest.approx(means["distilled"] - means[best])
    share = 100 * means["distilled"] / means["all_real"]
    assert result["share_of_all_real"] == pytest.approx(share)
    document.write([workdir], tmp_path / "report.html")
    assert f"{share:.0f} %" in (tmp_path / "report.html").read_text()


def test_they_are_evaluated_with_the_set_next_to_them(finished):
    workdir, result = finished
    again = evaluation.evaluate_file(workdir)
    for arm in ("distilled", *ARMS):
        assert again[f"{arm}_accuracies"] == result[f"{arm}_accuracies"]
    alone = evaluation.evaluate_file(workdir / f"{ARMS[0]}.safetensors")
    assert f"{ARMS[0]}_accuracies" not in alone


def test_other_files_next_to_a_set_are_left_out(finished, tmp_path, capsys):
    content = (finished[0] / "distilled.safetensors").read_bytes()
    for name in ("distilled", ARMS[1]):  # a distilled set under the name of an arm
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    (tmp_path / f"{ARMS[0]}.safetensors").write_bytes(content[:-1])
    found = evaluation.evaluate_file(tmp_path, overrides={"evaluate.num_networks": 1})
    assert not {f"{arm}_accuracies" for arm in ARMS} & found.keys()
    lines = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    for arm, line in zip(ARMS[:2], lines, strict=True):
        assert line.startswith(f"left out: {tmp_path / arm}.safetensors: ")


def test_sets_of_another_arm_or_budget_are_left_out(finished, tmp_path, capsys):
    read = lambda arm: gsdd_jax.load(finished[0] / f"{arm}.safetensors")
    gsdd_jax.save(tmp_path / "distilled.safetensors", read("distilled"))
    other = read(ARMS[0])
    config = other.provenance["config"] | {"budget.bytes": BYTES - 1}
    other = dataclasses.replace(other, provenance=other.provenance | {"config": config})
    gsdd_jax.save(tmp_path / f"{ARMS[0]}.safetensors", other)
    gsdd_jax.save(tmp_path / f"{ARMS[1]}.safetensors", read(ARMS[2]))
    gsdd_jax.save(tmp_path / f"{ARMS[2]}.safetensors", read(ARMS[2]))
    found = evaluation.evaluate_file(tmp_path, overrides={"evaluate.num_networks": 1})
    assert {arm for arm in ARMS if f"{arm}_accuracies" in found} == {ARMS[2]}
    lines = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert lines == [
        f"left out: {tmp_path / ARMS[0]}.safetensors: expected compressed images of the set's data "
        "and budget",
        f"left out: {tmp_path / ARMS[1]}.safetensors: expected labels of source teacher, got "
        "labeler",
    ]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Stands in for a set of compressed images: 60 of 3,000 bytes are labels."""

    of: tuple
    learning_rate: float = 0.0
    labels: range = range(30)
    packed_labels: bytes = 60 * b" "
    label_bits: int = 4


@pytest.mark.parametrize("arm, mixes", [(ARMS[0], 0), (ARMS[1], 0), (ARMS[1], 4), (ARMS[2], 0)])
def test_the_best_size_then_temperature_then_mixtures_are_taken(monkeypatch, arm, mixes):
    config, tried = config_of(), []
    config.evaluate.rates = "0.5"

    def stored(config, parts, arm, taught_by, provenance, candidate, compress):
        if candidate.side == 0:
            raise UsageError("too many for the bytes")
        return Candidate(candidate)

    def judged(config, parts, set_, name, display, chosen=False, schedule=None):
        tried.append((*set_.of, config.evaluate.rates, config.evaluate.num_networks))
        _, side, temperature, _, mixed = set_.of
        score = 50.0 + 4 * (side == 9) + 2 * (temperature > 2) + (mixed == mixes)
        accuracy = np.array([score], np.float32)
        return evaluation.Accuracies(accuracy, accuracy, np.eye(10, dtype=int), 0.5)

    monkeypatch.setattr(baselines, "SIDE", 1)
    monkeypatch.setattr(baselines, "TRIALS", ((1, 1.0), (1, 0.75), (1, 0.9), (1, 0.5)))
    monkeypatch.setattr(baselines, "_stored", stored)
    monkeypatch.setattr(evaluation, "distilled", judged)
    config.data.resolution = 10
    parts = evaluation.real_parts(config)
    found = baselines.evaluated(config, parts, 30, arm, None, {}, "arm", Reporter(None))
    assert found.set_.learning_rate == 0.5
    count, soft = tried[0][0], arm == ARMS[1]
    labels = (2 * soft, 4 * soft, 0)  # temperature, bits, mixtures
    assert tried[0] == (count, 8, *labels, "0.5", 1)
    trials = [(count, 9, *labels), (count, 5, *labels)]
    if soft:  # labels of 5 x 45 bytes instead of 60
        fewer = int(count * 3000 / 3165)
        trials += [(count, 9, 1, 4, 0), (count, 9, 4, 4, 0), (fewer, 9, 4, 3, 4)]
    assert tried[1:-1] == [(*trial, "", 1) for trial in trials]
    assert tried[-1] == (*trials[-1 if mixes else -2 if soft else 0], "0.5", 2)
    assert found.set_.of == tried[-1][:5]


def test_a_budget_without_the_bytes_of_an_image_is_refused(tmp_path):
    config = config_of()
    config.budget.bytes, config.budget.images_per_class = 20, 1  # one Gaussian, or the coder
    expected = r"at least \d+ bytes per class for 1 image per class of cosine coefficients, got 20$"
    with pytest.raises(UsageError, match=expected):
        baselines.evaluate_real(config, ARMS[0], tmp_path, Reporter(None))


def test_fewer_images_are_tried_if_none_of_the_first_numbers_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "TRIALS", ((40.0, 1.0),))
    config = config_of()
    config.evaluate.update(num_networks=1, epochs=1)
    found = baselines.evaluate_real(config, ARMS[0], tmp_path, Reporter(None))
    assert 10 < found[f"{ARMS[0]}_images_per_class"] < 100
    assert found[f"{ARMS[0]}_bytes_per_class"] <= BYTES


def test_images_that_are_not_distilled_fill_what_their_labels_leave(tmp_path):
    config = own("none")
    config.data.update(name="cifar10_mini", resolution=8)
    config.network.options.width = 4
    config.budget.update(bytes=BYTES, images_per_class=6)
    config.evaluate.update(num_networks=1, epochs=20, learning_rate=1e3, rates="0.03", baselines="")
    config.teacher.epochs = 1
    config = suited(config, (8, 8, 3), CLASSES, 500)
    result = distill_to(config, tmp_path, Reporter(None))
    set_ = gsdd_jax.load(tmp_path)
    rates = set_.learning_rate, result["learning_rate"], result["distilled_learning_rate"]
    assert rates == pytest.approx(3 * (0.03,))  # at the other networks diverge
    assert (set_.mixes, set_.label_bits, result["bytes_per_class"]) == (4, 3, set_.num_bytes // 10)
    # At most 5 x 30 bits for each of 60 images are labels: fewer by 100 bytes and more.
    assert len(set_.packed_labels) < 1125 - 100
    assert 0.97 * BYTES * CLASSES < set_.num_bytes <= BYTES * CLASSES
    taught = teacher.trained(config, evaluation.real_parts(config), tmp_path, Reporter(None))
    params = jax.tree.map(lambda a: a[0], taught.params)
    outputs = taught.network.apply(params, jnp.asarray(set_.numpy().images))
    outputs = np.asarray(outputs, np.float64) / 2
    steps = np.clip(outputs - outputs.max(1, keepdims=True) + 8, 0, 8) * 7 / 8
    assert np.abs(set_.soft_labels * 7 / 8 - steps).max() < 0.51
    config.init.set = str(tmp_path)
    distill_to(config, tmp_path.with_name("again"), Reporter(None))
    again = gsdd_jax.load(tmp_path.with_name("again"))
    np.testing.assert_array_equal(again.images(), set_.images())
    np.testing.assert_array_equal(again.soft_labels, set_.soft_labels)
