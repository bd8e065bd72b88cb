"""Tests private distribution matching, its accountant, its secret, and starts by moments."""

import dataclasses
import functools
import itertools
import json
import math
import stat
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import gsdd_jax
from configs import demo
from gsdd_jax import data, matching, networks, privacy
from gsdd_jax.config import matched_by, own
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import moments, transforms
from gsdd_jax.formats.info import text
from gsdd_jax.matching import dp_dm
from gsdd_jax.runs import distill, fits
from gsdd_jax.runs.progress import OneLine
from gsdd_jax.setup import experiment
from gsdd_jax.storage import secret
from gsdd_jax.training import distill as training
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quickly_compiled")
with_accountant = pytest.mark.skipif(sys.version_info >= (3, 14), reason="no dp-accounting")

SIZE, COUNTS = 8, (7, 5, 9)
MEAN, STD = np.float32([[0.4, 0.5, 0.6], [0.2, 0.3, 0.25]])


def split(seed=0, counts=COUNTS):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return rng.integers(0, 256, (len(labels), SIZE, SIZE, 3), np.uint8), labels


def real(images, labels):
    transform = transforms.Normalize(*map(jax.device_put, (MEAN, STD)))
    return matching.real_data(images, labels, int(labels.max()) + 1, transform)


def objective(counts=COUNTS, **options):
    network = networks.build(
        "convnet", image_shape=(SIZE, SIZE, 3), num_classes=len(counts), width=4, depth=1,
        precision="float32",
    )  # fmt: skip
    given = dict(batch_real=4, clip=2.0, noise=0.5) | options
    return matching.build(
        "dp_dm", network=network, num_classes=len(counts), images_per_class=5, strategy="",
        train_counts=counts, **given,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def begun(of, key, images):
    return of.begin(key, images, None)


def phi(x):
    return special.ndtr(np.float64(x))


@with_accountant
@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (2.0, 4), (10.0, 1)])
def test_without_sampling_it_is_the_analytic_gaussian_mechanism(noise, steps):
    """Theorem 8 of Balle and Wang, 2018. Steps add up like one with less noise."""
    found = privacy.epsilon(noise=noise, rate=1.0, steps=steps)
    noise /= math.sqrt(steps)

    def delta(epsilon):
        shift = epsilon * noise
        return phi(0.5 / noise - shift) - math.exp(epsilon) * phi(-0.5 / noise - shift)

    assert delta(found) <= 1e-5 < delta(found - 2e-3)


@with_accountant
def test_one_sampled_step_is_the_integral():
    """Both directions, by a sum over a fine grid."""
    noise, rate, delta = 0.8, 0.1, 1e-4
    epsilon = privacy.epsilon(noise=noise, rate=rate, steps=1, delta=delta)
    x = np.linspace(-12, 13, 200_001)
    density = lambda mean: (
        np.exp(-((x - mean) ** 2) / (2 * noise**2)) / (noise * math.sqrt(2 * math.pi))
    )
    without, with_it = density(0), (1 - rate) * density(0) + rate * density(1)

    def beyond(epsilon):
        pairs = (with_it, without), (without, with_it)
        step = x[1] - x[0]
        return max(step * np.maximum(p - math.exp(epsilon) * q, 0).sum() for p, q in pairs)

    assert beyond(epsilon) <= delta * (1 + 1e-6)
    assert beyond(epsilon - 2e-3) > delta
    assert privacy.epsilon(noise=noise, rate=rate, steps=0) == 0


@with_accountant
def test_noise_of_the_document_is_the_least():
    given = dict(rate=128 / 5000, steps=200)
    assert privacy.epsilon(noise=1.628, **given) <= 1 < privacy.epsilon(noise=1.627, **given)


