"""Run chunks on this machine: in this process, or in one process per core.

Worker processes are children of the fork server (`server.py`). A worker that dies (a native library may crash) or takes
longer than a task may costs one task, which becomes a failed row; the rest of its chunk goes to a new worker. If it
coded images together, any of them may be the cause, so the rest of its chunk is done again one by one. If the machine
is the cause - the system killed the worker, the disk is full - a task is tried once more before it fails, and again by
the next call.

A worker leads a process group. What its codecs start is killed with it, so that nothing outlives a run.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from rdpbench import registry
from rdpbench.assets.program import killer
from rdpbench.errors import StoreError, WorkerError
from rdpbench.networks import held
from rdpbench.networks.precision import repeat_sums, see_only
from rdpbench.results.store.schema import OF_THE_MACHINE
from rdpbench.runners.coding import Setup
from rdpbench.runners.server import ENDING, is_gone, running, start_server, undisturbed, without_main
from rdpbench.runners.task import Work
from rdpbench.runners.worker import Chunk, Kind, Result, Scoring, Seat, Stop, Worker, failed, kind_of

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``, as ``malloc.h`` numbers them."""
_BLOCK = 256 << 20
"""Blocks up to this size, in bytes, come from memory that the process keeps; twice as much of it may lie idle."""


def set_up() -> None:
    """Bind this process to one thread, as threads change pixels, and keep its memory; before anything is coded."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENCV_FOR_THREADS_NUM"] = "1"
    repeat_sums()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    reuse_memory()


def set_up_apart(device: str = "cpu") -> str:
    """Set up a worker process for a device; returns what that is called in here (`see_only`).

    What its codecs start belongs to its group, and is ended with it.
    """
    # What a terminal or a batch system sends to all is the parent's affair. Programs of codecs get a clean slate.
    for number in ENDING:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    os.setpgid(0, 0)
    set_up()
    return see_only(device)


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


PROC = Path("/proc")


def _parents() -> Iterator[tuple[int, int]]:
    """Each process with its parent."""
    for path in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            yield int(path.parent.name), int(path.read_text(errors="replace").rpartition(")")[2].split()[1])


def _parents_of_ps() -> Iterator[tuple[int, int]]:
    """The same where there is no such folder, as on macOS."""
    with contextlib.suppress(OSError, ValueError):
        listed = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=False)  # noqa: S607
        for line in listed.stdout.splitlines():
            child, parent = map(int, line.split())
            yield child, parent


def _descendants(pid: int) -> Iterator[int]:
    """Programs have sessions of their own; so they are found by their parents, as long as these live."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents() if PROC.is_dir() else _parents_of_ps():
        children.setdefault(parent, []).append(child)
    left = [pid]
    while left:
        own = children.pop(left.pop(), [])
        yield from own
        left += own


HOUR_S, PIXELS = 3600, 1_000_000
START_S = 600.0
"""Seconds that a worker may take to come up; it imports torch, and maybe from a slow disk."""


def limit_s(timeout: float | None, pixels: int, codings: int = 1) -> float:
    """Seconds that a task may take: as typed, 0 for no limit; unless typed an hour, and another for each megapixel.

    >>> limit_s(None, 512 * 768, codings=1)
    5015.5776
    """
    return codings * HOUR_S * (1 + pixels / PIXELS) if timeout is None else timeout


_S = signal.Signals
CRASHES = {_S.SIGSEGV, _S.SIGABRT, _S.SIGBUS, _S.SIGFPE, _S.SIGILL, _S.SIGTRAP, _S.SIGSYS, _S.SIGPIPE}
"""Signals that a program brings upon itself. All others come from outside: the system is short of memory, or ends."""


def died(exitcode: int | None) -> str:
    """How a process ended: a signal by its name, or its exit code.

    >>> died(-9), len(died(3))
    ('SIGKILL (out of memory?)', 11)
    """
    return f"exit code {exitcode}" if exitcode is None or exitcode >= 0 else killer(exitcode)


def was_killed(exitcode: int | None) -> bool:
    """Did a signal from outside end a process?"""
    return exitcode is not None and exitcode < 0 and -exitcode not in CRASHES


