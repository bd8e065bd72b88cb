"""Commands, each run as `python -m launch.NAME`."""

import sys

# Runs while Python looks for the module of `python -m`, before any slow import.
if sys.argv[:1] == ["-m"]:
    from launch import interrupt

    interrupt.install()
