"""Trains a Flax NNX network on a distilled set and tests it on the real test images.

pip install .
python examples/flax_nnx.py distilled.safetensors [--epochs=300]
"""

import argparse
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import gsdd_jax
from gsdd_jax import data


class ConvNet(nnx.Module):
    """Three blocks of convolution, group norm, ReLU and pooling."""

    def __init__(self, rngs, width=32, num_classes=10):
        sizes = [(3, width), (width, width), (width, width)]
        self.convs = nnx.List([nnx.Conv(i, o, (3, 3), rngs=rngs) for i, o in sizes])
        self.norms = nnx.List([nnx.GroupNorm(o, num_groups=o, rngs=rngs) for _, o in sizes])
        self.head = nnx.Linear(16 * width, num_classes, rngs=rngs)

    def __call__(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.avg_pool(nnx.relu(norm(conv(x))), (2, 2), (2, 2))
        return self.head(x.reshape(len(x), -1))


@nnx.jit
def step(network, optimizer, images, targets):
    """Takes one step of SGD; targets are classes or, with soft labels, their probabilities."""

    def loss(network):
        logits = network(images)
        odds = targets if targets.ndim == 2 else jax.nn.one_hot(targets, logits.shape[1])
        return optax.softmax_cross_entropy(logits, odds).mean()

    optimizer.update(network, nnx.grad(loss)(network))


@nnx.jit
def predict(network, images):
    """Returns the class of each image."""
    return network(images).argmax(-1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("distilled")
    parser.add_argument("--epochs", type=int, default=300)
    args = parser.parse_args()
    distilled = gsdd_jax.load(args.distilled)
    test = data.load(distilled.data.get("name", "")).test
    network = ConvNet(nnx.Rngs(0))
    sgd = optax.sgd(distilled.learning_rate, momentum=0.9)
    optimizer = nnx.Optimizer(network, sgd, wrt=nnx.Param)
    rng = np.random.default_rng(0)
    for images, labels in distilled.batches(100, seed=0, epochs=args.epochs):
        flip = rng.random((len(images), 1, 1, 1)) < 0.5
        step(network, optimizer, jnp.where(flip, images[:, :, ::-1], images), labels)

    right = 0
    for start in range(0, len(test.labels), 500):
        images = distilled.transform(test.images[start : start + 500].astype(np.float32) / 255)
        found = predict(network, images)
        right += int((found == test.labels[start : start + 500]).sum())
    print(f"test accuracy {100 * right / len(test.labels):.1f} %")


if __name__ == "__main__":
    try:
        main()
    except gsdd_jax.UsageError as error:
        sys.exit(f"error: {error}")
