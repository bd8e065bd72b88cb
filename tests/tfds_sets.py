"""Makes and loads small TFDS sets."""

import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gsdd_jax import data

REPOSITORY = pathlib.Path(__file__).parent.parent
TEST_SEED = 0
NO_JSON_OBJECT = [b"", b"{", b"[1]", b"null", b'"x"', b"3", b"{}", b"\0\xff" * 9, b"[" * 10**5]


class _Prepared(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
    """Writes the given examples in order; the inherited class asks for TensorFlow."""

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=self._feature_spec, disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {split: enumerate(examples) for split, examples in self._split_datasets.items()}


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, "PNG")
    return out.getvalue()


def prepare(data_dir, name, splits, *, channels=3, num_classes=3, features=None, **kwargs):
    """Prepares a set from {split: [(encoded image, label), ...]}; returns its folder.

    A third item of an example has its other fields.
    """
    tfds.disable_progress_bar()
    features = {
        "image": tfds.features.Image(shape=(None, None, channels)),
        "label": tfds.features.ClassLabel(num_classes=num_classes),
    } | (features or {})
    builder = _Prepared(
        **{"name": name, "version": "1.0.0"} | kwargs,
        features=tfds.features.FeaturesDict(features),
        split_datasets={
            split: [
                {"image": io.BytesIO(encoded), "label": label, **dict(*more)}
                for encoded, label, *more in examples
            ]
            for split, examples in splits.items()
        },
        data_dir=data_dir,
        file_format="array_record",
    )
    builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


def random_images(seed, number, shape) -> np.ndarray:
    rng = np.random.default_rng((TEST_SEED, seed))
    return rng.integers(0, 256, (number, *shape), dtype=np.uint8)


def prepare_tiny(tmp_path):
    """Returns a set of 7 training and 4 test images, 6 x 8, with its pixels and labels."""
    images = random_images(1, 11, (6, 8, 3))
    labels = np.arange(11) * 2 % 3
    pairs = [(png(image), int(label)) for image, label in zip(images, labels, strict=True)]
    folder = prepare(tmp_path / "tfds", "tiny", {"train": pairs[:7], "test": pairs[7:]})
    return folder, images, labels


def load_tiny(tmp_path, **kwargs) -> data.Dataset:
    return data.load("tiny", data_dir=tmp_path / "tfds", cache_dir=tmp_path / "cache", **kwargs)


def assert_is_tiny(dataset, images, labels):
    np.testing.assert_array_equal(dataset.train.images, images[:7])
    np.testing.assert_array_equal(dataset.train.labels, labels[:7])
    np.testing.assert_array_equal(dataset.test.images, images[7:])
    np.testing.assert_array_equal(dataset.test.labels, labels[7:])


def refuse_to_decode(*_):
    raise AssertionError("an image was decoded")


def run_python(code: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        **kwargs,
    )