def reuse_memory() -> bool:
    """Keep freed blocks in the process; False where the C library is not glibc, and nothing was changed.

    By default every block above 32 MB goes back to the system when it is freed, and its pages are cleared and mapped
    again for the next one. A network's activations are such blocks: Inception takes a sixth longer for 16 images.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _BLOCK) and mallopt(_TRIM_THRESHOLD, 2 * _BLOCK))


TIMED = 7
"""How often a timed task codes its image, about."""
LEAVING_S = 10.0
"""Seconds that a worker without work may take to end; threads of a codec may keep it."""
STOPPING_S = 0.05
"""Seconds in which a worker that is to stop may send another result that it has already."""
GRACE_S = 30.0
"""By how much a worker's own alarm is later than its parent, which may be gone."""
MOST_FAILED_STARTS = 3
"""Workers that may die before they are up; one may be killed by chance, all of them mean that none will start."""


def run_here(chunks: Iterable[Chunk], setup: Setup, stop: Stop) -> Iterator[Result]:
    """All chunks in this process, one task after the other; no task has a limit."""
    set_up()
    worker, pid = Worker(setup), os.getpid()
    try:
        for chunk in chunks:
            for work, result in zip(chunk.work, worker.run(*chunk), strict=True):
                if os.getpid() != pid:  # a codec forked and returned twice: one run is enough
                    os._exit(1)
                yield next(Worker(setup).run([work])) if _of_machine(result) else result
                if stop:
                    return
    finally:
        held.forget()


def run_processes(
    chunks: Mapping[Kind, Iterator[Chunk]], setup: Setup, seats: Sequence[Seat], timeout: float | None, stop: Stop
) -> Iterator[Result]:
    """All chunks over processes; results come as they are made. ``timeout`` is as `limit_s` takes it.

    The next chunk is asked for when a process is free.
    """
    pool = _Pool(setup, chunks, timeout, stop)
    try:
        for seat in seats:
            pool.start(seat)
        while pool.running:
            yield from pool.collect()
    finally:
        for worker in list(pool.running):
            worker.pipe.close()
            pool.stop(worker)


@dataclass
class _Process:
    """One worker process, and what it was given."""

    process: ForkServerProcess
    pipe: Connection
    seat: Seat
    server: int  # that it came from; without it, nobody learns how it ended
    left: deque[Work] = field(default_factory=deque)
    batch: int = 1
    ready: bool = False
    """Has it come up? A worker that dies before that is no fault of a task."""
    scoring: Scoring | None = None
    """What it had of the first piece of work that is left, when code of the user's began to score it."""
    leaving: bool = False
    """There is no more work for it."""
    received: int = 0
    due: float = math.inf
    """When it must have sent its next result, by the monotonic clock."""

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid


