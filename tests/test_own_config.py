"""Tests settings that follow from a data set, and classes of few pictures."""

import math
import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import gsdd_jax
from configs import common, own
from gsdd_jax import data, parameterizations
from gsdd_jax.config import adapt, validate
from gsdd_jax.core import trees
from gsdd_jax.core.errors import UsageError, ranged
from gsdd_jax.data import shares
from gsdd_jax.runs import baselines, distill, experts
from gsdd_jax.runs.progress import Display
from gsdd_jax.setup import experiment, provenance, start
from launch import cli
from tests.own_pictures import make, noise, only, save


@pytest.mark.parametrize(
    ("shape", "num_classes", "largest", "expected"),
    [
        # 2446 Gaussians of 40 bits per class beside tables: 111 of 22; 200 steps
        ((32, 32, 3), 10, 400, (111, 0.1, 40, 30)),
        ((32, 32, 3), 2, 12, (12, 0.1, 200, 30)),  # no more than there are
        ((64, 64, 3), 10, 400, (111, 0.01, 40, 25)),  # 9819: as many of 88
        ((128, 128, 3), 10, 400, (111, 0.01, 40, 25)),  # 39310: of 354
        ((28, 28, 1), 10, 400, (40, 0.1, 100, 30)),  # 780 of 5/6 of 38 bits: 40 of 19
        ((32, 32, 3), 100, 500, (111, 0.1, 30, 20)),
        ((32, 32, 3), 10, 5000, (111, 0.1, 40, 5)),
        ((32, 32, 3), 2, 5000, (109, 0.1, 200, 15)),  # tables take more of two classes
        ((8, 8, 3), 2, 1, (1, 0.1, 200, 30)),
    ],
)
def test_settings_that_suit_a_data_set(shape, num_classes, largest, expected):
    config = adapt.suited(own.get_config(), shape, num_classes, largest)
    found = (
        config.budget.images_per_class,
        config.init.learning_rate,
        config.evaluate.epochs,
        config.teacher.epochs,  # 5 to 30: 150,000 of 32 x 32, 10,000 of a class
    )
    assert found == expected
    assert not adapt.is_open(config)


def test_clips_are_stored_in_codes_of_clips():
    clips = (16, 16, 3 * 8), 2, 180, 8
    assert adapt.suited(own.get_config(), *clips).parameterization.name == "video_quantized"
    given = {"parameterization.name": "quantized"}
    assert adapt.suited(own.get_config(), *clips, given).parameterization.name == "quantized"


@pytest.mark.parametrize("side", [8, 10, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_suggested_codes_leave_room_for_their_tables(side, channels):
    shape = (side, side, channels)
    config = adapt.suited(own.get_config(), shape, 2, 200)
    kind = parameterizations.build(
        "quantized", shape, images_per_class=config.budget.images_per_class, num_classes=2,
        bytes_per_class=4 * math.prod(shape),
    )  # fmt: skip
    each = kind.num_gaussians / kind.num_images
    assert each >= 0.9 * 22 * side / 32  # as many as larger images have, but for rounding


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("budget.images_per_class", "0 (automatic) or an integer from 1 to 2147483647, got -1"),
        ("teacher.epochs", "0 (automatic) or an integer from 1 to 100000, got -1"),
        ("init.learning_rate", "0 (automatic) or a number from 1e-30 to 1e+19, got -1"),
        ("mesh.devices", "an integer from 0 to 2147483647, got -1"),
    ],
)
def test_a_refusal_names_the_whole_range(field, expected):
    config = own.get_config()
    config.update_from_flattened_dict({field: -1})
    with pytest.raises(UsageError, match=re.escape(f"config.{field}: expected {expected}")):
        validate.every(config, automatic=True)


def test_what_is_given_prevails():
    config = own.get_config()
    config.budget.images_per_class, config.evaluate.batch_size = 7, 5
    before = trees.flat(config)
    after = trees.flat(adapt.suited(config, (32, 32, 3), 10, 400))
    differing = {name for name in before if before[name] != after[name]}
    assert differing == {"init.learning_rate", "evaluate.epochs", "teacher.epochs"}
    assert trees.flat(config) == before


