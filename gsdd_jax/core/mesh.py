"""Several devices: what of a computation each of them does.

Whoever computes says what is independent of each other (`each`) or only added up (`total`). Under
`over` every device does its share; with one device, or outside, the function is called as it is.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from gsdd_jax.core.errors import UsageError

AXIS = "devices"


@contextlib.contextmanager
def over(num_devices: int):
    """What is computed meanwhile is spread over the first `num_devices`; 0: over all.

    Raises UsageError where there are not so many, or where a process would have none of them.
    """
    there = jax.devices()
    if jax.process_count() > 1 and num_devices not in (0, len(there)):
        raise UsageError(
            f"config.mesh.devices: expected {len(there)}, all devices of {jax.process_count()} "
            f"processes, or 0, which means the same, got {num_devices}"
        )
    if not 0 <= num_devices <= len(there):
        raise UsageError(
            f"config.mesh.devices: expected 1 to {len(there)}, the devices there are, or 0 for all "
            f"of them, got {num_devices}"
        )
    used = there[: num_devices or len(there)]
    if len(used) == 1:
        yield
        return
    mesh = jax.make_mesh((len(used),), (AXIS,), axis_types=(AxisType.Auto,), devices=used)
    with jax.set_mesh(mesh):
        yield


def size() -> int:
    """Devices that the computation is spread over here: 1 where it is one device's share."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if AXIS not in mesh.axis_names or AXIS in mesh.manual_axes else mesh.shape[AXIS]


def everywhere() -> Sharding:
    """Where arrays lie that every device has whole."""
    if size() == 1:
        return SingleDeviceSharding(jax.local_devices()[0])
    return NamedSharding(jax.sharding.get_mesh(), P())


def placed(array: np.ndarray) -> Array:
    """The array, whole on every device; every process has it."""
    where = everywhere()
    if where.is_fully_addressable:
        return jax.device_put(array, where)
    return jax.make_array_from_callback(array.shape, where, lambda part: array[part])


def part(count: int) -> slice:
    """Which of `count` entries of an axis the devices of this process get by `dealt`: all, where
    the devices do not divide them."""
    if size() == 1 or count % size():
        return slice(0, count)
    theirs = _along(0).addressable_devices_indices_map((count,)).values()
    return slice(min(own.start for (own,) in theirs), max(own.stop for (own,) in theirs))


def dealt(own: np.ndarray, axis: int, count: int) -> Array:
    """An array of `count` entries along an axis, of which every device has as many; whole on every
    device, where the devices do not divide them.

    Args:
      own: of all entries those of `part(count)`.
    """
    if size() == 1 or count % size():
        return placed(own)
    shape, first = (*own.shape[:axis], count, *own.shape[axis + 1 :]), part(count).start

    def of_device(places):
        here = slice(places[axis].start - first, places[axis].stop - first)
        return own[(*places[:axis], here)]

    return jax.make_array_from_callback(shape, _along(axis), of_device)


def _along(axis: int) -> Sharding:
    return NamedSharding(jax.sharding.get_mesh(), P(*[None] * axis, AXIS))


def host(array: Any) -> np.ndarray:
    """The numbers of an array, wherever its parts lie; every process asks for them."""
    if isinstance(array, jax.Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    ):
        array = jax.jit(lambda a: a, out_shardings=everywhere())(array)
    return np.asarray(array)


def local(tree: Any) -> Any:
    """A pytree of arrays as this process has them for itself."""
    return tree if jax.process_count() == 1 else jax.tree.map(lambda a: jnp.asarray(host(a)), tree)


def each(function: Callable[..., Any], shared: Any, *parts: Any) -> Any:
    """`function(shared, *parts)`, whose results' leading axis is that of the parts.

    Entries along that axis do not depend on each other: every device computes as many of them.

    Args:
      function: also of fewer entries than all.
      shared: a pytree that every device has whole.
      *parts: pytrees of arrays of the same leading axis.
    """
    if size() == 1:
        return function(shared, *parts)
    count = len(jax.tree.leaves(parts)[0])
    if count % size():  # the last entry again, until every device has as many
        filled = np.minimum(np.arange(-(-count // size()) * size()), count - 1)
        parts = jax.tree.map(lambda a: a[filled], parts)
    results = _map(function, P(AXIS), P(AXIS), shared, *parts)
    return jax.tree.map(lambda a: a[:count], results)


def total(function: Callable[..., Any], shared: Any, *parts: Any, axis: int = 0) -> Any:
    """`function(shared, *parts)`, a sum over an axis of the parts, as each device's sum over a
    part of it, added. Differentiable as often as `function` is.

    Args:
      function: of entries that are all zeros it makes 0: so an axis is filled up.
      shared: as of `each`.
      *parts: pytrees of arrays whose axis `axis` is as long.
    """
    if size() == 1:
        return function(shared, *parts)

    def part(shared, *parts):
        return jax.lax.psum(function(shared, *parts), AXIS)

    missing = -jax.tree.leaves(parts)[0].shape[axis] % size()
    fill = lambda a: jnp.pad(a, [(0, missing if i == axis else 0) for i in range(a.ndim)])
    return _map(part, P(*[None] * axis, AXIS), P(), shared, *jax.tree.map(fill, parts))


class Share(NamedTuple):
    """What of a batch a device has to do where all of them do the rest alike."""

    devices: int = 1

    def own(self, tree: Any) -> Any:
        """This device's part of arrays of the same leading axis, filled up with zeros."""
        if self.devices == 1:
            return tree
        count = -(-len(jax.tree.leaves(tree)[0]) // self.devices)
        first = jax.lax.axis_index(AXIS) * count

        def part(a):
            missing = count * self.devices - len(a)
            a = jnp.pad(a, [(0, missing), *[(0, 0)] * (a.ndim - 1)])
            return jax.lax.dynamic_slice_in_dim(a, first, count)

        return jax.tree.map(part, tree)

    def added(self, tree: Any) -> Any:
        """The sum of what the devices have found of their parts, on each of them."""
        return tree if self.devices == 1 else jax.lax.psum(tree, AXIS)


def alike(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(share, *arguments)`, which all devices compute alike but for what `share` gives.

    Derivatives by the arguments are added up over the devices once, at the end. Within `function`
    differentiate what is local, and add the gradients.

    Args:
      function: differentiable as often as needed; its `share` is a `Share`.
      *arguments: pytrees that every device has whole.
    """
    if size() == 1:
        return function(Share(), *arguments)
    shared = functools.partial(function, Share(size()))
    return jax.shard_map(shared, in_specs=P(), out_specs=P(), check_vma=False)(*arguments)


def _map(function, parts_spec, result_spec, shared, *parts):
    # Without the types of what varies, so that a function need not say so of its constants.
    specs = (P(), *(parts_spec for _ in parts))
    mapped = jax.shard_map(function, in_specs=specs, out_specs=result_spec, check_vma=False)
    return mapped(shared, *parts)


def spread(array: Array) -> Array:
    """The array, whose leading axis the compiler is asked to spread over the devices."""
    if size() == 1:
        return array
    return jax.lax.with_sharding_constraint(array, P(AXIS))


def whole(array: Array) -> Array:
    """The array, on every device."""
    return array if size() == 1 else jax.lax.with_sharding_constraint(array, P())
