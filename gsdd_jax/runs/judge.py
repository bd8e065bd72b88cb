"""The evaluations of a run: of sets on the way, of the last one, and of its baselines."""

import contextlib
import dataclasses
import json
from typing import Any

import numpy as np

from gsdd_jax.core import mesh, processes
from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.data.soft_labels import LABELER
from gsdd_jax.formats import file
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.parameterizations.base import Params
from gsdd_jax.runs import baselines, evaluation, trainings
from gsdd_jax.runs.sets import Sets
from gsdd_jax.setup import experiment
from gsdd_jax.setup.experiment import ALL_REAL, COMPRESSED, Experiment
from gsdd_jax.storage.workdir import Records
from gsdd_jax.training import distill

STEP = "step "  # records of intermediate evaluations


class Judge:
    """Evaluates the sets of a run, each once: `records` outlast an interruption."""

    def __init__(self, sets: Sets, records: Records):
        self.sets, self.records, self.config = sets, records, sets.config

    @property
    def parts(self) -> Experiment:
        return self.sets.parts

    def grow(self) -> None:
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

    def on_the_way(self, state: distill.DistillState, final: bool = False) -> None:
        """Saves the best set so far, judged on real training images, never on test images."""
        step = int(state.step)
        every = self.config.distill.eval_every
        if not final and (not every or not step or step % every):
            return
        set_ = self.sets.distilled(state)
        if not self.parts.evaluates:
            self.sets.show(set_)
            return
        name = "distilled" if final else f"{STEP}{step}"
        found = self.records.get(name)
        if found is None:
            with self.kept():
                accuracies = evaluation.distilled(
                    self.config, self.parts, set_, f"evaluate {name}", self.sets.reporter,
                    chosen=True,
                )  # fmt: skip
                found = _record(accuracies) | {"step": step}
                self.records[name] = found
        self.sets.reporter.scalars(step, {"evaluate/accuracy": float(np.mean(found["test"]))})
        self.sets.show(set_)
        if self.best()["step"] == step:
            self.sets.save("best.safetensors", self.rated(set_, state, found))

    def kept(self) -> contextlib.AbstractContextManager[None]:
        """Returns a block whose trainings resume; a private run leaves none of real images."""
        if self.sets.is_private:
            return contextlib.nullcontext()
        return trainings.kept(self.sets.workdir / trainings.PLACE, self.sets.reporter.line)

    def last(self, state: distill.DistillState) -> DistilledSet:
        """Returns the last set, saved and evaluated, with the best of several rates."""
        set_ = self.sets.distilled(state)
        self.sets.save(file.NAME, set_)
        self.on_the_way(state, final=True)
        found = self.records.get("distilled")
        rated = set_ if found is None else self.rated(set_, state, found)
        if rated.learning_rate != set_.learning_rate:
            self.sets.save(file.NAME, rated)
        return rated

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

    def evaluated(self, fitted: Params, last: DistilledSet) -> dict[str, Any]:
        """Returns the accuracies of the distilled set and, evaluated here, of its baselines."""
        config, parts, reporter = self.config, self.parts, self.sets.reporter
        first = self.sets.stored(fitted, 0) if self.sets.begun is None else self.sets.begun.set_

        def baseline(name: str, shown: str) -> evaluation.Accuracies | UsageError:
            if name == "fitted":
                return evaluation.distilled(config, parts, first, shown, reporter)
            if name == ALL_REAL:
                of = config.teacher
                images = counted(len(parts.dataset.train.labels), "image")
                reporter.line(f"{shown}: {counted(of.num_networks, 'network')} as a teacher, of "
                              f"{counted(of.epochs, 'epoch')} of {images}")  # fmt: skip
                return self.sets.teacher.tested
            taught_by = None
            if COMPRESSED.get(name) == LABELER:
                taught_by = self.sets.labeler
            elif experiment.needs_teacher(name):
                taught_by = self.sets.teacher
            count = len(parts.labels)
            of_run = taught_by, last.provenance, shown, reporter
            found = baselines.evaluated(config, parts, count, name, *of_run)
            if isinstance(found, UsageError):
                return found
            if found.set_ is not None:
                self.sets.save(f"{name}.safetensors", found.set_)
            return found.accuracies

        arms = experiment.baselines(config, parts.dataset)
        for name in arms:
            shown = name.replace("_", " ")
            if self.records.get(name) is None:
                with self.kept():
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
        read = lambda: baselines.described(arm, file.load(self.sets.workdir / f"{arm}.safetensors"))
        return json.loads(processes.from_first(lambda: json.dumps(read()).encode()))


def _record(accuracies: evaluation.Accuracies) -> dict[str, Any]:
    return {name: np.asarray(values).tolist() for name, values in accuracies._asdict().items()}
