"""The fork server: a small process that imports what workers share, once, and forks clean, single-threaded children.

It lives as long as this process, or as `borrowed` where another program calls us.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

from rdpbench import registry
from rdpbench.errors import WorkerError
from rdpbench.networks.precision import exact
from rdpbench.provenance import cores
from rdpbench.setting import Bench

ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
"""Signals that a terminal or a batch system sends to all processes of a job, to end it."""


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """A process that starts within the block does not import the program again: a script needs no guard for that.

    `multiprocessing` would, for classes of the program; workers are sent none.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def borrowed() -> Iterator[None]:
    """Within another program: after the block it has its variables, torch's settings and no fork server of ours.

    A fork server keeps the environment that it was started in, so that a later run would not see what was set since.
    """
    from multiprocessing import forkserver

    server: Any = forkserver._forkserver
    variables, before, preload = dict(os.environ), running(), server._preload_modules
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else cores()
    try:
        with exact() if torch else contextlib.nullcontext():
            yield
    finally:
        for name in {*variables, *os.environ}:
            if name not in variables:
                del os.environ[name]
            elif os.environ.get(name) != variables[name]:
                os.environ[name] = variables[name]
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)
        server._preload_modules = preload
        if not before:
            server._stop()


PRELOAD = ("PIL.Image", "rdpbench.runners.worker")
"""What every worker imports; heavier modules come from the ``preload`` of the codecs and metrics at worker."""


def start_server(preload: Sequence[str] = ()) -> None:
    """Start the fork server if it is not running. Raises `WorkerError` in a process that may start no others."""
    from multiprocessing import forkserver, resource_tracker

    if multiprocessing.current_process().daemon:
        raise WorkerError("this process is itself a worker, and may start no others; write workers=0 and verify=0")
    multiprocessing.get_context("forkserver").set_forkserver_preload([*preload, *PRELOAD])
    resource_tracker.ensure_running()  # or the server would, which unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # it inherits that: a signal amid its imports ended it
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C wait until the end of a block: a worker that is given up amid its start says so in a traceback.

    Not by a mask: those are of a thread, and another thread would take the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *arguments: came.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(*came[0])


def start_for(bench: Bench) -> None:
    """Start the fork server with what the codecs and metrics of a command want imported for all workers."""
    uses: list[tuple[registry.Kind, str]] = [("metric", name) for name in bench.metrics]
    uses += [("codec", codec.use) for codec, _ in bench.grid]
    start_server(_preload(uses))


def start_early(overrides: Sequence[str]) -> None:
    """Start the fork server before the configuration is composed, if it is certain that nothing heavy is wanted."""
    if {"workers=0", "verify=0"} <= {*overrides}:
        return  # one process does all
    uses: list[tuple[registry.Kind, str]] = []
    for line in overrides:
        key, _, value = line.partition("=")
        if key in ("experiment", "decodes"):
            return  # they bring metrics, which may be heavy
        if key in ("codec", "metrics"):
            kind: registry.Kind = "codec" if key == "codec" else "metric"
            uses += [(kind, name.strip()) for name in value.strip("[]").split(",")]
    if all(name in registry.BUILTIN[kind] for kind, name in uses) and not _preload(uses):
        start_server()


def _preload(uses: Iterable[tuple[registry.Kind, str]]) -> list[str]:
    classes = [registry.load(kind, name) for kind, name in uses]
    return list(dict.fromkeys(module for cls in classes for module in getattr(cls, "preload", ())))


def running() -> int:
    """The process of the fork server; 0 if there is none."""
    from multiprocessing import forkserver

    return getattr(forkserver._forkserver, "_forkserver_pid", None) or 0


def is_gone(server: int) -> bool:
    """Did the fork server end, as where memory is short? Its workers then seem to, with 255."""
    if server != running() or not hasattr(os, "waitid"):
        return server != running()
    try:
        return os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def import_ahead() -> None:
    """Import what the end of a run needs while this process waits for others."""

    def work() -> None:
        import pandas  # noqa: F401, ICN001
        import rich.table  # noqa: F401

    threading.Thread(target=work, daemon=True).start()