class _Pool:
    def __init__(self, setup: Setup, chunks: Mapping[Kind, Iterator[Chunk]], timeout: float | None, stop: Stop) -> None:
        self.setup = setup
        self.chunks = chunks
        self.again: deque[Chunk] = deque()
        """What is left of chunks whose worker died, and what is tried a second time."""
        self.timeout = timeout
        self.stopping = stop
        self.running: list[_Process] = []
        self.failed_starts = 0
        self.tried: set[str] = set()
        """Tasks that failed once through the machine."""
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")

    def start(self, seat: Seat) -> None:
        """Start a worker and give it a chunk, if there is one for it."""
        chunk = self._next(seat)
        if chunk is None:
            return
        pipe, far = self._context.Pipe()
        setup = replace(self.setup, device=seat.device)
        process = self._context.Process(
            target=_serve, args=(far, setup, self.timeout, registry.metric_places), daemon=True
        )
        with undisturbed(), without_main():
            process.start()
            far.close()
            worker = _Process(process, pipe, seat, running())
            self.running.append(worker)
        self._give(worker, chunk)

    def _next(self, seat: Seat) -> Chunk | None:
        """The next chunk for a worker of this seat."""
        if self.stopping:
            return None
        again = next((chunk for chunk in self.again if kind_of(chunk.work[0].task.codec) in seat.kinds), None)
        if again:
            self.again = deque(chunk for chunk in self.again if chunk is not again)
            return again
        return next((chunk for kind in seat.kinds if (chunk := next(self.chunks[kind], None))), None)

    def collect(self) -> Iterator[Result]:
        """Wait for a result, a death, or the end of a task's time."""
        places: list[Connection | int] = [worker.process.sentinel for worker in self.running]
        places += [worker.pipe for worker in self.running if not worker.leaving]
        due = min(worker.due for worker in self.running)
        if not self.stopping:
            places.append(self.stopping.fileno())
        ready = wait(places, None if due == math.inf else max(0.0, due - time.monotonic()))
        for worker in list(self.running):
            if self.stopping and not worker.ready:
                self.stop(worker)
                continue
            ended = worker.process.sentinel in ready
            if ended:  # its children may hold its end of the pipe
                end(worker.pid)
            late = not ended and time.monotonic() >= worker.due
            if worker.leaving:
                if ended or late:
                    self.stop(worker)
            elif worker.pipe in ready or (ended and worker.pipe.poll()):
                yield from self._take(worker)
            elif ended or late:
                yield from self._ended(worker, late=late)

    def _take(self, worker: _Process) -> Iterator[Result]:
        """A message of a worker."""
        try:
            pid, number, message = worker.pipe.recv()
            known = message is None or isinstance(message, (Result, Scoring, StoreError))
            if (pid, number) != (worker.pid, worker.received) or not known:
                raise ValueError("not what this worker sends")
        except Exception as error:  # EOFError, OSError: it died; all others: a codec wrote into the pipe
            yield from self._ended(worker, odd="" if isinstance(error, (EOFError, OSError)) else f"{error!r:.80}")
            return
        worker.received += 1
        if isinstance(message, StoreError):
            raise message
        if isinstance(message, Scoring):
            worker.scoring = message
            return
        if message is None:
            worker.ready = True
        else:
            worker.scoring = None
            work = worker.left.popleft()
            if _of_machine(message) and work.task.key not in self.tried:
                self.tried.add(work.task.key)
                self.again.append(Chunk([work], 1))
            else:
                yield message
        if self.stopping and not worker.pipe.poll(STOPPING_S):  # images of a batch come one upon the other
            self.stop(worker)
        elif worker.left:
            self._expect(worker)
        else:
            self._give(worker, self._next(worker.seat))

    def _expect(self, worker: _Process) -> None:
        """From now on its next task takes its time."""
        limit = _limit(worker.left, worker.batch, self.timeout) if worker.ready else START_S
        worker.due = time.monotonic() + limit if limit else math.inf

    def _give(self, worker: _Process, chunk: Chunk | None) -> None:
        # A worker that died since its last result is found out when its pipe is read.
        with contextlib.suppress(ConnectionError):
            worker.pipe.send(chunk)
        if chunk:
            worker.left, worker.batch = deque(chunk.work), chunk.batch
            self._expect(worker)
        else:
            worker.pipe.close()
            worker.leaving, worker.due = True, time.monotonic() + LEAVING_S

    def stop(self, worker: _Process) -> None:
        """End a worker."""
        end(worker.pid)
        worker.process.join()
        self.running.remove(worker)

    def _ended(self, worker: _Process, *, late: bool = False, odd: str = "") -> Iterator[Result]:
        """A worker died over the first task it had left: that one failed, the others go to a new worker.

        If it coded images together it may have been over another one: all of them go, one by one.
        """
        if late or odd:
            end(worker.pid)
        worker.process.join(LEAVING_S)
        exitcode = worker.process.exitcode
        self.stop(worker)
        worker.pipe.close()
        late = late or exitcode == -signal.SIGALRM
        outside = not late and not odd and (was_killed(exitcode) or is_gone(worker.server))
        how = f"the {'process' if worker.scoring else 'worker process'} died"
        how += f"{' over this metric' if worker.scoring else ''}: {died(exitcode)}"
        if late:
            limit = _limit(worker.left, 1, self.timeout) if worker.ready else START_S
            how = (
                f"no result within {limit:g} seconds: its worker, and what that had started, was ended. "
                "timeout=SECONDS gives each task more, or less; retry_failed=true tries it again"
            )
        elif odd:
            how = f"the worker process sent something other than results: {odd}"
        if not worker.ready:
            self.failed_starts += 1
            if self.failed_starts >= MOST_FAILED_STARTS:
                raise WorkerError(f"worker processes do not start: {how}. workers=0 runs in this process, and says why")
        elif outside and self.stopping:
            pass  # as the worker may have been told, too
        elif outside and worker.left[0].task.key not in self.tried:
            self.tried.add(worker.left[0].task.key)
            worker.batch = 1
        elif worker.scoring:
            # The metric of the user's that it died over has no value, and the row stays.
            unscored = replace(worker.scoring.unscored, error=f"{OF_THE_MACHINE}{how}" if outside else how)
            sofar = worker.scoring.sofar
            rest = _other_metrics(worker.left.popleft(), worker.scoring)
            yield replace(sofar, scores=(*sofar.scores, unscored), more=rest is not None)
            if rest:
                worker.left.appendleft(rest)
        elif worker.batch > 1:
            worker.batch = 1
        else:
            again = f"{OF_THE_MACHINE}{how}, twice over this image; the next call tries it again"
            setup = replace(self.setup, device=worker.seat.device)
            yield failed(worker.left.popleft().task, setup, again if outside else how)
        if worker.left:
            self.again.appendleft(Chunk(list(worker.left), worker.batch))
        self.start(worker.seat)


