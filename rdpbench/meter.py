"""How far a long transfer of bytes is: a bar on a terminal, a line now and then elsewhere; both on stderr."""

from __future__ import annotations

import contextlib
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
