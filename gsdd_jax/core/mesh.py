"""Several devices: what of a computation each of them does.

Whoever computes says what is independent of each other (`each`), only added up (`total`), or both,
as are classes and the images of each (`by_group`). Under `over` every device does its share; with
one device, or outside, the function is called as it is.

The devices are a grid: groups of them, along one axis, divide parts that are independent of each
other, and the devices of a group, along the other, the images of a part. What has no such parts is
divided along both axes.
"""

from __future__ import annotations

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
# Of the parts, at most, where groups are chosen: repeated, so that all groups have as many.
IDLE = 1 / 16


@contextlib.contextmanager
def over(num_devices: int, groups: int = 0):
    """What is computed meanwhile is spread over the first `num_devices`; 0: over all.

    Args:
      groups: of devices, by which parts of a computation are divided; 0: left to `grid`.

    Raises UsageError where there are not so many, or where a process would have none of them, or
    where they do not make so many groups.
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
    if groups < 0 or (groups and len(used) % groups):
        raise UsageError(
            f"config.mesh.groups: expected 0, or a divisor of {len(used)}, the number of devices, "
            f"got {groups}"
        )
    with _set(used, groups or 1):
        yield


@contextlib.contextmanager
def grid(num_parts: int, groups: int = 0):
    """The devices in groups for a computation of as many parts.

    Args:
      groups: their number; 0: decided by `divided`.
    """
    if size() == 1:
        yield
        return
    with _set(list(jax.sharding.get_mesh().devices.flat), groups or divided(size(), num_parts)):
        yield


def divided(num_devices: int, num_parts: int) -> int:
    """Groups of devices for as many parts: the most by which at most 1/16 of the parts is idle,
    since groups send each other nothing of their images."""
    divisors = (d for d in range(1, num_devices + 1) if num_devices % d == 0)
    filled = lambda d: -(-num_parts // d) * d
    return max(d for d in divisors if filled(d) <= num_parts * (1 + IDLE))


def _set(devices, groups):
    if len(devices) == 1:
        return contextlib.nullcontext()
    shape, types = (groups, len(devices) // groups), (AxisType.Auto,) * 2
    return jax.set_mesh(jax.make_mesh(shape, AXES, axis_types=types, devices=devices))


def size() -> int:
    """Devices that the computation is spread over here: 1 where it is one device's share."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.axis_names != AXES or mesh.manual_axes else math.prod(shape())


