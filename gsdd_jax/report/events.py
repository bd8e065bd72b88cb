"""The numbers in a run's TensorBoard event files."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import struct
from collections.abc import Iterator

from google.protobuf.message import DecodeError
from tensorboardX.proto.event_pb2 import Event


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
    is damaged."""
    found: dict[str, dict[int, float]] = {}
    hosts, times = {}, []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        hosts[path.name.split(".", 4)[-1]] = None
        for event in _events(path):
            times.append(event.wall_time)
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value" and math.isfinite(
                    value.simple_value
                ):
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    scalars = {tag: sorted(values.items()) for tag, values in sorted(found.items())}
    return Events(scalars, list(hosts), (min(times), max(times)) if times else None)


def _events(path: pathlib.Path) -> Iterator[Event]:
    """TFRecords: the length (8 bytes), its checksum (4), an event, its checksum (4)."""
    content, at = memoryview(path.read_bytes()), 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        start, at = at + 12, at + 16 + length
        if at > len(content):
            return
        try:
            yield Event.FromString(bytes(content[start : start + length]))
        except DecodeError:
            return
