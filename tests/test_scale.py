"""Tests counts of each device's computation, communication and memory against shapes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import scale
from gsdd_jax import UsageError
from tests.conftest import QUICKLY

ROOT = pathlib.Path(__file__).parent.parent
IMAGE, GAUSSIANS = (
    32 * 32 * 3,
    40 * 170 * 9,
)  # numbers of an image, and of all 40 images' Gaussians
FEATURES = 16 * 16 * 4
LEARNED = 27 * 4 + 2 * 4 + FEATURES * 10 + 10  # by a student; norms drop the convolution's bias


@pytest.fixture(scope="module")
def found():
    """Returns the rows of `tests.known_programs`, on one device and on four."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.known_programs"],
        capture_output=True,
        text=True,
        env={**os.environ, **QUICKLY},
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_collectives_are_counted_by_kind(found):
    assert found["known"]["calls"] == 6
    assert found["known"]["collectives"] == {
        "all-reduce": 2 * 5 * 4,  # floats of four bytes
        "all-gather": 4 * 2 * 8 * 4,
        "reduce-scatter": 2 * 4,
        "collective-permute": 2 * 3,
        "all-to-all": 4 * 2 * 4,
    }


@pytest.mark.parametrize(
    ("name", "collectives"),
    [
        # Two devices divide the classes, and two a class's images: they add up means of real and
        # of synthetic images, their gradient, the Gaussians' and the loss, and gather the random
        # numbers by which 50,000 real images are drawn.
        ("dm distill", {"all-reduce": 3 * 5 * FEATURES + GAUSSIANS + 1, "all-gather": 50_000}),
        # Students share 24 images of 40 and their labels. They add up the student's gradient, its
        # derivative by the student and once more, the drawn images', the Gaussians' and the loss.
        (
            "tm distill",
            {
                "all-reduce": 3 * LEARNED + 24 * IMAGE + GAUSSIANS + 1,
                "all-gather": 24 * (IMAGE + 1),
            },
        ),
        ("dm fit", {}),
        ("dm evaluation", {}),
        ("tm experts", {}),
    ],
)
def test_devices_send_only_what_they_must(found, name, collectives):
    of, part = name.split()
    assert found[of][f"{part} 1"]["collectives"] == {}
    assert found[of][f"{part} 4"]["collectives"] == {k: 4 * n for k, n in collectives.items()}


@pytest.mark.parametrize(
    ("name", "counted", "share"),
    [
        ("dm distill", "flops", 0.3),  # and every device draws on its own
        ("tm distill", "flops", 0.26),
        ("dm fit", "flops", 0.26),
        ("dm evaluation", "bytes", 0.28),  # a network each; XLA's count of FLOPs differs by shape
        ("tm experts", "flops", 1),  # one more on each
    ],
)
def test_devices_divide_what_one_computes(found, name, counted, share):
    of, part = name.split()
    one, four = (found[of][f"{part} {devices}"][counted] for devices in (1, 4))
    assert share / 1.2 < four / one <= share


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("dm distill", 80 + 40),
        ("tm distill", 24),
        ("dm fit", 40),
        ("dm evaluation", 4 * 40),
        ("tm experts", 256),
    ],
)
def test_a_step_holds_the_activations_of_its_images_and_little_more(found, name, images):
    """Checks that no step holds 50,000 images as floats, or a weight per pixel and Gaussian."""
    of, part = name.split()
    for devices in (1, 4):
        activations = 4 * 32 * 32 * 4 * images
        assert found[of][f"{part} {devices}"]["temporary"] < 6 * activations


@pytest.mark.parametrize(
    ("devices", "configs", "message"),
    [
        ("0", "", "--devices: expected comma-separated numbers from 1 to 64, got '0'"),
        ("1,eight", "", "--devices: expected comma-separated numbers from 1 to 64, got '1,eight'"),
        ("128", "", "--devices: expected comma-separated numbers from 1 to 64, got '128'"),
        ("", "demo", "--configs: expected some of cifar100_tm:ipc=50,.*, got 'demo'"),
    ],
)
def test_what_is_not_compiled(devices, configs, message):
    with pytest.raises(UsageError, match=message):
        scale.main(None, devices, configs)
