"""Makes a data set of your own pictures.

    python -m launch.prepare --images=FOLDER --name=NAME

The folder has one folder a class. In its place a CSV file may name pictures and their classes
(columns path and label), or a .npz file hold them (arrays images and labels). From then on every
command knows the data set by its name, `--config.data.name=NAME`.
"""

import shlex

from absl import flags

from gsdd_jax.core import program
from launch import cli, paths

IMAGES = paths.define("images", None, "A folder, a .csv or a .npz file.", required=True)
NAME = flags.DEFINE_string(
    "name", None, "Of the data set: small letters, digits, underscores.", required=True
)
TEST = paths.define("test", None, "Test pictures, given as --images are.")
TEST_FRACTION = flags.DEFINE_float(
    "test_fraction", None, "Without --test: what part of each class tests; 0.1 if not given."
)
RESOLUTION = flags.DEFINE_integer(
    "resolution", None, "Pixels a side; 64 if not given, of arrays their shorter side."
)
GREY = flags.DEFINE_bool("grey", False, "One channel instead of three.")
SKIP_BROKEN = flags.DEFINE_bool(
    "skip_broken", False, "Leave out what cannot be read instead of refusing it."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a data set of that name.")
DATA_DIR = paths.define("data_dir", None, "Where TFDS keeps its sets.")


def main() -> None:
    from gsdd_jax.data.prepare import prepare

    made = prepare(
        IMAGES.value,
        NAME.value,
        test=TEST.value,
        test_fraction=TEST_FRACTION.value,
        resolution=RESOLUTION.value,
        grey=GREY.value,
        skip_broken=SKIP_BROKEN.value,
        overwrite=OVERWRITE.value,
        data_dir=DATA_DIR.value,
    )
    for note in made.notes:
        print(f"note: {note}")
    least, most = min(made.train), max(made.train)
    a_class = f"{least}" if least == most else f"{least} to {most}"
    print(
        f"{NAME.value} in {made.folder}: {sum(made.train)} training and {sum(made.test)} test "
        f"pictures of {len(made.class_names)} classes, {a_class} a class to train on, "
        f"{'x'.join(map(str, made.image_shape))}"
    )
    where = f" --config.data.dir={shlex.quote(DATA_DIR.value)}" if DATA_DIR.value else ""
    print(
        f"distil it: {program.command('distill')} --config=configs/own.py "
        f"--config.data.name={NAME.value}{where} --workdir=runs/{NAME.value}"
    )


if __name__ == "__main__":
    cli.run(main, computes=False)