@pytest.mark.parametrize("power", [1, 3])
def test_noise_is_the_least_with_that_epsilon(monkeypatch, power):
    """By an accountant whose inverse is known."""
    spent = lambda noise, rate, steps, delta: steps * rate / noise**power
    monkeypatch.setattr(privacy, "_epsilon", spent)
    for epsilon in (0.013, 0.7, 2.1, 9.5, 20.3):
        least = math.ceil(1000 * (4.1 / epsilon) ** (1 / power)) / 1000
        found = privacy.noise(epsilon=epsilon, rate=0.1, steps=41)
        assert found == max(least, privacy.NOISE[0])
    with pytest.raises(UsageError, match="a noise above 10000 in so many steps"):
        privacy.noise(epsilon=1e-3, rate=1.0, steps=2**31 - 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: privacy.epsilon(noise=0.0, rate=0.1, steps=1), "noise: expected a number from"),
        (lambda: privacy.epsilon(noise=1.0, rate=2.0, steps=1), "rate: expected a number from"),
        (lambda: privacy.epsilon(noise=1.0, rate=0.1, steps=-1), "steps: expected an integer"),
        (lambda: privacy.noise(epsilon=0.0, rate=0.1, steps=1), "epsilon: expected a number from"),
        (lambda: privacy.noise(epsilon=1.0, rate=0.1, steps=1, delta=0.0), "delta: expected"),
    ],
)
def test_a_wrong_argument_of_the_accountant_is_named(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_without_the_library_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(UsageError, match=r"not installed; install it by `pip install gsdd-jax\["):
        privacy.epsilon(noise=1.234, rate=0.1, steps=1)


@pytest.fixture(scope="module")
def step():
    """Objective, key, real images, and what a step begins with."""
    of, key, images = objective(), jax.random.key(3), real(*split())
    return of, key, images, begun(of, key, images)


def sums_of(of, key, images, carry):
    """Returns sums of clipped features and the included images, by NumPy in float64."""
    key, noise_key = jax.random.split(key)
    draw_key = jax.random.split(key, 3)[2]
    indices = np.asarray(images.indices(draw_key, of.capacity))
    least = jnp.asarray(1 - of.rates, jnp.float32)
    included = np.asarray(images.included(draw_key, of.capacity, least))
    inputs = images.transformed(images.images.stored[indices.ravel()])
    features = np.float64(of.network.features(carry.network, inputs))
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    clipped = features * np.minimum(1, of.clip / norms)
    clipped = clipped.reshape(*indices.shape, -1)
    noise = np.float64(jax.random.normal(noise_key, carry.means.shape))
    return clipped, indices, included, noise


def test_the_noised_means_are_those_of_numpy(step):
    of, key, images, carry = step
    clipped, _, included, noise = sums_of(of, key, images, carry)
    expected = np.minimum(COUNTS, 4)
    sums = (clipped * included[:, :, None]).sum(1) + of.noise * of.clip * noise
    np.testing.assert_allclose(carry.means, sums / expected[:, None], rtol=2e-5, atol=1e-5)
    assert of.rates.tolist() == [4 / 7, 4 / 5, 4 / 9]


def test_one_image_changes_the_sum_of_its_class_by_its_clipped_features(step):
    """Features of an image depend on it only."""
    of, key, images, carry = step
    clipped, indices, included, _ = sums_of(of, key, images, carry)
    place = int(np.flatnonzero(included[2])[1])
    pixels, labels = split()
    pixels[indices[2, place]] = 255 - pixels[indices[2, place]]
    other = real(pixels, labels)
    changed = begun(of, key, other)
    np.testing.assert_array_equal(changed.means[:2], carry.means[:2])
    after, *_ = sums_of(of, key, other, carry)
    difference = 4 * (np.float64(changed.means[2]) - np.float64(carry.means[2]))
    np.testing.assert_allclose(
        difference, after[2, place] - clipped[2, place], rtol=1e-3, atol=1e-4
    )
    norms = np.linalg.norm([after[2, place], clipped[2, place]], axis=1)
    assert norms.max() <= of.clip * (1 + 1e-6)


def test_clipped_features_have_at_most_that_norm():
    """Sums of two sets that differ in one image differ by at most `clip`, whatever the image."""
    of, rng = objective(), np.random.default_rng(0)
    scales = np.float32(10.0 ** rng.uniform(-9, 9, (64, 1)))
    features = np.float32(rng.normal(size=(64, 16))) * scales
    found = np.float64(of.limited(jnp.asarray(features)))
    assert np.isfinite(found).all()
    whole = found.sum(0)
    for i in range(len(found)):
        assert np.linalg.norm(whole - np.delete(found, i, 0).sum(0)) <= of.clip * (1 + 1e-6)
    small = np.linalg.norm(features, axis=1) < of.clip
    np.testing.assert_array_equal(found[small], features[small])
    slope = jax.grad(lambda x: of.limited(x).sum())(jnp.zeros((1, 16)))
    assert np.isfinite(slope).all()


def test_each_image_is_included_independently_as_often_as_its_rate():
    of, images = objective(), real(*split())
    least, draws = jnp.asarray(1 - of.rates, jnp.float32), 4000

    @jax.jit
    def places(key):
        return images.indices(key, of.capacity), images.included(key, of.capacity, least)

    indices, included = jax.vmap(places)(jax.random.split(jax.random.key(0), draws))
    there = np.zeros((draws, sum(COUNTS)))
    rows, *_ = where = np.nonzero(included)
    there[rows, np.asarray(indices)[where]] = 1
    assert there.sum() == np.asarray(included).sum()  # padding is never included
    rates = np.repeat(of.rates, COUNTS)
    deviations = np.sqrt(rates * (1 - rates) / draws)
    assert (abs(there.mean(0) - rates) < 4.5 * deviations).all()
    correlations = np.corrcoef(there.T)[np.triu_indices(len(rates), 1)]
    assert abs(correlations).max() < 4.5 / math.sqrt(draws)


def test_more_images_than_places_are_as_unlikely_as_stated():
    of = objective(counts=(60, 40), batch_real=3, delta=0.01)
    assert 3 < of.capacity < 40
    beyond = 0
    for size, rate in zip((60, 40), of.rates, strict=True):
        beyond += math.fsum(
            math.comb(size, i) * rate**i * (1 - rate) ** (size - i)
            for i in range(of.capacity, size + 1)
        )
    assert dp_dm.LONGEST * beyond <= 1e-4 < dp_dm.LONGEST * 1e3 * beyond
    assert math.isclose(of._overflow(of.capacity, 7), 7 * beyond, rel_tol=1e-9)
    assert objective(batch_real=9).capacity == 9 and objective()._overflow(9, 10**6) == 0


def test_huge_noise_hides_the_images():
    of, key = objective(noise=1e4), jax.random.key(1)
    first, second = (begun(of, key, real(*split(seed))).means for seed in (0, 1))
    assert not np.array_equal(first, second)
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-3 * np.std(first))
    _, noise_key = jax.random.split(key)
    scale = 1e4 * of.clip / np.minimum(COUNTS, 4)[:, None]
    noise = scale * jax.random.normal(noise_key, first.shape)
    np.testing.assert_allclose(first, noise, rtol=0, atol=1e-3 * np.std(first))


