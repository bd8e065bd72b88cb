"""An experiment from real images to `result.json`: fit, distill, evaluate; resumes at any point."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gsdd_jax import parameterizations
from gsdd_jax.config import bytes_per_class
from gsdd_jax.core import interrupts, mesh, processes, stopping
from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError, counted, located, ranged
from gsdd_jax.core.files import make_folder, write_json
from gsdd_jax.data import Dataset
from gsdd_jax.formats import file
from gsdd_jax.formats.base import is_unequal
from gsdd_jax.matching.base import Learned
from gsdd_jax.parameterizations.base import Params
from gsdd_jax.rasterizer import gaussians
from gsdd_jax.runs import fits, real_images, teacher
from gsdd_jax.runs.judge import Judge
from gsdd_jax.runs.progress import Display, Reporter
from gsdd_jax.runs.sets import Sets
from gsdd_jax.setup import cost, experiment, input_pipeline, start
from gsdd_jax.setup.components import (
    check_same,
    described,
    stream,
)
from gsdd_jax.setup.experiment import FitParts
from gsdd_jax.storage import secret
from gsdd_jax.storage.checkpoint import Checkpoints
from gsdd_jax.storage.workdir import Records, identity, prepared, snapshot_path
from gsdd_jax.training import distill, fit


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
        fitted = run.sets.stored(run.fit(), 0)
        run.sets.save("fitted.safetensors", fitted)
        run.sets.show(fitted)
        images = jnp.asarray(fits.images_of(config, run.parts, run.workdir, run.reporter))
        psnr = mesh.to_host(fit.psnr(*parameterizations.of(fitted), images))
        result = {"psnr": float(psnr.mean()), "images": len(psnr), "bytes": fitted.num_bytes}
        run.write_json("fit.json", result)
        return result


def check(config: ConfigDict, workdir: str | os.PathLike, dataset: Dataset) -> None:
    """Raises UsageError for what `distill_to` would refuse after its experts have been trained."""
    material, _, _ = experiment.build_problem(config, dataset)
    with _bound(config, material, workdir, start.opened(config, material, workdir)):
        pass


@contextlib.contextmanager
def _bound(config, parts, workdir, begun) -> Iterator[pathlib.Path]:
    """Yields the directory, bound to the config and its inputs."""
    check_same(parts.dataset)
    for group in ("teacher", "init"):  # a run of hours would find out at its end
        if config[group].dir:
            with located(f"config.{group}.dir"):
                make_folder(config[group].dir)
    made_of = {
        "data.fingerprint": parts.dataset.fingerprint,
        "config.init.set (SHA-256)": begun and begun.sha256,
        "config.parameterization (SHA-256)": parts.parameterization.made_of,
    }
    with prepared(workdir, config, **made_of) as workdir:
        processes.from_first(lambda: file.check_place(workdir / file.NAME) or b"")
        yield workdir


@contextlib.contextmanager
def _running(config, parts, workdir, display=None, begun=None) -> Iterator[_Run]:
    with _bound(config, parts, workdir, begun) as workdir:
        run = _Run(config, parts, workdir, display, begun)
        if processes.first() and not run.sets.is_private:
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
        self.config, self.workdir, self.begun = config, workdir, begun
        of_files = {"init.set": begun and begun.sha256}
        of_files["parameterization"] = parts.parameterization.made_of
        self.identity = identity(config, parts.dataset.fingerprint, **of_files)
        records = Records(workdir, self.identity)
        self.reporter = Reporter(workdir / "tensorboard", display=display)
        self.sets = Sets(config, parts, workdir, self.reporter, begun)
        self.judge = Judge(self.sets, records)
        self.judge.grow()
        dataset, stored = parts.dataset, parts.parameterization
        there = bytes_per_class(config, dataset.image_shape)
        images = there / gaussians.budget_bytes(1, dataset.image_shape)
        what = (
            f"{ranged(parts.counts, 'image')} per class of {stored.described}",
            f"budget of {there:,} bytes per class ({images:.4g} in float32)",
        )
        for line in (described(config, dataset, *what), *parts.warnings):
            self.reporter.line(line)
        if self.sets.is_private:
            of = parts.problem.matching.privacy(config.distill.num_steps)
            self.reporter.line(
                f"differentially private: epsilon {of['epsilon']:.3g} at delta {of['delta']:.3g} "
                f"after {counted(of['steps'], 'step')}; only distilled sets, no other file"
            )

    @property
    def parts(self) -> FitParts:
        return self.sets.parts

    def fit(self) -> Params:
        """Returns the parameters that distillation starts from."""
        if self.begun is not None:
            if self.sets.measures_labels:  # its codes would lose much in only a few bytes less
                there = bytes_per_class(self.config, self.parts.dataset.image_shape)
                self.sets.reserve(max(0, there - self.begun.set_.format.bytes_per_class))
            return self.parts.parameterization.continued(*parameterizations.of(self.begun.set_))
        fitted = fits.initial(self.config, self.parts, self.workdir, self.reporter)
        if not self.sets.measures_labels:
            return fitted
        self.sets.reserve(teacher.label_bytes(self.sets.stored(fitted, 0)))
        return fits.initial(self.config, self.parts, self.workdir, self.reporter)

    def distill(self, fitted: Params) -> distill.DistillState:
        """Runs the distillation loop."""
        config, parts = self.config, self.parts
        key = stream(config.seed, "distill")
        if self.sets.is_private:
            key = secret.mixed(key, self.workdir, self.identity)
        # A copy, because a state is donated and the fitted parameters are evaluated later.
        copied = jax.tree.map(jnp.copy, fitted)
        params = parts.parameterization.to_optimized(copied, parts.transform)
        begun = None if self.begun is None else self.begun.set_
        logits = None if begun is None else begun.soft_labels
        taught = parts.problem.matching.learns_labels and config.labels.source == "teacher"
        if logits is None and taught:
            logits = self.sets.teacher_logits(fitted)
        learned = None
        if begun is not None:
            logits, learned = None, Learned(begun.learning_rate, logits)
        of_objective = logits, learned, stream(config.seed, "objective")
        state = distill.start(parts.problem, params, config.distill.learning_rate, *of_objective)
        place = self.workdir / "checkpoints" / "distill"
        checkpoints = Checkpoints(place, self.identity, self.reporter.line)
        state = checkpoints.restore(state) or state
        done, total = int(state.step), config.distill.num_steps
        saved = begin = done
        threshold, discarded = parts.problem.matching.threshold, 0
        labeler = self.sets.labeling() if done < total else None
        steps = input_pipeline.steps(config, parts, key, done, labeler)

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
        computes = False  # steps; trainings of an evaluation are announced by themselves
        with (
            stopping.able(lambda: alone and (computes or done > saved)),
            self.reporter.phase("distill", total, done, left()) as progress,
        ):
            while done < total:
                computes = False
                with progress.standing(left()):
                    self.judge.on_the_way(state)
                    self.keep_snapshot(state)
                computes = True
                count = next_stop(done) - done
                state, losses = distill.run(parts.problem, state, key, *ahead, count)
                ahead = given(done + count)  # read from disk while the device computes
                losses = mesh.to_host(losses)
                if not np.isfinite(losses).all():
                    first = int(np.argmin(np.isfinite(losses)))
                    kept = f"the last good checkpoint is step {saved}" if saved else "none is saved"
                    raise UsageError(
                        f"distill: the loss is {losses[first]} at step {done + first + 1}; {kept}; "
                        "the config is "
                        f"{self.workdir / 'config.json'}"
                    )
                done += count
                often = config.distill.checkpoint_every, config.distill.eval_every
                asked = stopping.asked() or interrupts.noted()
                due = asked or checkpoints.is_due or done == total
                if due or any(every and done % every == 0 for every in often):
                    checkpoints.save(done, state)  # before the evaluation, which may be interrupted
                    saved = done
                learned, _ = distill.divided(state.aux_params)
                numbers = {n: float(v) for n, v in learned.items() if not v.ndim}
                shown = {"loss": float(losses.mean())} | numbers
                if threshold < math.inf:
                    discarded += int((losses > threshold).sum())
                    shown["discarded"] = float(discarded)
                self.reporter.scalars(done, {f"distill/{k}": v for k, v in shown.items()})
                progress.advance(count, **shown)
                if stopping.asked() and saved == done:
                    raise stopping.Stopped
        if discarded == done - begin > 0:
            self.reporter.line(
                f"nothing changed in {counted(discarded, 'step')}: the loss exceeded "
                f"config.matching.options.threshold={threshold:g} in each"
            )
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
        self.sets.save(snapshot_path(self.workdir, step), self.sets.distilled(state))

    def finish(self, fitted: Params, state: distill.DistillState) -> dict[str, Any]:
        """Writes the distilled set, evaluates it and its baselines, and writes the result."""
        parts, last = self.parts, self.judge.last(state)
        result = self.judge.evaluated(fitted, last) if parts.evaluates else {}
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

    def write_json(self, name: str, value: Any) -> None:
        """Writes plain values as a file in the directory."""
        if processes.first():
            write_json(self.workdir / name, value)
