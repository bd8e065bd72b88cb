"""Progress of a run: a progress bar or plain lines, and TensorBoard event files."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter
from tqdm import tqdm

from gsdd_jax.core import interrupts, processes
from gsdd_jax.core.errors import printable

LINE_EVERY = 10.0  # seconds, if standard output is no terminal


def _redraws(stream) -> bool:
    """Returns whether a line may be drawn again: in a terminal or a notebook."""
    return stream.isatty() or type(stream).__module__.startswith("ipykernel.")


class Progress:
    """Progress of one phase: steps, loss, rate, time left.

    The first call of each length compiles, so its time does not count. `afterwards` is the work
    of the run after this phase, in equivalent steps. Once the rate is known, the run's time
    left is shown, too.
    """

    def __init__(
        self, name: str, total: int, done: int, stream, afterwards: float = 0.0, unit: str = "step"
    ):
        self._name, self._total, self._done, self._stream = name, total, done, stream
        self._unit, self._afterwards, self._told = unit, afterwards, not afterwards
        self._compiled: set[int] = set()  # lengths of compiled calls
        self._steps, self._seconds = 0, 0.0  # timed
        self._last_line = self._mark = time.monotonic()
        self._bar = None
        if done < total and _redraws(stream):
            self._bar = tqdm(
                desc=self._text("compiling"), total=total, initial=done, file=stream,
                dynamic_ncols=True, bar_format="{percentage:3.0f}%|{bar}| {desc}",
            )  # fmt: skip
        elif done < total:
            print(self._text("compiling"), file=stream, flush=True)

    def advance(self, count: int, **values: float) -> None:
        """Records `count` more steps, and shows `values` such as the loss.

        Raises KeyboardInterrupt if it was delayed.
        """
        interrupts.check()
        now = time.monotonic()
        took, self._mark = now - self._mark, now
        self._done += count
        if count in self._compiled:
            self._steps, self._seconds = self._steps + count, self._seconds + took
        self._compiled.add(count)
        rate = self._steps / max(self._seconds, 1e-9)
        is_due = now - self._last_line >= LINE_EVERY or self._done == self._total
        if not (self._bar or is_due or (rate and not self._told)):
            return
        self._last_line, self._told = now, self._told or rate > 0
        shown = [f"{name} {value:.4g}" for name, value in values.items()]
        if rate:
            left = lambda more: tqdm.format_interval((self._total - self._done + more) / rate)
            whole = f", {left(self._afterwards)} of the run" if self._afterwards else ""
            shown += [f"{rate:.3g} {self._unit}s/s", f"{left(0)} left{whole}"]
        if self._bar is None:
            print(self._text(*shown), file=self._stream, flush=True)
        else:
            self._bar.set_description_str(self._text(*shown), refresh=False)
            self._bar.update(count)

    def _text(self, *parts: str) -> str:
        of = f"/{self._total}" + ("" if self._unit == "step" else f" {self._unit}s")
        return "  ".join([f"{self._name} {self._done}{of}", *parts])

    @contextlib.contextmanager
    def standing(self, afterwards: float) -> Iterator[None]:
        """Stops the clock between two steps, and sets the work remaining `afterwards`."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._mark += time.monotonic() - begun
            self._afterwards = afterwards

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class Display:
    """Shows progress and lines on a stream."""

    def __init__(self, stream=None):
        self._stream = stream or sys.stdout

    @contextlib.contextmanager
    def phase(
        self, name: str, total: int, done: int = 0, afterwards: float = 0.0, unit: str = "step"
    ) -> Iterator[Progress]:
        """Yields the progress of a phase of `total` steps, `done` of them before it; `unit` names a
        step, `afterwards` is as for `Progress`."""
        progress = Progress(name, total, done, self._stream, afterwards, unit)
        try:
            yield progress
        finally:
            progress.close()

    def line(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)


class OneLine(Display):
    """Shows many runs in one line: finished ones, the running one, and the time left in all.

    A terminal's line is overwritten; elsewhere a new one is printed every ten seconds.
    """

    def __init__(self, stream=None):
        super().__init__(stream)
        self._text, self._until, self._shown = "", 0.0, -math.inf

    def begin(self, text: str, seconds_left: float) -> None:
        """Sets the next run, and the time left of everything from here."""
        self._text, self._until = text, time.monotonic() + seconds_left
        self._show("")

    @contextlib.contextmanager
    def phase(
        self, name: str, total: int, done: int = 0, afterwards: float = 0.0, unit: str = "step"
    ) -> Iterator[_Part]:
        """Yields a phase of the run that shows steps, not values."""
        yield _Part(functools.partial(self._show, name), total, done)

    def line(self, text: str) -> None:
        """Drops the lines of a single run."""

    def end(self) -> None:
        if self._stream.isatty():
            print(file=self._stream, flush=True)

    def _show(self, name: str, done: int = 0, total: int = 0) -> None:
        now, terminal = time.monotonic(), self._stream.isatty()
        if total and now - self._shown < (0.2 if terminal else LINE_EVERY):
            return
        self._shown = now
        left = tqdm.format_interval(max(0, round(self._until - now)))
        step = f": {name} {done}/{total}" if total else ""
        text = f"{self._text}{step}  {left} left"
        start, end = ("\r\x1b[K", "") if terminal else ("", "\n")
        print(f"{start}{text}", end=end, file=self._stream, flush=True)


class _Part:
    def __init__(self, show: Callable[[int, int], None], total: int, done: int):
        self._show, self._total, self._done = show, total, done

    def standing(self, afterwards: float) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def advance(self, count: int, **values: float) -> None:
        self._done += count
        self._show(self._done, self._total)


class Reporter(Display):
    """Shows on a display, and writes to event files in a directory if one is given."""

    def __init__(
        self, directory: str | os.PathLike | None, stream=None, display: Display | None = None
    ):
        super().__init__(stream)
        written = directory is not None and processes.first()
        self._writer = SummaryWriter(str(directory or ""), write_to_disk=written)
        if display is not None:
            self.phase, self.line = display.phase, display.line

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()
