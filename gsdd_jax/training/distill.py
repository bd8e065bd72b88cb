"""The distillation step: any objective over any parameterization, in one compiled call."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.matching.base import Matching, RealData, Synthetic
from gsdd_jax.parameterizations.base import Parameterization, Params


class DistillState(NamedTuple):
    """Everything distillation holds between steps; a pytree, and what a checkpoint stores."""

    params: Params
    optimizer: Any
    extra: Any  # what the objective learns beside the images
    extra_optimizer: Any
    average: Params | None  # of the parameters so far, where one is kept
    learning_rate: Float[Array, ""]  # of the images; traced: every rate is the same program
    step: Int[Array, ""]

    @property
    def learned(self) -> Params:
        """What distillation came to: the average, where one is kept."""
        return self.params if self.average is None else self.average


class Problem(NamedTuple):
    """What is distilled, and how; static under `jit`."""

    parameterization: Parameterization
    matching: Matching
    num_classes: int
    average: float = 0.0  # the weight of the past in the average of the parameters; 0: none is kept

    @property
    def labels(self) -> Int[Array, "m"]:
        """The class of each synthetic image: ordered by class."""
        return jnp.repeat(
            jnp.arange(self.num_classes, dtype=jnp.int32), self.parameterization.images_per_class
        )

    def synthetic(self, params: Params, transform: Any) -> Synthetic:
        """What an objective sees of parameters that have entered."""
        kind = self.parameterization
        of_images = kind, params, transform, self.labels
        return Synthetic(self.num_classes, kind.images_per_class, *of_images)


def start(problem: Problem, params: Params, learning_rate: float) -> DistillState:
    """The state before the first step, from fitted parameters that have entered."""
    extra = problem.matching.extra(problem.labels)
    return DistillState(
        params,
        problem.parameterization.optimizer(learning_rate).init(params),
        extra,
        problem.matching.extra_optimizer().init(extra),
        jax.tree.map(jnp.copy, params) if problem.average else None,
        jnp.float32(learning_rate),
        jnp.zeros((), jnp.int32),
    )


@functools.partial(jax.jit, static_argnums=(0, 5), donate_argnums=1)
def run(
    problem: Problem,
    state: DistillState,
    key: Key[Array, ""],
    data: RealData,
    feed: Any,
    num_steps: int,
) -> tuple[DistillState, Float[Array, "{num_steps}"]]:
    """`num_steps` steps in one call; also the objective of each step, summed over its updates.

    Step s draws from `fold_in(key, s)`: how steps are grouped into calls does not change a bit of
    the result.

    Args:
      problem: static.
      state: donated.
      key: of the whole run.
      data: real images, on the device, or those that these steps draw (`drawn`).
      feed: what the objective got from the host for these steps: a pytree of arrays with
        `num_steps` as leading axis, or None.
      num_steps: static.
    """
    parameterization, matching = problem.parameterization, problem.matching
    extra_optimizer = matching.extra_optimizer()

    def synthetic(params):
        return problem.synthetic(params, data.transform)

    def update(real, carry, u, update_key):
        state, shared = carry
        loss_key, after_key = _loss_keys(update_key, u)

        def objective(params, extra):
            loss = matching.loss(synthetic(params), real, extra, shared, u, loss_key)
            return loss + parameterization.penalty(params), loss

        (d_params, d_extra), loss = jax.grad(objective, argnums=(0, 1), has_aux=True)(
            state.params, state.extra
        )
        optimizer = parameterization.optimizer(state.learning_rate)
        updates, optimizer_state = optimizer.update(d_params, state.optimizer, state.params)
        params = parameterization.project(optax.apply_updates(state.params, updates))
        updates, extra_state = extra_optimizer.update(d_extra, state.extra_optimizer, state.extra)
        extra = matching.project_extra(optax.apply_updates(state.extra, updates))
        shared = matching.after_update(synthetic(params), shared, u, after_key)
        state = state._replace(
            params=params, optimizer=optimizer_state, extra=extra, extra_optimizer=extra_state
        )
        return (state, shared), loss

    def step(state, given):
        feed, read = given
        begin_key, update_key = _step_keys(key, state.step)
        real = dataclasses.replace(data, read=read)
        shared = matching.begin(begin_key, real, feed)
        (state, _), losses = jax.lax.scan(
            lambda carry, u: update(real, carry, u, update_key),
            (state, shared),
            jnp.arange(matching.num_updates),
        )
        if problem.average:
            # So written, what does not change is its own average to the bit.
            average = jax.tree.map(
                lambda p, a: a + (1 - problem.average) * (p - a), state.params, state.average
            )
            state = state._replace(average=average)
        return state._replace(step=state.step + 1), losses.sum()

    return jax.lax.scan(step, state, (feed, data.read), length=num_steps)


@functools.partial(jax.jit, static_argnums=0)
def drawn(
    problem: Problem, key: Key[Array, ""], data: RealData, feed: Any, step: Int[Array, ""]
) -> Int[Array, "d k r"]:
    """The indices of the real images that a step of `run` draws, for who reads them for it.

    Args:
      problem: static; its objective says what it draws.
      key: of the whole run.
      data: which images there are of each class; it need not have them.
      feed: what the objective got from the host for this step.
      step: from 0 on.
    """
    matching = problem.matching
    begin_key, update_key = _step_keys(key, step)
    loss_keys = jax.vmap(lambda u: _loss_keys(update_key, u)[0])(jnp.arange(matching.num_updates))
    draws = matching.draws(begin_key, loss_keys, feed)
    return jax.vmap(lambda k: data.indices(k, draws.per_class, draws.classes))(draws.keys)


def _step_keys(key, step):
    """Of the step's beginning, and of its updates."""
    return jax.random.split(jax.random.fold_in(key, step))


def _loss_keys(update_key, update):
    """Of an update's loss, and of what is done after it."""
    return jax.random.split(jax.random.fold_in(update_key, update))
