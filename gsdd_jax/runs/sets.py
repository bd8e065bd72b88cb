"""The sets of a run: parameters as a file holds them, with labels, rate and provenance."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jaxlib
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from gsdd_jax import parameterizations
from gsdd_jax.config import bytes_per_class
from gsdd_jax.core import mesh, processes
from gsdd_jax.core.files import write_atomically
from gsdd_jax.data.soft_labels import LABELER
from gsdd_jax.formats import file, transforms
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.parts import PRIVACY
from gsdd_jax.parameterizations.base import CodedTogether, Parameterization, Params
from gsdd_jax.runs import evaluation, teacher
from gsdd_jax.runs.contact_sheet import contact_sheet, png
from gsdd_jax.runs.progress import Reporter
from gsdd_jax.runs.teacher import Teacher
from gsdd_jax.setup import start
from gsdd_jax.setup.components import build_parameterization, labels_of
from gsdd_jax.setup.experiment import Experiment, FitParts
from gsdd_jax.storage.version import version
from gsdd_jax.storage.workdir import decisive
from gsdd_jax.training import distill
from gsdd_jax.training.labeling import Labeling


class Sets:
    """Makes the sets of a run of `config` in `workdir`, perhaps `begun` with another set.

    `parts` is an Experiment, or for a fit only its FitParts; `reserve` changes it.
    """

    def __init__(
        self,
        config: ConfigDict,
        parts: FitParts,
        workdir: pathlib.Path,
        reporter: Reporter,
        begun: start.Start | None,
    ):
        self.config, self.parts, self.workdir = config, parts, workdir
        self.reporter, self.begun = reporter, begun
        dataset, images = parts.dataset, parts.parameterization.images_per_class
        of_set = dataset.image_shape, dataset.num_classes, images
        self.reserved = labels_of(config).bytes_per_class(*of_set)  # per class, by labels

    @functools.cached_property
    def transform(self) -> dict[str, Any]:
        """Description of the transform before the networks, as stored in a set."""
        dataset, name = self.parts.dataset, self.config.data.transform
        return transforms.describe(name, dataset.mean, dataset.std, dataset.train.images)

    @property
    def is_private(self) -> bool:
        """Whether the sets are differentially private; a fit alone has no objective."""
        return isinstance(self.parts, Experiment) and self.parts.problem.matching.is_private

    @property
    def is_taught(self) -> bool:
        """Whether a teacher labels the images, or is stored to; a fit alone has none."""
        return self.config.labels.source != "class" and isinstance(self.parts, Experiment)

    @property
    def measures_labels(self) -> bool:
        """Whether the images get the bytes that labels do not take.

        Only images that are stored without a fit, which runs may share, and labels that stay.
        """
        shared = isinstance(self.parts.parameterization, CodedTogether)
        stay = self.is_taught and not self.config.labels.learned
        return stay and shared and not self.config.init.num_steps

    def reserve(self, reserved: int) -> None:
        """Leaves so many bytes per class to soft labels from now on."""
        self.reserved, kind = reserved, self.leaving(reserved)
        problem = self.parts.problem._replace(parameterization=kind)
        self.parts = dataclasses.replace(self.parts, parameterization=kind, problem=problem)

    def leaving(self, reserved: int) -> Parameterization:
        """Returns the parameterization that leaves `reserved` bytes per class to labels."""
        dataset = self.parts.dataset
        of_data = dataset.image_shape, dataset.num_classes
        return build_parameterization(self.config, *of_data, reserved, dataset.frames)

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
        params, aux_params = mesh.to_local((params, aux_params))
        rate, logits = self.config.evaluate.learning_rate, None
        if aux_params is not None:
            learned, logits = self.parts.problem.matching.learned(aux_params)
            rate = rate if learned is None else learned
        labels = labels_of(self.config)
        bits = 0 if logits is None else labels.bits
        given = self.parts.labels, rate, self.provenance(step), logits, bits

        def made(reserved):
            kind = self.leaving(reserved)
            if isinstance(kind, CodedTogether):  # equally many Gaussians, in these bytes
                there = kind.bytes_per_class
                kind = dataclasses.replace(self.parts.parameterization, bytes_per_class=there)
            return parameterizations.stored(kind, params, *given)

        if not self.is_taught or (logits is not None and not labels.mixes):
            return made(self.reserved)
        dataset = self.parts.dataset
        budget = dataset.num_classes * bytes_per_class(self.config, dataset.image_shape)
        of_labels = self.labeled_by, labels, self.parts.transform
        return teacher.labeled_within(budget, made, self.reserved, *of_labels)

    def provenance(self, step: int) -> dict[str, Any]:
        """Returns how the set after so many steps was made, as it is stored in the set."""
        dataset = self.parts.dataset
        data = {"name": dataset.name}
        if not self.is_private:  # a hash tells whether a guess of all images is right
            data["fingerprint"] = dataset.fingerprint
        versions = {module.__name__: module.__version__ for module in (jax, jaxlib)}
        found = {
            # Operational settings are left out: they do not change the set.
            "config": decisive(self.config),
            "data": data | {"class_names": list(dataset.class_names)},
            "transform": self.transform,
            "step": step,
            "versions": {"gsdd-jax": version()} | versions,
        }
        if self.is_private:
            found[PRIVACY] = self.parts.problem.matching.privacy(step)
        if self.begun is not None:
            made_of = self.begun.set_.provenance
            found["begun_with"] = {"sha256": self.begun.sha256, "step": made_of.get("step")}
        return found

    @functools.cached_property
    def teacher(self) -> Teacher:
        """Networks trained on the real images."""
        return self._trained(teacher.trained, "teacher")

    @property
    def labeled_by(self) -> Teacher:
        """Networks that label the set: the teacher, or the one that becomes its labeler."""
        return self.teacher if self.config.labels.source != LABELER else self.labeler

    @functools.cached_property
    def labeler(self) -> Teacher:
        """Network that sets with a labeler store: the run's own, or those of a baseline."""
        return self._trained(teacher.labeler, "labeler, before rounding")

    def _trained(self, train: Callable[..., Teacher], what: str) -> Teacher:
        found = train(self.config, self.parts, self.workdir, self.reporter)
        if found.tested is not None:
            self.reporter.line(f"{what}: {evaluation.shown(found.tested.test)} of the test images")
        return found

    def teacher_logits(self, params: Params) -> Float[Array, "m k"]:
        """Returns the teacher's soft labels of images as they are stored."""
        images = self.parts.transform(self.parts.parameterization.render(params))
        return self.teacher.logits(images, labels_of(self.config))

    def labeling(self) -> Labeling | None:
        """Returns the labeler that networks of the objective learn from, as a set stores it."""
        follows = self.parts.problem.matching.follows_labeler
        if not follows or self.config.labels.source != LABELER:
            return None
        return self.labeler.as_stored(labels_of(self.config))

    def save(self, name: str | os.PathLike, set_: DistilledSet) -> None:
        """Saves a set as a file in the directory."""
        if processes.first():
            file.save(self.workdir / name, set_)

    def show(self, set_: DistilledSet) -> None:
        """Writes a contact sheet, as a file and for TensorBoard."""
        shown = set_.without_mixes()
        sheet = contact_sheet(mesh.to_host(parameterizations.images(shown)), shown.labels)
        if processes.first():
            write_atomically(self.workdir / "contact_sheet.png", png(sheet))
        self.reporter.image(set_.provenance["step"], "distilled", sheet)