def _other_metrics(work: Work, scoring: Scoring) -> Work | None:
    """What is left to do for that task: the other metrics, from its stored bitstream."""
    done = {scoring.unscored.metric, *(score.metric for score in scoring.sofar.scores)}
    metrics, features, originals = (
        tuple(name for name in names if name not in done) for names in (work.metrics, work.features, work.originals)
    )
    if scoring.coded.status != "ok" or not (metrics or features or originals):
        return None
    return Work(work.task, metrics, scoring.coded, False, features, originals)


def _of_machine(result: Result) -> bool:
    errors = [score.error for score in result.scores] + ([result.row.error] if result.row else [])
    return any(error.startswith(OF_THE_MACHINE) for error in errors)


def _limit(left: Sequence[Work], batch: int, timeout: float | None) -> float:
    """Seconds until the next result must be there; 0 for no limit. Those of a batch come together."""
    work = left[0]
    return limit_s(timeout, work.task.pixels, TIMED if work.timing else 1) * min(batch, len(left))


def _serve(pipe: Connection, setup: Setup, timeout: float | None, metrics: Mapping[str, str]) -> None:
    """A worker process: chunks in, results out, until None or the parent's end of the pipe is gone.

    ``metrics`` says where those of the user's lie.
    """
    registry.metric_places.update(metrics)
    setup = replace(setup, seen_as=set_up_apart(setup.device))
    send = sender(pipe)
    worker = Worker(setup)
    worker.announce = send
    try:
        send(None)
        while (chunk := pipe.recv()) is not None:
            try:
                left = deque(chunk.work)
                _set_alarm(left, chunk.batch, timeout)
                for result in worker.run(*chunk):
                    send(result)
                    left.popleft()
                    _set_alarm(left, chunk.batch, timeout)
            except StoreError as error:
                send(error)
                return
    except (EOFError, ConnectionError):
        return  # the parent is gone; what it did not receive is done again by the next run


def _set_alarm(left: Sequence[Work], batch: int, timeout: float | None) -> None:
    """End this process if it hangs: its parent would, but may be gone."""
    limit = _limit(left, batch, timeout) if left else 0
    signal.setitimer(signal.ITIMER_REAL, limit and limit + GRACE_S)


class Ended(Exception):
    """A process apart died instead of answering, or was ended since it took too long."""

    def __init__(self, late: bool, exitcode: int | None) -> None:
        super().__init__(late, exitcode)
        self.late, self.exitcode = late, exitcode


class Apart:
    """A new child of the fork server, which sends answers (`sender`) and may die or hang over any of them.

    Args:
        target: what it runs; gets its end of the pipe and the arguments.
        arguments: which can be pickled.
    """

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        start_server()
        context = multiprocessing.get_context("forkserver")
        self._pipe, far = context.Pipe(duplex=False)
        self._process = context.Process(target=target, args=(far, *arguments), daemon=True)
        with undisturbed(), without_main():
            self._process.start()
        far.close()

    def answer(self, seconds: float) -> Any:
        """Its next one.

        Raises:
            Ended: there is none.
        """
        ready = wait([self._pipe, self._process.sentinel], seconds)
        if self._pipe not in ready:  # dead, or late
            self._end()
        with contextlib.suppress(EOFError, OSError):
            if self._pipe in ready or self._pipe.poll():
                return self._pipe.recv()[2]
        self._process.join()
        raise Ended(not ready, self._process.exitcode)

    def stop(self, seconds: float = LEAVING_S) -> None:
        """It may take some seconds to leave; threads of a codec may keep it."""
        self._pipe.close()
        self._process.join(seconds)
        if self._process.is_alive():
            self._end()
            self._process.join()

    def _end(self) -> None:
        assert self._process.pid is not None
        end(self._process.pid)
