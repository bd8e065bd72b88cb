"""Experts trained side by side: images a second for 1, 2, 4 and 8 at once.

All are timed in one run, taking turns, so that a busy machine slows all; the ratio is the result.
"""

import jax
import jax.numpy as jnp

from benchmarks.turns import take_turns
from gsdd_jax import data, networks
from gsdd_jax.core.files import write_json
from gsdd_jax.data import augment, transforms
from gsdd_jax.runs import experts
from gsdd_jax.training import experts as training

AT_ONCE = (1, 2, 4, 8)
BATCH_SIZE = 256


def main(out: str | None) -> None:
    """Prints a table of images a second and ratios; writes them to `out` as JSON."""
    device = jax.devices()[0]
    # Short on a CPU; on a GPU the published width, and enough batches to fill it.
    width, num_batches = (16, 4) if device.platform == "cpu" else (128, 10)
    print(f"{device.device_kind}, {device.platform}, jax {jax.__version__}")
    print(f"ConvNetD3, width {width}, 32 x 32, batch {BATCH_SIZE}, DSA")
    print(f"{'at once':>8}{'images/s':>12}{'ratio':>8}")
    epochs = []
    for count in AT_ONCE:
        # All so far again, so that a ratio is of times from the same turns.
        epochs.append(epoch_of(count, width, num_batches))
        seconds = take_turns(*epochs)
        rates = [c * num_batches * BATCH_SIZE / s for c, s in zip(AT_ONCE, seconds, strict=False)]
        rows = [
            dict(at_once=c, width=width, images_per_s=rate, ratio=rate / rates[0])
            for c, rate in zip(AT_ONCE, rates, strict=False)
        ]
        print(f"{count:8d}{rates[-1]:12.0f}{rows[-1]['ratio']:8.2f}", flush=True)
        if out:
            write_json(out, rows)


def epoch_of(count: int, width: int, num_batches: int, precision: str = "default"):
    """A compiled, warmed-up call that trains `count` experts on `num_batches` batches each."""
    dataset = data.load("cifar10_mini")
    num_images = num_batches * BATCH_SIZE
    transform = transforms.Normalize(jnp.asarray(dataset.mean), jnp.asarray(dataset.std))
    images = transforms.to_device(dataset.train.images[:num_images], transform)
    labels = jnp.asarray(dataset.train.labels[:num_images])
    network = networks.build(
        "convnet", image_shape=(32, 32, 3), num_classes=10, width=width, precision=precision
    )
    keys = jnp.stack([experts.expert_key(0, expert) for expert in range(count)])
    start = jnp.stack([training.initial(network, key) for key in keys])
    step = 0

    def epoch():
        nonlocal step
        step += 1  # other draws, and so other augmentations, each time
        jax.block_until_ready(
            training.train_epoch(
                network, start.copy(), keys, jnp.int32(step), images, labels,
                learning_rate=jnp.float32(0.01), batch_size=BATCH_SIZE, strategy=augment.DSA,
            )
        )  # fmt: skip

    epoch()
    return epoch
