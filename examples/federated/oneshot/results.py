"""Results of several runs in one JSON file, which `launch.figure federated` draws."""

import json
import os
import pathlib

import numpy as np


def keep(config, num_bytes, accuracies, **more):
    """Adds a result to the file that the setting `results` names, if any.

    Args:
      config: settings of the run.
      num_bytes: bytes that clients and server sent.
      accuracies: test accuracies in percent, of one network each.
      more: other plain values to keep.
    """
    if not config["results"]:
        return
    path, found = pathlib.Path(config["results"]), read(config)
    deviation = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    settings = {n: value for n, value in config.items() if n not in ("results", "workdir")}
    found["cells"].append(
        {"row": row(config), "column": config["split"], "bytes": num_bytes,
         "mean": float(np.mean(accuracies)), "deviation": deviation,
         "accuracies": list(map(float, accuracies)), **more, "settings": settings}
    )  # fmt: skip
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=2) + "\n")
    os.replace(partial, path)


def read(config):
    """Returns what the file holds; exits with one line if it is no file of results."""
    path = pathlib.Path(config["results"])
    if not path.exists():
        return {"cells": []}
    try:
        found = json.loads(path.read_text())
        if isinstance(found["cells"], list):
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise SystemExit(f"error: {path}: expected results of earlier runs, or no file")


def row(config):
    """Returns the name of a method."""
    if config["method"] != "distill":
        return {"fedavg": "federated averaging", "local": "each client alone",
                "central": "all images in one place"}[config["method"]]  # fmt: skip
    if config["objective"] == "none":
        return "compressed real images, a teacher's labels"
    stored = {"gaussian": "Gaussians", "quantized": "codes", "dct": "compressed images"}
    return f"{stored.get(config['storage'], config['storage'])} by {config['objective'].upper()}"
