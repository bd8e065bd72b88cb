"""Connects several processes before JAX starts, and keeps the connections.

Messages are lines of JSON. Ports are open to anybody. Therefore all connections are read
concurrently, messages are checked field by field, and connections with invalid messages are closed.
"""

import contextlib
import ipaddress
import json
import selectors
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import parse_json

LONGEST = 1 << 20  # bytes of a message
LOCAL = "localhost"
# Seconds, probes and milliseconds: a lost machine is noticed within half a minute, with (last
# option) or without data in flight.
KEEPALIVE = dict(TCP_KEEPIDLE=10, TCP_KEEPINTVL=5, TCP_KEEPCNT=4, TCP_USER_TIMEOUT=30_000)


class Place(NamedTuple):
    """Address of the first process, and index of this one."""

    host: str
    port: int  # of JAX's coordinator; processes meet at the next port
    count: int
    index: int


class Line:
    def __init__(self, connection: socket.socket):
        self.socket = connection
        self._read = b""
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def write(self, *message: Any) -> None:
        """Sends a message; errors are left to the reader."""
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self, most: int | None = None, only_first: bool = False) -> list[Any] | None:
        """Returns complete messages; None at the end, beyond `most`, or for invalid JSON.

        With `only_first`, those after the first message stay in the socket.
        """
        size = 1 << 16
        try:
            if only_first:
                there = self.socket.recv(size, socket.MSG_PEEK)
                size = there.find(b"\n") + 1 or size
            received = self.socket.recv(size)
        except OSError:  # including timeouts
            received = b""
        self._read += received
        *lines, self._read = self._read.split(b"\n")
        if not received or len(self._read) > LONGEST or (most is not None and len(lines) > most):
            return None
        try:
            return [parse_json(line) for line in lines]
        except ValueError:
            return None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()


def meet(
    here: Place, port: int, task: dict[str, Any], patience: float, door: socket.socket | None = None
) -> dict[int, Line]:
    """Connects process 0 with all others, once all agree in `task`; returns lines by process.

    Other processes get only their line to the first. Raises UsageError if a process does not come
    within `patience` seconds, or has another task.
    """
    if here.index:
        return {0: _visit(here, port, task, patience)}
    try:
        door = door or opened(here.host, port)
    except OSError as error:
        raise UsageError(
            f"--coordinator: port {port}, where the processes meet, cannot be opened "
            f"({error.strerror})"
        ) from None
    with door, selectors.DefaultSelector() as selector:
        lines = _received(here, task, door, selector, patience)
    for line in lines.values():
        line.write("")
    return lines


def opened(host: str, port: int) -> socket.socket:
    """Returns a socket that listens at the address of `host` only, or at all addresses.

    All, if the name is a router's, or resolves to loopback as some systems' own name does.
    """
    with contextlib.suppress(OSError):
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        loopback = ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
        if host in (LOCAL, address[0]) or not loopback:
            return socket.create_server(address[:2], family=family)
    return socket.create_server(("", port))


def _received(here, task, door, selector, patience) -> dict[int, Line]:
    """Returns the lines to all other processes once they agree; closes other connections."""
    until = time.monotonic() + patience
    selector.register(door, selectors.EVENT_READ)
    door.setblocking(False)
    lines: dict[int, Line] = {}
    waiting: list[Line] = []  # without those in `lines`
    while len(lines) < here.count - 1:
        ready = selector.select(max(0.0, until - time.monotonic()))
        if time.monotonic() > until:
            missing = ", ".join(str(i) for i in range(1, here.count) if i not in lines)
            _refuse(
                [*waiting, *lines.values()], f"no word of process {missing} in {patience:.0f} s"
            )
        for key, _ in ready:
            if key.fileobj is door:
                with contextlib.suppress(OSError):
                    line = Line(door.accept()[0])
                    waiting.append(line)
                    selector.register(line.socket, selectors.EVENT_READ, line)
                continue
            line = key.data
            heard = line.read(most=1)  # a process introduces itself, and waits for the answer
            if heard == []:
                continue
            said = _understood(heard, here.count) if line in waiting else None
            if said is not None:
                index, count, other = said
                refusal = _disagreement(here, task, index, count, other)
                if index in lines:
                    refusal = refusal or f"--process_id: {index} was given twice"
                if refusal:
                    _refuse([*waiting, *lines.values()], refusal)
                waiting.remove(line)
                lines[index] = line
                continue
            # A stranger, or a process that ended and may be started again.
            waiting = [other for other in waiting if other is not line]
            lines = {index: other for index, other in lines.items() if other is not line}
            _part(selector, line)
    for line in waiting:
        _part(selector, line)
    return lines


def _part(selector, line) -> None:
    selector.unregister(line.socket)
    line.close()


def _understood(heard: list[Any] | None, there: int) -> tuple[int, int, dict[str, Any]] | None:
    """Returns (index, count, task) of a message; None if invalid, for example by its index."""
    match heard:
        case [[int(index), int(count), dict(task)]] if bool not in (type(index), type(count)):
            if 0 < index < count or count != there:
                return index, count, task
    return None


def _refuse(lines, refusal) -> NoReturn:
    for line in lines:
        line.write(refusal)
        line.close()
    raise UsageError(refusal)


def _disagreement(here: Place, task: Mapping, index: int, count: int, other: Mapping) -> str:
    if count != here.count:
        return f"--num_processes: process 0 was given {here.count}, process {index} {count}"
    for name in sorted(task.keys() | other.keys()):
        ours, theirs = task.get(name), other.get(name)
        if ours != theirs:
            return (
                f"{name:.200}: process 0 has {ours!r:.200}, process {index} {theirs!r:.200}; "
                "expected the same"
            )
    return ""


def _visit(here: Place, port: int, task: Mapping[str, Any], patience: float) -> Line:
    address, until = f"{here.host}:{port}", time.monotonic() + patience
    while True:
        try:
            line = Line(socket.create_connection((here.host, port), timeout=5))
            break
        except OSError as error:
            if time.monotonic() > until:
                raise UsageError(
                    f"--coordinator: no process 0 at {address} in {patience:.0f} s "
                    f"({error.strerror or error})"
                ) from None
            time.sleep(0.2)
    until = time.monotonic() + 2 * patience  # process 0 may have started later
    line.socket.settimeout(2 * patience)
    line.write(here.index, here.count, dict(task))
    heard: list[Any] | None = []
    while heard == []:
        line.socket.settimeout(max(0.01, until - time.monotonic()))
        heard = line.read(only_first=True)  # what process 0 says next is for the watch
    line.socket.settimeout(None)
    match heard:
        case [[""]]:
            return line
        case [[str(refusal)]]:
            refused = UsageError(refusal)
        case None:
            refused = UsageError("--coordinator: a process ended before all were connected")
        case _:
            refused = UsageError(f"--coordinator: the program at {address} is not process 0")
    line.close()
    raise refused
