"""Held-out images as SIRENs of the paper's sizes, compared with training in float64.

The images are test images of CIFAR-10's small subset, enlarged for 128 x 128. The float64 networks,
in separate code, start from the same numbers and take the same steps of Adam. Sines amplify every
rounding until the two trainings diverge; final quality is compared.
"""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.table import Table
from gsdd_jax import data, parameterizations
from gsdd_jax.training import fit
from tests.plain import Siren

SIZES = ((32, 1), (32, 50), (128, 1))  # side, images per class in bytes: 2 x 6, 2 x 20, 3 x 20
STEPS, RATE = 5000, 5e-4  # as published
IMAGES = 2


COLUMNS = "side network image float32_db:.3f float64_db:.3f difference:+.4f"


def main(out: str | None) -> None:
    images = jnp.asarray(data.load("cifar10_mini").test.images[:IMAGES], jnp.float32) / 255
    table = Table(out, COLUMNS)
    for side, ipc in SIZES:
        for row in _compare(jax.image.resize(images, (IMAGES, side, side, 3), "cubic"), ipc):
            table.add(row)


def _compare(images, ipc):
    kind = parameterizations.build("ddif", images.shape[1:], ipc=ipc, images_per_class=1)
    state = fit.start(kind, jax.random.key(0), images, RATE, 0)
    first = jax.tree.map(np.asarray, state.params)
    state, _ = fit.run(kind, state, images, RATE, STEPS, 0)
    for m, psnr in enumerate(fit.psnr(kind, state.params, images).tolist()):
        layers = [
            (first[f"weights_{i}"][m], first[f"biases_{i}"][m]) for i in range(kind.layers + 1)
        ]
        net, target = Siren(layers, kind.w0), np.asarray(images[m], np.float64)
        net.fit(target, STEPS, RATE)
        expected = -10 * np.log10(((net.image(*target.shape[:2]) - target) ** 2).mean())
        yield dict(
            side=len(target), network=f"{kind.layers} x {kind.layer_width}", image=m,
            float32_db=psnr, float64_db=expected, difference=psnr - expected,
        )  # fmt: skip
