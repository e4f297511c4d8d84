"""Progress of long work with the time left: a bar on a terminal, else a line now and then; both on stderr."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from typing import TypeAlias

Report: TypeAlias = Callable[[int, int], None]
"""What a caller wants called in place of a bar or lines: with what is done and the whole, 0 where nobody knows it."""
Left: TypeAlias = Callable[[float], float]
LINE_EVERY_S = 10.0
"""Of plain lines at first; later a tenth of the time that went by, ten minutes at most."""


class Progress:
    """Lines on stderr. It is called with what is done (and the whole, where that was not known at the start).

    Args:
        name: stands in front of each line.
        total: of what is counted; 0 where it is not known yet.
        unit: of what is counted, in the plural; empty for bytes, of which the speed is shown too.
        left: given the seconds that have passed, those that the rest takes; by default in proportion to what is done.
    """

    def __init__(self, name: str, total: int = 0, unit: str = "", left: Left | None = None) -> None:
        self.name, self.total, self.unit, self.left = name, total, unit, left
        self.done = self.failures = 0
        self.spoke = False
        self.started = self.shown = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int = 0, note: str = "") -> None:
        now = time.monotonic()
        if self.first is None or done < self.done:  # what was here before says nothing about the speed
            self.first = max(0, done - 1) if self.unit else done
            self.started = self.started if self.unit else now
        self.done, self.total = done, total or self.total
        self.update(note)
        due = now - self.shown >= max(LINE_EVERY_S, min((now - self.started) / 10, 600))
        if (done > self.first or note) and (due or (self.spoke and done == self.total)):
            self.shown, self.spoke = now, True
            seconds = now - self.started
            left = self.left(seconds) if self.left else None
            self.line(describe(done, self.total, self.first, seconds, self.unit, self._noted(note), left))

    def advance(self, *, failed: bool = False) -> None:
        """One more is done."""
        self.failures += failed
        self(self.done + 1)

    def say(self, text: str) -> None:
        """Print a line without tearing the bar."""
        print(text, file=sys.stderr, flush=True)

    def update(self, note: str) -> None:
        """Move the bar."""

    def line(self, text: str) -> None:
        """Print how far it is, where there is no bar."""
        self.say(f"  {self.name}: {text}" if self.name else text)

    def _noted(self, note: str) -> str:
        return ", ".join(part for part in (f"{self.failures} failed" if self.failures else "", note) if part)


class _Reported(Progress):
    """Of a caller that shows it in its own way."""

    def __init__(self, report: Report, total: int) -> None:
        super().__init__("", total)
        self.report = report

    def __call__(self, done: int, total: int = 0, note: str = "") -> None:  # noqa: ARG002 - a caller gets numbers
        self.done = done
        self.report(done, total or self.total)

    def say(self, text: str) -> None:
        pass


class _Bar(Progress):
    def __init__(self, name: str, total: int, unit: str, left: Left | None) -> None:
        from rich import progress as bars
        from rich.console import Console

        super().__init__(name, total, unit, left)
        counted = [bars.MofNCompleteColumn(), bars.TextColumn(unit, markup=False), bars.TimeElapsedColumn()]
        moved = [bars.DownloadColumn(), bars.TransferSpeedColumn()]
        text = bars.TextColumn("{task.description}", markup=False)
        rest = bars.TextColumn("{task.fields[left]}", markup=False) if left else bars.TimeRemainingColumn()
        columns = (text, bars.BarColumn(), *(counted if unit else moved), rest)
        self.bar = bars.Progress(*columns, console=Console(stderr=True))
        self.task = self.bar.add_task(name, total=total or None, left="")
        self.shows = -1
        self.asked = 0.0

    def update(self, note: str) -> None:
        if not self.unit and (self.shows < 0 or self.done < self.shows):
            self.bar.reset(self.task, total=self.total or None, completed=self.done)
        said = " ".join(part for part in (self.name, self._noted(note)) if part)
        self.bar.update(self.task, total=self.total or None, completed=self.done, description=said)
        self.shows = self.done
        now = time.monotonic()
        if self.left and now - self.asked >= 1:  # it sums over all that is left
            self.asked = now
            self.bar.update(self.task, left=f"{duration(self.left(now - self.started))} left")

    def say(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)

    def line(self, text: str) -> None:
        pass


_shown: ContextVar[bool] = ContextVar("shown", default=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block neither a plan nor progress is shown: for programs that did not ask for it."""
    before = _shown.set(False)
    try:
        yield
    finally:
        _shown.reset(before)


def say(text: str) -> None:
    """What a command says of its course, on stderr.

    >>> with quiet():
    ...     say("3/4 tasks")
    """
    if _shown.get():
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def show_progress(
    name: str, total: int = 0, unit: str = "", report: Report | None = None, left: Left | None = None
) -> Iterator[Progress]:
    """Show on stderr how far ``name`` is, or ``report`` it to the caller; see `Progress`."""
    if report is not None or not _shown.get():
        yield _Reported(report or (lambda *_: None), total)
    elif sys.stderr.isatty():
        shown = _Bar(name, total, unit, left)
        with shown.bar:
            yield shown
    else:
        lines = Progress(name, total, unit, left)
        lines.spoke = bool(unit)  # of what a command counts, the end is shown even if it took no time
        yield lines


def describe(
    done: int, total: int, first: int, seconds: float, unit: str = "", note: str = "", left: float | None = None
) -> str:
    """How far it is and how long the rest takes, where ``first`` were done ``seconds`` ago.

    ``left``: the seconds that the rest takes, if they are known otherwise than in proportion to what is done.

    >>> describe(400_000_000, 1_000_000_000, 0, 80)
    '40 %, 400.0 of 1000.0 MB, 5.0 MB/s, 0:02:00 left'
    >>> describe(400_000_000, 0, 0, 80)
    '400.0 MB, 5.0 MB/s'
    >>> describe(30, 40, 0, 75, "tasks", "2 failed")
    '30/40 tasks, 2 failed, 1 min 15 s elapsed, 25 s left'
    """
    rate = (done - first) / max(seconds, 1e-9)
    if unit:
        parts = [
            f"{done}/{total} {unit}",
            note,
            f"{duration(seconds)} elapsed",
            f"{duration((total - done) / rate if left is None else left)} left" if rate or left is not None else "",
        ]
        return ", ".join(part for part in parts if part)
    speed = f"{rate / 1e6:.1f} MB/s"
    if not total:
        return f"{done / 1e6:.1f} MB, {speed}"
    rest = f", {timedelta(seconds=round((total - done) / rate))} left" if rate >= 1 else ""
    return f"{100 * done // total} %, {done / 1e6:.1f} of {total / 1e6:.1f} MB, {speed}{rest}"


@functools.cache
def tell(note: str) -> None:
    """Say something of the data on stderr: once, however often a plan is made."""
    print(note, file=sys.stderr)


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(75), duration(7300), duration(3)
    ('1 min 15 s', '2 h 1 min', '3 s')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
