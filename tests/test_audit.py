"""Tests membership inference against known distributions, and audits of small recipes."""

import dataclasses
import itertools
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from scipy import special

from configs import demo
from gsdd_jax import data
from gsdd_jax.config import matched_by
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import Split
from gsdd_jax.runs import audit, membership
from gsdd_jax.runs.progress import OneLine
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def paired(shadows, count, seed=0):
    """Returns complementary memberships, half of each candidate's."""
    first = np.random.default_rng(seed).random((shadows // 2, count)) < 0.5
    return np.stack([first, ~first], 1).reshape(shadows, count)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_measures_are_those_of_two_normal_distributions(shift):
    rng, count = np.random.default_rng(0), 200_000
    member = np.arange(count) < count // 2
    found = membership.measures(membership.curve(rng.normal(size=count) + shift * member, member))
    assert found["auc"] == pytest.approx(special.ndtr(shift / math.sqrt(2)), abs=0.005)
    assert found["balanced_accuracy"] == pytest.approx(special.ndtr(shift / 2), abs=0.005)
    for name, rate in membership.FALSE.items():
        expected = special.ndtr(shift - special.ndtri(1 - rate))
        assert found[name] == pytest.approx(expected, rel=0.2)


def test_equal_scores_are_one_threshold():
    member = np.array([True, True, False, False])
    of = membership.curve(np.array([1.0, 0, 0, 0]), member)
    assert of.true.tolist() == [0, 0.5, 1] and of.false.tolist() == [0, 0, 1]
    assert membership.measures(of) == {
        "auc": 0.75, "balanced_accuracy": 0.75, "tpr_at_0.1%_fpr": 0.5, "tpr_at_1%_fpr": 0.5,
    }  # fmt: skip


def test_ratios_find_what_one_threshold_does_not():
    """Candidates differ far more from each other than members from others."""
    rng, inside = np.random.default_rng(1), paired(40, 4000)
    scores = 10 * rng.normal(size=4000) + 2 * inside + rng.normal(size=inside.shape)
    lira = membership.attacked(membership.ratios(scores, inside), inside)
    plain = membership.attacked(scores, inside)
    assert lira["auc"]["value"] == pytest.approx(special.ndtr(math.sqrt(2)), abs=0.02)
    expected = special.ndtr(2 - special.ndtri(0.999))
    assert lira["tpr_at_0.1%_fpr"]["value"] == pytest.approx(expected, abs=0.04)
    assert plain["auc"]["value"] == pytest.approx(special.ndtr(0.2 / math.sqrt(2)), abs=0.02)
    assert 0 < lira["auc"]["std"] < 0.03


@pytest.mark.parametrize("shadows", [6, 8])
def test_ratios_of_noise_tell_nothing(shadows):
    """Few shadows: the number of other sets does not tell a member."""
    rng, inside = np.random.default_rng(2), paired(shadows, 20_000)
    found = membership.ratios(rng.normal(size=inside.shape), inside)
    auc = membership.attacked(found, inside)["auc"]["value"]
    assert auc == pytest.approx(0.5, abs=4 / math.sqrt(12 * inside.size / 2))


def test_ratios_are_those_of_normal_distributions():
    rng, inside = np.random.default_rng(3), paired(6, 5)
    scores = rng.normal(size=(6, 5))
    found = membership.ratios(scores, inside)
    others, variances = [2, 3, 4, 5], []
    fits = []
    for there in (inside, ~inside):
        of = [[scores[i, j] for i in others if there[i, j]] for j in range(5)]
        variances.append(np.mean(np.var(of, axis=1, ddof=1)))
        fits.append(np.mean(of, axis=1))
    density = lambda x, mean, variance: np.exp(-((x - mean) ** 2) / 2 / variance) / variance**0.5
    for target in (0, 1):
        likely = [density(scores[target], *fit) for fit in zip(fits, variances, strict=True)]
        np.testing.assert_allclose(found[target], np.log(likely[0] / likely[1]))


def test_confidence_is_finite_and_distance_is_by_class():
    logits = jnp.array([[1e4, 0.0, -1e4], [0.1, 0.2, 0.3]])
    found = audit.confidences(logits, jnp.array([0, 2]))
    p = np.exp([0.1, 0.2, 0.3]) / np.exp([0.1, 0.2, 0.3]).sum()
    np.testing.assert_allclose(found, [1e4, np.log(p[2] / (1 - p[2]))], rtol=1e-5)
    rng = np.random.default_rng(0)
    images, others = (np.float32(rng.random((n, 2, 2, 3))) for n in (4, 6))
    labels, of_others = np.array([0, 1, 0, 1]), np.array([0, 0, 0, 1, 1, 1])
    found = audit.nearest(images, labels, others, of_others)
    for image, label, distance in zip(images, labels, found, strict=True):
        there = others[of_others == label]
        assert distance == pytest.approx(np.sqrt(((there - image) ** 2).sum((1, 2, 3))).min(), 1e-4)


def config(**more):
    found = demo.get_config()
    pixels = {"parameterization.name": "pixels", "budget.ipc": 3, "init.num_steps": 0}
    pixels |= {"distill.num_steps": 0, "distill.snapshot_every": 0, "distill.eval_every": 0}
    given = {name.replace("__", "."): value for name, value in more.items()}
    found.update_from_flattened_dict(TINY | pixels | given)
    return found


@pytest.fixture(scope="module")
def small():
    """Thirty images of each of ten classes."""
    mini = data.load("cifar10_mini", resolution=8)
    there = np.concatenate([np.flatnonzero(mini.train.labels == c)[:30] for c in range(10)])
    train = Split(mini.train.images[there], mini.train.labels[there])
    return data.Dataset(**{**vars(mini), "train": train})


def test_stored_images_are_found_and_an_audit_resumes(tmp_path, small, monkeypatch):
    """A fifth of the members are stored: three images of fifteen."""
    whole = audit.audit_to(config(), 6, tmp_path / "whole", OneLine(), small)
    inside = audit.halves(small, 6, 0)
    assert (inside.sum(0) == 3).all() and (inside.reshape(6, 10, 30).sum(2) == 15).all()
    nearest = whole["attacks"]["nearest"]
    for kind in ("threshold", "lira"):
        assert nearest[kind]["tpr_at_1%_fpr"]["value"] == pytest.approx(0.2, abs=0.06)
    assert nearest["threshold"]["tpr_at_0.1%_fpr"]["std"] < 0.05
    assert whole["images_per_class"] == 3 and whole["shadows"] == 6
    assert json.loads((tmp_path / "whole" / audit.RESULT).read_text()) == whole
    assert audit.text(whole).count("\n") == 4

    calls, real = itertools.count(), audit.distill_to

    def interrupted(*args):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(audit, "distill_to", interrupted)
    with pytest.raises(KeyboardInterrupt):
        audit.audit_to(config(), 6, tmp_path / "again", OneLine(), small)
    kept = tmp_path / "again" / "shadow-0" / audit.SCORES
    forged = tmp_path / "again" / "shadow-1" / audit.SCORES
    with safetensors.safe_open(forged, "numpy") as opened:
        arrays = {name: opened.get_tensor(name) for name in audit.ATTACKS}
        said = opened.metadata()
    arrays["nearest"][3] = np.nan
    forged.write_bytes(safetensors.numpy.save(arrays, said))
    for wrong in (b"damaged", safetensors.numpy.save({n: a[1:] for n, a in arrays.items()}, said)):
        (tmp_path / "wrong").write_bytes(wrong)
        assert audit._kept(tmp_path / "wrong", said["set"], 300) is None
    before = kept.stat().st_mtime_ns
    assert audit.audit_to(config(), 6, tmp_path / "again", OneLine(), small) == whole
    assert kept.stat().st_mtime_ns == before


def test_sets_of_nothing_tell_nothing(tmp_path, small):
    of = config(init__images="none")
    attacks = audit.audit_to(of, 6, tmp_path, OneLine(), small)["attacks"]
    for attack in audit.ATTACKS:
        assert attacks[attack]["lira"]["auc"]["value"] == 0.5  # all sets are the same
        error = 1 / math.sqrt(12 * 6 * 150)
        assert abs(attacks[attack]["threshold"]["auc"]["value"] - 0.5) < 4 * error


def test_the_epsilon_is_that_of_the_smallest_half(tmp_path, small, monkeypatch):
    of_sets, load = iter([3.0, 9.0, 3.0, 9.0, 3.0, 3.0]), audit.file.load

    def loaded(path):
        set_ = load(path)
        made = set_.provenance | {"privacy": {"epsilon": next(of_sets)}}
        return dataclasses.replace(set_, provenance=made)

    monkeypatch.setattr(audit.file, "load", loaded)
    assert audit.audit_to(config(), 6, tmp_path, OneLine(), small)["privacy"] == {"epsilon": 9.0}


@pytest.mark.parametrize(
    ("shadows", "more", "message"),
    [
        (7, {}, "shadows: expected an even number of at least 6, got 7"),
        (4, {}, "shadows: expected an even number of at least 6, got 4"),
        (6, {"init.set": "runs/x"}, "config.init.set: expected none for an audit"),
        (6, {"budget.images_per_class": 16}, "config.budget"),
        (6, {"matching.name": "tm"}, "config.matching.name: expected an objective without experts"),
    ],
)
def test_a_wrong_audit_is_refused(tmp_path, small, shadows, more, message):
    of = config(**{"budget.ipc": 16} if "budget.images_per_class" in more else {})
    if "matching.name" in more:
        matched_by(of, "tm")
    else:
        of.update_from_flattened_dict(more)
    with pytest.raises(UsageError) as error:
        audit.audit_to(of, shadows, tmp_path, OneLine(), small)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_small_classes_are_refused(tmp_path, small):
    few = np.flatnonzero(np.arange(300) % 30 < np.where(np.arange(300) < 270, 30, 3))
    train = Split(small.train.images[few], small.train.labels[few])
    of = data.Dataset(**{**vars(small), "train": train})
    with pytest.raises(UsageError, match=r"expected 4 training images or more .* got 3 of 'truck'"):
        audit.audit_to(config(), 6, tmp_path, OneLine(), of)
