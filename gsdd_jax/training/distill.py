"""Distillation steps for any objective and parameterization, in one compiled call."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.matching.base import Learned, Matching, RealData, Synthetic
from gsdd_jax.parameterizations.base import Parameterization, Params

KEPT = "kept"  # key of `aux_params` for the arrays that an objective keeps across steps


class DistillState(NamedTuple):
    """State of a distillation between steps, as in a checkpoint; a pytree."""

    params: Params
    optimizer: Any
    aux_params: dict[str, Any]  # learned by the objective besides the images, and what it keeps
    aux_optimizer: Any
    average: Params | None  # moving average of the parameters, if any
    learning_rate: Float[Array, ""]  # of the images; traced, so that all rates share a program
    step: Int[Array, ""]

    @property
    def learned(self) -> Params:
        """Result of the distillation: the average if any, else the parameters."""
        return self.params if self.average is None else self.average


class Problem(NamedTuple):
    """Static description of a distillation under `jit`."""

    parameterization: Parameterization
    matching: Matching
    num_classes: int
    average: float = 0.0  # decay of the parameters' moving average; 0: none
    counts: tuple[int, ...] = ()  # images of each class; empty: equally many

    @property
    def labels(self) -> Int[Array, "m"]:
        """Class of each synthetic image, ordered by class."""
        per_class = np.array(self.counts) if self.counts else self.parameterization.images_per_class
        return jnp.repeat(jnp.arange(self.num_classes, dtype=jnp.int32), per_class)

    def synthetic(self, params: Params, transform: Any) -> Synthetic:
        """Returns the objective's view of optimized parameters."""
        kind = self.parameterization
        of_images = kind, params, transform, self.labels
        return Synthetic(self.num_classes, kind.images_per_class, *of_images, self.counts)


def start(
    problem: Problem,
    params: Params,
    learning_rate: float,
    logits: Float[Array, "m k"] | None = None,
    learned: Learned | None = None,
    key: Key[Array, ""] | None = None,
) -> DistillState:
    """Returns the initial state of fitted parameters, after `to_optimized`.

    `logits` are a teacher's soft labels of the images, if any; `learned` those and the learning
    rate of a set to begin with. `key` draws what the objective keeps across steps; None: of seed 0.
    """
    if learned is None:
        aux_params = problem.matching.aux_params(problem.labels, logits)
    else:
        aux_params = problem.matching.aux_params_of(problem.labels, learned)
    optimizer = problem.parameterization.optimizer(learning_rate).init(params)
    aux_optimizer = problem.matching.aux_optimizer().init(aux_params)
    average = jax.tree.map(jnp.copy, params) if problem.average else None
    kept = problem.matching.first_kept(jax.random.key(0) if key is None else key)
    learned = params, optimizer, _joined(aux_params, kept), aux_optimizer, average
    return DistillState(*learned, jnp.float32(learning_rate), jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnums=(0, 5), donate_argnums=1)
def run(
    problem: Problem,
    state: DistillState,
    key: Key[Array, ""],
    data: RealData,
    host_inputs: Any,
    num_steps: int,
) -> tuple[DistillState, Float[Array, "{num_steps}"]]:
    """Runs `num_steps` steps; returns the state, and each step's loss, summed over its updates.

    Step s draws from `fold_in(key, s)`: results are bitwise independent of the grouping into calls.

    Args:
      state: donated.
      key: key of the whole run.
      data: real images on the device, or those that these steps draw (`drawn`).
      host_inputs: of the objective for these steps, with `num_steps` as leading axis, or None.
    """
    parameterization, matching = problem.parameterization, problem.matching
    aux_optimizer = matching.aux_optimizer()

    def synthetic(params):
        return problem.synthetic(params, data.transform)

    def update(real, carry, u, update_key):
        state, shared = carry
        loss_key, after_key = _loss_keys(update_key, u)

        def objective(params, aux_params):
            loss = matching.loss(synthetic(params), real, aux_params, shared, u, loss_key)
            penalty = matching.penalty_weight * parameterization.penalty(params)
            return loss + penalty, loss

        (d_params, d_aux), loss = jax.grad(objective, argnums=(0, 1), has_aux=True)(
            state.params, state.aux_params
        )
        optimizer = parameterization.optimizer(state.learning_rate)
        updates, optimizer_state = optimizer.update(d_params, state.optimizer, state.params)
        params = parameterization.project(optax.apply_updates(state.params, updates))
        updates, aux_state = aux_optimizer.update(d_aux, state.aux_optimizer, state.aux_params)
        aux_params = matching.project_aux(optax.apply_updates(state.aux_params, updates))
        updated = state._replace(
            params=params, optimizer=optimizer_state, aux_params=aux_params, aux_optimizer=aux_state
        )
        if matching.threshold < math.inf:
            kept = loss <= matching.threshold
            updated = jax.tree.map(lambda new, old: jnp.where(kept, new, old), updated, state)
        shared = matching.after_update(synthetic(updated.params), shared, u, after_key)
        return (updated, shared), loss

    def step(state, given):
        host_inputs, read = given
        begin_key, update_key = _step_keys(key, state.step)
        real = dataclasses.replace(data, read=read)
        aux_params, kept = divided(state.aux_params)
        params = parameterization.begin_step(state.params)
        shared = matching.begin(begin_key, real, host_inputs)
        shared = matching.with_kept(shared, kept, synthetic(params), aux_params)
        state = state._replace(params=params, aux_params=aux_params)
        (state, shared), losses = jax.lax.scan(
            lambda carry, u: update(real, carry, u, update_key),
            (state, shared),
            jnp.arange(matching.num_updates),
        )
        kept = matching.next_kept(kept, synthetic(state.params), state.aux_params, shared)
        state = state._replace(aux_params=_joined(state.aux_params, kept))
        if problem.average:
            # In this form constant parameters are exactly their own average.
            average = jax.tree.map(
                lambda p, a: a + (1 - problem.average) * (p - a), state.params, state.average
            )
            state = state._replace(average=average)
        return state._replace(step=state.step + 1), losses.sum()

    return jax.lax.scan(step, state, (host_inputs, data.read), length=num_steps)


@functools.partial(jax.jit, static_argnums=0)
def drawn(
    problem: Problem, key: Key[Array, ""], data: RealData, host_inputs: Any, step: Int[Array, ""]
) -> Int[Array, "d k r"]:
    """Returns the indices of the real images that a step of `run` draws, for the host to read.

    `data` may lack the images, and `host_inputs` are those of this step.
    """
    matching = problem.matching
    begin_key, update_key = _step_keys(key, step)
    loss_keys = jax.vmap(lambda u: _loss_keys(update_key, u)[0])(jnp.arange(matching.num_updates))
    draws = matching.draws(begin_key, loss_keys, host_inputs)
    return jax.vmap(lambda k: data.indices(k, draws.per_class, draws.classes))(draws.keys)


def divided(aux_params: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Returns the learned ones of a state's `aux_params`, and what the objective keeps, or None."""
    return {name: a for name, a in aux_params.items() if name != KEPT}, aux_params.get(KEPT)


def _joined(aux_params, kept):
    """Inverts `divided`: without anything kept, checkpoints have no place for it."""
    return aux_params if kept is None else aux_params | {KEPT: kept}


def _step_keys(key, step):
    return jax.random.split(jax.random.fold_in(key, step))


def _loss_keys(update_key, update):
    return jax.random.split(jax.random.fold_in(update_key, update))
