"""Runs every method on every split of CIFAR-10 by Flower; the same command resumes.

    pip install . "flwr[simulation]"
    flwr federation simulation-config @none/default local --num-supernodes 10
    python examples/federated/compare.py --results=runs/federated.json
    python -m launch.figure federated --from_table=runs/federated.json

Takes hours on two cores. Results that the file has are not run again.
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys

from oneshot.results import read

APP = pathlib.Path(__file__).parent
SIZE = dict(data="cifar10", clients=10, width=16, bytes=12_288, networks=2)
ARMS = (
    dict(method="distill", objective="none"),
    dict(method="fedavg", rounds=20),
    dict(method="central", rounds=20),
    dict(method="local", rounds=20),
    dict(method="distill", objective="dm", storage="quantized"),
    dict(method="distill", objective="dm", storage="gaussian"),
)
SPLITS = ("iid", "classes", "dirichlet")


def main() -> None:
    """Runs what the file of results lacks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=pathlib.Path, default="runs/federated.json")
    parser.add_argument("--set", action="append", default=[], help="a setting, as NAME=VALUE")
    given = parser.parse_args()
    results = given.results.resolve()
    for arm, split in itertools.product(ARMS, SPLITS):
        settings = SIZE | arm | {"split": split}
        if settings["method"] == "central" and split != SPLITS[0]:
            continue  # all images in one place are never split
        if done(results, settings):
            continue
        text = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
        places = {"results": results, "workdir": results.with_suffix("")}
        text += [f"{name}={json.dumps(str(place))}" for name, place in places.items()]
        text += given.set
        command = ["flwr", "run", str(APP), "--stream", "--run-config", " ".join(text)]
        if subprocess.run(command).returncode or not done(results, settings):
            sys.exit(f"error: no result of {' '.join(text)}")


def done(results, settings):
    """Returns whether a file of results has the last one of some settings."""
    cells = read({"results": results})["cells"]
    rounds = settings.get("rounds") if settings["method"] == "fedavg" else None
    return any(
        settings.items() <= cell["settings"].items() and cell.get("round") == rounds
        for cell in cells
    )


if __name__ == "__main__":
    main()
