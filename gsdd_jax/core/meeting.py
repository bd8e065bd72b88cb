"""Where several processes meet before JAX is started, and the lines that they keep open.

What is said is a line of JSON. A port is open to everybody who reaches it: whatever connects is
heard beside the others, for as long as the meeting lasts, and what does not say what a process says
is passed over. What a process says is checked field by field.
"""

from __future__ import annotations

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
MOST = 256  # connections that have said nothing yet; of more, the first ones are given up
LOCAL = "localhost"
# A machine that is gone without a word is noticed within half a minute, whether or not something
# was on its way to it (the last, in milliseconds).
KEEPALIVE = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": 30_000,
}


class Place(NamedTuple):
    """Of this process among the others."""

    host: str
    port: int  # of JAX's coordinator; the processes meet at the next one
    count: int
    index: int


class Line:
    """A connection, message by message."""

    def __init__(self, connection: socket.socket):
        self.socket = connection
        self._read = b""
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def write(self, *message: Any) -> None:
        """Says something."""
        with contextlib.suppress(OSError):  # gone: whoever reads finds out
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self, most: int | None = None) -> list[Any] | None:
        """The whole messages that have come so far, of one look at what is there; None when there
        will be no more, or what has come is none, or more than `most`, of which none is parsed."""
        try:
            received = self.socket.recv(1 << 16)
        except OSError:  # a timeout too
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
        """Ends it."""
        with contextlib.suppress(OSError):
            self.socket.close()


def meet(
    here: Place, port: int, task: dict[str, Any], patience: float, door: socket.socket | None = None
) -> dict[int, Line]:
    """Lines by process when all have come to a port of the first one, within so many seconds, and
    agree in `task`: of the first one to all others, of another one to the first.

    Raises UsageError where one does not come, or is told to do something else.
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
    """A socket that listens at the address of a name alone.

    At all addresses where the name is known to this machine as one that it does not have (of a
    router), or as its loopback, as some systems have it of their own name: others know better.
    """
    with contextlib.suppress(OSError):
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if host == LOCAL or not _is_own_name(host, address[0]):
            return socket.create_server(address[:2], family=family)
    return socket.create_server(("", port))


def _is_own_name(host: str, address: str) -> bool:
    return host != address and ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _received(here, task, door, selector, patience) -> dict[int, Line]:
    """The lines to all others, who have agreed; the rest of those who came are sent away."""
    until = time.monotonic() + patience
    selector.register(door, selectors.EVENT_READ)
    door.setblocking(False)
    lines: dict[int, Line] = {}
    waiting: list[Line] = []  # in the order in which they came; who has a place is in `lines`
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
                if len(waiting) > MOST:
                    _part(selector, waiting.pop(0))
                continue
            line = key.data
            if line.socket.fileno() < 0:  # given up in this look
                continue
            heard = line.read(most=1)  # a process says who it is, and waits for the answer
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
            # Nobody of us, or one that is gone, whose command may be started again.
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
    """(index, count, task) where that is what was said; a process of as many as there are has one
    of their places."""
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
                f"{name:.200}: process 0 has {_shown(ours)}, process {index} {_shown(theirs)}; "
                "expected the same"
            )
    return ""


def _shown(value: Any) -> str:
    return f"{value!r:.200}"


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
    until = time.monotonic() + 2 * patience  # the first one may have come after us
    line.socket.settimeout(2 * patience)
    line.write(here.index, here.count, dict(task))
    heard: list[Any] | None = []
    while heard == []:
        line.socket.settimeout(max(0.01, until - time.monotonic()))
        heard = line.read()
    line.socket.settimeout(None)
    match heard:
        case [[""]]:
            return line
        case [[str(refusal)]]:
            refused = UsageError(refusal)
        case None:
            refused = UsageError("--coordinator: a process ended before all had come")
        case _:
            refused = UsageError(f"--coordinator: what answers at {address} is no process 0")
    line.close()
    raise refused
