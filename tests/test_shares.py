"""Tests classes of unequal shares: their numbers of images, files, steps, runs and pages."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import data, exports, matching, parameterizations
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import shares
from gsdd_jax.exports import hf
from gsdd_jax.formats import counting, info
from gsdd_jax.matching.dm import DistributionMatching
from gsdd_jax.report import gallery
from gsdd_jax.setup import experiment
from tests.test_artifact import NAMES, raw, refusal, some_set, write_raw
from tests.test_distribution import TRANSFORM, features_of, initial, problem, real
from tests.test_parts import made

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.mark.parametrize(
    ("sizes", "num_images", "split", "expected"),
    [
        ((1214, 3494), 22, "even", (11, 11)),
        ((1214, 3494), 22, "proportional", (6, 16)),  # 5.67, 16.33
        ((1214, 3494), 22, "sqrt", (8, 14)),  # 34.8 and 59.1 of 94: 8.15, 13.84
        ((1, 4, 9), 12, "sqrt", (2, 4, 6)),
        ((3, 5), 4, "proportional", (2, 2)),  # 1.5, 2.5: the first is rounded up
        ((1, 1000, 1000), 6, "proportional", (1, 3, 2)),  # one, and five to share
        ((1, 1, 1, 1000), 4, "proportional", (1, 1, 1, 1)),
        ((5, 5, 6), 4, "sqrt", (1, 1, 2)),  # 1.30, 1.30, 1.41
        ((7,), 5, "sqrt", (5,)),
        ((10**15, 1), 10, "proportional", (9, 1)),
        ((10**15, 4 * 10**15), 9, "sqrt", (3, 6)),
        ((9,) * 7, 21, "sqrt", (3,) * 7),
    ],
)
def test_counts_are_shares_by_largest_remainder(sizes, num_images, split, expected):
    assert shares.counts(sizes, num_images, split) == expected


COUNTS = (2, 9, 4)


def unequal(**options):
    return problem(**options)._replace(counts=COUNTS)


def by_class(array):
    return np.split(array, np.cumsum(COUNTS)[:-1])


@pytest.mark.parametrize("name", ["gaussian", "quantized"])
@pytest.mark.parametrize("options", [{}, {"class_by_class": True}, {"per_class_updates": True}])
def test_dm_of_unequal_classes_compares_the_means_of_their_images(options, name):
    """Computes loss and gradient of each class's images alone, without padding."""
    prob = unequal(**options)
    if name == "quantized":
        sizes = dict(ipc=1, images_per_class=5, num_classes=len(COUNTS))
        coded = parameterizations.build("quantized", prob.parameterization.image_shape, **sizes)
        assert len(set(coded.counts)) == 2
        prob = prob._replace(parameterization=coded)
    params, data, objective = initial(prob), real(), prob.matching
    assert np.bincount(prob.labels).tolist() == list(COUNTS)
    carry = jax.jit(objective.begin)(jax.random.key(1), data, None)
    key = jax.random.key(2)

    def loss(params):
        synthetic = prob.synthetic(params, TRANSFORM)
        updates = range(objective.num_updates)
        of = lambda u: objective.loss(synthetic, data, {}, carry, jnp.int32(u), key)
        return sum(map(of, updates))

    def plain(params):
        images = TRANSFORM(prob.parameterization.render(params))
        total = 0.0
        for c, own in enumerate(jnp.split(images, np.cumsum(COUNTS)[:-1])):
            features = features_of(objective.network, carry.network, carry.augmentation[c], own)
            total += ((features.sum(0) / COUNTS[c] - carry.means[c]) ** 2).sum()
        return total

    (actual, found), (expected, wanted) = (
        jax.jit(jax.value_and_grad(f))(params) for f in (loss, plain)
    )
    assert float(actual) == pytest.approx(float(expected), rel=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    jax.tree.map(close, found, wanted)


class Places:
    """Stores the index of each image."""

    def select(self, places, indices):
        return places[indices]


def test_samples_of_unequal_classes_have_unbiased_means():
    synthetic = matching.Synthetic(3, 5, Places(), jnp.arange(15), None, jnp.arange(15), COUNTS)

    def drawn(key, classes=None):
        sample = synthetic.sample(key, 4, classes)
        return sample.params.reshape(-1, 4), sample.weights

    keys = jax.random.split(jax.random.key(0), 4000)
    places, weights = map(np.asarray, jax.jit(jax.vmap(drawn))(keys))
    for c, own in enumerate(by_class(np.arange(15))):
        count = min(4, COUNTS[c])
        np.testing.assert_allclose(weights[:, c].sum(-1), 1, rtol=1e-6)
        assert ((weights[:, c] > 0).sum(-1) == count).all()
        seen = places[:, c][weights[:, c] > 0].reshape(-1, count)
        assert np.isin(places[:, c], own).all()
        assert all(len(set(row)) == count for row in seen[:50].tolist())
        share = np.bincount(seen.ravel(), minlength=15)[own] / seen.size
        np.testing.assert_allclose(share, 1 / COUNTS[c], atol=0.01)
    some = drawn(keys[0], jnp.array([2, 0]))
    np.testing.assert_array_equal(some[0], places[0, [2, 0]])
    np.testing.assert_array_equal(some[1], weights[0, [2, 0]])


def of_counts(set_, *counts):
    return dataclasses.replace(set_, labels=np.repeat(np.arange(len(counts)), counts))


@pytest.mark.parametrize("name", NAMES)
def test_files_of_unequal_classes(tmp_path, name):
    """Reads by NumPy; refuses forged labels, and masks or others of classes of other sizes."""
    whole, path = some_set(name, ipc=2), tmp_path / "set.safetensors"
    count = len(whole.labels)
    set_ = of_counts(whole, 1, count - 1)
    if held := {"fred": "masks", "haba": "bases", "nsd": "tensors", "hmn": "of_classes"}.get(name):
        with pytest.raises(UsageError, match=rf"labels: .* as often as .*, as {held} of {name}"):
            gsdd_jax.save(path, set_)
        return
    gsdd_jax.save(path, set_)
    loaded = gsdd_jax.load(path)
    assert (loaded.num_classes, loaded.class_counts) == (2, (1, count - 1))
    np.testing.assert_array_equal(loaded.labels, set_.labels)
    np.testing.assert_array_equal(loaded.images(), whole.images())
    header, arrays = raw(path)
    for labels, message in (
        (np.zeros(count), "labels: expected each of 0 to 1 at least once, got no 1"),
        (np.repeat([0, 2], [1, count - 1]), "labels: expected each of 0 to 1, got 2"),
        (np.repeat([-1, 1], [1, count - 1]), "labels: expected each of 0 to 1, got -1"),
        (set_.labels[::-1], "labels: expected images in the order of their classes, which have 1"),
    ):
        write_raw(path, header, arrays | {"labels": labels.astype(np.int32)})
        assert message in refusal(path)


def test_unequal_sets_are_cut_and_merged(tmp_path):
    set_ = of_counts(made(), 2, 3, 4)
    set_.provenance["config"]["budget.split"] = "sqrt"
    images, other = set_.images(), made(seed=1, names="def")
    merged = gsdd_jax.merge([set_, other])
    assert merged.class_counts == (2, 3, 4, 3, 3, 3)
    np.testing.assert_array_equal(merged.images(), np.concatenate([images, other.images()]))
    assert gsdd_jax.merge([other, set_]).class_counts == (3, 3, 3, 2, 3, 4)
    back = gsdd_jax.subset(merged, ["c", "a"])
    assert (back.class_counts, back.class_names) == ((4, 2), ("c", "a"))
    np.testing.assert_array_equal(back.images(), images[[5, 6, 7, 8, 0, 1]])
    assert back.provenance["config"]["budget.split"] == "sqrt"
    fewer = gsdd_jax.subset(set_, images_per_class=2)
    np.testing.assert_array_equal(fewer.images(), images[[0, 1, 2, 3, 5, 6]])
    assert "budget.split" not in fewer.provenance["config"]  # equally many again
    by_bytes = gsdd_jax.subset(set_, ["b", "c"], bytes_per_class=set_.num_bytes)
    assert by_bytes.class_counts == (3, 3)
    with pytest.raises(UsageError, match=r"^subset: classes: .* a multiple of 2, .*, got 5; give"):
        gsdd_jax.subset(set_, ["a", "b"])
    expected = r"^subset: images_per_class: expected 1 to 2 \(class 0 has no more\), got 3"
    with pytest.raises(UsageError, match=expected):
        gsdd_jax.subset(set_, images_per_class=3)


def test_descriptions_name_the_least_and_the_most(tmp_path):
    set_, path = of_counts(made(), 2, 3, 4), tmp_path / "set.safetensors"
    assert exports.save(set_, path).startswith(f"{path}: 3 classes of 2 to 4 images as pixels; ")
    said = gsdd_jax.info(set_)
    assert (said["images_per_class"], said["images_by_class"]) == (3, [2, 3, 4])
    assert "2 to 4 images per class of 16x12x3" in info.text(said)
    assert "| images | 2 to 4 per class of 3 classes, 16x12x3 |" in hf.card(set_)
    hard = counting.count([path])["parts"][-1]  # one number per class, as of any other's set
    assert (hard["name"], hard["bytes"]) == (f"{path}: images of each class", 3 * 4)


@pytest.mark.parametrize("name", ["quantized", "dct"])
def test_the_page_shows_the_first_images_of_each_class(name):
    set_ = of_counts(made(name, {"step": 16.0} if name == "dct" else {}), 1, 7, 4)
    some = gallery.chosen(set_, 3)
    assert some.labels.tolist() == [0, 1, 1, 1, 2, 2, 2]
    expected = set_.images()[[0, 1, 2, 3, 8, 9, 10]]
    np.testing.assert_allclose(parameterizations.images(some), expected, atol=1e-4)


def dataset_of(*sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 3), np.uint8)
    return data.from_arrays(images, labels, (images, labels))


