"""TensorFlow Datasets export: array_record files, written without TensorFlow."""

import io
import pathlib
import reprlib
from collections.abc import Sequence

import numpy as np

from gsdd_jax.core import records
from gsdd_jax.core.errors import UsageError
from gsdd_jax.exports import png
from gsdd_jax.exports.place import Pictures

NAME, VERSION = "distilled_set", "1.0.0"


def write(path: pathlib.Path, pictures: Pictures) -> None:
    """Writes NAME/VERSION, for `tfds.data_source("distilled_set", data_dir=path)["train"]`.

    Clips are sequences of images in the feature "video". Soft labels are class probabilities,
    float32 [k], in the feature "target".
    """
    import tensorflow_datasets as tfds

    pixels, labels, names, image_shape, soft, _ = pictures
    count = int(labels.max()) + 1
    if names is not None:
        _check_names(names)
    classes = {"num_classes": count} if names is None else {"names": list(names)}
    image = tfds.features.Image(shape=image_shape[-3:], encoding_format="png")
    # Unlike Video, TFDS reads a sequence of images without TensorFlow.
    clip = tfds.features.Sequence(image, length=image_shape[0])
    key, feature = ("video", clip) if pictures.is_clips else ("image", image)
    features = {key: feature, "label": tfds.features.ClassLabel(**classes)}
    if soft is not None:
        features["target"] = tfds.features.Tensor(shape=(count,), dtype=np.float32)

    def examples():
        for index, (of, label) in enumerate(zip(pixels, labels, strict=True)):
            frames = [io.BytesIO(png.encode(frame)) for frame in of.reshape(-1, *image_shape[-3:])]
            example = {key: frames if pictures.is_clips else frames[0], "label": int(label)}
            yield example if soft is None else example | {"target": soft[index]}

    folder = path / NAME / VERSION
    folder.mkdir(parents=True)
    description = "A distilled set, clipped to [0, 1] and rounded to 8 bits."
    records.write(folder, NAME, features, {"train": examples()}, description)


def _check_names(names: Sequence[str]) -> None:
    """Raises UsageError for class names that TFDS's file, one per line, would change."""
    right = all(name.isprintable() and name.strip() == name != "" for name in names)
    if not right or len(set(names)) != len(names):
        raise UsageError(
            f"provenance.data.class_names: expected {len(names)} different names of printable "
            f"characters, got {reprlib.repr(list(names))}; the other formats need none"
        )
