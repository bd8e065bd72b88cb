"""TensorFlow Datasets export: array_record files, written without TensorFlow."""

import io
import pathlib
import reprlib
from collections.abc import Sequence

import numpy as np

from gsdd_jax.core import records
from gsdd_jax.core.errors import UsageError
from gsdd_jax.exports.place import Pictures

NAME, VERSION = "distilled_set", "1.0.0"


def write(path: pathlib.Path, pictures: Pictures) -> None:
    """Writes NAME/VERSION, for `tfds.data_source("distilled_set", data_dir=path)["train"]`.

    Soft labels are class probabilities, float32 [k], in the feature "target".
    """
    import tensorflow_datasets as tfds

    files, labels, names, image_shape, soft, _ = pictures
    count = int(labels.max()) + 1
    if names is not None:
        _check_names(names)
    classes = {"num_classes": count} if names is None else {"names": list(names)}
    features = {
        "image": tfds.features.Image(shape=image_shape, encoding_format="png"),
        "label": tfds.features.ClassLabel(**classes),
    }
    if soft is not None:
        features["target"] = tfds.features.Tensor(shape=(count,), dtype=np.float32)

    def examples():
        for index, (content, label) in enumerate(zip(files, labels, strict=True)):
            example = {"image": io.BytesIO(content), "label": int(label)}
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