def test_images_and_baselines_follow_from_the_bytes():
    config = own.get_config()
    config.data.name, config.budget.bytes = "cifar10_mini", 6000
    config.evaluate.baselines = "fitted,random_real,random_real_uint8"
    # 6000 / 18 / 22; by codes of 40 bits 5946 / 5 / 22; four float32 images of 8 x 8 x 3, ...
    expected = {"gaussian": 15, "quantized": 54, "idc": 1, "ddif": 18}
    for name, images in expected.items():
        config.parameterization.name = name
        config.parameterization.options = ConfigDict()
        parts = experiment.build_fit_parts(adapt.suited(config, (32, 32, 3), 10, 500))
        assert parts.parameterization.images_per_class == images, name
    # 12,288 bytes are one image in float32, 3,072 one in bytes.
    for there, left in ((12_288, "random_real"), (12_287, "random_real_uint8"), (3071, None)):
        config.budget.bytes = there
        arms = experiment.baselines(config, parts.dataset)
        assert arms[:2] == ["fitted", left][: 1 + bool(left)]


def test_commands_decide_what_is_open_by_the_data_set(tmp_path, capsys):
    folder = only(tmp_path / "pictures", "a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png")
    make(tmp_path, folder, test=folder)
    config = own.get_config()
    with pytest.raises(UsageError, match=r"config\.data\.name: .* `python -m launch\.prepare`"):
        cli.experiment(config)
    config.data.name, config.data.dir = "mine", str(tmp_path / "tfds")
    config.evaluate.epochs = 7
    decided = cli.experiment(config)
    assert (decided.budget.images_per_class, decided.evaluate.epochs) == (3, 7)
    assert not adapt.is_open(decided)
    assert capsys.readouterr().out == (
        "for mine, of 2 classes of 2 to 3 training images: --config.budget.images_per_class=3 "
        "--config.init.learning_rate=0.1 --config.teacher.epochs=30\n"
    )
    config.scale = 0.01  # of the decision
    shrunk = cli.experiment(config)
    assert shrunk.budget.images_per_class == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(
        "for mine, of 2 classes of 2 to 3 training images: --config.budget.images_per_class=1 "
    )
    assert cli.experiment(decided) == decided
    capsys.readouterr()
    config.scale, config.evaluate.epochs = 0.05, 0  # of 200
    for optimizer, said in (("sgd", "=10 (evaluations: 11 epochs with sgd)"), ("adam", "=10")):
        config.evaluate.optimizer = optimizer
        cli.experiment(config)
        line = capsys.readouterr().out.splitlines()[0]
        assert line.endswith(f" --config.evaluate.epochs{said}")


COUNTS = {"many": 9, "one": 1}


@pytest.fixture
def unequal(tmp_path):
    """Returns a gray set of two classes, one of a single picture, and its suited config."""
    folder = tmp_path / "pictures"
    for label, count in COUNTS.items():
        for i in range(count):
            save(noise(i, 28, 30), folder / label / f"{i}.png")
    result = make(tmp_path, folder, test=folder, resolution=None)
    assert (result.train, result.image_shape) == ([9, 1], (28, 28, 1))
    config = own.get_config()
    config.data.name, config.data.dir = "mine", str(tmp_path / "tfds")
    config.network.options.update(width=2, depth=1)
    config.init.num_steps = config.distill.num_steps = 2
    config.matching.strategy, config.evaluate.num_networks = "color", 1
    config.evaluate.epochs, config.evaluate.baselines = 1, "random_real_uint8"
    return adapt.suited(config, result.image_shape, 2, max(result.train))


