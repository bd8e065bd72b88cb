"""Cuts a distilled set to some classes, or to fewer images per class.

    python -m launch.subset runs/demo --classes=cat,dog --out=two.safetensors
    python -m launch.subset runs/demo --images_per_class=10 --out=small.safetensors
    python -m launch.subset runs/demo --bytes=6000 --out=small.safetensors

The images are the first of each class, and keep their bits. Nothing is distilled again. Labels of
mixtures are those of all images, and a smaller set has none.
"""

from absl import flags

from launch import cli, paths

CLASSES = flags.DEFINE_list("classes", None, "Classes, by name or index; default: all.")
IMAGES = flags.DEFINE_integer("images_per_class", None, "Images per class; default: all.")
BYTES = flags.DEFINE_integer("bytes", None, "Bytes per class, for as many whole images as fit.")
OUT = paths.define("out", None, "Output file.", required=True)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier distilled set.")


def main(path: str) -> None:
    import gsdd_jax
    from gsdd_jax import exports

    if CLASSES.value is None and IMAGES.value is None and BYTES.value is None:
        raise gsdd_jax.UsageError(
            "--classes, --images_per_class, --bytes: expected at least one, got none"
        )
    fewer = dict(images_per_class=IMAGES.value, bytes_per_class=BYTES.value)
    whole = gsdd_jax.load(path)
    found = gsdd_jax.subset(whole, CLASSES.value, **fewer)
    saved = exports.save(found, OUT.value, OVERWRITE.value, [whole])
    if whole.mixes and not found.mixes:
        print("without the labels of mixtures, which are those of the whole set")
    print(saved)


if __name__ == "__main__":
    cli.run(main, one="distilled set", computes=None)
