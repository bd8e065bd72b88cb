"""Prepares a data set from your own pictures or clips.

    python -m launch.prepare --images=FOLDER --name=NAME

FOLDER has one subfolder per class, or parts such as train and test with one per class. --images
also takes a .csv or .jsonl file (columns path and label) or a .npz file (arrays images and labels).
Every command then takes the data set by name: `--config.data.name=NAME`.

    python -m launch.prepare --clips=FOLDER --name=NAME --frames=16

does so for clips: video files, and folders of frames.

    python -m launch.prepare --cifar=FOLDER

prepares cifar10 or cifar100 from torchvision's cifar-10-batches-py or cifar-100-python.
"""

import shlex

from absl import flags

from gsdd_jax.core import program
from gsdd_jax.core.errors import UsageError, counted, printable
from launch import cli, paths

IMAGES = paths.define("images", None, "Pictures: a folder, or a .csv, .tsv, .jsonl or .npz file.")
CLIPS = paths.define(
    "clips", None, "Clips, used instead of --images: a folder, or a .csv, .tsv or .jsonl file."
)
FRAMES = flags.DEFINE_integer("frames", 16, "Frames per clip, evenly spaced; needs --clips.")
NAME = flags.DEFINE_string(
    "name", None, "Name of the data set: lower-case letters, digits and underscores."
)
TEST = paths.define(
    "test", None, "Test pictures or clips, in any form that --images or --clips takes."
)
TEST_FRACTION = flags.DEFINE_float(
    "test_fraction", None, "Test fraction per class if --test is not given; default: 0.1."
)
RESOLUTION = flags.DEFINE_integer(
    "resolution",
    None,
    "Pixels per side; default: the median of the pictures' shorter sides, rounded down to 16, 28, "
    "32, 48 or 64.",
)
GRAY = flags.DEFINE_bool(
    "gray", None, "Store one gray channel instead of RGB; default: if no picture has colors."
)
DEPTH = flags.DEFINE_integer("depth", None, "Bits used in 16-bit gray pictures; default: measured.")
SKIP_BROKEN = flags.DEFINE_bool(
    "skip_broken", False, "Skip unreadable pictures instead of stopping."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an existing data set of the same name.")
DATA_DIR = paths.define("data_dir", None, "Directory of the TFDS data sets.")
CIFAR = paths.define(
    "cifar", None, "torchvision's CIFAR folder, used instead of --images and --name."
)
OPTIONS = (TEST, TEST_FRACTION, RESOLUTION, GRAY, DEPTH, SKIP_BROKEN)
OF_PICTURES = (IMAGES, CLIPS, NAME, FRAMES, *OPTIONS)
OF_CLIPS = " --config.network.name=minic3d --config.parameterization.name=video_gaussian"
SHOWN = 30  # class names


def main() -> None:
    from gsdd_jax.data.items import some

    made = _of_pictures() if CIFAR.value is None else _of_cifar()
    for note in made.notes:
        print(printable(note if note.startswith("warning: ") else f"note: {note}"))
    print(f"classes: {some(made.class_names, SHOWN)}")
    least, most = min(made.train), max(made.train)
    a_class = f"{least}" if least == most else f"{least} to {most}"
    name, noun = made.folder.name, "pictures" if CLIPS.value is None else "clips"
    print(
        f"{name} in {made.folder}: {sum(made.train)} training and {sum(made.test)} test "
        f"{noun} of {counted(len(made.class_names), 'class')}, {a_class} per class to train on, "
        f"{'x'.join(map(str, made.image_shape))}"
    )
    where = f" --config.data.dir={shlex.quote(DATA_DIR.value)}" if DATA_DIR.value else ""
    print(
        f"distill it: {program.command('distill')} --config=configs/own.py "
        f"--config.data.name={name}{where}{OF_CLIPS if CLIPS.value else ''} --workdir=runs/{name}"
    )


def _of_cifar():
    from gsdd_jax.data.cifar import prepare_cifar

    if given := [flag.name for flag in OF_PICTURES if flag.present]:
        raise UsageError(f"--cifar: cannot be combined with --{given[0]}")
    return prepare_cifar(CIFAR.value, overwrite=OVERWRITE.value, data_dir=DATA_DIR.value)


def _of_pictures():
    from gsdd_jax.data.prepare import prepare

    if (IMAGES.value is None) == (CLIPS.value is None):
        raise UsageError("--images, --clips: expected one of them, unless --cifar is given")
    if NAME.value is None:
        raise UsageError("--name: required, unless --cifar is given")
    options = {flag.name: flag.value for flag in (*OPTIONS, OVERWRITE, DATA_DIR)}
    if CLIPS.value is not None:
        return prepare(CLIPS.value, NAME.value, frames=FRAMES.value, **options)
    if FRAMES.present:
        raise UsageError("--frames: needs --clips")
    return prepare(IMAGES.value, NAME.value, **options)


if __name__ == "__main__":
    cli.run(main, computes=False)
