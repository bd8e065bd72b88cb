"""Prints as JSON the rows of small steps, and of a program with one collective of each kind."""

import json

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from benchmarks import scale
from configs import load

DEVICES = 4


def known():
    """Returns the work of a program with two collectives of one kind and one of each other."""
    mesh = jax.make_mesh((DEVICES,), ("d",), axis_types=(AxisType.Auto,))

    def device(x):  # [2, 8] of [8, 8]
        pairs = [(i, (i + 1) % DEVICES) for i in range(DEVICES)]
        return (
            lax.psum(jnp.sin(lax.psum(x[0, :5], "d")), "d"),
            lax.all_gather(x, "d"),
            lax.psum_scatter(x[0], "d", tiled=True),
            lax.ppermute(x[:, :3].astype(jnp.int8), "d", pairs),
            lax.all_to_all(x[0].reshape(4, 2), "d", 0, 0, tiled=True),
        )

    mapped = jax.shard_map(
        device, mesh=mesh, in_specs=P("d"), out_specs=(P(), P(), P("d"), P("d"), P("d")),
        check_vma=False,
    )  # fmt: skip
    return scale.work(jax.jit(mapped).lower(jnp.ones((8, 8))).compile())


def small(name, *parts):
    """Returns rows of the steps of a shrunk shipped experiment, by part and number of devices."""
    config = load(name)
    config.network.options.width, config.network.options.depth = 4, 1
    config.matching.strategy, config.budget.images_per_class, config.experts.at_once = "flip", 4, 1
    config.evaluate.num_networks = DEVICES
    if name == "cifar10_tm":
        config.matching.options.update(syn_steps=3, batch_syn=8, keep_every=0)
    else:
        config.matching.options.batch_real = 8
    return {f"{r['part']} {r['devices']}": r for r in scale.rows(config, (1, DEVICES), parts)}


if __name__ == "__main__":
    jax.devices()  # as before a command's `main`
    scale.as_on_gpus(DEVICES)
    tm = small("cifar10_tm", "distill", "experts")
    print(json.dumps(dict(known=known(), dm=small("cifar10_dm"), tm=tm)))
