"""Progress with the time left: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Iterator
from typing import Protocol

LINE_EVERY_S = 10.0


@functools.cache
def tell(note: str) -> None:
    """Say something of the data on stderr: once, however often a plan is made."""
    print(note, file=sys.stderr)


class Progress(Protocol):
    """Told of each finished task."""

    def advance(self, failed: bool) -> None: ...


@contextlib.contextmanager
def progress(total: int) -> Iterator[Progress]:
    """Show progress over ``total`` tasks on stderr."""
    if sys.stderr.isatty():
        with _bar(total) as bar:
            yield bar
    else:
        yield _Lines(total)


class _Lines:
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
def _bar(total: int) -> Iterator[Progress]:
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
