"""Scalars of a run's TensorBoard event files."""

import dataclasses
import math
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

from google.protobuf.message import DecodeError
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import open_regular

LARGEST = 1 << 28  # bytes of an event; pictures take a few million
LATEST = 253_402_300_800.0  # seconds since 1970: the year 10000, beyond `datetime`


@dataclasses.dataclass(frozen=True)
class Events:
    """Content of all event files of a folder, in the order of names, which is chronological.

    Attributes:
      scalars: (step, value) in order of steps, by tag; the last value of a repeated step.
      hosts: names of the machines that wrote the files.
      times: times of the first and the last event in seconds since 1970; None without events.
    """

    scalars: dict[str, list[tuple[int, float]]]
    hosts: list[str]
    times: tuple[float, float] | None


def read(folder: pathlib.Path) -> Events:
    """Reads a folder's event files, each up to its end or first damage; skips irregular files."""
    found: dict[str, dict[int, float]] = {}
    hosts, times = {}, []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in _events_of(path):
            hosts[path.name.split(".", 4)[-1]] = None
            if 0 < event.wall_time < LATEST:  # False for NaN
                times.append(event.wall_time)
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value" and math.isfinite(
                    value.simple_value
                ):
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    scalars = {tag: sorted(values.items()) for tag, values in sorted(found.items())}
    return Events(scalars, list(hosts), (min(times), max(times)) if times else None)


def _events_of(path: pathlib.Path) -> Iterator[Event]:
    try:
        with open_regular(path, "events") as file:
            yield from _events(file)
    except (UsageError, OSError):
        return


def _events(file: BinaryIO) -> Iterator[Event]:
    """Yields the events of TFRecords: length (8 bytes), checksum (4), event, checksum (4)."""
    size = os.fstat(file.fileno()).st_size
    while len(head := file.read(12)) == 12:
        length, checksum = struct.unpack("<QI", head)
        # The size bounds what is read, but sparse files have any size.
        if length + 4 > min(size - file.tell(), LARGEST) or checksum != _checksum(head[:8]):
            return
        content = file.read(length + 4)[:length]
        try:
            yield Event.FromString(content)
        except DecodeError:
            return


def _checksum(content: bytes) -> int:
    """Returns the masked CRC of TFRecords."""
    found = crc32c(content)
    return ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF
