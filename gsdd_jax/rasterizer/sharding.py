"""Renders sharded images on the devices that hold them.

Images are independent of each other, which the compiler cannot see in a custom call.
"""

import functools

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P


def batches(size, batched, arrays):
    """Returns arrays under `vmap` with a leading axis of `size` each."""
    return [
        array if known else jnp.broadcast_to(array, (size, *array.shape))
        for array, known in zip(arrays, batched, strict=True)
    ]


def per_image(rule: str, replicated: tuple[str, ...], function):
    """Returns `function(settings, *arrays)` sharded over its leading axes, the images.

    An axis of `vmap` joins the leading ones. `rule` is an einsum-like sharding rule, with "..." for
    the image axes. Every device needs the `replicated` dimensions whole.
    """

    def partition(settings, mesh, arguments, results):
        shardings = jax.tree.map(lambda array: array.sharding, (results, arguments))
        return mesh, functools.partial(function, settings), *shardings

    partitioned = custom_partitioning(function, static_argnums=(0,))
    partitioned.def_partition(partition, sharding_rule=rule, need_replication_factors=replicated)

    @functools.wraps(function)
    def call(settings, *arrays):
        if jax.sharding.get_abstract_mesh().manual_axes:  # in shard_map each device has its own
            return function(settings, *arrays)
        mapped = custom_vmap(functools.partial(partitioned, settings))

        @mapped.def_vmap
        def _(size, batched, *arrays):
            results = mapped(*batches(size, batched, arrays))
            return results, jax.tree.map(lambda _: True, results)

        return mapped(*arrays)

    return call


def on_explicit_mesh(function, num_batch: int, *arrays):
    """Calls `function(*arrays)` on an explicit mesh too; the images keep the arrays' sharding.

    The first `num_batch` axes are those of images. One of the arrays may be None.
    """
    kinds = [jax.typeof(array) for array in jax.tree.leaves(arrays)]
    explicit = [kind.sharding for kind in kinds if kind.sharding.mesh.explicit_axes]
    if not explicit:
        return function(*arrays)
    batches = (sharding.spec[:num_batch] for sharding in explicit)
    batch = next((spec for spec in batches if any(spec)), (None,) * num_batch)
    images = NamedSharding(explicit[0].mesh, P(*batch, None, None, None))
    return jax.sharding.auto_axes(function, out_sharding=images)(*arrays)
