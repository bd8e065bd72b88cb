"""Exports a distilled set to PNG, MP4, npz, torch, TFDS, WebDataset or Hugging Face files.

    python -m launch.export --distilled=runs/demo --to=png --out=images
    python -m launch.export --distilled=runs/demo --to=torch --out=demo.safetensors
    python -m launch.export --distilled=runs/demo --transform=demo_transform.safetensors

hf, png, tfds and webdataset store pictures, clipped to [0, 1] and rounded to 8 bits; mp4 stores
clips, with loss. npz and torch store numbers: normalized or whitened as in training, or in [0, 1]
with --space=unit. Test images need the same transform: --transform writes it to a file.
"""

from absl import flags

from launch import cli, paths

DISTILLED = paths.define(
    "distilled",
    None,
    "Distilled set: a .safetensors file, a URL or a work directory.",
    required=True,
    urls=True,
)
TO = flags.DEFINE_enum(
    "to", None, ["hf", "mp4", "png", "npz", "torch", "tfds", "webdataset"], "Output format."
)
OUT = paths.define(
    "out", None, "Output file (npz, torch) or folder (hf, mp4, png, tfds, webdataset)."
)
SPACE = flags.DEFINE_enum(
    "space",
    None,
    ["training", "unit"],
    "Space of the values; default: training for npz and torch, unit for pictures.",
)
RESOLUTION = flags.DEFINE_integer("resolution", None, "Pixels per side; default: the set's own.")
TRANSFORM = paths.define("transform", None, "Output file for the data's transform.")
DATA_DIR = paths.define("data_dir", None, "Directory of the TFDS data sets.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier export.")


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
