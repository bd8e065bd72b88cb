"""Neural feature regression, FRePo (Zhou et al., 2022): ridge regression on a pool of networks."""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core import mesh
from gsdd_jax.core.fields import LEAST, Shrink, field
from gsdd_jax.data import soft_labels
from gsdd_jax.matching.base import FORWARD, Draws, RealData, Synthetic, Work
from gsdd_jax.matching.with_labels import LABELS, WithLabels
from gsdd_jax.networks import Network

RESOLVED = 8 * 2.0**-23  # least ridge, relative to the trace of the kernel


class Member(NamedTuple):
    """Network of the pool; the pool itself, with networks as leading axis, has the same fields."""

    params: Any
    optimizer: Any
    age: Int[Array, "*n"]  # training steps; first those that an older network would have


class Carry(NamedTuple):
    """Real images of a step, and the network that it draws from the pool."""

    real: Float[Array, "n ..."]  # images as drawn, then their features
    labels: Int[Array, "n"]
    weights: Float[Array, "n"]  # in the mean of the loss
    key: Key[Array, ""]
    place: Int[Array, ""]  # of the network in the pool
    member: Member | None = None


@dataclasses.dataclass(frozen=True)
class FeatureRegression(WithLabels):
    """Squared error of kernel ridge regression from synthetic images to real ones.

    The kernel is the product of features of a network drawn from a pool. After each update that
    network takes one step on the synthetic set, or is replaced by a new one when it is too old.

    The targets are logits of labels without their mean, scaled so that a start from classes has
    the published values: one-hot vectors less 1 / k, divided by √(k / 10). The mean of an image's
    targets would only add to the loss. Learned labels have a margin loss: the largest target shall
    exceed the second by 1 / k.
    """

    name: ClassVar[str] = "frepo"
    unequal_classes: ClassVar[bool] = True
    saves_memory: ClassVar[tuple[str, ...]] = (
        "matching.options.batch_real",
        "matching.options.batch_syn",
        "matching.options.flip=False",
    )
    network: Network
    num_classes: int
    batch_real: int = field(
        100, "real images per class and step; published: 1024 of all classes", shrink=Shrink(0.5, 1)
    )
    batch_syn: int = field(
        0, "synthetic images per regression and per network step; 0: all; published: all, 1000", 0
    )
    flip: bool = field(True, "True: the regression also takes the mirrored synthetic images")
    ridge: float = field(1e-6, "ridge, relative to the mean diagonal of the kernel", 1e-9)
    pool_size: int = field(10, "networks in the pool", shrink=Shrink(0.5, 2))
    max_updates: int = field(
        100, "training steps after which a network is replaced", shrink=Shrink(0.5, 2)
    )
    network_learning_rate: float = field(3e-4, "Adam learning rate of the networks", LEAST)
    labels: soft_labels.Labels = soft_labels.HARD

    @classmethod
    def largest_batch(cls, num_classes: int, images_per_class: int) -> tuple[int, str]:
        return num_classes * images_per_class, "images"

    def work(self, num_classes: int, num_images: int) -> Work:
        drawn = self.batch_syn or num_images
        one = FORWARD * num_classes * self.batch_real + (1 + self.flip) * drawn
        return Work(one + drawn, one)

    def draws(self, key: Key[Array, ""], loss_keys: Key[Array, "u"], host_inputs: Any) -> Draws:
        return Draws(jax.random.split(key, 3)[:1], self.batch_real)

    def project_aux(self, aux_params: dict[str, Array]) -> dict[str, Array]:
        # Targets depend only on differences: with the least logit 0 the grid holds the most.
        return jax.tree.map(lambda a: soft_labels.clip(a - a.min(1, keepdims=True)), aux_params)

    def first_kept(self, key: Key[Array, ""]) -> Member:
        pool = jax.jit(jax.vmap(self._fresh))(jax.random.split(key, self.pool_size))
        # Ages differ, so that networks are replaced in turn.
        return pool._replace(age=jnp.arange(self.pool_size) * self.max_updates // self.pool_size)

    def begin(self, key: Key[Array, ""], data: RealData, host_inputs: Any) -> Carry:
        keys = jax.random.split(key, 3)
        place = jax.random.randint(keys[1], (), 0, self.pool_size)
        return Carry(*data.batch(keys[0], self.batch_real), keys[2], place)

    def with_kept(
        self, carry: Carry, kept: Member, synthetic: Synthetic, aux_params: dict[str, Array]
    ) -> Carry:
        member = jax.tree.map(lambda a: a[carry.place], kept)
        return carry._replace(real=self._features(member.params, carry.real), member=member)

    def next_kept(
        self, kept: Member, synthetic: Synthetic, aux_params: dict[str, Array], carry: Carry
    ) -> Member:
        keys = jax.random.split(carry.key)
        member = jax.lax.cond(
            carry.member.age > self.max_updates,
            lambda: self._fresh(keys[0]),
            lambda: self._trained(carry.member, *self._sample(synthetic, aux_params, keys[1])),
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
        images, targets = self._sample(synthetic, aux_params, key)
        margin = 0.0
        if self.labels.learned:
            largest = jax.lax.top_k(targets, 2)[0]
            margin = -jnp.minimum(largest[:, 0] - largest[:, 1], 1 / self.num_classes).mean()
        if self.flip:
            images = jnp.concatenate([images, images[..., ::-1, :]])
            targets = jnp.concatenate([targets, targets])
        features = self._features(carry.member.params, images)
        predicted = regression(carry.real, features, targets, self.ridge)
        expected = jax.nn.one_hot(carry.labels, self.num_classes) - 1 / self.num_classes
        return (carry.weights * _halved_squares(predicted - expected)).sum() + margin

    def _sample(self, synthetic, aux_params, key):
        """Returns the images of a regression or of a network's step, and their targets."""
        targets = self._targets(synthetic.labels, aux_params)
        count = len(targets)
        if self.batch_syn in (0, count):
            return synthetic.render(), targets
        places = jax.random.permutation(key, count)[: self.batch_syn]
        return synthetic.render(places), targets[places]

    def _targets(self, labels, aux_params):
        if self.labels.soft:
            logits = soft_labels.on_grid(aux_params[LABELS], self.labels.bits)
        else:
            logits = soft_labels.start(labels, self.num_classes)
        scale = soft_labels.START * (self.num_classes / 10) ** 0.5
        return (logits - logits.mean(1, keepdims=True)) / scale

    def _features(self, network, images):
        """Returns features; every device computes those of a part and gets all."""
        features = mesh.map_parallel(self.network.features, network, images)
        return mesh.constrain_replicated(features)

    def _fresh(self, key):
        params = self.network.init(key)
        return Member(params, self._optimizer().init(params), jnp.zeros((), jnp.int32))

    def _trained(self, member, images, targets):
        def loss(params, images, targets, weights):
            return (weights * _halved_squares(self.network.apply(params, images) - targets)).sum()

        given = images, targets, jnp.full(len(images), 1 / len(images))
        gradient = jax.grad(lambda p: mesh.sum_parallel(loss, p, *given))(member.params)
        updates, optimizer = self._optimizer().update(gradient, member.optimizer)
        return Member(optax.apply_updates(member.params, updates), optimizer, member.age + 1)

    def _optimizer(self):
        return optax.adam(self.network_learning_rate)


def regression(
    real: Float[Array, "n f"],
    synthetic: Float[Array, "m f"],
    targets: Float[Array, "m k"],
    ridge: float,
) -> Float[Array, "n k"]:
    """Returns the predictions of kernel ridge regression for `real` features.

    The kernel is the product of features; `ridge` is relative to its mean diagonal over the
    `synthetic` ones. It is at least `RESOLVED` of the kernel's trace: less is below the rounding
    of float32, by which similar images would make the kernel indefinite. With fewer features than
    synthetic images their normal equations give the same predictions, with smaller errors.
    """
    size, by_feature = len(synthetic), synthetic.shape[1] < len(synthetic)
    amount = jnp.maximum(ridge / size, RESOLVED) * (synthetic**2).sum()
    rows, right = (synthetic.T, _dot(synthetic.T, targets)) if by_feature else (synthetic, targets)
    kernel = _dot(rows, rows.T) + amount * jnp.eye(len(rows))
    factor = cho_factor(jax.lax.stop_gradient(kernel))

    def solve(product, right):
        first = cho_solve(factor, right)
        return first + cho_solve(factor, right - product(first))

    weights = jax.lax.custom_linear_solve(
        functools.partial(_dot, kernel), right, solve, symmetric=True
    )
    return _dot(real, weights if by_feature else _dot(synthetic.T, weights))


def _dot(a, b):
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _halved_squares(difference):
    return 0.5 * (difference**2).sum(1)
