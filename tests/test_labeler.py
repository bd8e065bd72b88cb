"""Tests the labeler that a set stores: its file, its labels, and training by it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import gsdd_jax
from configs import load
from gsdd_jax import exports, federated, networks, replay
from gsdd_jax.core import memory
from gsdd_jax.data import mixing
from gsdd_jax.data.soft_labels import Labels
from gsdd_jax.exports import hf
from gsdd_jax.formats import entropy, file, info, labeler
from gsdd_jax.formats.pixels import Pixels
from gsdd_jax.formats.union import union
from gsdd_jax.networks import Network
from gsdd_jax.runs import teacher
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.evaluation import evaluate_file
from gsdd_jax.runs.progress import Reporter
from gsdd_jax.setup import experiment
from gsdd_jax.setup.components import of_labels
from gsdd_jax.training import evaluate, labeling
from tests import tiny
from tests.interrupting import check_same_bytes, interrupted_once

SHAPE = (8, 12, 3)
SETTINGS = {"width": 5, "depth": 2, "bits": 6, "temperature": 1.5}


@pytest.fixture(scope="module")
def network() -> Network:
    return networks.build("convnet", image_shape=SHAPE, num_classes=4, width=5, depth=2)


@pytest.fixture(scope="module")
def params(network):
    """Returns weights of one network, stacked, with norms that do something."""
    of = network.init(jax.random.key(3))
    rng = np.random.default_rng(0)
    moved = lambda a: a + rng.normal(scale=0.3, size=a.shape).astype(np.float32)
    return jax.tree.map(lambda a: moved(a)[None], of)


@pytest.fixture(scope="module")
def stored(network, params) -> labeler.Labeler:
    of = Labels(source="labeler", width=5, weight_bits=6, temperature=1.5)
    return labeling.stored(network, params, of)


def distilled(stored, num=6):
    """Returns a set of pixels of four classes with a labeler."""
    rng = np.random.default_rng(1)
    kind = Pixels(*SHAPE, images_per_class=num)
    arrays = {"pixels": rng.uniform(size=(4 * num, *SHAPE)).astype(np.float32)}
    made = {"transform": {"name": "normalize", "mean": [0.5] * 3, "std": [0.2] * 3}}
    made["data"] = {"name": "shapes", "class_names": list("abcd")}
    classes = np.repeat(np.arange(4, dtype=np.int32), num)
    return gsdd_jax.DistilledSet(kind, arrays, classes, 0.1, made, labeler=stored)


def some_images(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def test_labels_are_those_of_the_network_with_its_rounded_weights(network, params, stored):
    images = some_images(7)
    found = stored.probabilities(images)
    assert found.shape == (7, 4)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    on_device = labeling.of_set(stored)
    np.testing.assert_allclose(found, on_device.targets(jnp.asarray(images)), atol=1e-6)
    whole = network.apply(jax.tree.map(lambda a: jnp.asarray(a[0]), params), jnp.asarray(images))
    expected = jax.nn.softmax(whole / 1.5)
    assert 0 < np.abs(found - expected).max() < 0.05  # of six bits
    assert np.array_equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("bits", [3, 6, 8])
def test_weights_are_the_nearest_multiples(network, params, bits):
    of = Labels(source="labeler", width=5, weight_bits=bits)
    found = labeling.stored(network, params, of).weights
    kernel = np.asarray(params["body"]["Conv_1"]["kernel"])[0].reshape(-1, 5)
    most = 2 ** (bits - 1) - 1
    got = found["kernel1"].reshape(-1, 5)
    for column, rounded in zip(kernel.T, got.T, strict=True):
        step = np.unique(np.abs(np.diff(np.unique(rounded)))).min()
        multiples = rounded / step
        assert np.abs(multiples - np.rint(multiples)).max() < 1e-3
        assert np.abs(multiples).max() <= most + 1e-3
        inside = np.abs(column) <= (most + 0.5) * step
        assert np.abs(column - rounded)[inside].max() <= step / 2 * 1.01
        plain = np.abs(column).max() / most  # not clipped
        of_plain = np.rint(column / plain) * plain
        # The step itself is rounded to eight bits.
        assert np.square(rounded - column).sum() <= 1.25 * np.square(of_plain - column).sum()
    scale = np.asarray(params["body"]["InstanceNorm_0"]["scale"])[0]
    np.testing.assert_allclose(found["scale0"], scale, rtol=2**-8)


def test_a_file_keeps_it_and_counts_it(stored, tmp_path):
    set_, path = distilled(stored), tmp_path / "set.safetensors"
    gsdd_jax.save(path, set_)
    again = gsdd_jax.load(path)
    assert again.labeler.settings == SETTINGS
    for name, array in stored.weights.items():
        np.testing.assert_array_equal(again.labeler.weights[name], array)
    size = safetensors.numpy.load_file(path)["labeler_weights"].nbytes
    assert again.stored_bytes == {"pixels": 4 * 24 * 8 * 12 * 3, "labeler_weights": size}
    assert again.label_bytes == size < labeler.most_bytes(SHAPE, 4, 5, 2, 6) + 1
    # Steps, scales, shifts and biases of two bytes; 6 bits per weight.
    weights = 9 * 3 * 5 + 9 * 5 * 5 + 2 * 3 * 5 * 4
    assert labeler.most_bytes(SHAPE, 4, 5, 2, 6) == 2 * (3 * 10 + 2 * 4) + weights * 6 / 8
    gsdd_jax.save(tmp_path / "again.safetensors", again)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    said = info.text(info.info(again))
    assert "by a labeler: ConvNet of width 5 and depth 2, 6 bits per weight" in said
    assert "by a labeler" in hf.card(again)


def test_frequent_weights_take_fewer_bytes():
    wide = networks.build("convnet", image_shape=(32, 32, 3), num_classes=10, width=32)
    params = jax.vmap(wide.init)(jax.random.key(0)[None])
    # Of a normal distribution, as after training.
    draw = lambda a: np.random.default_rng(a.size).normal(size=a.shape).astype(np.float32)
    of = Labels(source="labeler", width=32, weight_bits=6)
    found = labeling.stored(wide, jax.tree.map(draw, params), of)
    assert len(found.payload) < 0.93 * labeler.most_bytes((32, 32, 3), 10, 32, 3, 6)
    _ = found.weights


def test_arrays_for_other_libraries_have_its_labels(stored):
    set_ = distilled(stored)
    images, targets = set_.numpy()
    np.testing.assert_allclose(targets, stored.probabilities(images))
    assert set_.numpy("unit").targets.shape == (24,)
    np.testing.assert_allclose(set_.numpy(height=8, width=12).targets, targets)
    assert set_.numpy(height=4, width=6).targets.shape == (24,)
    (_, first), *_ = set_.batches(5, seed=1)
    assert first.shape == (5, 4)


def test_fewer_classes_and_images_keep_it(stored):
    set_ = distilled(stored)
    fewer = gsdd_jax.subset(set_, ["c", "a"], images_per_class=2)
    images = some_images(5)
    odds = stored.probabilities(images)[:, [2, 0]]
    expected = odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose(fewer.labeler.probabilities(images), expected, rtol=1e-5)
    assert fewer.num_bytes == 4 * 4 * 8 * 12 * 3 + len(fewer.labeler.payload)
    one = gsdd_jax.subset(set_, bytes_per_class=2 * 4 * 8 * 12 * 3 + 400)
    assert one.class_counts == (2, 2, 2, 2) and one.labeler is not None


def test_what_knows_only_its_own_classes_is_not_joined(stored):
    with pytest.raises(gsdd_jax.UsageError, match="labeler: expected none, got one of its own"):
        gsdd_jax.merge([distilled(stored), distilled(None)])
    with pytest.raises(gsdd_jax.UsageError, match="set 2: expected no labeler"):
        union([distilled(None), distilled(stored)])
    for given in ({"config": {"labels.source": "labeler"}}, {"objective": "labeler"}):
        with pytest.raises(gsdd_jax.UsageError, match=r"labels\.source: expected class or teacher"):
            replay.Memory(bytes=1000, **given)
    with pytest.raises(gsdd_jax.UsageError, match="expected no labeler"):
        federated.pack(distilled(stored))
    sent = file.encoded(distilled(stored))
    with pytest.raises(gsdd_jax.UsageError, match="client 7: its set: expected no labeler"):
        of = {"most_bytes": 10**6, "classes": list("abcd"), "image_shape": SHAPE}
        federated.receive(sent, client="client 7", **of)


def test_exports_say_what_labels_they_have(stored, tmp_path):
    set_ = distilled(stored)
    line = exports.export(set_, tmp_path / "set.npz", "npz")
    assert "with labels of its labeler" in line
    np.testing.assert_allclose(np.load(tmp_path / "set.npz")["targets"], set_.numpy().targets)
    assert "with hard labels" in exports.export(set_, tmp_path / "png", "png")


@pytest.mark.parametrize(
    "header, message",
    [
        ({"labeler": None}, "unknown array 'labeler_weights'"),
        ({"labeler": 3}, "labeler: expected an object with width, depth, bits, temperature, got 3"),
        ({"labeler": SETTINGS | {"code": "x"}}, "labeler: expected an object with"),
        ({"labeler": SETTINGS | {"width": 0}}, r"labeler\.width: expected"),
        ({"labeler": SETTINGS | {"width": 5.0}}, r"labeler\.width: expected"),
        ({"labeler": SETTINGS | {"depth": 4}}, "expected images of at least 16 pixels"),
        ({"labeler": SETTINGS | {"depth": 10**6}}, r"labeler\.depth: expected"),
        ({"labeler": SETTINGS | {"width": 1024}}, "labeler: expected more than .* bytes for"),
        ({"labeler": SETTINGS | {"bits": 5}}, "labeler: "),
        ({"labeler": SETTINGS | {"width": 6}}, "labeler: "),
        ({"labeler": SETTINGS | {"temperature": 0}}, r"labeler\.temperature: expected"),
        ({"labeler": SETTINGS | {"temperature": "1"}}, r"labeler\.temperature: expected"),
        ({"label_bits": 4}, "labeler: expected no soft labels with a labeler, got both"),
    ],
)
def test_what_a_header_must_not_say(stored, tmp_path, header, message):
    path = tmp_path / "set.safetensors"
    gsdd_jax.save(path, distilled(stored))
    rewrite(path, header)
    with pytest.raises(gsdd_jax.UsageError, match=message):
        gsdd_jax.load(path)


@pytest.mark.parametrize(
    "bits, message",
    [
        (0x7F61, "expected finite weights, got larger ones"),  # 3e38
        (0x7F80, "expected finite numbers, got others"),  # infinite
        (0x7FC0, "expected finite numbers, got others"),
    ],
)
def test_weights_that_are_not_finite_are_refused(stored, bits, message):
    payload = stored.payload.copy()
    payload[:2].view("<u2")[:] = bits  # step of the first output
    with pytest.raises(gsdd_jax.UsageError, match=f"labeler: {message}"):
        _ = dataclasses.replace(stored, payload=payload).weights


def test_outputs_that_are_not_finite_are_refused(stored):
    """Steps of 8e36 are finite, and so are the weights."""
    payload = stored.payload.copy()
    payload[20:28].view("<u2")[:] = 0x7CC0  # of the linear layer
    huge = dataclasses.replace(stored, payload=payload)
    assert all(np.isfinite(of).all() for of in huge.weights.values())
    with pytest.raises(gsdd_jax.UsageError, match="labeler: expected finite outputs"):
        distilled(huge).numpy()
    with pytest.raises(gsdd_jax.UsageError, match="labeler: expected finite outputs"):
        stored.logits(np.full((1, *SHAPE), np.inf, np.float32))


def test_weights_of_a_cache_cannot_be_changed(stored):
    with pytest.raises(ValueError, match="read-only"):
        stored.weights["bias"][:] = 0


def test_images_that_memory_cannot_hold_are_refused(stored, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 4 * 8 * 12 * 5 * 5)
    with pytest.raises(gsdd_jax.UsageError, match=r"labeler: a layer of an image: .* of memory"):
        stored.logits(some_images(1))


@pytest.mark.parametrize(
    "change", [lambda p: p[:-1], lambda p: np.append(p, p[-1:]), lambda p: p[:3]]
)
def test_bytes_that_are_missing_or_too_many(stored, tmp_path, change):
    path = tmp_path / "set.safetensors"
    other = dataclasses.replace(stored, payload=change(stored.payload))
    with pytest.raises(gsdd_jax.UsageError, match=f"{path}: labeler: "):
        gsdd_jax.save(path, distilled(other))
    gsdd_jax.save(path, distilled(stored))
    rewrite(path, {}, labeler_weights=other.payload)
    with pytest.raises(gsdd_jax.UsageError, match=f"{path}: labeler: "):
        gsdd_jax.load(path)


def test_any_damage_is_found(stored, tmp_path):
    """Most other weights are a valid labeler: only the digest tells."""
    path = tmp_path / "set.safetensors"
    gsdd_jax.save(path, distilled(stored))
    whole = path.read_bytes()
    start = whole.index(stored.payload.tobytes())
    for place in range(0, len(stored.payload), 7):
        damaged = bytearray(whole)
        damaged[start + place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(gsdd_jax.UsageError, match="labeler"):
            gsdd_jax.load(path)


def test_codes_beyond_the_largest_are_refused(stored):
    """Six bits hold 64 numbers, of which 63 are codes."""
    layers = labeler.layers_of(SHAPE, 4, 5, 2)
    count = sum(a * b for a, b in layers)
    fixed = entropy.pack([np.full(count, 63)], [6])
    head = stored.payload[: labeler.most_bytes(SHAPE, 4, 5, 2, 6) - len(fixed)]
    other = dataclasses.replace(stored, payload=np.concatenate([head, fixed]))
    with pytest.raises(gsdd_jax.UsageError, match="expected codes from -31 to 31"):
        _ = other.weights


def rewrite(path, changes, **others):
    """Changes the header and arrays of a file, with digests that agree."""
    there = json.loads(file.metadata(path)[file.HEADER]) | changes
    there = {name: value for name, value in there.items() if value is not None}
    arrays, fields = safetensors.numpy.load_file(path), there.keys() - {"format", file.DIGESTS}
    arrays |= others
    there[file.DIGESTS] = file.digests(arrays, {name: there[name] for name in fields})
    path.write_bytes(safetensors.numpy.save(arrays, {file.HEADER: json.dumps(there)}))


def test_a_view_is_mostly_a_mixture():
    images = np.arange(200, dtype=np.float32)[:, None, None, None] * np.ones((1, 16, 20, 1))
    found = np.asarray(mixing.mixed(jax.random.key(0), jnp.asarray(images)))
    changed = found[..., 0] != np.arange(200)[:, None, None]
    areas = changed.mean((1, 2))
    some = areas > 0
    assert 0.7 < some.mean() < 0.9
    assert areas[some].min() > 0.05 and areas[some].max() < 0.6
    for one, there in zip(found[some, ..., 0], changed[some], strict=True):
        rows, columns = there.any(1), there.any(0)
        np.testing.assert_array_equal(there, rows[:, None] & columns)  # one rectangle
        assert (
            len(set(np.flatnonzero(rows)[[0, -1]])) and (np.diff(np.flatnonzero(rows)) == 1).all()
        )
        assert len(np.unique(one[there])) == 1  # of one image


def test_padding_gets_into_no_mixture():
    present = np.arange(40) % 3 > 0
    images = np.where(present, np.arange(1.0, 41), 0.0)[:, None, None, None] * np.ones((8, 8, 1))
    given = jnp.float32(images), jnp.asarray(present)
    partners = set()
    for seed in range(5):
        found = np.asarray(mixing.mixed(jax.random.key(seed), *given))[present, ..., 0]
        partners |= {tuple(np.unique(one)) for one in found}
    assert 0 not in {value for pair in partners for value in pair}
    assert len({max(pair) for pair in partners if len(pair) == 2}) > 15


def test_training_minimizes_the_loss_of_labeled_views(network, stored):
    """One step without augmentation, compared with the derivative of its own loss."""
    images, key = jnp.asarray(some_images(10)), jax.random.key(5)
    of_set = labeling.of_set(stored)
    schedule = evaluate.Schedule("sgd_cosine", 1, 0, momentum=0.0, weight_decay=0.0, strategy="")
    params, keys = evaluate.initial(network, key, 2)
    optimizer = schedule.transformation(0.5, 10)
    state = evaluate.Students(params, jax.vmap(optimizer.init)(params), jnp.zeros((), jnp.int32))
    given = keys, images[None], of_set, jnp.float32(0.5), jnp.int32(1)
    start = jax.tree.map(jnp.copy, params)
    trained, _ = evaluate.train_epochs(network, schedule, state, *given)
    for i in range(2):
        epoch_key = jax.random.fold_in(keys[i], 0)
        order = jax.random.permutation(epoch_key, 10)
        step_key = jax.random.fold_in(epoch_key, 0)
        views = mixing.mixed(jax.random.fold_in(step_key, 1), images[order])
        expected = after_one_step(network, numbered(start, i), views, stored, 0.5)
        jax.tree.map(close, numbered(trained.params, i), expected)


def after_one_step(network, params, views, labeler_, rate):
    targets = labeler_.probabilities(np.asarray(views))

    def loss(params):
        return -(targets * jax.nn.log_softmax(network.apply(params, views))).sum(1).mean()

    return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))


def numbered(stacked, i):
    return jax.tree.map(lambda a: a[i], stacked)


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Returns a tiny run that stores a labeler."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = load("demo")
    config.update_from_flattened_dict(tiny.TINY)
    config.labels.update(source="labeler", width=4, weight_bits=4)
    config.teacher.epochs = 3
    config.distill.update(num_steps=4, eval_every=2)
    config.evaluate.update(baselines="", epochs=2)
    return config


def test_a_run_stores_the_network_that_it_trained(config, tmp_path, monkeypatch):
    result = distill_to(config, tmp_path / "whole")
    set_ = gsdd_jax.load(tmp_path / "whole" / "distilled.safetensors")
    assert set_.labeler.width == 4 and set_.soft_labels is None
    assert set_.num_bytes <= 10 * 4 * 8 * 8 * 3
    assert result["bytes_per_class"] == set_.num_bytes // 10
    found = teacher.labeler(config, experiment.build(config), tmp_path / "whole", Reporter(None))
    own = np.asarray(found.params["body"]["InstanceNorm_0"]["scale"])[0]
    np.testing.assert_allclose(set_.labeler.weights["scale0"], own, rtol=2**-8)
    assert of_labels(config).network.options.width == 4
    found = evaluate_file(tmp_path / "whole", baselines=False)
    assert found["distilled_accuracies"] == result["distilled_accuracies"]
    with pytest.raises(gsdd_jax.UsageError, match="labeler: images of another size have no labels"):
        evaluate_file(tmp_path / "whole", baselines=False, resolution=16)

    # Interrupted while the labeler trains, the run ends with the same bytes.
    again = tmp_path / "again"
    run = lambda: distill_to(config, again)
    interrupted_once(monkeypatch, evaluate, "train_epochs", 2, run)
    check_same_bytes(tmp_path / "whole", again)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"labels.learned": True}, r"labels\.learned: expected False with config\.labels\.source"),
        ({"teacher.num_networks": 2}, r"teacher\.num_networks: expected 1 with"),
        ({"labels.mixes": 2}, r"labels\.mixes: expected 0 with config\.labels\.source=labeler"),
        ({"labels.width": 128}, "budget"),
    ],
)
def test_settings_that_are_refused(config, changes, message):
    config.update_from_flattened_dict(changes)
    with pytest.raises(gsdd_jax.UsageError, match=message):
        experiment.build(config)


def test_images_of_another_shape_are_refused(stored):
    with pytest.raises(
        ValueError, match=r"images: expected shape \[m, 8, 12, 3\], got \[2, 8, 8, 3\]"
    ):
        stored.logits(np.zeros((2, 8, 8, 3), np.float32))
    assert stored.probabilities(np.zeros((0, *SHAPE), np.float32)).shape == (0, 4)


def test_a_labeler_has_no_option_of_the_networks_that_it_teaches():
    config = load("demo")
    config.network.options.update(width=7, depth=1)
    config.labels.update(source="labeler", width=9)
    network = of_labels(config).network
    assert network.options.to_dict() == {"width": 9} and network.name == "convnet"