@pytest.mark.parametrize(
    ("matching", "split", "expected"),
    [("dm", "even", [9, 9]), ("tm", "proportional", [16, 2]), ("dc", "sqrt", [14, 4])],
)
def test_two_classes_one_of_a_single_gray_picture_distill(
    tmp_path, unequal, matching, split, expected, quickly_compiled, capsys, monkeypatch
):
    """Distills images, drawn or not, and as many real ones per class; the small class is named."""
    config = unequal
    config.budget.split = split
    assert config.budget.images_per_class == 9  # as many as the larger class has
    if matching != "dm":
        common.matched_by(config, matching)
    if matching == "tm":
        config.matching.options.syn_steps, config.matching.options.expert_epochs = 2, 1
        config.matching.options.max_start_epoch = config.experts.num_experts = 1
        config.experts.epochs, config.experts.dir = 2, str(tmp_path / "experts")
        experts.train_all(config, Display())
    if split == "proportional":
        config.evaluate.baselines = "random_real_uint8,random_real_dct"
        monkeypatch.setattr(baselines, "TRIALS", ((0.5, 1.0),))
    result = distill.distill_to(config, tmp_path / "run")
    set_ = gsdd_jax.load(tmp_path / "run" / "distilled.safetensors")
    assert set_.images().shape == (18, 28, 28, 1)
    assert np.isfinite(set_.images()).all()
    assert np.bincount(set_.labels).tolist() == expected == result.get("images_by_class", [9, 9])
    assert provenance.resolve(set_.provenance, {}).budget.split == split
    assert 0 <= result["random_real_uint8_accuracy"] <= 100
    out = capsys.readouterr().out
    assert f" {ranged(expected, 'image')} per class of 81.5 Gaussians in codes" in out
    few = "'one' (1)" if split == "even" else "'many' (9), 'one' (1)"
    there = ranged(sorted(set(expected)), "training image")
    assert f"warning: fewer than {there} of {few}: several images" in out
    if split == "proportional":
        real = gsdd_jax.load(tmp_path / "run" / "random_real_dct.safetensors")
        assert real.class_counts == shares.counts((9, 1), len(real.labels), split)
        config.init.set, config.budget.split = str(tmp_path / "run"), "even"
        parts = experiment.build_fit_parts(config)
        with pytest.raises(UsageError, match=r"of each class: expected \[9, 9\].* \[16, 2\]"):
            start.opened(config, parts, tmp_path / "other")


def test_images_of_a_class_of_few_come_again_shifted():
    """Shifts distinct copies by a pixel once all images are used; other classes are unaffected."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 8, 8, 1), np.uint8)
    labels = np.array([0] * 10 + [1] * 2, np.int32)
    split = data.Split(pixels, labels)
    dataset = data.Dataset("mine", split, split, 2, ("many", "few"), (0.5,), (0.5,), "")
    key = jax.random.key(3)
    found = np.uint8(np.round(255 * experiment.initial_images(dataset, key, [10, 10])))
    few = [image.tobytes() for image in found[10:]]
    assert set(few[:2]) == {pixels[10].tobytes(), pixels[11].tobytes()}
    assert len(set(few)) == 10
    wider = pixels[10:].take(np.clip(range(-1, 9), 0, 7), 1).take(np.clip(range(-1, 9), 0, 7), 2)
    moved = {
        (which, wider[which, y : y + 8, x : x + 8].tobytes())
        for which in (0, 1) for y in range(3) for x in range(3)
    }  # fmt: skip
    times = [next(which for which, image in moved if image == there) for there in few]
    assert times == [times[0], times[1]] * 5
    fewer = experiment.initial_images(dataset, key, [2, 2])
    np.testing.assert_array_equal(np.uint8(np.round(255 * fewer)), found[[0, 1, 10, 11]])


def test_more_images_than_any_class_has_are_refused(unequal):
    unequal.budget.images_per_class = 10
    with pytest.raises(
        UsageError, match=r"10 images per class .* no class of more than 9; lower it"
    ):
        experiment.build_fit_parts(unequal)


@pytest.mark.parametrize("objective", ["tm", "datm", "bptt"])
def test_a_batch_of_the_defaults_is_no_larger_than_the_set(objective):
    config = own.get_config(f"objective={objective}")
    config.budget.images_per_class = 2
    suited = lambda **given: adapt.suited(config, (32, 32, 3), 3, 500, **given).matching.options
    assert suited().batch_syn == 6
    config.matching.options.batch_syn = 7
    assert suited(given={"matching.options.batch_syn": 7}).batch_syn == 7  # refused later
