"""Trains a small generator for `--config.parameterization.name=generator`, in minutes on a CPU.

    pip install .
    python examples/train_vae.py vae.safetensors --data=cifar10 --epochs=20
    GSDD_GENERATORS=vae.safetensors python -m launch.distill --config=demo \
        --config.parameterization.name=generator --workdir=runs/generator

Prints the PSNR of test images that pass through the latent variables.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import optax

import gsdd_jax
from gsdd_jax import generators
from gsdd_jax.generators.vae import VAE

BATCH, RATE = 128, 2e-3


@functools.partial(jax.jit, static_argnums=(0, 1))
def epoch(vae, optimizer, weights, state, key, images, variance):
    """Returns the weights and the optimizer's state after an epoch, and its mean loss."""
    order = jax.random.permutation(key, len(images))
    batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)

    def step(carry, batch):
        weights, state, key = carry
        key, now = jax.random.split(key)
        loss, gradient = jax.value_and_grad(vae.loss)(weights, now, images[batch] / 255, variance)
        updates, state = optimizer.update(gradient, state, weights)
        return (optax.apply_updates(weights, updates), state, key), loss

    (weights, state, _), losses = jax.lax.scan(step, (weights, state, key), batches)
    return weights, state, losses.mean()


def psnr(vae, weights, images):
    """Returns the mean PSNR in dB of images that pass through the latent variables."""

    @jax.jit
    def shown(images):
        latents = vae.begin(weights, jax.random.key(0), images)
        return vae.images(weights, vae.advanced(weights, latents, 0, vae.num_layers - 1))

    parts = [images[i : i + 500] / 255 for i in range(0, len(images), 500)]
    errors = [((shown(part) - part) ** 2).mean((1, 2, 3)) for part in parts]
    return float((-10 * jnp.log10(jnp.concatenate(errors))).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", help="file for the weights")
    parser.add_argument("--data", default="cifar10_mini", help="data set, as config.data.name")
    parser.add_argument("--data_dir", default=None, help="directory of the TFDS data sets")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--latent_channels", type=int, default=4)
    parser.add_argument("--width", type=int, default=32, help="features of the decoder")
    parser.add_argument(
        "--variance", type=float, default=2e-3, help="of pixels; smaller: sharper images"
    )
    given = parser.parse_args()
    generators.check_place(given.out)  # before minutes of training
    dataset = gsdd_jax.data.load(given.data, data_dir=given.data_dir)
    vae = VAE(*dataset.image_shape, given.latent_channels, given.width)
    weights = vae.init(jax.random.key(0))
    steps = given.epochs * (len(dataset.train.images) // BATCH)
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))
    state, images = optimizer.init(weights), jnp.asarray(dataset.train.images)
    for i in range(given.epochs):
        key = jax.random.fold_in(jax.random.key(1), i)
        weights, state, loss = epoch(vae, optimizer, weights, state, key, images, given.variance)
        print(f"epoch {i + 1}/{given.epochs}: loss {loss:.4f}", flush=True)
    generators.save(given.out, vae, weights)
    quality = psnr(vae, weights, jnp.asarray(dataset.test.images))
    print(f"{given.out}: {generators.load(given.out).num_bytes:,} bytes, {quality:.2f} dB on test")


if __name__ == "__main__":
    try:
        main()
    except gsdd_jax.UsageError as error:
        raise SystemExit(f"error: {error}") from None
