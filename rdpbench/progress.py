"""How far a long transfer of bytes is: a bar on a terminal, a line now and then elsewhere; both on stderr.

Progress with the time left: a bar on a terminal, a plain line now and then elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Protocol, TypeAlias

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes of the whole; 0 where nobody knows the whole."""

LINE_EVERY_S = 10.0
"""Of plain lines at first; in a long transfer a tenth of the time that went by."""


class Meter(Protocol):
    """Told of bytes as they come."""

    def __call__(self, here: int, whole: int) -> None: ...

    def say(self, text: str) -> None:
        """Print a line without tearing the bar."""
        ...


@contextlib.contextmanager
def meter(name: str, progress: Progress | None = None) -> Iterator[Meter]:
    """Show on stderr how far ``name`` is; a caller's own ``progress`` is called instead, and lines are left out."""
    if progress is not None:
        yield _Own(progress)
    elif sys.stderr.isatty():
        with _bar(name) as bar:
            yield bar
    else:
        yield _Lines(name)


class _Own:
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def __call__(self, here: int, whole: int) -> None:
        self.progress(here, whole)

    def say(self, text: str) -> None:
        pass


class _Lines:
    def __init__(self, name: str) -> None:
        self.name = name
        self.first: int | None = None
        self.last = 0
        self.told = False
        self.started = self.shown = time.monotonic()

    def __call__(self, here: int, whole: int) -> None:
        now = time.monotonic()
        if self.first is None or here < self.last:  # what was here before says nothing about the speed
            self.first, self.started = here, now
        self.last = here
        due = now - self.shown >= max(LINE_EVERY_S, (now - self.started) / 10)
        if here > self.first and (due or (self.told and here == whole)):
            self.shown, self.told = now, True
            self.say(f"  {self.name}: {describe(here, whole, (here - self.first) / max(now - self.started, 1e-9))}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def describe(here: int, whole: int, rate: float) -> str:
    """Words for ``here`` of ``whole`` bytes at ``rate`` bytes per second.

    >>> describe(400_000_000, 1_000_000_000, 5e6)
    '40 %, 400.0 of 1000.0 MB, 5.0 MB/s, 0:02:00 left'
    >>> describe(400_000_000, 0, 5e6)
    '400.0 MB, 5.0 MB/s'
    """
    speed = f"{rate / 1e6:.1f} MB/s"
    if not whole:
        return f"{here / 1e6:.1f} MB, {speed}"
    left = f", {timedelta(seconds=round((whole - here) / rate))} left" if rate >= 1 else ""
    return f"{100 * here // whole} %, {here / 1e6:.1f} of {whole / 1e6:.1f} MB, {speed}{left}"


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Meter]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Rich

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Rich(*columns, console=Console(stderr=True)) as rich:
        task = rich.add_task(name, total=None)
        last = -1

        class Bar:
            def __call__(self, here: int, whole: int) -> None:
                nonlocal last
                if last < 0 or here < last:
                    rich.reset(task, total=whole or None, completed=here)
                else:
                    rich.update(task, total=whole or None, completed=here)
                last = here

            def say(self, text: str) -> None:
                rich.console.print(text, markup=False, highlight=False)

        yield Bar()


@functools.cache
def tell(note: str) -> None:
    """Say something of the data on stderr: once, however often a plan is made."""
    print(note, file=sys.stderr)


class TaskProgress(Protocol):
    """Told of each finished task."""

    def advance(self, failed: bool) -> None: ...


@contextlib.contextmanager
def progress(total: int) -> Iterator[TaskProgress]:
    """Show progress over ``total`` tasks on stderr."""
    if sys.stderr.isatty():
        with _task_bar(total) as bar:
            yield bar
    else:
        yield _TaskLines(total)


class _TaskLines:
    def __init__(self, total: int) -> None:
        self.total, self.done, self.failures = total, 0, 0
        self.started = self.shown = time.monotonic()

    def advance(self, failed: bool) -> None:
        self.done += 1
        self.failures += failed
        now = time.monotonic()
        if now - self.shown >= LINE_EVERY_S or self.done == self.total:
            self.shown = now
            left = (now - self.started) / self.done * (self.total - self.done)
            failures = f", {self.failures} failed" if self.failures else ""
            spent = duration(now - self.started)
            text = f"{self.done}/{self.total} tasks{failures}, {spent} elapsed, {duration(left)} left"
            print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _task_bar(total: int) -> Iterator[TaskProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Rich

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Rich(*columns, console=Console(stderr=True)) as rich:
        task = rich.add_task("", total=total)
        failures = 0

        class Bar:
            def advance(self, failed: bool) -> None:
                nonlocal failures
                failures += failed
                rich.update(task, advance=1, description=f"[red]{failures} failed" if failures else "")

        yield Bar()


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
