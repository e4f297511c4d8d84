"""Take part in a run: claim chunks from its queue, do them with this machine's processes, store what comes of them.

Whoever takes part - the command itself, `rdpbench worker`, here or on another machine - is a session with a lease and
a part file of its own, and knows all tasks from what was typed. A chunk names them by number, and holds a hash over
their keys: a machine on which code, data or settings give other keys does nothing of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rdpbench import registry
from rdpbench.errors import ConfigError, StoreBusy, StoreCorrupt, StoreUnwritable
from rdpbench.paths import unwritable
from rdpbench.progress import Progress, show_progress
from rdpbench.provenance import begin_session, packages, provenance
from rdpbench.results.store.calls import published, score_published
from rdpbench.results.store.columns import Places
from rdpbench.results.store.keys import sha256_of
from rdpbench.results.store.log import PartReader
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store
from rdpbench.runners import pool
from rdpbench.runners.coding import Setup
from rdpbench.runners.launch import Launcher, check_alive
from rdpbench.runners.left import Lack
from rdpbench.runners.queue import MOST_LOST, POLL_S, Claim, Lease, Queue, living
from rdpbench.runners.sets import originals
from rdpbench.runners.task import Cell, Work, keys_of_cells, resolved
from rdpbench.runners.worker import KINDS, Chunk, Kind, Result, Seat, Stop, failed, kind_of, together
from rdpbench.setting import Bench

ReadBench: TypeAlias = Callable[[Sequence[str]], Bench]
"""Makes a bench of what was typed; reading that is not of this layer."""
FULL = 32_768
"""Lines of a part, about, after which it is put away: what a kill leaves in parts is read line by line."""
SYNC_EVERY = 32
"""Records between two syncs to the disk."""


@dataclass(frozen=True)
class Agenda:
    """What the numbers in chunks stand for."""

    cells: Sequence[Cell]
    """Of the command, in order."""
    lacks: Sequence[Lack]
    """Of the queue's plan, in order."""
    metrics: Sequence[str]
    rows: Callable[[], Mapping[str, Row]]
    """What is stored, for work on bitstreams that are coded already."""

    @cached_property
    def keys(self) -> str:
        """A hash over the keys of all tasks, in their order."""
        return hashlib.sha256(keys_of_cells(self.cells).raw.tobytes()).hexdigest()

    def chunk_of(self, numbers: Iterable[tuple[int, ...]], changed: Container[str]) -> dict[str, Any]:
        """A chunk as a queue holds it; stored rows of ``changed`` keys are no longer true."""
        tasks = [*numbers]
        keys = [self.cells[cell].keys[entry] for cell, entry, _ in tasks]
        stale, kind = [key for key in keys if key in changed], kind_of(self.cells[tasks[0][0]].codec)
        return {"kind": kind, "tasks": tasks, "changed": stale, "keys": _hash_of(keys)}

    def work_of(self, chunk: Mapping[str, Any]) -> list[Work]:
        """The work that a chunk stands for.

        Raises:
            ConfigError: its keys are others here.
        """
        work: list[Work] = []
        for cell, entry, number in chunk["tasks"]:
            lack = self.lacks[number]
            task = self.cells[cell].task(entry, keep=lack.keep)
            row = self.rows().get(task.key) if lack.coded else None
            work.append(Work(task, lack.metrics, row, lack.timing, lack.features, lack.originals))
        if _hash_of(piece.task.key for piece in work) != chunk["keys"]:
            raise ConfigError(
                "a chunk of this run stands for other tasks here than where it was planned: code, data or settings "
                "changed since. Run the same command again: it plans what is left anew"
            )
        return work


def _hash_of(keys: Iterable[str]) -> str:
    return hashlib.sha256("".join(keys).encode()).hexdigest()


def queue_name(agenda: Agenda, bench: Bench) -> str:
    """Commands that do the same share a queue of this name."""
    settings = bench.timing, bench.retry_failed, bench.keep, bench.batch
    return sha256_of({"keys": agenda.keys, "metrics": list(agenda.metrics), "settings": settings})[:16]


