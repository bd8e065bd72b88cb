"""Base of the objectives that may learn soft labels together with the images."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from gsdd_jax.data import soft_labels
from gsdd_jax.matching.base import Learned, Matching

LABELS = "labels"  # key of `aux_params`


class WithLabels(Matching):
    """Objectives with a field `labels`, and a `network` whose classes are the labels'."""

    learns_labels: ClassVar[bool] = True

    def aux_params(
        self, labels: Int[Array, "m"], logits: Float[Array, "m k"] | None = None
    ) -> dict[str, Array]:
        if not self.labels.soft:
            return {}
        start = soft_labels.start(labels, self.network.num_classes) if logits is None else logits
        return {LABELS: start}

    def learned(self, aux_params: dict[str, Any]) -> Learned:
        if not self.labels.soft:
            return Learned()
        return Learned(None, soft_labels.stored(aux_params[LABELS], self.labels.bits))

    def aux_params_of(self, labels: Int[Array, "m"], learned: Learned) -> dict[str, Array]:
        logits = learned.soft_labels
        return self.aux_params(labels, None if logits is None else jnp.asarray(logits))

    def labels_optimizer(self) -> optax.GradientTransformation:
        """Returns the optimizer of the labels."""
        return self.labels.optimizer()

    def aux_optimizer(self) -> optax.GradientTransformation:
        return self.labels_optimizer()

    def project_aux(self, aux_params: dict[str, Array]) -> dict[str, Array]:
        return jax.tree.map(soft_labels.clip, aux_params)

    def targets(
        self, labels: Int[Array, "m"], aux_params: dict[str, Array]
    ) -> Int[Array, "m"] | Float[Array, "m k"]:
        """Returns a network's targets: classes, or soft labels' probabilities."""
        if not self.labels.soft:
            return labels
        return soft_labels.targets(aux_params[LABELS], self.labels.bits)
