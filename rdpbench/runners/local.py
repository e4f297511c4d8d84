"""Run chunks on this machine: in this process, or in one process per core.

Worker processes come from a *fork server*: a small process that has imported torch once and forks clean,
single-threaded children from there. So a worker starts in milliseconds, each runs at one thread, and the parent stays
light. A worker that dies (a native library may crash) costs one task, which becomes a failed row; the rest of its chunk
goes to a new worker. If it coded images together, nobody knows over which it died: what is left of its chunk is done
again one by one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import NamedTuple

from rdpbench.errors import StoreError, WorkerError
from rdpbench.runners.coding import Setup
from rdpbench.runners.process import set_up
from rdpbench.runners.task import Work
from rdpbench.runners.worker import Result, Scoring, Worker, failed

STILLBIRTHS = 3
"""Workers that may die before they are up; one may be killed by chance, all of them mean that none will start."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_here(chunks: Sequence[Sequence[Work]], setup: Setup) -> Iterator[Result]:
    """All chunks in this process, one task after the other."""
    set_up()
    worker = Worker(setup)
    for chunk in chunks:
        yield from worker.run(chunk, setup.batch)


def run_processes(chunks: Sequence[Sequence[Work]], setup: Setup, workers: int) -> Iterator[Result]:
    """All chunks over ``workers`` processes; results come as they are made."""
    pool = _Pool(setup, deque(_Chunk(list(chunk), setup.batch) for chunk in chunks))
    try:
        for _ in range(min(workers, len(chunks))):
            pool.hire()
        while pool.busy:
            yield from pool.collect()
    finally:
        pool.dismiss()


class _Chunk(NamedTuple):
    """What a worker is given, and how many images it may code together."""

    work: list[Work]
    batch: int


@dataclass
class _Hand:
    """One worker process, and what it was given."""

    process: ForkServerProcess
    pipe: Connection
    left: deque[Work] = field(default_factory=deque)
    batch: int = 1
    ready: bool = False
    """Has it come up? A worker that dies before that is no fault of a task."""
    scoring: Scoring | None = None
    """What it had of the first piece of work that is left, when code of the user's began to score it."""


class _Pool:
    def __init__(self, setup: Setup, waiting: deque[_Chunk]) -> None:
        self.setup = setup
        self.waiting = waiting
        self.busy: list[_Hand] = []
        self.stillborn = 0
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")

    def hire(self) -> None:
        """Start a worker and give it a chunk."""
        if not self.waiting:
            return
        pipe, far = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(far, self.setup), daemon=True)
        process.start()
        far.close()
        hand = _Hand(process, pipe)
        self.busy.append(hand)
        self._give(hand)

    def collect(self) -> Iterator[Result]:
        """Wait for a result or a death."""
        pipes = {hand.pipe: hand for hand in self.busy}
        for ready in wait(list(pipes)):
            assert isinstance(ready, Connection)
            hand = pipes[ready]
            try:
                message = hand.pipe.recv()
            except (EOFError, OSError):  # OSError: killed in the middle of a message
                yield from self._bury(hand)
                continue
            if isinstance(message, StoreError):
                raise message
            if message is None:
                hand.ready = True
                continue
            if isinstance(message, Scoring):
                hand.scoring = message
                continue
            hand.scoring = None
            hand.left.popleft()
            yield message
            if not hand.left:
                self._give(hand)

    def dismiss(self) -> None:
        """End all workers."""
        for hand in self.busy:
            hand.pipe.close()
            hand.process.terminate()
        for hand in self.busy:
            hand.process.join()
        self.busy.clear()

    def _give(self, hand: _Hand) -> None:
        if self.waiting:
            chunk = self.waiting.popleft()
            hand.left, hand.batch = deque(chunk.work), chunk.batch
            # A worker that died since its last result is found out, and buried, when its pipe is read.
            with contextlib.suppress(ConnectionError):
                hand.pipe.send(chunk)
        else:
            with contextlib.suppress(ConnectionError):
                hand.pipe.send(None)
            hand.pipe.close()
            hand.process.join()
            self.busy.remove(hand)

    def _bury(self, hand: _Hand) -> Iterator[Result]:
        """A worker died over the first task it had left: that one failed, the others go to a new worker.

        If it coded images together it may have been over another one: all of them go, one by one.
        """
        hand.process.join()
        self.busy.remove(hand)
        how = _how(hand.process.exitcode)
        if not hand.ready:
            self.stillborn += 1
            if self.stillborn >= STILLBIRTHS:
                raise WorkerError(f"worker processes do not start: {how}. workers=0 runs in this process, and says why")
        elif hand.scoring:
            yield _kept(hand.scoring, how)
            if rest := _rest(hand.left.popleft(), hand.scoring):
                hand.left.appendleft(rest)
        elif hand.batch > 1:
            hand.batch = 1
        else:
            victim = hand.left.popleft()
            yield failed(victim.task, self.setup, f"the worker process died: {how}")
        if hand.left:
            self.waiting.appendleft(_Chunk(list(hand.left), hand.batch))
        self.hire()


def _kept(scoring: Scoring, how: str) -> Result:
    """What is known of a task whose worker died over a metric of the user's: the metric has no value, the row stays."""
    unscored = replace(scoring.unscored, error=f"the process died over this metric: {how}")
    return replace(scoring.sofar, scores=(*scoring.sofar.scores, unscored))


def _rest(work: Work, scoring: Scoring) -> Work | None:
    """What is left to do for that task: the other metrics, from its stored bitstream."""
    done = {scoring.unscored.metric, *(score.metric for score in scoring.sofar.scores)}
    metrics, features, originals = (
        tuple(name for name in names if name not in done) for names in (work.metrics, work.features, work.originals)
    )
    if scoring.coded.status != "ok" or not (metrics or features or originals):
        return None
    return Work(work.task, metrics, scoring.coded, False, features, originals)


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"{name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"exit code {exitcode}"


def _serve(pipe: Connection, setup: Setup) -> None:
    """A worker process: chunks in, results out, until None or the parent's end of the pipe is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    set_up()
    worker = Worker(setup)
    worker.announce = pipe.send
    try:
        pipe.send(None)
        while (chunk := pipe.recv()) is not None:
            try:
                for result in worker.run(*chunk):
                    pipe.send(result)
            except StoreError as error:
                pipe.send(error)
                return
    except (EOFError, ConnectionError):
        return  # the parent is gone; what it did not receive is done again by the next run
