"""Settings that follow from a data set, and classes of few pictures."""

import numpy as np
import pytest
from own_pictures import make, only

import gsdd_jax
from configs import common, own
from gsdd_jax.core.errors import UsageError
from gsdd_jax.runs import distill, workdir
from launch import cli


@pytest.mark.parametrize(
    ("shape", "num_classes", "smallest", "expected"),
    [
        # 682 Gaussians a class: 31 of 22; two equal batches, 200 steps
        ((32, 32, 3), 10, 400, (31, 0.1, 155, 100)),
        ((32, 32, 3), 2, 12, (12, 0.1, 24, 200)),  # no more than there are
        ((64, 64, 3), 10, 400, (62, 0.01, 207, 66)),  # 2730: 62 of 44
        ((128, 128, 3), 10, 400, (124, 0.01, 248, 40)),  # 10922: 124 of 88
        ((28, 28, 1), 10, 400, (11, 0.1, 110, 200)),  # 224 of seven numbers: 11 of 20
        ((32, 32, 3), 100, 400, (31, 0.1, 239, 30)),
        ((8, 8, 3), 2, 1, (1, 0.1, 2, 200)),
    ],
)
def test_settings_that_suit_a_data_set(shape, num_classes, smallest, expected):
    config = common.suited(own.get_config(), shape, num_classes, smallest)
    found = (
        config.budget.gpc,
        config.init.learning_rate,
        config.evaluate.batch_size,
        config.evaluate.epochs,
    )
    assert found == expected
    assert not common.is_open(config)


def test_what_is_given_prevails():
    config = own.get_config()
    config.budget.gpc, config.evaluate.batch_size = 7, 5
    before = workdir.flat(config)
    after = workdir.flat(common.suited(config, (32, 32, 3), 10, 400))
    differing = {name for name in before if before[name] != after[name]}
    assert differing == {"init.learning_rate", "evaluate.epochs"}
    assert workdir.flat(config) == before


def test_commands_decide_what_is_open_by_the_data_set(tmp_path, capsys):
    folder = only(tmp_path / "pictures", "a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png")
    make(tmp_path, folder, test=folder)
    config = own.get_config()
    with pytest.raises(UsageError, match=r"config\.data\.name: .* `python -m launch\.prepare`"):
        cli.experiment(config)
    config.data.name, config.data.dir = "mine", str(tmp_path / "tfds")
    config.evaluate.epochs = 7
    decided = cli.experiment(config)
    assert (decided.budget.gpc, decided.evaluate.epochs) == (2, 7)
    assert not common.is_open(decided)
    assert capsys.readouterr().out == (
        "for mine, of 2 classes of 2 training images or more: --config.budget.gpc=2 "
        "--config.init.learning_rate=0.1 --config.evaluate.batch_size=4\n"
    )
    config.scale = 0.01  # of what was decided
    assert cli.experiment(config).budget.gpc == 1
    assert cli.experiment(decided) == decided


def test_two_classes_one_of_a_single_grey_picture_distil(tmp_path, quickly_compiled):
    counts = {"many": 9, "one": 1}
    names = [f"{label}/{i}.png" for label, count in counts.items() for i in range(count)]
    folder = only(tmp_path / "pictures", *names)
    result = make(tmp_path, folder, test=folder, grey=True, resolution=16)
    assert result.train == [9, 1]
    config = own.get_config()
    config.data.name, config.data.dir = "mine", str(tmp_path / "tfds")
    config.network.options.width, config.init.num_steps, config.distill.num_steps = 4, 2, 2
    config.matching.strategy, config.evaluate.num_networks = "color", 1
    config.evaluate.epochs, config.evaluate.beside = 1, "random_real"
    config = common.suited(config, result.image_shape, 2, min(result.train))
    assert config.budget.gpc == 1
    distill.distill_to(config, tmp_path / "run")
    images = gsdd_jax.load(tmp_path / "run" / "distilled.safetensors").images()
    assert images.shape == (2, 16, 16, 1)
    assert np.isfinite(images).all()
