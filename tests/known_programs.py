"""Prints, as JSON, the counts of programs on four devices whose collectives are known."""

import json

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from benchmarks import hlo, programs, scale
from configs import load

DEVICES = 4


def known():
    """Every kind of collective, and in loops of known lengths."""
    mesh = jax.make_mesh((DEVICES,), ("d",), axis_types=(AxisType.Auto,))

    def device(x, w):  # [2, 6] of [8, 6], and [6, 10]
        product = jnp.sin(x @ w)
        summed, _ = lax.scan(
            lambda c, _: (jnp.sin(lax.psum(c, "d")), None), jnp.sin(product[:1, :5]), length=7
        )

        def gather(c, _):
            return jnp.sin(lax.all_gather(c, "d")[0]), None

        gathered, _ = lax.scan(
            lambda c, _: lax.scan(gather, c, length=4), jnp.sin(product), length=3
        )
        scattered = lax.psum_scatter(jnp.sin(product[0, :8]), "d", tiled=True)
        passed = lax.ppermute(product[:, :3], "d", [(i, (i + 1) % DEVICES) for i in range(DEVICES)])
        swapped = lax.all_to_all(product[0, :8].reshape(4, 2), "d", 0, 0, tiled=True)
        parts = summed, gathered, scattered, passed, swapped
        return sum(jnp.cos(part).sum() for part in parts)[None]

    mapped = jax.shard_map(
        device, mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"), check_vma=False
    )
    return hlo.count(jax.jit(mapped).lower(jnp.ones((8, 6)), jnp.ones((6, 10))).compile())


def small(name, step, devices=(1, DEVICES), **options):
    """Rows of a step of a shipped experiment but for its sizes."""
    config = load(name)
    config.network.options.width, config.network.options.depth = 4, 1
    config.matching.strategy, config.budget.images_per_class, config.experts.at_once = "flip", 4, 1
    config.matching.options.update(options)
    return list(programs.rows(config, devices, [step]))


def main():
    scale.as_on_gpus(DEVICES)
    tm, several = ("cifar10_tm", "distill"), [DEVICES]
    followed = dict(batch_syn=8, keep_every=0)
    found = dict(
        known=known(),
        tm=small(*tm, syn_steps=3, **followed),
        longer=small(*tm, several, syn_steps=6, **followed),
        dm=small("cifar10_dm", "distill", batch_real=8),
        experts=small("cifar10_tm", "experts", several),
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
