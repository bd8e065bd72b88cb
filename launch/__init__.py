"""The commands: `python -m launch.distill` and its siblings."""

import sys

# While Python looks for the module of `python -m`, before anything slow is imported.
if sys.argv[:1] == ["-m"]:
    from launch import interrupt

    interrupt.install()
