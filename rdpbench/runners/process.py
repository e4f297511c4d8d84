"""How a process that codes and scores is set up and ended: one thread, memory that is used again, its own group."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``, as ``malloc.h`` numbers them."""
_BLOCK = 256 << 20
"""Blocks up to this size, in bytes, come from memory that the process keeps; twice as much of it may lie idle."""


def set_up() -> None:
    """Bind this process to one thread, and keep its memory; before anything is coded."""
    one_thread()
    reuse_memory()


def set_up_apart() -> None:
    """Set up a worker process: what its codecs start belongs to its group, and is ended with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    os.setpgid(0, 0)
    set_up()


def sender(pipe: Connection) -> Callable[[object], None]:
    """Sends over a pipe from this process alone, each message with its number.

    A codec may fork, and return twice. The child has no end of the pipe: it cannot answer, nor keep the pipe open when
    its parent is gone; and if it comes to send, it ends.
    """
    pid, number = os.getpid(), 0
    os.register_at_fork(after_in_child=pipe.close)

    def send(message: object) -> None:
        nonlocal number
        if os.getpid() != pid:
            os._exit(1)
        pipe.send((pid, number, message))
        number += 1

    return send


def end(pid: int) -> None:
    """Kill a worker that is alive or has ended just now, and all that its codecs started."""
    for child in [*_descendants(pid), pid]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _descendants(pid: int) -> Iterator[int]:
    """Programs have sessions of their own; so they are found by their parents, as long as these live."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    left = [pid]
    while left:
        found = children.pop(left.pop(), [])
        yield from found
        left += found


HOUR_S, PIXELS = 3600, 1_000_000
START_S = 600.0
"""Seconds that a worker may take to come up; it imports torch, and maybe from a slow disk."""


def limit_s(timeout: float | None, pixels: int, codings: int = 1) -> float:
    """Seconds that a task may take: as typed, 0 for no limit; unless typed an hour, and another for each megapixel.

    >>> limit_s(None, 512 * 768, codings=1)
    5015.5776
    """
    return codings * HOUR_S * (1 + pixels / PIXELS) if timeout is None else timeout


_NAMES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS", "SIGPIPE")
CRASHES = {getattr(signal, name) for name in _NAMES}
"""Signals that a program brings upon itself. All others come from outside: the system is short of memory, or ends."""


def died(exitcode: int | None) -> str:
    """How a process ended: a signal by its name, or its exit code.

    >>> died(-9), len(died(3))
    ('SIGKILL (out of memory?)', 11)
    """
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    known = {number.value: number.name for number in signal.Signals}
    return known.get(-exitcode, f"signal {-exitcode}") + (" (out of memory?)" if exitcode == -signal.SIGKILL else "")


def was_killed(exitcode: int | None) -> bool:
    """Did a signal from outside end a process?"""
    return exitcode is not None and exitcode < 0 and -exitcode not in CRASHES


def one_thread() -> None:
    """Bind this process to one thread: threads change pixels, and workers share the cores."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENCV_FOR_THREADS_NUM"] = "1"
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def reuse_memory() -> bool:
    """Keep freed blocks in the process; False where the C library is not glibc, and nothing was changed.

    By default every block above 32 MB goes back to the system when it is freed, and its pages are cleared and mapped
    again for the next one. A network's activations are such blocks: Inception takes a sixth longer for 16 images.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _BLOCK) and mallopt(_TRIM_THRESHOLD, 2 * _BLOCK))
