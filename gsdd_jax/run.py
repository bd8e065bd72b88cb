"""An experiment from real images to `result.json`: fit, distil, evaluate; resumes at any point."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from gsdd_jax import artifact, distill, evaluate, experiment, fit
from gsdd_jax.artifact import DistilledSet
from gsdd_jax.checkpoint import Checkpoints
from gsdd_jax.contact_sheet import contact_sheet, png
from gsdd_jax.errors import UsageError
from gsdd_jax.experiment import Experiment, stream
from gsdd_jax.files import write_atomically
from gsdd_jax.matching import real_data
from gsdd_jax.parameterizations.base import Params
from gsdd_jax.report import Reporter

# What may differ between a run and its continuation, because the result does not depend on it.
OPERATIONAL = {"data.dir": "", "distill.steps_per_call": 1, "distill.checkpoint_every": 1}
FIT_STEPS_PER_CALL = 500


class NotFiniteError(UsageError):
    """A loss became NaN or infinite."""


def distill_to(config: ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Runs the experiment of `config` in `workdir`, or goes on where it was interrupted.

    Leaves there `distilled.safetensors`, `result.json`, `contact_sheet.png`, TensorBoard event
    files and checkpoints; returns what `result.json` holds. The same config gives the same bytes,
    however often it was interrupted.

    Raises:
      UsageError: for a config that makes no sense, a directory that cannot be written or that
        belongs to another config, or a loss that is not finite.
    """
    workdir = prepare_workdir(workdir, config)
    parts = experiment.build(config)
    reporter = Reporter(workdir / "tensorboard")
    try:
        with_fit = _fit(config, parts, workdir, reporter)
        final = _distill(config, parts, with_fit, workdir, reporter)
        result = _finish(config, parts, with_fit, final, workdir, reporter)
    finally:
        reporter.close()
    return result