def shape() -> tuple[int, int]:
    """Of the grid, where there are several devices: how many groups, of how many each."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[GROUPS], mesh.shape[IMAGES]


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


def part(*counts: int) -> tuple[slice, ...]:
    """Which of as many entries of one axis, or of parts and the images of each, the devices of this
    process get by `dealt`."""
    if size() == 1:
        return tuple(slice(0, count) for count in counts)
    theirs = _dealing(0, counts).addressable_devices_indices_map(counts).values()

    def along(axis):
        bounds = [places[axis].indices(counts[axis]) for places in theirs]
        return slice(min(first for first, _, _ in bounds), max(end for _, end, _ in bounds))

    return tuple(along(axis) for axis in range(len(counts)))


def dealt(own: np.ndarray, axis: int, *counts: int) -> Array:
    """An array of which every device has as many entries of an axis, or of parts and images.

    What the devices do not divide, all of them have whole.

    Args:
      own: of all entries those of `part(*counts)`.
      axis: of the entries; with two counts, of the parts, and the images' is the next.
    """
    if size() == 1:
        return placed(own)
    end = axis + len(counts)
    first = [0] * axis + [here.start for here in part(*counts)] + [0] * (own.ndim - end)
    of_all = (*own.shape[:axis], *counts, *own.shape[end:])

    def of_device(places):
        bounds = (place.indices(count)[:2] for place, count in zip(places, of_all, strict=True))
        return own[tuple(slice(a - i, b - i) for (a, b), i in zip(bounds, first, strict=True))]

    return jax.make_array_from_callback(of_all, _dealing(axis, counts), of_device)


def _dealing(axis, counts):
    axes = (AXES,) if len(counts) == 1 else AXES
    sizes = (size(),) if len(counts) == 1 else shape()
    along = [a if n % s == 0 else None for a, s, n in zip(axes, sizes, counts, strict=True)]
    return NamedSharding(jax.sharding.get_mesh(), P(*[None] * axis, *along))


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
    results = _map(function, P(AXES), P(AXES), shared, *parts)
    return jax.tree.map(lambda a: a[:count], results)


def total(function: Callable[..., Any], shared: Any, *parts: Any) -> Any:
    """`function(shared, *parts)`, a sum over the leading axis of the parts, as each device's sum
    over some of them, added. Differentiable as often as `function` is.

    Args:
      function: of entries that are all zeros it makes 0: so the axis is filled up.
      shared: as of `each`.
      *parts: pytrees of arrays of the same leading axis.
    """
    if size() == 1:
        return function(shared, *parts)

    def part(shared, *parts):
        return jax.lax.psum(function(shared, *parts), AXES)

    missing = -len(jax.tree.leaves(parts)[0]) % size()
    fill = lambda a: jnp.pad(a, [(0, missing), *[(0, 0)] * (a.ndim - 1)])
    return _map(part, P(AXES), P(), shared, *jax.tree.map(fill, parts))


def by_group(function: Callable[..., Any], shared: Any, parts: Any, images: Any = ()) -> Any:
    """`function(share, shared, parts, images)`, whose results' leading axis is that of the parts.

    Parts do not depend on each other: every group of devices has as many of them. Within a group
    each device does its share of what a part has of images, and `share.added` adds up what they
    come to; the rest the devices of a group do alike.

    Derivatives by the arguments are added up over the devices once, at the end. Within `function`
    differentiate what is local, and add the gradients.

    Args:
      function: differentiable as often as needed, of fewer parts and images than all; its `share`
        is a `Share`.
      shared: a pytree that every device has whole.
      parts: a pytree of arrays of the same leading axis.
      images: a pytree of arrays whose leading axes are the parts and images of each, of which a
        device gets its share; zeros are added, to which `function` gives no weight.
    """
    if size() == 1:
        return function(Share(), shared, parts, images)
    count = len(jax.tree.leaves((parts, images))[0])
    groups, members = shape()

    def pad(a):
        missing = -a.shape[1] % members
        return jnp.pad(a, [(0, missing if i == 1 else 0) for i in range(a.ndim)])

    images = jax.tree.map(pad, images)
    if count % groups:  # the last part again
        filled = np.minimum(np.arange(-(-count // groups) * groups), count - 1)
        parts, images = jax.tree.map(lambda a: a[filled], (parts, images))
    specs = P(), P(GROUPS), P(*AXES)
    function = functools.partial(function, Share(members))
    mapped = jax.shard_map(function, in_specs=specs, out_specs=P(GROUPS), check_vma=False)
    return jax.tree.map(lambda a: a[:count], mapped(shared, parts, images))


class Share(NamedTuple):
    """What of a batch a device of a group has to do, where all of them do the rest alike."""

    devices: int = 1  # of the group

    def own(self, tree: Any) -> Any:
        """This device's part of arrays of the same leading axis, filled up with zeros."""
        if self.devices == 1:
            return tree
        count = -(-len(jax.tree.leaves(tree)[0]) // self.devices)
        first = jax.lax.axis_index(IMAGES) * count

        def part(a):
            missing = count * self.devices - len(a)
            a = jnp.pad(a, [(0, missing), *[(0, 0)] * (a.ndim - 1)])
            return jax.lax.dynamic_slice_in_dim(a, first, count)

        return jax.tree.map(part, tree)

    def added(self, tree: Any) -> Any:
        """The sum of what the devices have found of their parts, on each of them."""
        return tree if self.devices == 1 else jax.lax.psum(tree, IMAGES)


def _map(function, parts_spec, result_spec, shared, *parts):
    # Without the types of what varies, so that a function need not say so of its constants.
    specs = (P(), *(parts_spec for _ in parts))
    mapped = jax.shard_map(function, in_specs=specs, out_specs=result_spec, check_vma=False)
    return mapped(shared, *parts)


def spread(array: Array) -> Array:
    """The array, whose leading axis the compiler is asked to spread over the devices."""
    return array if size() == 1 else jax.lax.with_sharding_constraint(array, P(AXES))


def whole(array: Array) -> Array:
    """The array, on every device."""
    return array if size() == 1 else jax.lax.with_sharding_constraint(array, P())