def config(**more):
    found = matched_by(demo.get_config(), "dp_dm")
    given = {name.replace("__", "."): value for name, value in more.items()}
    required = matching.find("dp_dm").requires
    found.update_from_flattened_dict({**TINY, **required, **given})
    return found


@pytest.fixture(scope="module")
def untested():
    return data.untested(data.load("cifar10_mini", resolution=SIZE))


def bytes_of(folder):
    return (folder / "distilled.safetensors").read_bytes()


@with_accountant
def test_a_run_resumes_with_its_secret_and_says_what_it_costs(tmp_path, untested, monkeypatch):
    """The interrupted run reads its images from disk from then on."""
    distill.distill_to(config(), tmp_path / "whole", OneLine(), untested)
    kept = (tmp_path / "whole" / secret.NAME).read_bytes()
    assert stat.S_IMODE((tmp_path / "whole" / secret.NAME).stat().st_mode) == 0o600
    assert len(kept) == 32 and not (tmp_path / "whole" / "real.safetensors").exists()
    found = gsdd_jax.load(tmp_path / "whole")
    assert kept not in bytes_of(tmp_path / "whole") and kept.hex() not in str(found.provenance)
    assert "fingerprint" not in found.data and untested.fingerprint not in str(found.provenance)
    spent = found.provenance["privacy"]
    rate = 4 / 300
    assert spent["epsilon"] == privacy.epsilon(noise=1.0, rate=rate, steps=6)
    assert (spent["steps"], spent["sampling_rate"], spent["clip"]) == (6, rate, 8.0)
    assert 1e-5 < spent["delta"] < 1.01e-5
    said = gsdd_jax.info(found)
    assert said["privacy"] == spent and "privacy  " in text(said)
    cut = gsdd_jax.info(gsdd_jax.subset(found, [0, 1]))
    assert cut["parts"][0]["privacy"] == cut["privacy"] == spent
    merged = gsdd_jax.info(gsdd_jax.merge([gsdd_jax.subset(found, [c]) for c in (0, 1)]))
    assert merged["privacy"] is None and merged["parts"][1]["privacy"] == spent

    calls, run = itertools.count(), training.run

    def interrupted(*args):
        if next(calls) == 2:
            raise RuntimeError
        return run(*args)

    monkeypatch.setattr(distill.distill, "run", interrupted)
    again = tmp_path / "again"
    again.mkdir()
    (again / secret.NAME).write_bytes(kept)
    with pytest.raises(RuntimeError):
        distill.distill_to(config(), again, OneLine(), untested)
    distill.distill_to(config(data__on_device="streamed"), again, OneLine(), untested)
    assert bytes_of(again) == bytes_of(tmp_path / "whole")

    other = tmp_path / "other"  # the same public seed
    distill.distill_to(config(distill__num_steps=2), other, OneLine(), untested)
    first = gsdd_jax.load(tmp_path / "whole" / "snapshots" / "3.safetensors")
    assert first.provenance["privacy"]["steps"] == 3
    distill.distill_to(config(), other, OneLine(), untested)
    longer = gsdd_jax.load(other)
    assert longer.provenance["privacy"] == spent
    assert not np.array_equal(longer.arrays["colors"], found.arrays["colors"])
    (other / secret.NAME).write_bytes(b"short")
    with pytest.raises(UsageError, match="secret: expected a secret of 32 bytes, got 5"):
        distill.distill_to(config(distill__num_steps=8), other, OneLine(), untested)
    (other / secret.NAME).unlink()
    for made in ("checkpoints", None):
        with pytest.raises(UsageError, match="secret: expected the secret of the run whose sets"):
            distill.distill_to(config(distill__num_steps=8), other, OneLine(), untested)
        if made:
            (other / made).rename(tmp_path / made)


