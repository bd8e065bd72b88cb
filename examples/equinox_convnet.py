"""Trains an Equinox network on a distilled set and tests it on the real test images.

pip install . equinox
python examples/equinox_convnet.py distilled.safetensors [--epochs=300]
"""

import argparse
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import gsdd_jax
from gsdd_jax import data


def convnet(key, width=32, num_classes=10):
    """Three blocks of convolution, group norm, ReLU and pooling, for one image [c, h, w]."""
    keys, layers = jax.random.split(key, 4), []
    for i, before in enumerate((3, width, width)):
        layers += [
            eqx.nn.Conv2d(before, width, 3, padding=1, key=keys[i]),
            eqx.nn.GroupNorm(width, width),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.AvgPool2d(2, 2),
        ]
    head = eqx.nn.Linear(16 * width, num_classes, key=keys[3])
    return eqx.nn.Sequential([*layers, eqx.nn.Lambda(jnp.ravel), head])


def logits_of(network, images):
    """Applies the network to images [m, h, w, c]."""
    return jax.vmap(network)(images.transpose(0, 3, 1, 2))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("distilled")
    parser.add_argument("--epochs", type=int, default=300)
    args = parser.parse_args()
    distilled = gsdd_jax.load(args.distilled)
    test = data.load(distilled.data.get("name", "")).test
    network = convnet(jax.random.key(0))
    sgd = optax.sgd(distilled.learning_rate, momentum=0.9)
    state = sgd.init(eqx.filter(network, eqx.is_array))

    @eqx.filter_jit
    def step(network, state, images, targets):
        @eqx.filter_grad
        def gradient(network):
            logits = logits_of(network, images)
            return optax.softmax_cross_entropy(logits, targets).mean()

        updates, state = sgd.update(gradient(network), state)
        return eqx.apply_updates(network, updates), state

    rng = np.random.default_rng(0)
    for images, labels in distilled.batches(100, seed=0, epochs=args.epochs):
        flip = rng.random((len(images), 1, 1, 1)) < 0.5
        targets = labels if labels.ndim == 2 else np.eye(distilled.num_classes)[labels]
        network, state = step(network, state, np.where(flip, images[:, :, ::-1], images), targets)

    predict, right = eqx.filter_jit(lambda n, x: logits_of(n, x).argmax(-1)), 0
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
