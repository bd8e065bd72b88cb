"""Shards computations over devices.

The caller declares what is independent (`map_parallel`), what is summed (`sum_parallel`), or
both, such as classes and their images (`map_groups`). Under `use_devices` every device computes
its share. With one device, or outside `use_devices`, the function is called as it is.

The devices form a grid. Groups of devices, along the first axis, divide independent parts. The
devices of a group, along the second axis, divide the images of a part. A computation without
parts is divided along both axes.
"""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from gsdd_jax.core.errors import UsageError

GROUPS, IMAGES = AXES = "groups", "images"
# Largest idle fraction of the parts: some are repeated, so that all groups have equally many.
IDLE = 1 / 16


@contextlib.contextmanager
def use_devices(num_devices: int, groups: int = 0):
    """Shards computations in this context over the first `num_devices`; 0: over all.

    They form `groups` groups; 0: `group_devices` chooses. Raises UsageError if there are fewer
    devices, if a process would have none of them, or if they do not form so many groups.
    """
    there = jax.devices()
    if jax.process_count() > 1 and num_devices not in (0, len(there)):
        raise UsageError(
            f"config.mesh.devices: expected {len(there)}, all devices of {jax.process_count()} "
            f"processes, or 0, which means the same, got {num_devices}"
        )
    if not 0 <= num_devices <= len(there):
        raise UsageError(
            f"config.mesh.devices: expected 1 to {len(there)}, the available devices, or 0 for all "
            f"of them, got {num_devices}"
        )
    used = there[: num_devices or len(there)]
    if groups < 0 or (groups and len(used) % groups):
        raise UsageError(
            f"config.mesh.groups: expected 0, or a divisor of {len(used)}, the number of devices, "
            f"got {groups}"
        )
    with _set(used, groups or 1):
        yield


@contextlib.contextmanager
def group_devices(num_parts: int, groups: int = 0):
    """Groups the devices for a computation with `num_parts` independent parts.

    If `groups` is 0, `num_groups` chooses.
    """
    if size() == 1:
        yield
        return
    with _set(list(jax.sharding.get_mesh().devices.flat), groups or num_groups(size(), num_parts)):
        yield