def test_noise_of_another_run_with_the_secret_is_other_noise(tmp_path):
    """The difference of two runs on different images would have none otherwise."""
    key = jax.random.key(0)
    found = [secret.mixed(key, tmp_path, of) for of in ("one", "one", "another")]
    drawn = [jax.random.normal(of, 9).tolist() for of in found]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("init.images", "real"),
        ("init.images", "moments"),
        ("init.set", "runs/other"),
        ("data.transform", "zca"),
        ("labels.source", "teacher"),
        ("evaluate.rates", "0.1"),
        ("distill.eval_every", 3),
        ("matching.options.noise", 0.0),
        ("matching.options.delta", 0.5),
        ("matching.options.classes_per_step", 5),
    ],
)
def test_what_would_leak_is_refused(untested, field, value):
    of = config()
    group, _, name = field.rpartition(".")
    of[group][name] = value
    with pytest.raises(UsageError, match=rf"config\.{group}.*{name}") as error:
        experiment.build(of, untested)
    assert "\n" not in str(error.value)


def test_constants_of_own_images_stay_with_them(untested):
    own_ones = dataclasses.replace(untested, mean=(0.1, 0.2, 0.3), std=(0.2, 0.2, 0.2))
    parts = experiment.build(config(), own_ones)
    assert parts.dataset.mean == 3 * (0.5,) and parts.transform.std.tolist() == 3 * [0.25]
    assert experiment.build(config(), untested).dataset.mean == untested.mean


def test_an_own_config_has_what_is_required():
    of = own("dp_dm")
    assert of.init.images == "none" and of.distill.learning_rate == 0.03
    assert of.matching.options.noise == 1.0
    assert "train_counts" not in of.matching.options


def test_moments_are_those_of_the_class_and_fields_deviate_by_one():
    images, labels = split(counts=(700, 5))
    chosen = np.flatnonzero(labels == 0)
    mean, std = moments.moments(images, chosen)
    np.testing.assert_allclose(mean, (images[:700] / 255).mean(0), atol=1e-12)
    np.testing.assert_allclose(std, (images[:700] / 255).std(0), atol=1e-12)
    field = np.asarray(moments.smooth(jax.random.key(0), (4000, SIZE, SIZE, 3)))
    np.testing.assert_allclose(field.std(0), 1, atol=0.06)
    np.testing.assert_allclose(field.mean(0), 0, atol=0.08)
    assert np.corrcoef(field[:, 0, 0, 0], field[:, 0, 1, 0])[0, 1] > 0.7
    few = moments.drawn(jax.random.key(0), data.Split(images, labels), (2, 9))
    assert few.shape == (11, SIZE, SIZE, 3) and few.dtype == np.float32
    assert few.min() >= 0 and few.max() <= 1


def test_a_run_starts_from_moments_also_of_fewer_real_images(untested):
    of = demo.get_config()
    of.update_from_flattened_dict(TINY | {"init.images": "moments", "budget.images_per_class": 9})
    few = np.concatenate([np.flatnonzero(untested.train.labels == c)[:5] for c in range(10)])
    train = data.Split(untested.train.images[few], untested.train.labels[few])
    parts = experiment.build_fit_parts(of, dataclasses.replace(untested, train=train))
    first, again = (fits.images_of(of, parts) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(first) == 90
    nearest = np.abs(first[:, None] - train.images[None] / 255).max((2, 3, 4)).min()
    assert nearest > 0.05  # none is a real one
    assert json.dumps(fits.settings(of)) != json.dumps(fits.settings(demo.get_config()))
