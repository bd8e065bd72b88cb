"""Several devices: what of a computation each of them does.

Whoever computes says what is independent of each other (`each`), only added up (`total`), or both,
by class and by image of a class (`by_class`). Under `over` every device does its share; with one
device, or outside, the function is called as it is.

The devices are a grid: along one axis they divide classes, along the other images of a class. What
has no classes is divided along both.
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

CLASSES, IMAGES = AXES = "classes", "images"
# Of the classes' axis, at most, where it is chosen: repeated, so that all devices have as many.
IDLE = 1 / 16


@contextlib.contextmanager
def over(num_devices: int, classes: int = 0):
    """What is computed meanwhile is spread over the first `num_devices`; 0: over all.

    Args:
      classes: the devices that divide classes; 0: left to `grid`, which makes the grid.

    Raises UsageError where there are not so many, or where a process would have none of them, or
    where `classes` do not divide them.
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
    if classes < 0 or (classes and len(used) % classes):
        raise UsageError(
            f"config.mesh.classes: expected 0, or a divisor of {len(used)}, the number of devices, "
            f"got {classes}"
        )
    with _set(used, classes or 1):
        yield


@contextlib.contextmanager
def grid(num_classes: int, classes: int = 0):
    """The devices as a grid for as many classes a step.

    Args:
      classes: the devices that divide them; 0: the largest divisor of all devices by which at most
        1/16 of the classes' axis is idle. Devices that have classes of their own send each other
        nothing of their images.
    """
    if size() == 1:
        yield
        return
    with _set(list(jax.sharding.get_mesh().devices.flat), classes or divided(size(), num_classes)):
        yield


def divided(num_devices: int, num_classes: int) -> int:
    """How many devices divide the classes, where `grid` decides."""
    divisors = (d for d in range(1, num_devices + 1) if num_devices % d == 0)
    filled = lambda d: -(-num_classes // d) * d
    return max(d for d in divisors if filled(d) <= num_classes * (1 + IDLE))


def _set(devices, classes):
    if len(devices) == 1:
        return contextlib.nullcontext()
    shape, types = (classes, len(devices) // classes), (AxisType.Auto,) * 2
    return jax.set_mesh(jax.make_mesh(shape, AXES, axis_types=types, devices=devices))


def size() -> int:
    """Devices that the computation is spread over here: 1 where it is one device's share."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.axis_names != AXES or mesh.manual_axes else math.prod(shape())


def shape() -> tuple[int, int]:
    """Of the grid, where there are several devices: those that divide classes, and those that
    divide the images of a class."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[CLASSES], mesh.shape[IMAGES]


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
    """Which of as many entries of one axis, or of classes and images, the devices of this process
    get by `dealt`."""
    if size() == 1:
        return tuple(slice(0, count) for count in counts)
    theirs = _dealing(0, counts).addressable_devices_indices_map(counts).values()

    def along(axis):
        bounds = [places[axis].indices(counts[axis]) for places in theirs]
        return slice(min(first for first, _, _ in bounds), max(end for _, end, _ in bounds))

    return tuple(along(axis) for axis in range(len(counts)))


def dealt(own: np.ndarray, axis: int, *counts: int) -> Array:
    """An array of which every device has as many entries of an axis, or of classes and images.

    What the devices do not divide, all of them have whole.

    Args:
      own: of all entries those of `part(*counts)`.
      axis: of the entries; with two counts, of the classes, and the images' is the next.
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


def by_class(function: Callable[..., Any], shared: Any, classes: Any, images: Any) -> Any:
    """`function(share, shared, classes, images)`, whose results' leading axis is that of classes.

    Classes do not depend on each other: every device has as many of them. What images of a class
    come to, it adds up by `share.added`; what follows, the devices of the same classes do alike.

    Args:
      function: differentiable as often as needed, of fewer classes and images than all; its `share`
        is a `Share`.
      shared: a pytree that every device has whole.
      classes: a pytree of arrays whose leading axis are the classes.
      images: a pytree of arrays whose leading axes are classes and images of each; zeros are added,
        to which `function` gives no weight.
    """
    if size() == 1:
        return function(Share(), shared, classes, images)
    count = len(jax.tree.leaves((classes, images))[0])
    of_classes, of_images = shape()

    def pad(a):
        missing = -a.shape[1] % of_images
        return jnp.pad(a, [(0, missing if i == 1 else 0) for i in range(a.ndim)])

    images = jax.tree.map(pad, images)
    if count % of_classes:  # the last class again
        filled = np.minimum(np.arange(-(-count // of_classes) * of_classes), count - 1)
        classes, images = jax.tree.map(lambda a: a[filled], (classes, images))
    specs = P(), P(CLASSES), P(*AXES)
    share = Share(of_images, (IMAGES,))
    function = functools.partial(function, share)
    mapped = jax.shard_map(function, in_specs=specs, out_specs=P(CLASSES), check_vma=False)
    return jax.tree.map(lambda a: a[:count], mapped(shared, classes, images))


class Share(NamedTuple):
    """What of a batch a device has to do where some of them do the rest alike."""

    devices: int = 1
    axes: tuple[str, ...] = AXES  # along which they lie

    def own(self, tree: Any) -> Any:
        """This device's part of arrays of the same leading axis, filled up with zeros."""
        if self.devices == 1:
            return tree
        count = -(-len(jax.tree.leaves(tree)[0]) // self.devices)
        first = jax.lax.axis_index(self.axes) * count

        def part(a):
            missing = count * self.devices - len(a)
            a = jnp.pad(a, [(0, missing), *[(0, 0)] * (a.ndim - 1)])
            return jax.lax.dynamic_slice_in_dim(a, first, count)

        return jax.tree.map(part, tree)

    def added(self, tree: Any) -> Any:
        """The sum of what the devices have found of their parts, on each of them."""
        return tree if self.devices == 1 else jax.lax.psum(tree, self.axes)


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
    return array if size() == 1 else jax.lax.with_sharding_constraint(array, P(AXES))


def whole(array: Array) -> Array:
    """The array, on every device."""
    return array if size() == 1 else jax.lax.with_sharding_constraint(array, P())