def num_groups(num_devices: int, num_parts: int) -> int:
    """Returns the largest number of groups of devices that leaves at most 1/16 of the parts idle.

    Groups exchange nothing of their images.
    """
    divisors = (d for d in range(1, num_devices + 1) if num_devices % d == 0)
    filled = lambda d: -(-num_parts // d) * d
    return max(d for d in divisors if filled(d) <= num_parts * (1 + IDLE))


def _set(devices, groups):
    if len(devices) == 1:
        return contextlib.nullcontext()
    shape, types = (groups, len(devices) // groups), (AxisType.Auto,) * 2
    return jax.set_mesh(jax.make_mesh(shape, AXES, axis_types=types, devices=devices))


def size() -> int:
    """Returns the number of devices that share this computation; 1 inside one device's share."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.axis_names != AXES or mesh.manual_axes else math.prod(shape())


def shape() -> tuple[int, int]:
    """Returns (number of groups, devices per group); requires several devices."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[GROUPS], mesh.shape[IMAGES]


def replicated_sharding() -> Sharding:
    if size() == 1:
        return SingleDeviceSharding(jax.local_devices()[0])
    return NamedSharding(jax.sharding.get_mesh(), P())


def replicate(array: np.ndarray) -> Array:
    """Replicates an array on every device; every process has the array."""
    where = replicated_sharding()
    if where.is_fully_addressable:
        return jax.device_put(array, where)
    return jax.make_array_from_callback(array.shape, where, lambda part: array[part])


def local_slices(*counts: int) -> tuple[slice, ...]:
    """Returns the slices that this process's devices hold.

    `counts` are the entries of one axis, or the numbers of parts and of images per part.
    """
    if size() == 1:
        return tuple(slice(0, count) for count in counts)
    theirs = _sharding(0, counts).addressable_devices_indices_map(counts).values()

    def along(axis):
        bounds = [places[axis].indices(counts[axis]) for places in theirs]
        return slice(min(first for first, _, _ in bounds), max(end for _, end, _ in bounds))

    return tuple(along(axis) for axis in range(len(counts)))


def shard_host_array(own: np.ndarray, axis: int, *counts: int) -> Array:
    """Shards a host array along one axis, or along parts and images, over the devices.

    An axis that the devices do not divide is replicated.

    `own` are the entries of `local_slices(*counts)`, along `axis`; with two counts that of the
    parts, which the images' axis follows.
    """
    if size() == 1:
        return replicate(own)
    end = axis + len(counts)
    first = [0] * axis + [here.start for here in local_slices(*counts)] + [0] * (own.ndim - end)
    of_all = (*own.shape[:axis], *counts, *own.shape[end:])

    def of_device(places):
        bounds = (place.indices(count)[:2] for place, count in zip(places, of_all, strict=True))
        return own[tuple(slice(a - i, b - i) for (a, b), i in zip(bounds, first, strict=True))]

    return jax.make_array_from_callback(of_all, _sharding(axis, counts), of_device)


def _sharding(axis, counts):
    axes = (AXES,) if len(counts) == 1 else AXES
    sizes = (size(),) if len(counts) == 1 else shape()
    along = [a if n % s == 0 else None for a, s, n in zip(axes, sizes, counts, strict=True)]
    return NamedSharding(jax.sharding.get_mesh(), P(*[None] * axis, *along))


def to_host(array: Any) -> np.ndarray:
    """Gathers an array as NumPy; a collective that every process must call."""
    if isinstance(array, jax.Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    ):
        array = jax.jit(lambda a: a, out_shardings=replicated_sharding())(array)
    return np.asarray(array)


def to_local(tree: Any) -> Any:
    """Gathers a pytree of arrays onto this process's own device."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda a: jnp.asarray(to_host(a)), tree)


def map_parallel(function: Callable[..., Any], shared: Any, *parts: Any) -> Any:
    """Computes `function(shared, *parts)` in parallel over the parts' leading axis.

    Entries along that axis are independent, and `function` takes any number of them. The results
    have the same leading axis. `shared` is replicated on every device.
    """
    if size() == 1:
        return function(shared, *parts)
    count, parts = len(jax.tree.leaves(parts)[0]), _repeated(parts, size())
    results = _map(function, P(AXES), P(AXES), shared, *parts)
    return jax.tree.map(lambda a: a[:count], results)


def sum_parallel(function: Callable[..., Any], shared: Any, *parts: Any) -> Any:
    """Computes `function(shared, *parts)`, a sum over the parts' leading axis, in parallel.

    Each device sums its entries, and the sums are added. `function` returns 0 for entries of zeros,
    by which the axis is padded. Differentiable as often as `function`.
    """
    if size() == 1:
        return function(shared, *parts)

    def part(shared, *parts):
        return jax.lax.psum(function(shared, *parts), AXES)

    missing = -len(jax.tree.leaves(parts)[0]) % size()
    parts = jax.tree.map(lambda a: _padded(a, missing), parts)
    return _map(part, P(AXES), P(), shared, *parts)


def map_groups(function: Callable[..., Any], shared: Any, parts: Any, images: Any = ()) -> Any:
    """Computes `function(share, shared, parts, images)` with a group of devices per part.

    Parts are independent; the results have their leading axis. Within a group, each device takes
    its share of a part's images, and `share.psum` sums over the devices. The devices of a group
    compute everything else alike.

    Derivatives with respect to the arguments are summed over the devices once, at the end. Within
    `function`, differentiate local terms and sum the gradients.

    `function` takes any number of parts and images, and is differentiable as often as needed.
    `shared` is replicated on every device. The leading axes of `images` are parts and images; a
    device gets its share, padded with zeros, to which `function` must give no weight.
    """
    if size() == 1:
        return function(Share(), shared, parts, images)
    count = len(jax.tree.leaves((parts, images))[0])
    groups, members = shape()
    images = jax.tree.map(lambda a: _padded(a, -a.shape[1] % members, axis=1), images)
    parts, images = _repeated((parts, images), groups)
    specs = P(), P(GROUPS), P(*AXES)
    function = functools.partial(function, Share(members))
    mapped = jax.shard_map(function, in_specs=specs, out_specs=P(GROUPS), check_vma=False)
    return jax.tree.map(lambda a: a[:count], mapped(shared, parts, images))


class Share(NamedTuple):
    """Share of a batch that one device of a group computes."""

    devices: int = 1  # in the group

    def slice(self, tree: Any) -> Any:
        """Slices this device's entries of the leading axis, padded with zeros."""
        if self.devices == 1:
            return tree
        count = -(-len(jax.tree.leaves(tree)[0]) // self.devices)
        first = jax.lax.axis_index(IMAGES) * count

        padded = lambda a: _padded(a, count * self.devices - len(a))
        return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(padded(a), first, count), tree)

    def psum(self, tree: Any) -> Any:
        """Sums over the devices of the group; every device gets the sum."""
        return tree if self.devices == 1 else jax.lax.psum(tree, IMAGES)


def _padded(array, missing, axis=0):
    return jnp.pad(array, [(0, missing if i == axis else 0) for i in range(array.ndim)])


def _repeated(tree, multiple):
    """Repeats the last entry until there is a multiple of them."""
    count = len(jax.tree.leaves(tree)[0])
    if count % multiple == 0:
        return tree
    filled = np.minimum(np.arange(-(-count // multiple) * multiple), count - 1)
    return jax.tree.map(lambda a: a[filled], tree)


def _map(function, parts_spec, result_spec, shared, *parts):
    # check_vma=False: functions need not declare which of their constants vary.
    specs = (P(), *(parts_spec for _ in parts))
    mapped = jax.shard_map(function, in_specs=specs, out_specs=result_spec, check_vma=False)
    return mapped(shared, *parts)


def constrain_sharded(array: Array) -> Array:
    return array if size() == 1 else jax.lax.with_sharding_constraint(array, P(AXES))


def constrain_replicated(array: Array) -> Array:
    return array if size() == 1 else jax.lax.with_sharding_constraint(array, P())
