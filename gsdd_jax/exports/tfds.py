"""As a data set of TensorFlow Datasets in array_record files, written without TensorFlow."""

from __future__ import annotations

import contextlib
import io
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

NAME, VERSION = "distilled_set", "1.0.0"


def write(
    path: pathlib.Path,
    files: Iterator[bytes],
    labels: np.ndarray,
    names: Sequence[str] | None,
    image_shape: tuple[int, ...],
) -> None:
    """NAME/VERSION; read it with `tfds.data_source("distilled_set", data_dir=path)["train"]`."""
    import tensorflow_datasets as tfds

    # Here and not above, for its base is slow to import; TFDS asks that a class can be found.
    from gsdd_jax.exports import tfds_builder

    tfds.disable_progress_bar()
    classes = {"num_classes": int(labels.max()) + 1} if names is None else {"names": list(names)}
    examples = (
        (index, {"image": io.BytesIO(content), "label": int(label)})
        for index, (content, label) in enumerate(zip(files, labels, strict=True))
    )
    builder = tfds_builder.InOrder(
        name=NAME,
        version=VERSION,
        description="A distilled set, clipped to [0, 1] and rounded to 8 bits.",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=image_shape, encoding_format="png"),
                "label": tfds.features.ClassLabel(**classes),
            }
        ),
        split_datasets={"train": examples},
        data_dir=path,
        file_format="array_record",
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it says that it downloads
        builder.download_and_prepare()
