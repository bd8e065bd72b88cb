"""Writes a report of one or more runs as a single self-contained HTML file.

    python -m launch.report runs/demo
    python -m launch.report runs/gaussians runs/pixels --out=comparison.html

A report of an unfinished run says what is missing. Only an earlier report is replaced.
"""

import os
import pathlib

from absl import flags

from gsdd_jax.core.errors import UsageError
from launch import cli, paths

OUT = paths.define(
    "out",
    None,
    "Output file, or a folder for report.html; default: the work directory if there is only one.",
)
IMAGES = flags.DEFINE_integer(
    "images", 0, "Images per class and step in the file; 0: automatic, for a small file."
)


def main(*workdirs: str) -> None:
    from gsdd_jax.report import document

    if IMAGES.value < 0:
        raise UsageError(f"--images: expected 0 or more, got {IMAGES.value}")
    out = pathlib.Path(OUT.value or (workdirs[0] if len(workdirs) == 1 else "."))
    out = out / document.NAME if os.path.isdir(out) else out
    document.write(workdirs, out, IMAGES.value)
    print(out)


if __name__ == "__main__":
    cli.run(main, several="work directories", computes=False)