def plan_record(bench: Bench, agenda: Agenda, left: int) -> dict[str, Any]:
    """What a queue says of its plan, for those who take part."""
    return {
        "command": list(bench.overrides),
        "cwd": str(Path.cwd()),
        # A search for the rate of a dataset codes at other settings than those that were typed.
        "grid": [(codec.name, data.name, codec.rates) for codec, data in bench.grid],
        "settings": {name: getattr(bench, name) for name in _SETTINGS},
        "timing": bench.timing,
        "runner": bench.runner.get("name", "local"),
        "left": left,
        "cells": len(agenda.cells),
        "tasks": sum(map(len, agenda.cells)),
        "metrics": list(agenda.metrics),
        "keys": agenda.keys,
        "lacks": [vars(lack) for lack in agenda.lacks],
        "packages": packages(),
        "sources": sources_of(bench),
    }


_SETTINGS = ("rates", "points", "targets", "captions", "metrics", "keep", "timing", "grades", "max_failures")
"""Of a bench, that may be others than its command says."""


def sources_of(bench: Bench) -> dict[str, str]:
    """The hashes of the user's own classes, by their names."""
    uses: list[tuple[registry.Kind, str]] = [("metric", name) for name in bench.metrics]
    uses += [("codec", codec.use) for codec in bench.codecs] + [("dataset", data.use) for data in bench.datasets]
    own = [(kind, use) for kind, use in uses if registry.own_place(kind, use)]
    return {f"{kind} {use.rpartition(':')[2]}": registry.source_sha256(kind, use) for kind, use in own}


def lacks_of(queue: Queue) -> tuple[Lack, ...]:
    """What the tasks of a queue lack."""
    return tuple(map(_lack_of, queue.plan()["lacks"]))


def _lack_of(record: Mapping[str, Any]) -> Lack:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    return Lack(**fields)


@dataclass
class Tally:
    """What sessions did, in tasks."""

    sample: Reservoir
    coded: int = 0
    scored: int = 0
    """Scored, timed or written out from the store, without encoding."""
    out_of_range: int = 0
    errors: list[Row] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    """Of all of them."""

    def add(self, key: str, result: Result) -> None:
        """One more is done; its row is as it is stored."""
        row = result.row
        self.keys.add(key)
        if row is None:
            self.scored += 1
        elif row.status == "error":
            self.errors.append(row)
        elif row.status == "out_of_range":
            self.out_of_range += 1
        else:
            self.coded += 1
            self.sample.offer(result)


class Reservoir:
    """A fair sample of results, seeded, without keeping them all."""

    def __init__(self, size: int) -> None:
        self.results: list[Result] = []
        self._size, self._count = size, 0
        self._random = random.Random(0)  # noqa: S311 (no secret)

    def some(self, places: Places, rows: Callable[[Places], list[Row]]) -> tuple[list[int], list[Row]]:
        """As many of what others coded as this one holds at most, to be offered: looking at all takes too long."""
        chosen = places if len(places) <= self._size else np.sort(self._random.sample(places.tolist(), self._size))
        self._count += len(places) - len(chosen)
        return np.asarray(chosen).tolist(), rows(np.asarray(chosen, np.int64))

    def offer(self, result: Result) -> None:
        self._count += 1
        kept = replace(result, features=(), originals=())  # arrays are stored, and large
        if len(self.results) < self._size:
            self.results.append(kept)
        elif (place := self._random.randrange(self._count)) < self._size:
            self.results[place] = kept