def test_real_images_have_the_shares_of_the_set():
    config, dataset = gsdd_jax.config.own(), dataset_of(3, 12)
    config.budget.update(images_per_class=3, split="proportional", ipc=5)
    config.init.learning_rate = 0.1
    parts = experiment.build_fit_parts(config, dataset)
    assert parts.counts == (1, 5)  # 1.2, 4.8
    assert experiment.check_real(config, dataset, "random_real") == (2, 8)
    assert parts.warnings == []
    images = experiment.initial_images(dataset, jax.random.key(0), parts.counts)
    train = dataset.train.images[:, None] / np.float32(255)
    found = (train == images).all((2, 3, 4))
    np.testing.assert_array_equal(dataset.train.labels[found.argmax(0)], parts.labels)
    config.budget.images_per_class = 12
    (warning,) = experiment.build_fit_parts(config, dataset).warnings
    assert warning.startswith("warning: fewer than 5 to 19 training images of '0' (3), '1' (12): ")


def test_what_needs_equal_classes_refuses_others(monkeypatch):
    config, dataset = gsdd_jax.config.own(), dataset_of(3, 12)
    config.budget.update(images_per_class=3, split="sqrt", ipc=5)
    config.init.learning_rate, config.evaluate.epochs, config.teacher.epochs = 0.1, 1, 1
    monkeypatch.setattr(DistributionMatching, "unequal_classes", False)
    with pytest.raises(UsageError, match=r"^config.budget.split: .* objective dm, got sqrt; .* tm"):
        experiment.build(config, dataset)
    config.parameterization.name, config.init.images = "fred", "none"
    expected = "config.budget.split: expected even with fred, whose masks are stored once per class"
    with pytest.raises(UsageError, match=f"^{expected}"):
        experiment.build_fit_parts(config, dataset)
    for split, sizes in (("even", (3, 12)), ("sqrt", (6, 6))):
        config.budget.split = split
        parts = experiment.build_fit_parts(config, dataset_of(*sizes))
        assert len(set(parts.counts)) == 1
