"""Labeling: training targets of every view of the images, by the labeler that a set stores."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gsdd_jax import networks
from gsdd_jax.core import mesh
from gsdd_jax.data.soft_labels import Labels
from gsdd_jax.formats import labeler
from gsdd_jax.formats.labeler import Labeler
from gsdd_jax.networks import Network

_BLOCKS = {"Conv": {"kernel": "kernel"}, "InstanceNorm": {"scale": "scale", "bias": "shift"}}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Labeling:
    """A labeler on the device; a pytree."""

    params: Any
    temperature: Float[Array, ""]
    network: Network = dataclasses.field(metadata={"static": True})

    def targets(self, views: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
        """Returns the class probabilities of views."""
        return jax.nn.softmax(self.network.apply(self.params, views) / self.temperature)


def of_set(stored: Labeler) -> Labeling:
    """Returns the labeler of a set as networks train with it."""
    network = networks.build(
        "convnet", image_shape=stored.image_shape, num_classes=stored.num_classes,
        width=stored.width, depth=stored.depth,
    )  # fmt: skip
    weights = {name: jnp.asarray(array) for name, array in stored.weights.items()}
    body = {}
    for i in range(stored.depth):
        for layer, names in _BLOCKS.items():
            body[f"{layer}_{i}"] = {n: weights[f"{name}{i}"] for n, name in names.items()}
        # Instance norm cancels it, so that it is not stored.
        body[f"Conv_{i}"]["bias"] = jnp.zeros(stored.width)
    head = {name: weights[name] for name in ("kernel", "bias")}
    params = {"body": body, "Linear_0": head}
    return Labeling(params, jnp.float32(stored.temperature), network)


def stored(network: Network, params: Any, labels: Labels) -> Labeler:
    """Returns the labeler of a trained ConvNet, the only one of stacked `params`, in NumPy."""
    params = jax.tree.map(lambda a: mesh.to_host(a)[0], params)
    body, weights = params["body"], dict(params["Linear_0"])
    depth = sum(name.startswith("Conv_") for name in body)
    for i in range(depth):
        for layer, names in _BLOCKS.items():
            weights |= {f"{name}{i}": body[f"{layer}_{i}"][n] for n, name in names.items()}
    return labeler.of_weights(
        weights, network.image_shape, width=labels.width, depth=depth, bits=labels.weight_bits,
        temperature=labels.temperature,
    )  # fmt: skip