@dataclass
class Share:
    """What somebody takes part in, and with what."""

    queue: Queue
    agenda: Agenda
    bench: Bench
    store: Store
    seats: Sequence[Seat]
    """Of worker processes; none: this process does all."""
    stop: Stop
    ready: Callable[[], object] = int
    """Told when the first session is alive."""
    shared: bool = False
    """May others not see the cache of this user's on this machine? What they need is then in the run folder."""

    def take(
        self, tally: Tally, shown: Progress, done: Callable[[Work, Row | None], None], first: Sequence[Any]
    ) -> None:
        """Claim and do chunks until none is left, or until it is to stop.

        Args:
            tally: is told what was done.
            shown: is advanced.
            done: is told of each piece of work, and of its row if it has a new one.
            first: records of the command itself, written before all others.
        """
        session, full = _Session(self), False
        while True:
            following = None
            with contextlib.closing(session):
                if full:
                    self.put_away()
                for record in first:
                    session.write(record)
                try:
                    for result in session.results():
                        work, stored = session.put(result)
                        tally.add(work.task.key, stored)
                        done(work, stored.row)
                        shown.advance(failed=bool(stored.row and stored.row.status == "error"))
                except (StoreUnwritable, StoreCorrupt):
                    if not session.lease.lost:
                        raise
                    session.broken = True  # it was put away as what a dead session had written
                if not self.stop and (session.lease.lost or (session.is_full and self.queue.left)):
                    following = _Session(self)  # before the other's lease ends: nobody's queue is taken away
            if not following:
                return
            session, full, first = following, session.is_full, ()

    def put_away(self) -> None:
        """Move parts of sessions that are over into Parquet, so that a run of days can be read at any moment.

        Not those of dead sessions whose chunks wait for others, who will look there what is done already.
        """
        writing = living(self.store.folder) | self.queue.holders
        with contextlib.suppress(StoreBusy), self.store.lock():  # whoever has the lock puts parts away, or plans
            self.store.compact(writing=writing)

    def lead(self, launcher: Launcher, first: Sequence[Mapping[str, Any]]) -> None:
        """Let others do all chunks, which a launcher starts; ``first`` is as for `take`.

        Raises:
            WorkerError: they ended, and chunks are left.
        """
        every = self.queue.left
        with contextlib.closing(_Session(self)) as session, show_progress("", every, "chunks") as shown:
            for record in first:
                session.write(record)
            try:
                launcher.start()
                while (left := self.queue.left) and not self.has_failed_enough():
                    check_alive(launcher, left)
                    shown(every - left)
                    time.sleep(POLL_S)
            finally:
                launcher.stop()

    def has_failed_enough(self) -> bool:
        """Did as many tasks fail, of all who take part, as ``max_failures=`` allows?"""
        most = self.bench.max_failures
        if most is not None and not self.stop and (failures := self.queue.failures) >= most:
            self.stop.set(f"{failures} tasks failed, and max_failures={most}")
        return bool(self.stop)


@dataclass
class _Open:
    """A claimed chunk, and what is left of it, by the keys of its tasks."""

    claim: Claim
    left: dict[str, tuple[Work, tuple[int, ...]]]