def fit_to(config: ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Only the first part of `distill_to`: the images that distillation starts from.

    Leaves `fitted.safetensors`, `fit.json` and a contact sheet; raises as `distill_to`.
    """
    workdir = prepare_workdir(workdir, config)
    parts = experiment.build(config)
    reporter = Reporter(workdir / "tensorboard")
    try:
        params = _fit(config, parts, workdir, reporter)
        fitted = distilled_set(config, parts, params, 0)
        artifact.save(workdir / "fitted.safetensors", fitted)
        _show(fitted, workdir, reporter)
    finally:
        reporter.close()
    parameterization = parts.problem.parameterization
    images = jnp.asarray(_initial_images(config, parts))
    psnr = np.asarray(fit.psnr(parameterization, fitted.params, images))
    result = {"psnr": float(psnr.mean()), "images": len(psnr), "bytes": fitted.num_bytes}
    write_atomically(workdir / "fit.json", (json.dumps(result, indent=2) + "\n").encode())
    return result


def evaluate_file(
    path: str | os.PathLike,
    *,
    overrides: Mapping[str, Any],
    learning_rate: float | None = None,
    random_real: bool = True,
) -> dict[str, Any]:
    """Trains networks on a distilled set from a file, and on the same bytes of real images.

    Args:
      path: of a `distilled.safetensors`.
      overrides: of the config that made the set: dotted field -> value (None: as it is).
      learning_rate: of the networks; None: the one that the set carries.
      random_real: also measure random real images.

    Raises:
      UsageError: for a file that is no distilled set, or another data set than it was made from.
    """
    distilled = artifact.load(path)
    try:
        config = _unflat(OPERATIONAL | distilled.provenance["config"])
        fingerprint = distilled.provenance["data"]["fingerprint"]
    except (KeyError, TypeError):
        raise UsageError(f"{path}: its provenance names no config and no data set") from None
    config.update_from_flattened_dict({k: v for k, v in overrides.items() if v is not None})
    parts = experiment.build(config)
    if parts.dataset.fingerprint != fingerprint:
        raise UsageError(
            f"{path}: distilled from another version of {parts.dataset.name} "
            f"(fingerprint {fingerprint[:12]}, found {parts.dataset.fingerprint[:12]})"
        )
    if learning_rate is not None:
        distilled = dataclasses.replace(distilled, learning_rate=learning_rate)
        config.evaluate.learning_rate = learning_rate
    reporter = Reporter(None)
    result = {"network": config.network.name, "learning_rate": distilled.learning_rate}
    result |= summary("distilled", evaluate_set(config, parts, distilled, "distilled", reporter))
    if random_real:
        arguments = (config, parts, distilled, config.budget.ipc, "random real", reporter)
        result |= summary("random_real", evaluate_random_real(*arguments))
    return result


def prepare_workdir(workdir: str | os.PathLike, config: ConfigDict) -> pathlib.Path:
    """Makes the directory and binds it to `config`; raises UsageError where that cannot be."""
    if not str(workdir):
        raise UsageError("--workdir: expected a directory to write to, got an empty path")
    workdir = pathlib.Path(workdir)
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_atomically(path, (config.to_json(indent=2) + "\n").encode())
        written = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"--workdir: cannot write to {workdir} ({error.strerror})") from None
    except json.JSONDecodeError:
        raise UsageError(f"{path}: not a run's config; expected a new work directory") from None
    old, new = _flat(written), _flat(json.loads(config.to_json()))
    for field in sorted(old.keys() | new.keys()):
        if field not in OPERATIONAL and old.get(field) != new.get(field):
            raise UsageError(
                f"--workdir: {workdir} holds a run with config.{field}={old.get(field)!r}, not "
                f"{new.get(field)!r}; expected the same config or another directory"
            )
    return workdir


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _unflat(flat: Mapping[str, Any]) -> ConfigDict:
    config = ConfigDict()
    for name, value in flat.items():
        *parents, last = name.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, ConfigDict())
        node[last] = value
    return config


def _fit(
    config: ConfigDict, parts: Experiment, workdir: pathlib.Path, reporter: Reporter
) -> Params:
    """Initial parameters: fitted to random real images, or random."""
    parameterization = parts.problem.parameterization
    start_key = stream(config.seed, "initial parameters")
    if not config.init.real:
        shape = (len(parts.problem.labels), *parameterization.image_shape)
        return parameterization.init(start_key, jax.random.uniform(start_key, shape))
    images = jnp.asarray(_initial_images(config, parts))
    rate = config.init.learning_rate
    state = fit.start(parameterization, start_key, images, rate)
    checkpoints = Checkpoints(workdir / "checkpoints" / "fit")
    restored = checkpoints.restore(state)
    state = state if restored is None else restored
    done, total = int(state.step), config.init.num_steps
    with reporter.phase("fit", total, done) as progress:
        while done < total:
            count = min(FIT_STEPS_PER_CALL, total - done)
            state, errors = fit.run(parameterization, state, images, rate, count)
            error = float(errors.mean())
            if not math.isfinite(error):
                raise NotFiniteError(
                    f"fit: the error is {error} by step {done + count} ({workdir})"
                )
            done += count
            checkpoints.save(done, state)
            reporter.scalars(done, {"fit/psnr": -10 * math.log10(max(error, 1e-12))})
            progress.advance(count, psnr=-10 * math.log10(max(error, 1e-12)))
    checkpoints.close()
    return state.params


def _initial_images(config: ConfigDict, parts: Experiment) -> Float[np.ndarray, "m h w c"]:
    return experiment.initial_images(
        parts,
        stream(config.seed, "initial images"),
        parts.problem.parameterization.images_per_class,
    )


def _distill(
    config: ConfigDict, parts: Experiment, params: Params, workdir: pathlib.Path, reporter: Reporter
) -> distill.DistillState:
    """The distillation loop."""
    key = stream(config.seed, "distill")
    data = real_data(
        parts.dataset.train.images,
        parts.dataset.train.labels,
        parts.dataset.num_classes,
        parts.transform,
    )
    # A copy, because a state is donated and the fitted parameters are evaluated later.
    state = distill.start(parts.problem, jax.tree.map(jnp.copy, params))
    checkpoints = Checkpoints(workdir / "checkpoints" / "distill")
    restored = checkpoints.restore(state)
    state = state if restored is None else restored
    done, total = int(state.step), config.distill.num_steps
    saved = done
    with reporter.phase("distill", total, done) as progress:
        while done < total:
            _evaluate_on_the_way(config, parts, state, workdir, reporter)
            stops = [total, saved + config.distill.checkpoint_every]
            if every := config.distill.eval_every:
                stops.append((done // every + 1) * every)
            count = min(config.distill.steps_per_call, min(stops) - done)
            state, losses = distill.run(parts.problem, state, key, data, None, count)
            losses = np.asarray(losses)
            if not np.isfinite(losses).all():
                step = done + int(np.argmin(np.isfinite(losses))) + 1
                raise NotFiniteError(
                    f"distill: the loss is {losses[step - done - 1]} at step {step}; the last good "
                    f"checkpoint is step {saved} in {workdir}; config: {config.to_json()}"
                )
            done += count
            if done == total or done - saved >= config.distill.checkpoint_every:
                checkpoints.save(done, state)
                saved = done
            reporter.scalars(done, {"distill/loss": losses.mean()})
            progress.advance(count, loss=losses.mean())
    checkpoints.close()
    return state


def _evaluate_on_the_way(config, parts, state, workdir, reporter) -> None:
    every, step = config.distill.eval_every, int(state.step)
    if not every or not step or step % every:
        return
    distilled = distilled_set(config, parts, state.params, step)
    _show(distilled, workdir, reporter)
    accuracies = evaluate_set(config, parts, distilled, f"evaluate step {step}", reporter)
    _record(workdir, f"step {step}", accuracies)
    reporter.scalars(step, {"evaluate/accuracy": accuracies.mean()})


def _finish(config, parts, fitted, state, workdir, reporter) -> dict[str, Any]:
    """Writes the distilled set, evaluates it beside what it must beat, writes the result."""
    distilled = distilled_set(config, parts, state.params, config.distill.num_steps)
    artifact.save(workdir / "distilled.safetensors", distilled)
    _show(distilled, workdir, reporter)
    start = distilled_set(config, parts, fitted, 0)
    arms = {
        "distilled": lambda name: evaluate_set(config, parts, distilled, name, reporter),
        "fitted": lambda name: evaluate_set(config, parts, start, name, reporter),
        "random_real": lambda name: evaluate_random_real(
            config, parts, distilled, config.budget.ipc, name, reporter
        ),
        # The field counts real images as float32; stored as bytes, four times as many fit.
        "random_real_uint8": lambda name: evaluate_random_real(
            config, parts, distilled, 4 * config.budget.ipc, name, reporter
        ),
    }
    result = {}
    for name, accuracies_of in arms.items():
        accuracies = _recorded(workdir, name)
        if accuracies is None:
            accuracies = accuracies_of(f"evaluate {name.replace('_', ' ')}")
            _record(workdir, name, accuracies)
        result |= summary(name, accuracies)
    result |= {
        "bytes_per_class": distilled.num_bytes // parts.dataset.num_classes,
        "images_per_class": parts.problem.parameterization.images_per_class,
        "learning_rate": distilled.learning_rate,
        "provenance": distilled.provenance,
    }
    reporter.scalars(config.distill.num_steps, {"evaluate/final": result["distilled_accuracy"]})
    write_atomically(workdir / "result.json", (json.dumps(result, indent=2) + "\n").encode())
    return result


def summary(name: str, accuracies: Float[np.ndarray, s]) -> dict[str, Any]:
    """Mean, standard deviation (of a sample) and each network's accuracy, in percent."""
    return {
        f"{name}_accuracy": float(np.mean(accuracies)),
        f"{name}_std": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0,
        f"{name}_accuracies": [float(a) for a in accuracies],
    }


def distilled_set(config: ConfigDict, parts: Experiment, params: Params, step: int) -> DistilledSet:
    """`params` as they are stored, so what is evaluated is what a file holds."""
    parameterization = parts.problem.parameterization
    settings = _flat(json.loads(config.to_json()))
    provenance = {
        # How it was run is left out: it does not change what was made.
        "config": {name: value for name, value in settings.items() if name not in OPERATIONAL},
        "data": {"name": parts.dataset.name, "fingerprint": parts.dataset.fingerprint},
        "step": step,
        "versions": {
            "gsdd_jax": _version("gsdd-jax"), "jax": jax.__version__, "jaxlib": _version("jaxlib")
        },
    }  # fmt: skip
    return DistilledSet(
        parameterization,
        parameterization.from_arrays(parameterization.to_arrays(params)),
        np.asarray(parts.problem.labels),
        config.evaluate.learning_rate,
        provenance,
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def evaluate_set(
    config: ConfigDict, parts: Experiment, distilled: DistilledSet, name: str, reporter: Reporter
) -> Float[np.ndarray, s]:
    """Test accuracies of fresh networks trained on `distilled`, in percent."""
    images = parts.transform(distilled.images())[None]
    return _train_and_test(
        config, parts, images, distilled.labels, parts.schedule, distilled.learning_rate, name,
        reporter,
    )  # fmt: skip


def evaluate_random_real(
    config: ConfigDict,
    parts: Experiment,
    distilled: DistilledSet,
    per_class: int,
    name: str,
    reporter: Reporter,
) -> Float[np.ndarray, s]:
    """As `evaluate_set` on random real images, others for every network.

    They get as many steps of SGD as the distilled set gets, so that a small set is not at a
    disadvantage because its epochs are short.
    """
    keys = jax.random.split(stream(config.seed, f"random real {per_class}"),
                            config.evaluate.num_networks)  # fmt: skip
    images = np.stack([experiment.initial_images(parts, key, per_class) for key in keys])
    labels = np.repeat(np.arange(parts.dataset.num_classes), per_class).astype(np.int32)
    steps = parts.schedule.num_steps(len(distilled.labels))
    schedule = parts.schedule.with_steps(steps, len(labels))
    return _train_and_test(
        config, parts, parts.transform(jnp.asarray(images)), labels, schedule,
        config.evaluate.learning_rate, name, reporter,
    )  # fmt: skip


def _train_and_test(config, parts, images, labels, schedule, learning_rate, name, reporter):
    with reporter.phase(name, schedule.epochs) as progress:
        students = evaluate.train(
            parts.network,
            schedule,
            stream(config.seed, "evaluate"),
            images,
            jnp.asarray(labels),
            learning_rate=learning_rate,
            num_students=config.evaluate.num_networks,
            progress=progress.advance,
        )
    test = parts.dataset.test
    return np.asarray(
        evaluate.accuracy(
            parts.network, students, jnp.asarray(test.images), jnp.asarray(test.labels),
            parts.transform,
        )
    )  # fmt: skip


def _show(distilled: DistilledSet, workdir: pathlib.Path, reporter: Reporter) -> None:
    sheet = contact_sheet(np.asarray(distilled.images()), distilled.labels)
    write_atomically(workdir / "contact_sheet.png", png(sheet))
    reporter.image(distilled.provenance["step"], "distilled", sheet)


def _record(workdir: pathlib.Path, name: str, accuracies: Float[np.ndarray, s]) -> None:
    path = workdir / "evaluations.json"
    records = json.loads(path.read_text()) if path.exists() else {}
    records[name] = [float(a) for a in accuracies]
    write_atomically(path, (json.dumps(records, indent=2) + "\n").encode())


def _recorded(workdir: pathlib.Path, name: str) -> Float[np.ndarray, s] | None:
    path = workdir / "evaluations.json"
    records = json.loads(path.read_text()) if path.exists() else {}
    return np.asarray(records[name]) if name in records else None
