"""Makes a data set of your own pictures.

    python -m launch.prepare --images=FOLDER --name=NAME

The folder has one folder a class, or parts such as train and test that each have. In its place a
.csv or .jsonl file may name pictures and their classes (columns path and label), or a .npz file
hold them (arrays images and labels). From then on every command knows the data set by its name,
`--config.data.name=NAME`.

    python -m launch.prepare --cifar=FOLDER

makes cifar10 or cifar100 of torchvision's folder cifar-10-batches-py or cifar-100-python.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from absl import flags

from gsdd_jax.core.errors import UsageError
from launch import cli

if TYPE_CHECKING:
    from gsdd_jax.data.prepare import Prepared

IMAGES = flags.DEFINE_string("images", None, "A folder, a .csv, .tsv, .jsonl or .npz file.")
NAME = flags.DEFINE_string("name", None, "Of the data set: small letters, digits, underscores.")
TEST = flags.DEFINE_string("test", None, "Test pictures, given as --images are.")
TEST_FRACTION = flags.DEFINE_float(
    "test_fraction", None, "Without --test: what part of each class tests; 0.1 if not given."
)
RESOLUTION = flags.DEFINE_integer(
    "resolution", None, "Pixels a side; 64 if not given, of arrays their shorter side."
)
GREY = flags.DEFINE_bool("grey", False, "One channel instead of three.")
DEPTH = flags.DEFINE_integer(
    "depth", None, "Bits that grey pictures of 16 bits use; by their largest value if not given."
)
SKIP_BROKEN = flags.DEFINE_bool(
    "skip_broken", False, "Leave out what cannot be read instead of refusing it."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a data set of that name.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS keeps its sets.")
CIFAR = flags.DEFINE_string(
    "cifar", None, "Instead of all but --overwrite and --data_dir: torchvision's folder of CIFAR."
)
OF_PICTURES = (IMAGES, NAME, TEST, TEST_FRACTION, RESOLUTION, GREY, DEPTH, SKIP_BROKEN)
SHOWN = 30  # class names


def main() -> None:
    from gsdd_jax.data.items import some

    made = _of_pictures() if CIFAR.value is None else _of_cifar()
    for note in made.notes:
        print(note if note.startswith("warning: ") else f"note: {note}")
    print(f"classes: {some(made.class_names, SHOWN)}")
    least, most = min(made.train), max(made.train)
    a_class = f"{least}" if least == most else f"{least} to {most}"
    name = made.folder.name
    print(
        f"{name} in {made.folder}: {sum(made.train)} training and {sum(made.test)} test "
        f"pictures of {len(made.class_names)} classes, {a_class} a class to train on, "
        f"{'x'.join(map(str, made.image_shape))}"
    )
    where = f" --config.data.dir={shlex.quote(DATA_DIR.value)}" if DATA_DIR.value else ""
    print(
        f"distil it: python -m launch.distill --config=configs/own.py "
        f"--config.data.name={name}{where} --workdir=runs/{name}"
    )


def _of_cifar() -> Prepared:
    from gsdd_jax.data.cifar import prepare_cifar

    if given := [flag.name for flag in OF_PICTURES if flag.value not in (None, False)]:
        raise UsageError(f"--cifar: expected without --{given[0]}")
    return prepare_cifar(CIFAR.value, overwrite=OVERWRITE.value, data_dir=DATA_DIR.value)


def _of_pictures() -> Prepared:
    from gsdd_jax.data.prepare import prepare

    for flag in (IMAGES, NAME):
        if flag.value is None:
            raise UsageError(f"--{flag.name}: expected it, or --cifar")
    return prepare(
        IMAGES.value,
        NAME.value,
        test=TEST.value,
        test_fraction=TEST_FRACTION.value,
        resolution=RESOLUTION.value,
        grey=GREY.value,
        depth=DEPTH.value,
        skip_broken=SKIP_BROKEN.value,
        overwrite=OVERWRITE.value,
        data_dir=DATA_DIR.value,
    )


if __name__ == "__main__":
    cli.run(main)