class _Session:
    """One claimer, from its first chunk to its last."""

    def __init__(self, share: Share) -> None:
        self.share = share
        bench, store, agenda = share.bench, share.store, share.agenda
        try:
            made_of = resolved(bench, agenda.cells, agenda.metrics)
            record = provenance(bench, sum(map(len, agenda.cells)), made_of)
            self.name, noted = begin_session(store.folder, store.new_session, record)
        except OSError as error:
            raise unwritable(store.folder, error) from error
        batch = 1 if bench.timing else bench.batch
        self.setup = Setup(Store(store.folder.resolve()), self.name, bench.device, batch)
        self.broken = False
        self.lease: Lease = share.queue.lease(self.name)
        self._files = contextlib.ExitStack()
        self._files.callback(self.lease.end)
        self._files.push(self._settle)
        share.ready()
        with contextlib.ExitStack() as opened:
            opened.push(self._files)
            self.writer = store.writer(self.name)
            self.arrays = store.features.writer(self.name)
            self.cached = self.arrays if share.shared else originals().writer(self.name)
            for file in (self.writer, self.cached, self.arrays):  # closed in the other order, whatever goes wrong
                self._files.enter_context(contextlib.closing(file))
            opened.pop_all()
        self.writer.append(noted)
        self._open: dict[str, _Open] = {}
        """By the keys of their tasks."""
        self._done: list[Claim] = []
        """Whose results may not be on the disk yet."""
        self._given_up: deque[Result] = deque()

    @property
    def is_full(self) -> bool:
        """Is its part so long that another session is to go on?"""
        return self.writer.lines >= FULL

    def write(self, record: Mapping[str, Any]) -> None:
        """A record of the command itself, which is given the name of the session where it takes one."""
        named = {kind: value | {"session": self.name} if kind in _NAMED else value for kind, value in record.items()}
        self.writer.append(named)

    def results(self) -> Iterator[Result]:
        """Of all that can be claimed, until nothing is left of the queue."""
        share = self.share
        while True:
            by_kind = {kind: self._chunks([kind]) for kind in KINDS}
            stream = (
                pool.run_processes(by_kind, self.setup, share.seats, share.bench.timeout, share.stop)
                if share.seats
                else pool.run_here(self._chunks(KINDS), self.setup, share.stop)
            )
            with contextlib.closing(stream):  # type: ignore[type-var]
                for result in stream:
                    if share.stop and result.row and result.row.status == "error":
                        continue  # whoever is to end may have lost a program or a process: it is done again elsewhere
                    yield result
                    while self._given_up:
                        yield self._given_up.popleft()
            while self._given_up:
                yield self._given_up.popleft()
            self._sync()
            if share.stop or self.lease.lost or self.is_full or not share.queue.left:
                return
            time.sleep(POLL_S)

    def _chunks(self, kinds: Sequence[Kind]) -> Iterator[Chunk]:
        share = self.share
        while not (share.has_failed_enough() or self.lease.lost or self.is_full):
            if not (claim := share.queue.claim(self.name, kinds)):
                return
            known = self._written({session for session, _ in claim.lost})
            pairs = zip(share.agenda.work_of(claim.chunk), map(tuple, claim.chunk["tasks"]), strict=True)
            chunk = _Open(claim, {pair[0].task.key: pair for pair in pairs if pair[0].task.key not in known})
            work = [piece for piece, _ in chunk.left.values()]
            self._open |= dict.fromkeys(chunk.left, chunk)
            if poison := claim.poisoned:
                session = claim.lost[-1][0]
                why = (
                    f"those that worked on this image died {MOST_LOST} times over it, the last one was {session}; "
                    "retry_failed=true tries it again"
                )
                self._given_up += [failed(one.task, self.setup, why) for one in work if one.task.key == poison]
            todo = [piece for piece in work if piece.task.key != poison]
            if todo:
                share.queue.note(claim, todo[0].task.key)
                yield Chunk(todo, 1 if claim.lost else together(todo, self.setup.batch))
            elif not work:
                self._done.append(claim)

    def _written(self, sessions: Iterable[str]) -> set[str]:
        """Keys of tasks that dead sessions had done; without a part that is damaged or was put away since."""
        keys: set[str] = set()
        for session in sessions:
            with contextlib.suppress(OSError, StoreCorrupt):
                for record in PartReader(self.share.store.parts / f"{session}.jsonl"):
                    told = [record.get("row"), *record.get("scores", ()), record.get("timing")]
                    keys |= {part["task_key"] for part in told if part}
        return keys

    def put(self, result: Result) -> tuple[Work, Result]:
        """Store a result; returns the work that it is of, and the result as it is stored."""
        key = result.task_key or next(key for key, chunk in self._open.items() if _has_only_arrays(chunk.left[key][0]))
        chunk = self._open[key]
        work, _ = chunk.left[key]
        if not result.more:
            del self._open[key], chunk.left[key]
        new = published(result.row, work.task.codec, work.task.entry.sample.path) if result.row else None
        # Arrays first: a row whose features were lost is scored again, the other way round is for nothing.
        for extracted in result.features:
            self.arrays.append(extracted)
        for extracted in result.originals:
            self.cached.append(extracted)
        if new and new.status != "ok" and key in chunk.claim.chunk["changed"]:
            # What was true before is not: a failure, too, takes its place.
            self.writer.append({"refuted": key, "error": "a file that its codec opened changed"})
        public = replace(result, row=new, scores=tuple(map(score_published, result.scores)))
        if record := public.record():
            self.writer.append(record)
        if new and new.status == "error":
            self.share.queue.failed()
            self.share.has_failed_enough()
        if not chunk.left:
            self._done.append(chunk.claim)
        elif not result.more:
            self.share.queue.note(chunk.claim, next(iter(chunk.left)))
        if self.writer.lines % SYNC_EVERY == 0:
            self._sync()
        return work, public

    def _sync(self) -> None:
        """Bring what was written to the disk; only then its chunks are done for others, too."""
        self.arrays.sync()
        self.writer.sync()
        while self._done:
            self.share.queue.finish(self._done.pop())

    def _settle(self, failure: type[BaseException] | None, *_: object) -> None:
        """After the files are closed: what they hold is done, and others get the rest; or all, if that failed."""
        if failure:
            return
        for claim in self._done:
            self.share.queue.finish(claim)
        for chunk in {id(chunk): chunk for chunk in self._open.values()}.values():
            numbers = [three for _, three in chunk.left.values()]
            rest = self.share.agenda.chunk_of(numbers, chunk.claim.chunk["changed"])
            with contextlib.suppress(OSError):  # a folder that is gone: the next plan finds out
                self.share.queue.give_back(chunk.claim, rest)

    def close(self) -> None:
        """Close the part, give back what is left, end the lease."""
        try:
            self._files.close()
        except (StoreUnwritable, StoreCorrupt):
            if not self.broken:
                raise


_NAMED = ("member", "measure")


def _has_only_arrays(work: Work) -> bool:
    """May a result without a key be of it?"""
    return work.row is not None and not work.metrics and not work.timing
