"""The numbers in a run's TensorBoard event files."""

from __future__ import annotations

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

LARGEST = 1 << 28  # bytes of an event; pictures have a few million
LATEST = 253_402_300_800.0  # seconds since 1970: the year 10000, which no calendar writes


@dataclasses.dataclass(frozen=True)
class Events:
    """Of all event files of a folder, in the order of their names, which is that of time.

    Attributes:
      scalars: by tag (step, value) in order of the steps; of a step that was done again the last.
      hosts: the machines that wrote the files, by their names.
      times: when the first and the last event was written, in seconds since 1970; None: no event.
    """

    scalars: dict[str, list[tuple[int, float]]]
    hosts: list[str]
    times: tuple[float, float] | None


def read(folder: pathlib.Path) -> Events:
    """A file that ends early, as of a run that goes on, counts as far as it goes; so does one that
    is damaged, and what is no regular file does not."""
    found: dict[str, dict[int, float]] = {}
    hosts, times = {}, []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in _events_of(path):
            hosts[path.name.split(".", 4)[-1]] = None
            if 0 < event.wall_time < LATEST:  # nor NaN
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
    """TFRecords: the length (8 bytes), its checksum (4), an event, its checksum (4)."""
    size = os.fstat(file.fileno()).st_size
    while len(head := file.read(12)) == 12:
        length, checksum = struct.unpack("<QI", head)
        # Also what was never written, of which a sparse file has any length.
        if length + 4 > min(size - file.tell(), LARGEST) or checksum != _checksum(head[:8]):
            return
        content = file.read(length + 4)[:length]
        try:
            yield Event.FromString(content)
        except DecodeError:
            return


def _checksum(content: bytes) -> int:
    """As TFRecords have it: a CRC that is rotated and moved, so that it is not one of a CRC."""
    found = crc32c(content)
    return ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF
