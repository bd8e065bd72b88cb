"""Shows runs as one HTML file that needs nothing else; several runs beside each other.

    python -m launch.report runs/demo
    python -m launch.report runs/gaussians runs/pixels --out=comparison.html

A run goes on or has ended: whatever its work directory lacks is said in the page.
"""

import pathlib

from absl import flags

from gsdd_jax.core.errors import UsageError
from launch import cli, fields, paths

OUT = paths.define(
    "out",
    None,
    "The file, or a folder for report.html; by default the work directory where it is only one.",
)
IMAGES = flags.DEFINE_integer(
    "images", 0, "Images a class in the file at every step; 0: as many as keep it small."
)
DATA_DIR = paths.define("data_dir", None, "Where TFDS keeps its sets.")


def main(*workdirs: str) -> None:
    from gsdd_jax.page import document

    if IMAGES.value < 0:
        raise UsageError(f"--images: expected 0 or more, got {IMAGES.value}")
    out = pathlib.Path(OUT.value or (workdirs[0] if len(workdirs) == 1 else "."))
    out = out / document.NAME if out.is_dir() else out
    document.write(workdirs, out, fields.defaults, IMAGES.value, DATA_DIR.value)
    print(out)


if __name__ == "__main__":
    cli.run(main, several="work directories", computes=False)
