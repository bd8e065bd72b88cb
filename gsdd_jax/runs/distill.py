"""An experiment from real images to `result.json`: fit, distill, evaluate; resumes at any point."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from gsdd_jax import parameterizations
from gsdd_jax.config import bytes_per_class
from gsdd_jax.core import mesh, processes, stopping
from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError, counted, located, ranged
from gsdd_jax.core.files import make_folder, write_atomically, write_json
from gsdd_jax.data import Dataset
from gsdd_jax.formats import file, transforms
from gsdd_jax.formats.base import is_unequal
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.parts import PRIVACY
from gsdd_jax.matching.base import Learned
from gsdd_jax.parameterizations.base import CodedTogether, Parameterization, Params
from gsdd_jax.rasterizer import gaussians
from gsdd_jax.runs import baselines, evaluation, fits, real_images, teacher
from gsdd_jax.runs.contact_sheet import contact_sheet, png
from gsdd_jax.runs.progress import Display, Reporter
from gsdd_jax.setup import cost, experiment, input_pipeline, start
from gsdd_jax.setup.components import (
    build_parameterization,
    check_same,
    described,
    labels_of,
    stream,
)
from gsdd_jax.setup.experiment import ALL_REAL, COMPRESSED, Experiment, FitParts
from gsdd_jax.storage import secret
from gsdd_jax.storage.checkpoint import Checkpoints
from gsdd_jax.storage.version import version
from gsdd_jax.storage.workdir import Records, decisive, identity, prepared, snapshot_path
from gsdd_jax.training import distill, fit

STEP = "step "  # records of intermediate evaluations


@checked
def distill_to(
    config: ConfigDict,
    workdir: str | os.PathLike,
    display: Display | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Runs the experiment of `config` in `workdir`, or resumes it.

    `dataset` replaces that of `config.data`.

    Writes `distilled.safetensors`, `result.json`, `contact_sheet.png`, TensorBoard event files and
    checkpoints; with intermediate evaluations `best.safetensors`; with snapshots
    `snapshots/<step>.safetensors`. Returns the content of `result.json`. The same config gives the
    same bytes, however often it was interrupted; that of a private objective only with the same
    `secret` in the directory.

    Raises:
      UsageError: the config is invalid, the directory cannot be written or belongs to another
        config, or a loss is not finite.
    """
    with mesh.use_devices(config.mesh.devices, config.mesh.groups):
        parts = experiment.build(config, dataset)  # first: an invalid config binds no directory
        begun = start.opened(config, parts, workdir)
        with (
            mesh.group_devices(parts.problem.matching.independent, config.mesh.groups),
            _running(config, parts, workdir, display, begun) as run,
        ):
            fitted = run.fit()
            final = run.distill(fitted)
            return run.finish(fitted, final)


