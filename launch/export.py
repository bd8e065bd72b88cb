"""Writes a distilled set in a format that other programs read.

    python -m launch.export --distilled=runs/demo --to=png --out=images
    python -m launch.export --distilled=runs/demo --to=torch --out=demo.safetensors
    python -m launch.export --distilled=runs/demo --transform=demo_transform.safetensors

Pictures (png, tfds, webdataset) are clipped to [0, 1] and rounded to 8 bits. Numbers (npz, torch)
are as networks saw them in training, normalised or whitened, unless --space=unit; test images have
to be transformed alike, by the file that --transform writes.
"""

from absl import flags

from launch import cli, paths

DISTILLED = paths.define(
    "distilled", None, "The .safetensors file, or the work directory of its run.", required=True
)
TO = flags.DEFINE_enum("to", None, ["png", "npz", "torch", "tfds", "webdataset"], "The format.")
OUT = paths.define("out", None, "The file (npz, torch) or the folder to write.")
SPACE = flags.DEFINE_enum(
    "space", None, ["training", "unit"], "Default: training for numbers, unit for pictures."
)
RESOLUTION = flags.DEFINE_integer("resolution", None, "Pixels a side; default: the set's own.")
TRANSFORM = paths.define("transform", None, "A file to write the data's transform to.")
DATA_DIR = paths.define("data_dir", None, "Where TFDS keeps its sets.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Whether an earlier export is replaced.")


def main() -> None:
    import gsdd_jax
    from gsdd_jax import exports

    if not TO.value and not TRANSFORM.value:
        raise gsdd_jax.UsageError("--to: expected a format, or --transform=PATH, got neither")
    if bool(TO.value) != bool(OUT.value):
        raise gsdd_jax.UsageError("--to, --out: expected both or neither, got one of them")
    distilled = gsdd_jax.load(DISTILLED.value)
    where = dict(data_dir=DATA_DIR.value, overwrite=OVERWRITE.value)
    if TRANSFORM.value:
        print(exports.export_transform(distilled, TRANSFORM.value, **where))
    if TO.value:
        options = dict(space=SPACE.value, resolution=RESOLUTION.value)
        print(exports.export(distilled, OUT.value, TO.value, **options, **where))


if __name__ == "__main__":
    cli.run(main)
