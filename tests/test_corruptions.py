"""Tests corruptions against libjpeg, SciPy and NumPy."""

import io

import jax
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from gsdd_jax import data
from gsdd_jax.data import corruptions

pytestmark = pytest.mark.usefixtures("quickly_compiled")

KEY = jax.random.key(0)
jpeg = jax.jit(corruptions.jpeg, static_argnums=1)


@pytest.fixture(scope="module")
def photos():
    return data.load("cifar10_mini").test.images[:24]


def scipy_blur(image, deviation):
    return scipy.ndimage.gaussian_filter(image, (deviation, deviation, 0), mode="nearest")


def test_blur(photos):
    for strength, deviation in enumerate((0.4, 0.6, 0.7, 0.8, 1.0), 1):
        expected = np.stack([scipy_blur(p / 255.0, deviation) for p in photos])
        found = np.asarray(corruptions.corrupt(KEY, photos, "blur", strength))
        assert np.abs(found - 255 * expected).max() < 0.6


def test_contrast(photos):
    values = photos.astype(np.float64)
    mean = values.mean((1, 2), keepdims=True)
    for strength, part in enumerate((0.75, 0.5, 0.4, 0.3, 0.15), 1):
        found = np.asarray(corruptions.corrupt(KEY, photos, "contrast", strength))
        assert np.abs(found - (mean + part * (values - mean))).max() < 0.501


def test_noise_has_its_deviation_and_belongs_to_its_key():
    gray = np.full((64, 32, 32, 3), 128, np.uint8)
    for strength, deviation in enumerate((0.04, 0.06, 0.08, 0.09, 0.10), 1):
        found = np.asarray(corruptions.corrupt(KEY, gray, "noise", strength)) / 255
        assert abs(found.std() - deviation) < 0.001
        assert abs(found.mean() - 128 / 255) < 0.001
    again = np.asarray(corruptions.corrupt(KEY, gray, "noise", 5)) / 255
    other = np.asarray(corruptions.corrupt(jax.random.key(1), gray, "noise", 5)) / 255
    assert (found == again).all() and (found != other).mean() > 0.9


def libjpeg(image, quality):
    coded = io.BytesIO()
    Image.fromarray(image.squeeze()).save(coded, "jpeg", quality=quality)
    return np.asarray(Image.open(coded)).reshape(image.shape)


@pytest.mark.parametrize("quality", [80, 7])
def test_jpeg_is_libjpegs(photos, quality):
    """Allows for libjpeg's integer transforms, which rarely round to the next step."""
    expected = np.stack([libjpeg(p, quality) for p in photos]).astype(float)
    found = np.asarray(jpeg(photos, quality)).astype(float)
    damage = np.abs(expected - photos).mean()
    assert np.abs(found - expected).mean() < 0.1 * damage
    assert (np.abs(found - expected) <= 2).mean() > 0.95


def test_jpeg_of_gray_and_of_sizes_that_are_no_multiples_of_a_block(photos):
    for image in (photos[:1, :27, :19], photos[:1, :27, :19, :1]):
        found = np.asarray(jpeg(image, 40)).astype(float)
        expected = libjpeg(image[0], 40)
        assert (np.abs(found[0] - expected) <= 2).mean() > 0.95


def test_strengths_of_large_images_are_others():
    gray = np.full((1, 128, 128, 3), 128, np.uint8)
    found = np.asarray(corruptions.corrupt(KEY, gray, "noise", 1)) / 255
    assert abs(found.std() - 0.08) < 0.002


@pytest.mark.parametrize(
    "kind, strength, channels, message",
    [
        ("fog", 1, 3, "noise, blur, contrast, jpeg"),
        ("noise", 6, 3, "1 to 5"),
        ("jpeg", 1, 4, "channels"),
    ],
)
def test_what_is_refused(kind, strength, channels, message):
    with pytest.raises(ValueError, match=message):
        corruptions.corrupt(KEY, np.zeros((1, 8, 8, channels), np.uint8), kind, strength)
