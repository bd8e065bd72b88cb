"""Quality of fitted images by the bits of Gaussians' codes, compared with bfloat16.

The first 60 training images of CIFAR-10's small subset, 22 Gaussians each, 600 steps at two rates.
Bits are counted after entropy coding, without tables and grids, whose share shrinks with more
images.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp

from benchmarks.table import Table
from gsdd_jax import data, parameterizations
from gsdd_jax.training import fit

IMAGES, GAUSSIANS, STEPS = 60, 22, 600
RATES = (0.1, 0.03)
# Bits of means, L, colours, opacities.
BITS = ((6, 6, 6, 6), (7, 6, 6, 6), (8, 6, 6, 6), (7, 7, 7, 7), (7, 5, 5, 4), (7, 6, 5, 4),
        (7, 5, 6, 4))  # fmt: skip

COLUMNS = "bits rate psnr:.2f bits_per_gaussian:.1f"


def main(out: str | None) -> None:
    images = jnp.asarray(data.load("cifar10_mini").train.images[:IMAGES], jnp.float32) / 255
    per_class = IMAGES // 10
    plain = parameterizations.find("gaussian")(*images.shape[1:], per_class, GAUSSIANS)
    kind = parameterizations.build(
        "quantized",
        images.shape[1:],
        ipc=1,
        images_per_class=per_class,
        num_classes=10,
        rate_weight=0.0,
    )
    plans = [(plain, "bfloat16", lambda _: 144.0)]
    for bits in BITS:
        fields = ("bits_means", "bits_cholesky", "bits_colors", "bits_opacities")
        coded = dataclasses.replace(
            kind, num_gaussians=IMAGES * GAUSSIANS, **dict(zip(fields, bits, strict=True))
        )
        plans.append((coded, " ".join(map(str, bits)), jax.jit(coded.rate)))
    table = Table(out, COLUMNS)
    for (stored, name, bits_of), rate in itertools.product(plans, RATES):
        state = fit.start(stored, jax.random.key(0), images, rate)
        state, _ = fit.run(stored, state, images, rate, STEPS)
        psnr = float(fit.psnr(stored, state.params, images).mean())
        bits = float(bits_of(state.params))
        table.add(dict(bits=name, rate=rate, psnr=psnr, bits_per_gaussian=bits))
