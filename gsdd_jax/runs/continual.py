"""Class-incremental learning with a replay memory of distilled sets (the GDumb protocol).

The classes come in steps. Each step stores a set of its own classes, which stays as it is. After
each step new networks are trained on all sets so far, and tested on the classes so far.
"""

import dataclasses
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gsdd_jax import data, parameterizations
from gsdd_jax.config import validate
from gsdd_jax.core import mesh, processes
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import write_json
from gsdd_jax.data import Dataset, Split, rows
from gsdd_jax.formats import file
from gsdd_jax.formats.union import union
from gsdd_jax.runs import evaluation, trainings
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.progress import Display
from gsdd_jax.setup.components import load_data
from gsdd_jax.storage.workdir import Records, decisive, digest, prepared

ACCURACIES = "accuracies"  # in a result: of each network by step


def continual_to(
    config: ConfigDict, steps: int, workdir: str | os.PathLike, display: Display
) -> dict[str, Any]:
    """Runs the protocol in `workdir`, or resumes it; returns the content of its `result.json`.

    The order of the classes is that of NumPy's generator for `config.seed`, as published
    (`CL_DM.py`). Networks have outputs for all classes from the first step on. Their training grows
    with the classes: at the end it is that of `config.evaluate` on all images. Their learning rate
    is the best of the config's on real training images, at the end.

    Raises UsageError if classes cannot be divided into so many steps of two or more, for whitening,
    which needs images of classes to come, and like `distill_to`.
    """
    validate.ranges(config, "seed", "data", "evaluate")
    whole = load_data(config)
    if config.data.transform != "normalize":
        raise UsageError(
            "config.data.transform: expected normalize for a replay memory, got "
            f"{config.data.transform}"
        )
    if not 1 <= steps <= whole.num_classes // 2 or whole.num_classes % steps:
        raise UsageError(
            f"steps: expected a divisor of {whole.num_classes} classes, with two or more of these "
            f"in each step, got {steps}"
        )
    per_step = whole.num_classes // steps
    order = np.random.RandomState(config.seed).permutation(whole.num_classes).tolist()
    ordered = data.only(whole, order)
    made_of = {"data.fingerprint": ordered.fingerprint, "steps": steps}
    with prepared(workdir, config, **made_of) as workdir:
        sets = []
        for step in range(steps):
            of_step = config.copy_and_resolve_references()
            classes = order[step * per_step : (step + 1) * per_step]
            of_step.data.classes = ",".join(map(str, classes))
            folder = workdir / "steps" / str(step + 1)
            distill_to(of_step, folder, display, data.untested(data.only(whole, classes)))
            sets.append(file.load(folder / file.NAME))
        result = _evaluated(config, ordered, sets, workdir, made_of, display)
        result |= {
            "classes": list(ordered.class_names),
            "bytes_per_class": [of.num_bytes // of.num_classes for of in sets],
            "images_per_class": [of.format.images_per_class for of in sets],
        }
        if processes.first():
            write_json(workdir / "result.json", result)
    return result


def _evaluated(config, ordered, sets, workdir: pathlib.Path, made_of, display) -> dict[str, Any]:
    """Returns the networks' accuracies after each step, and their learning rate."""
    records = Records(workdir, digest({**made_of, **decisive(config)}))
    with mesh.use_devices(config.mesh.devices):
        images, targets, _ = union(sets, parameterizations.rendered)
        parts = evaluation.parts_of(config, ordered)
        total = parts.schedule.num_steps(len(targets))
        ends = np.cumsum([len(of.labels) for of in sets]).tolist()
        at_end = config.copy_and_resolve_references()
        for step in range(len(sets), 0, -1):  # the last one chooses the rate
            name = f"after step {step}"
            if records.get(name) is None:
                count, end = step * ordered.num_classes // len(sets), ends[step - 1]
                schedule = parts.schedule.with_steps(-(-total * step // len(sets)), end)
                seen = dataclasses.replace(parts, dataset=_first(ordered, count))
                of_images = jnp.asarray(images[:end]), targets[:end], f"evaluate {name}", display
                with trainings.kept(workdir / trainings.PLACE, display.line):
                    found = evaluation.of_images(at_end, seen, *of_images, schedule)
                    records[name] = {
                        "test": found.test.tolist(),
                        "confusion": found.confusion.tolist(),
                        "learning_rate": found.learning_rate,
                    }
            at_end.evaluate.update(rates="", learning_rate=records.get(name)["learning_rate"])
    after = {
        str(step): records.get(f"after step {step}")["test"] for step in range(1, len(sets) + 1)
    }
    return {ACCURACIES: after, "learning_rate": at_end.evaluate.learning_rate}


def _first(dataset: Dataset, count: int) -> Dataset:
    """Returns a data set of all classes with test images of the first `count` ones."""
    there = np.flatnonzero(dataset.test.labels < count)
    test = Split(rows.take(dataset.test.images, there), dataset.test.labels[there])
    return dataclasses.replace(dataset, test=test)
