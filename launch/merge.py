"""Merges distilled sets of different classes into one set.

    python -m launch.merge runs/first runs/second --out=merged.safetensors

The sets have one format with equal settings, transform and evaluation, and no soft labels or
labeler, which know only the classes of their own set. Images keep their bits. The classes are in
the order of the files.
"""

from absl import flags

from launch import cli, paths

OUT = paths.define("out", None, "Output file.", required=True)
LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", None, "Learning rate of the result; default: that of the sets, if it is one."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier distilled set.")


def main(*files: str) -> None:
    import gsdd_jax
    from gsdd_jax import exports

    sets = [gsdd_jax.load(path) for path in files]
    merged = gsdd_jax.merge(sets, LEARNING_RATE.value)
    print(exports.save(merged, OUT.value, OVERWRITE.value, sets))


if __name__ == "__main__":
    cli.run(main, several="distilled sets", computes=None)