@checked
def fit_to(config: ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Runs only the first part of `distill_to`: the fit of the initial images.

    Writes `fitted.safetensors`, `fit.json` and a contact sheet; raises like `distill_to`.
    """
    if config.init.set:
        raise UsageError("config.init.set: expected none for a fit, which begins with real images")
    with (
        mesh.use_devices(config.mesh.devices),
        _running(config, experiment.build_fit_parts(config), workdir) as run,
    ):
        fitted = run.stored(run.fit(), 0)
        run.save("fitted.safetensors", fitted)
        run.show(fitted)
        images = jnp.asarray(fits.images_of(config, run.parts, run.workdir, run.reporter))
        psnr = mesh.to_host(fit.psnr(*parameterizations.of(fitted), images))
        result = {"psnr": float(psnr.mean()), "images": len(psnr), "bytes": fitted.num_bytes}
        run.write_json("fit.json", result)
        return result


@contextlib.contextmanager
def _running(config, parts, workdir, display=None, begun=None) -> Iterator[_Run]:
    check_same(parts.dataset)
    if config.teacher.dir:  # a run of hours would find out at its end
        with located("config.teacher.dir"):
            make_folder(config.teacher.dir)
    made_of = {
        "data.fingerprint": parts.dataset.fingerprint,
        "config.init.set (SHA-256)": begun and begun.sha256,
        "config.parameterization (SHA-256)": parts.parameterization.made_of,
    }
    with prepared(workdir, config, **made_of) as workdir:
        processes.from_first(lambda: file.check_place(workdir / file.NAME) or b"")
        run = _Run(config, parts, workdir, display, begun)
        if processes.first() and not run.is_private:
            real_images.keep(workdir, config, parts.dataset)
        try:
            yield run
        finally:
            run.reporter.close()


class _Run:
    """Shared data of a run's phases; all state between steps is in the checkpoints.

    `parts` is an Experiment, or for a fit only its FitParts.
    """

    def __init__(
        self,
        config: ConfigDict,
        parts: FitParts,
        workdir: pathlib.Path,
        display: Display | None,
        begun: start.Start | None,
    ):
        self.config, self.parts, self.workdir, self.begun = config, parts, workdir, begun
        of_files = {"init.set": begun and begun.sha256}
        of_files["parameterization"] = parts.parameterization.made_of
        self.identity = identity(config, parts.dataset.fingerprint, **of_files)
        self.records = Records(workdir, self.identity)
        of_set = parts.dataset.num_classes, parts.parameterization.images_per_class
        self.reserved = labels_of(config).bytes_per_class(*of_set)  # per class, by soft labels
        self._grow()
        self.reporter = Reporter(workdir / "tensorboard", display=display)
        dataset, stored = parts.dataset, parts.parameterization
        there = bytes_per_class(config, dataset.image_shape)
        images = there / gaussians.budget_bytes(1, dataset.image_shape)
        what = (
            f"{ranged(parts.counts, 'image')} per class of {stored.described}",
            f"budget of {there:,} bytes per class ({images:.4g} in float32)",
        )
        for line in (described(config, dataset, *what), *parts.warnings):
            self.reporter.line(line)
        if self.is_private:
            of = parts.problem.matching.privacy(config.distill.num_steps)
            self.reporter.line(
                f"differentially private: epsilon {of['epsilon']:.3g} at delta {of['delta']:.3g} "
                f"after {counted(of['steps'], 'step')}; only distilled sets, no other file"
            )

    @functools.cached_property
    def transform(self) -> dict[str, Any]:
        """Description of the transform before the networks, as stored in a set."""
        dataset, name = self.parts.dataset, self.config.data.transform
        return transforms.describe(name, dataset.mean, dataset.std, dataset.train.images)

    def _grow(self) -> None:
        """Forgets the evaluations of a run of fewer steps, except those on the way.

        With these its last set stays a candidate for the best.
        """
        last = self.records.get("distilled")
        if last is None or last["step"] >= self.config.distill.num_steps:
            return
        kept = self.records.starting_with(STEP)
        if self.config.distill.eval_every and last["step"]:
            kept[f"{STEP}{last['step']}"] = last
        self.records.replace(kept)

    def fit(self) -> Params:
        """Returns the parameters that distillation starts from."""
        if self.begun is not None:
            if self.measures_labels:  # its codes would lose much in only a few bytes less
                there = bytes_per_class(self.config, self.parts.dataset.image_shape)
                self._reserve(max(0, there - self.begun.set_.format.bytes_per_class))
            return self.parts.parameterization.continued(*parameterizations.of(self.begun.set_))
        fitted = fits.initial(self.config, self.parts, self.workdir, self.reporter)
        if not self.measures_labels:
            return fitted
        self._reserve(teacher.label_bytes(self.stored(fitted, 0)))
        return fits.initial(self.config, self.parts, self.workdir, self.reporter)

    def _reserve(self, reserved: int) -> None:
        """Leaves so many bytes per class to soft labels from now on."""
        self.reserved, kind = reserved, self.leaving(reserved)
        problem = self.parts.problem._replace(parameterization=kind)
        self.parts = dataclasses.replace(self.parts, parameterization=kind, problem=problem)

    @property
    def is_private(self) -> bool:
        """Whether the sets are differentially private; a fit alone has no objective."""
        return isinstance(self.parts, Experiment) and self.parts.problem.matching.is_private

    @property
    def is_taught(self) -> bool:
        """Whether a teacher labels the images; a fit alone has none."""
        return self.config.labels.source == "teacher" and isinstance(self.parts, Experiment)

    @property
    def measures_labels(self) -> bool:
        """Whether the images get the bytes that labels do not take.

        Only images that are stored without a fit, which runs may share, and labels that stay.
        """
        shared = isinstance(self.parts.parameterization, CodedTogether)
        stay = self.is_taught and not self.config.labels.learned
        return stay and shared and not self.config.init.num_steps

    def leaving(self, reserved: int) -> Parameterization:
        """Returns the parameterization that leaves `reserved` bytes per class to labels."""
        dataset = self.parts.dataset
        of_data = dataset.image_shape, dataset.num_classes
        return build_parameterization(self.config, *of_data, reserved, dataset.frames)

    def distill(self, fitted: Params) -> distill.DistillState:
        """Runs the distillation loop."""
        config, parts = self.config, self.parts
        key = stream(config.seed, "distill")
        if self.is_private:
            key = secret.mixed(key, self.workdir, self.identity)
        # A copy, because a state is donated and the fitted parameters are evaluated later.
        copied = jax.tree.map(jnp.copy, fitted)
        params = parts.parameterization.to_optimized(copied, parts.transform)
        begun = None if self.begun is None else self.begun.set_
        logits = None if begun is None else begun.soft_labels
        taught = parts.problem.matching.learns_labels and config.labels.source == "teacher"
        if logits is None and taught:
            logits = self.teacher_logits(fitted)
        learned = None
        if begun is not None:
            logits, learned = None, Learned(begun.learning_rate, logits)
        of_objective = logits, learned, stream(config.seed, "objective")
        state = distill.start(parts.problem, params, config.distill.learning_rate, *of_objective)
        place = self.workdir / "checkpoints" / "distill"
        checkpoints = Checkpoints(place, self.identity, self.reporter.line)
        state = checkpoints.restore(state) or state
        done, total = int(state.step), config.distill.num_steps
        saved = done
        steps = input_pipeline.steps(config, parts, key, done)

        def next_stop(done):
            stops = [total, done + steps.at_once]
            often = config.distill
            for every in (often.checkpoint_every, often.eval_every, often.snapshot_every):
                if every:
                    stops.append((done // every + 1) * every)
            return min(stops)

        def given(done):
            return steps.given(done, next_stop(done) - done) if done < total else None

        ahead = given(done)
        left = lambda: cost.evaluations_in_steps(
            config, parts.problem.matching, parts.dataset, len(parts.labels), done
        )
        alone = jax.process_count() == 1  # several processes would have to stop at one step
        with (
            self.reporter.phase("distill", total, done, left()) as progress,
            stopping.able(lambda: alone and done > saved),
        ):
            while done < total:
                with progress.standing(left()):
                    self.evaluate_on_the_way(state)
                    self.keep_snapshot(state)
                count = next_stop(done) - done
                state, losses = distill.run(parts.problem, state, key, *ahead, count)
                ahead = given(done + count)  # read from disk while the device computes
                losses = mesh.to_host(losses)
                if not np.isfinite(losses).all():
                    first = int(np.argmin(np.isfinite(losses)))
                    raise UsageError(
                        f"distill: the loss is {losses[first]} at step {done + first + 1}; the "
                        f"last good checkpoint is step {saved}; the config is "
                        f"{self.workdir / 'config.json'}"
                    )
                done += count
                often = config.distill.checkpoint_every, config.distill.eval_every
                if done == total or any(every and done % every == 0 for every in often):
                    checkpoints.save(done, state)  # before the evaluation, which may be interrupted
                    saved = done
                learned, _ = distill.divided(state.aux_params)
                numbers = {n: float(v) for n, v in learned.items() if not v.ndim}
                shown = {"loss": float(losses.mean())} | numbers
                self.reporter.scalars(done, {f"distill/{k}": v for k, v in shown.items()})
                progress.advance(count, **shown)
                if stopping.asked():
                    if done > saved:
                        checkpoints.save(done, state)
                    raise stopping.Stopped
        self.keep_snapshot(state)
        checkpoints.close()
        return state

    def keep_snapshot(self, state: distill.DistillState) -> None:
        """Saves the first set, every `snapshot_every`-th and the last, if snapshots are asked for.

        Called before the next step, so that an interruption loses none.
        """
        step, every = int(state.step), self.config.distill.snapshot_every
        if not every or (step % every and step < self.config.distill.num_steps):
            return
        self.save(snapshot_path(self.workdir, step), self.distilled(state))

    def evaluate_on_the_way(self, state: distill.DistillState, final: bool = False) -> None:
        """Saves the best set so far, judged on real training images, never on test images."""
        step = int(state.step)
        every = self.config.distill.eval_every
        if not final and (not every or not step or step % every):
            return
        set_ = self.distilled(state)
        if not self.parts.evaluates:
            self.show(set_)
            return
        name = "distilled" if final else f"{STEP}{step}"
        found = self.records.get(name)
        if found is None:
            accuracies = evaluation.distilled(
                self.config, self.parts, set_, f"evaluate {name}", self.reporter, chosen=True
            )
            found = _record(accuracies) | {"step": step}
            self.records[name] = found
        self.reporter.scalars(step, {"evaluate/accuracy": float(np.mean(found["test"]))})
        self.show(set_)
        if self.best()["step"] == step:
            self.save("best.safetensors", self.rated(set_, state, found))

    def rated(
        self, set_: DistilledSet, state: distill.DistillState, found: dict[str, Any]
    ) -> DistilledSet:
        """Returns a set with the rate of its evaluation `found`, unless its rate is learned."""
        aux_params, _ = distill.divided(state.aux_params)
        learned, _ = self.parts.problem.matching.learned(mesh.to_local(aux_params))
        if learned is not None:
            return set_
        return dataclasses.replace(set_, learning_rate=found["learning_rate"])

    def best(self) -> dict[str, Any]:
        """Returns the record of the best evaluation so far."""
        records = list(self.records.starting_with(STEP).values())
        if (final := self.records.get("distilled")) is not None:
            records.append(final)
        return max(records, key=lambda r: (np.mean(r["train"]), -r["step"]))

    def finish(self, fitted: Params, state: distill.DistillState) -> dict[str, Any]:
        """Writes the distilled set, evaluates it and its baselines, and writes the result."""
        parts, last = self.parts, self.distilled(state)
        self.save(file.NAME, last)
        self.evaluate_on_the_way(state, final=True)
        rate, found = last.learning_rate, self.records.get("distilled")
        last = last if found is None else self.rated(last, state, found)
        if last.learning_rate != rate:  # of several the best
            self.save(file.NAME, last)
        result = self.evaluated(fitted, last) if parts.evaluates else {}
        result |= {
            "bytes_per_class": last.num_bytes // parts.dataset.num_classes,
            "images_per_class": parts.parameterization.images_per_class,
            "learning_rate": last.learning_rate,
            "stored": parts.parameterization.report(parameterizations.of(last)[1]),
            "provenance": last.provenance,
        }
        if is_unequal(parts.counts):
            result["images_by_class"] = list(parts.counts)
        self.write_json("result.json", result)
        return result

    def evaluated(self, fitted: Params, last: DistilledSet) -> dict[str, Any]:
        """Returns the accuracies of the distilled set and, evaluated here, of its baselines."""
        config, parts, reporter = self.config, self.parts, self.reporter
        first = self.stored(fitted, 0) if self.begun is None else self.begun.set_

        def baseline(name: str, shown: str) -> evaluation.Accuracies | UsageError:
            if name == "fitted":
                return evaluation.distilled(config, parts, first, shown, reporter)
            if name == ALL_REAL:
                of = config.teacher
                images = counted(len(parts.dataset.train.labels), "image")
                reporter.line(f"{shown}: {counted(of.num_networks, 'network')} as a teacher, of "
                              f"{counted(of.epochs, 'epoch')} of {images}")  # fmt: skip
                return self.teacher.tested
            taught_by = self.teacher if experiment.needs_teacher(name) else None
            count = len(parts.labels)
            of_run = taught_by, last.provenance, shown, reporter
            found = baselines.evaluated(config, parts, count, name, *of_run)
            if isinstance(found, UsageError):
                return found
            if found.set_ is not None:
                self.save(f"{name}.safetensors", found.set_)
            return found.accuracies

        arms = experiment.baselines(config, parts.dataset)
        for name in arms:
            shown = name.replace("_", " ")
            if self.records.get(name) is None:
                found = baseline(name, f"evaluate {shown}")
                if isinstance(found, UsageError):
                    reporter.line(f"{shown}: left out: {found}")
                    continue
                self.records[name] = {k: v for k, v in _record(found).items() if k != "train"}
        best = self.best()
        result = {}
        for name in ("distilled", *arms):
            if (record := self.records.get(name)) is None:
                continue
            result |= evaluation.summary(name, record["test"])
            result |= evaluation.by_class(name, np.asarray(record["confusion"]))
            result[f"{name}_learning_rate"] = record["learning_rate"]
            if name in COMPRESSED:
                result |= self._described(name)
        if real := experiment.strongest(result):
            over = result["distilled_accuracy"] - result[f"{real}_accuracy"]
            result |= {"strongest_real": real, "points_over_strongest_real": over}
        if whole := result.get(f"{ALL_REAL}_accuracy"):
            result["share_of_all_real"] = 100 * result["distilled_accuracy"] / whole
        result |= evaluation.summary("best", best["test"])
        result |= {
            "distilled_train_accuracy": float(np.mean(self.records.get("distilled")["train"])),
            "best_step": best["step"],
        }
        return result

    def _described(self, arm: str) -> dict[str, Any]:
        """Returns the description of a saved baseline."""
        read = lambda: baselines.described(arm, file.load(self.workdir / f"{arm}.safetensors"))
        return json.loads(processes.from_first(lambda: json.dumps(read()).encode()))

    def distilled(self, state: distill.DistillState) -> DistilledSet:
        """Returns the set of a state of the distillation."""
        parts = self.parts
        params = parts.parameterization.from_optimized(state.learned, parts.transform)
        return self.stored(params, int(state.step), distill.divided(state.aux_params)[0])

    def stored(
        self, params: Params, step: int, aux_params: dict[str, Array] | None = None
    ) -> DistilledSet:
        """Returns `params` as stored, so that evaluations see what a file holds.

        Without `aux_params`, as for a fit, learned labels are those at their start. A teacher
        labels images as they are stored, unless the objective has labels.
        """
        dataset = self.parts.dataset
        data = {"name": dataset.name}
        if not self.is_private:  # a hash tells whether a guess of all images is right
            data["fingerprint"] = dataset.fingerprint
        versions = {module.__name__: module.__version__ for module in (jax, jaxlib)}
        provenance = {
            # Operational settings are left out: they do not change the set.
            "config": decisive(self.config),
            "data": data | {"class_names": list(dataset.class_names)},
            "transform": self.transform,
            "step": step,
            "versions": {"gsdd-jax": version()} | versions,
        }
        if self.is_private:
            provenance[PRIVACY] = self.parts.problem.matching.privacy(step)
        if self.begun is not None:
            made_of = self.begun.set_.provenance
            provenance["begun_with"] = {"sha256": self.begun.sha256, "step": made_of.get("step")}
        params, aux_params = mesh.to_local((params, aux_params))
        rate, logits = self.config.evaluate.learning_rate, None
        if aux_params is not None:
            learned, logits = self.parts.problem.matching.learned(aux_params)
            rate = rate if learned is None else learned
        labels = labels_of(self.config)
        bits = 0 if logits is None else labels.bits
        given = self.parts.labels, rate, provenance, logits, bits

        def made(reserved):
            return parameterizations.stored(self.leaving(reserved), params, *given)

        if not self.is_taught or (logits is not None and not labels.mixes):
            return made(self.reserved)
        budget = dataset.num_classes * bytes_per_class(self.config, dataset.image_shape)
        of_labels = self.teacher, labels, self.parts.transform
        return teacher.labeled_within(budget, made, self.reserved, *of_labels)

    @functools.cached_property
    def teacher(self) -> teacher.Teacher:
        """Networks trained on the real images."""
        found = teacher.trained(self.config, self.parts, self.workdir, self.reporter)
        if found.tested is not None:
            self.reporter.line(f"teacher: {evaluation.shown(found.tested.test)} of the test images")
        return found

    def teacher_logits(self, params: Params) -> Float[Array, "m k"]:
        """Returns the teacher's soft labels of images as they are stored."""
        images = self.parts.transform(self.parts.parameterization.render(params))
        return self.teacher.logits(images, labels_of(self.config))

    def save(self, name: str | os.PathLike, set_: DistilledSet) -> None:
        """Saves a set as a file in the directory."""
        if processes.first():
            file.save(self.workdir / name, set_)

    def write_json(self, name: str, value: Any) -> None:
        """Writes plain values as a file in the directory."""
        if processes.first():
            write_json(self.workdir / name, value)

    def show(self, set_: DistilledSet) -> None:
        """Writes a contact sheet, as a file and for TensorBoard."""
        shown = set_.without_mixes()
        sheet = contact_sheet(mesh.to_host(parameterizations.images(shown)), shown.labels)
        if processes.first():
            write_atomically(self.workdir / "contact_sheet.png", png(sheet))
        self.reporter.image(set_.provenance["step"], "distilled", sheet)


def _record(accuracies: evaluation.Accuracies) -> dict[str, Any]:
    return {name: np.asarray(values).tolist() for name, values in accuracies._asdict().items()}
