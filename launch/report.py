"""Shows runs as one HTML file that needs nothing else; several runs beside each other.

    python -m launch.report runs/demo
    python -m launch.report runs/gaussians runs/pixels --out=comparison.html

A run goes on or has ended: whatever its work directory lacks is said in the page.
"""

import pathlib

from absl import flags

from gsdd_jax.core.errors import UsageError
from launch import cli, fields

OUT = flags.DEFINE_string(
    "out", None, "The file; by default report.html, in the work directory where it is only one."
)
IMAGES = flags.DEFINE_integer(
    "images", 0, "Images a class in the file at every step; 0: as many as keep it small."
)


def main(*workdirs: str) -> None:
    from gsdd_jax.page import document

    if IMAGES.value < 0:
        raise UsageError(f"--images: expected 0 or more, got {IMAGES.value}")
    folder = workdirs[0] if len(workdirs) == 1 else ""
    out = pathlib.Path(OUT.value or pathlib.Path(folder, document.NAME))
    document.write(workdirs, out, fields.defaults, IMAGES.value)
    print(out)


if __name__ == "__main__":
    cli.run(main, several="work directories")
