"""Trains a Keras network, computed by JAX, on a distilled set and tests it on real test images.

pip install . keras
python examples/keras_dataset.py distilled.safetensors [--epochs=300]
"""

import argparse
import os
import sys

import numpy as np

os.environ["KERAS_BACKEND"] = "jax"
import keras
from keras import layers

import gsdd_jax
from gsdd_jax import data


class Distilled(keras.utils.PyDataset):
    """Batches of a distilled set, in a new order and mirrored at random in every epoch."""

    def __init__(self, distilled, batch_size, seed=0):
        super().__init__()
        self.images, targets = distilled.numpy()
        one_hot = np.eye(distilled.num_classes, dtype=np.float32)
        self.targets = one_hot[targets] if targets.ndim == 1 else targets
        self.batch_size, self.random = batch_size, np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, index):
        chosen = self.order[index * self.batch_size :][: self.batch_size]
        images = self.images[chosen]
        mirrored = self.random.random(len(images)) < 0.5
        images[mirrored] = images[mirrored, :, ::-1]
        return images, self.targets[chosen]

    def on_epoch_end(self):
        self.order = self.random.permutation(len(self.images))


def convnet(image_shape, num_classes, width=32):
    """Returns three blocks of convolution, instance norm, ReLU and pooling."""
    network = keras.Sequential([keras.Input(image_shape)])
    for _ in range(3):
        network.add(layers.Conv2D(width, 3, padding="same"))
        network.add(layers.GroupNormalization(-1))  # a group per channel
        network.add(layers.ReLU())
        network.add(layers.AveragePooling2D(2))
    network.add(layers.Flatten())
    network.add(layers.Dense(num_classes))
    return network


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("distilled")
    parser.add_argument("--epochs", type=int, default=300)
    args = parser.parse_args()
    distilled = gsdd_jax.load(args.distilled)
    test = data.load(distilled.data.get("name", "")).test
    batches = Distilled(distilled, 100)
    network = convnet(distilled.format.image_shape, distilled.num_classes)
    steps = args.epochs * len(batches)
    network.compile(
        keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(distilled.learning_rate, steps), momentum=0.9
        ),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    network.fit(batches, epochs=args.epochs, verbose=0)
    inputs = distilled.transform(test.images.astype(np.float32) / 255)
    found = network.predict(inputs, batch_size=500, verbose=0).argmax(1)
    print(f"test accuracy {100 * (found == test.labels).mean():.1f} %")


if __name__ == "__main__":
    try:
        main()
    except gsdd_jax.UsageError as error:
        sys.exit(f"error: {error}")
