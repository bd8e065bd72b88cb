"""Back-propagation through training: RaT-BPTT (Feng et al., 2024)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core import mesh
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import LEAST, Shrink, field
from gsdd_jax.data import augment, mixing, soft_labels
from gsdd_jax.matching import base
from gsdd_jax.matching.base import Draws, RealData, Synthetic, Work
from gsdd_jax.matching.with_labels import WithLabels
from gsdd_jax.networks import Network

MOST_STEPS = 1_000_000
AT_ONCE = 500  # real images of a part, whose activations are kept together
TINY = 1e-30  # under Adam's root, whose derivative is infinite at 0


class Member(NamedTuple):
    """Network in training; the pool, with networks as leading axis, has the same fields."""

    params: Any
    optimizer: Any
    age: Int[Array, "*n"]  # training steps
    last: Int[Array, "*n"]  # age beyond which it is replaced


class Carry(NamedTuple):
    """Real images of a step, and the network that trains before them."""

    real: Float[Array, "n ..."]
    labels: Int[Array, "n"]
    weights: Float[Array, "n"]  # in the mean of the loss
    place: Int[Array, ""]  # of the network in the pool
    key: Key[Array, ""]
    member: Member
    labeler: Any  # of `RealData`


@dataclasses.dataclass(frozen=True)
class BackPropagation(WithLabels):
    """Cross-entropy of real images after a network has trained on the synthetic set.

    The gradient goes back through the last `syn_steps` steps of that training. What came before
    is a constant: a random number of steps of a new network, as published. A network of a pool
    goes on from step to step instead, which costs less.

    Networks see what those of an evaluation see: with a set's labeler mixtures, which it labels.
    """

    name: ClassVar[str] = "bptt"
    unequal_classes: ClassVar[bool] = True
    follows_labeler: ClassVar[bool] = True
    saves_memory: ClassVar[tuple[str, ...]] = (
        "matching.options.batch_syn",
        "matching.options.batch_real",
    )
    network: Network
    num_classes: int
    syn_steps: int = field(
        60, "training steps that are differentiated; published: 60 to 100", most=MOST_STEPS,
        shrink=Shrink(0.5, 2),
    )  # fmt: skip
    min_start_step: int = field(
        0, "least number of steps before them", 0, MOST_STEPS, shrink=Shrink(0.5, 0)
    )
    max_start_step: int = field(
        140, "largest number of steps before them; published: 140 and 200", 0, MOST_STEPS,
        shrink=Shrink(0.5, 0),
    )  # fmt: skip
    batch_syn: int = field(0, "synthetic images per training step; 0: all", 0)
    batch_real: int = field(
        50,
        "real images per class and step; published: 500 of CIFAR-10, 50 of CIFAR-100",
        shrink=Shrink(0.5, 1),
    )
    optimizer: str = field(
        "adam", "optimizer of the networks: adam, as published, or sgd (momentum 0.9, decay 5e-4)",
        choices=("adam", "sgd"),
    )  # fmt: skip
    network_learning_rate: float = field(1e-3, "learning rate of the networks", LEAST)
    last_rate: float = field(
        1.0, "factor of the rate from step min_start_step on; below 1 the optimizer restarts "
        "there, as halfway in an evaluation", LEAST, 1.0,
    )  # fmt: skip
    pool_size: int = field(
        0, "networks that go on training from step to step; 0: a new one in each, as published", 0
    )
    augment_real: bool = field(True, "True: the real images are augmented, too")
    strategy: str = augment.DSA
    labels: soft_labels.Labels = soft_labels.HARD

    @classmethod
    def shrunk(cls, options: Mapping[str, Any], expert_epochs: int) -> dict[str, Any]:
        least = min(options["min_start_step"], options["max_start_step"])
        return dict(options) | {"min_start_step": least}

    @classmethod
    def largest_batch(cls, num_classes: int, images_per_class: int) -> tuple[int, str]:
        return num_classes * images_per_class, "images"

    def check(self, num_classes: int, images_per_class: int) -> None:
        super().check(num_classes, images_per_class)
        if self.min_start_step > self.max_start_step:
            raise UsageError(
                "config.matching.options.min_start_step: expected at most max_start_step="
                f"{self.max_start_step}, got {self.min_start_step}"
            )

    def work(self, num_classes: int, num_images: int) -> Work:
        drawn, real = self.batch_syn or num_images, num_classes * self.batch_real
        plain = (self.min_start_step + self.max_start_step) / 2
        if self.pool_size:
            drawn_by_one = -(-self._lifetime // self.syn_steps)
            plain = self.syn_steps + self.min_start_step / drawn_by_one
        steps = (base.SECOND_ORDER * self.syn_steps + plain) * drawn + real
        return Work(steps, base.SECOND_ORDER * drawn + min(real, AT_ONCE))

    def draws(self, key: Key[Array, ""], loss_keys: Key[Array, "u"], host_inputs: Any) -> Draws:
        return Draws(jax.random.split(key, 4)[:1], self.batch_real)

    def first_kept(self, key: Key[Array, ""]) -> Member | None:
        if not self.pool_size:
            return None
        pool = jax.jit(jax.vmap(self._fresh))(jax.random.split(key, self.pool_size))
        # They end one after the other.
        share = (np.arange(self.pool_size) + 1) * self._lifetime // self.pool_size
        return pool._replace(last=jnp.asarray(self.min_start_step + share - 1, jnp.int32))

    def begin(self, key: Key[Array, ""], data: RealData, host_inputs: Any) -> Carry:
        keys = jax.random.split(key, 4)
        of_real = data.batch(keys[0], self.batch_real)
        place = jax.random.randint(keys[1], (), 0, max(1, self.pool_size))
        return Carry(*of_real, place, keys[2], self._fresh(keys[3]), data.labeler)

    def with_kept(
        self,
        carry: Carry,
        kept: Member | None,
        synthetic: Synthetic,
        aux_params: dict[str, Array],
    ) -> Carry:
        keys = jax.random.split(carry.key, 3)
        if kept is None:
            member, bounds = carry.member, (self.min_start_step, self.max_start_step + 1)
            steps = jax.random.randint(keys[0], (), *bounds)
        else:
            member = jax.tree.map(lambda a: a[carry.place], kept)
            steps = jnp.maximum(self.min_start_step - member.age, 0)
        shown = self._shown(synthetic, aux_params, carry)
        return carry._replace(member=self._trained(shown, member, keys[1], steps), key=keys[2])

    def next_kept(
        self,
        kept: Member | None,
        synthetic: Synthetic,
        aux_params: dict[str, Array],
        carry: Carry,
    ) -> Member | None:
        if kept is None:
            return None
        keys = jax.random.split(carry.key)
        shown = self._shown(synthetic, aux_params, carry)
        member = self._trained(shown, carry.member, keys[0], self.syn_steps)
        member = jax.lax.cond(
            member.age > member.last, lambda: self._fresh(keys[1]), lambda: member
        )
        return jax.tree.map(lambda a, one: a.at[carry.place].set(one), kept, member)

    def loss(
        self,
        synthetic: Synthetic,
        data: RealData,
        aux_params: dict[str, Array],
        carry: Carry,
        update: Int[Array, ""],
        key: Key[Array, ""],
    ) -> Float[Array, ""]:
        view_key, step_key = jax.random.split(key)
        real = carry.real
        if self.augment_real:
            real = self._augmented(view_key, real)

        def after_training(share, shared, members, _):
            shown, of_real, key = shared
            step = jax.checkpoint(lambda member, key: (self._step(share, shown, member, key), None))
            keys = jax.random.split(key, self.syn_steps)
            member, _ = jax.lax.scan(step, _first(members), keys)
            return share.psum(self._real_loss(member.params, *share.slice(of_real)))[None]

        of_real = real, carry.labels, carry.weights
        shared = self._shown(synthetic, aux_params, carry), of_real, step_key
        return mesh.map_groups(after_training, shared, _one(carry.member))[0]

    def _real_loss(self, params, real, labels, weights):
        """Returns the weighted sum of cross-entropies; activations of a part are kept at once."""

        @jax.checkpoint
        def of_part(part):
            images, labels, weights = part
            losses = soft_labels.cross_entropy(self.network.apply(params, images), labels)
            return (weights * losses).sum()

        parts = -(-len(real) // AT_ONCE)
        size = -(-len(real) // parts)

        def split(a):
            padding = [(0, parts * size - len(a))] + [(0, 0)] * (a.ndim - 1)
            return jnp.pad(a, padding).reshape(parts, size, *a.shape[1:])

        return jax.lax.map(of_part, (split(real), split(labels), split(weights))).sum()

    def _shown(self, synthetic, aux_params, carry):
        """Returns what networks train on: images, their targets, and what labels their views."""
        return synthetic.render(), self.targets(synthetic.labels, aux_params), carry.labeler

    def _trained(self, shown, member, key, steps):
        """Returns a network after more steps."""

        def train(share, shared, members, _):
            shown, key, steps = shared
            step = lambda i, member: self._step(share, shown, member, jax.random.fold_in(key, i))
            return _one(jax.lax.fori_loop(0, steps, step, _first(members)))

        return _first(mesh.map_groups(train, (shown, key, steps), _one(member)))

    def _step(self, share, shown, member, key):
        """Returns a network after one step on a random batch of the synthetic set."""
        images, targets, labeler = shown
        count = len(images)
        order_key, view_key, mix_key = jax.random.split(key, 3)
        if self.batch_syn not in (0, count):
            places = jax.random.permutation(order_key, count)[: self.batch_syn]
            # Unique indices: gradients are summed without atomics, hence deterministically.
            images = images.at[places].get(unique_indices=True)
            targets = targets.at[places].get(unique_indices=self.labels.soft)
            count = self.batch_syn
        if labeler is not None:
            images = mixing.mixed(mix_key, images)
        images = self._augmented(view_key, images)
        own, own_targets, weights = share.slice((images, targets, jnp.full(count, 1 / count)))
        if labeler is not None:
            own_targets = labeler.targets(own)

        def loss(params):
            losses = soft_labels.cross_entropy(self.network.apply(params, own), own_targets)
            return (weights * losses).sum()

        gradient = share.psum(jax.grad(loss)(member.params))
        rate, state = self.network_learning_rate, member.optimizer
        if self.last_rate < 1:
            rate = rate * jnp.where(member.age < self.min_start_step, 1.0, self.last_rate)
            restarts = member.age == self.min_start_step
            state = jax.tree.map(lambda a: jnp.where(restarts, jnp.zeros_like(a), a), state)
        updates, state = self._optimizer().update(gradient, state, member.params)
        params = jax.tree.map(lambda p, u: p - rate * u, member.params, updates)
        return Member(params, state, member.age + 1, member.last)

    def _augmented(self, key, images):
        return augment.augment(key, images, strategy=self.strategy, frames=self.network.frames)

    def _fresh(self, key):
        params = self.network.init(key)
        age, last = jnp.zeros((), jnp.int32), jnp.full((), self.max_start_step, jnp.int32)
        return Member(params, self._optimizer().init(params), age, last)

    def _optimizer(self):
        """Returns the optimizer for a rate of -1; its state at the start is all zeros."""
        if self.optimizer == "adam":
            return optax.scale_by_adam(eps_root=TINY)
        return optax.chain(optax.add_decayed_weights(5e-4), optax.trace(decay=0.9))

    @property
    def _lifetime(self) -> int:
        """Steps of a network of the pool from the first to the last at which it is drawn."""
        return self.max_start_step - self.min_start_step + 1


def _one(tree):
    return jax.tree.map(lambda a: a[None], tree)


def _first(tree):
    return jax.tree.map(lambda a: a[0], tree)
