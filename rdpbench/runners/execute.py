"""From a command to rows in the store: plan, lock, run, compact."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rdpbench.errors import StoreBusy, StoreCorrupt
from rdpbench.paths import unwritable
from rdpbench.progress import show_progress
from rdpbench.provenance import provenance, write_session
from rdpbench.results.store.parts import PartWriter
from rdpbench.results.store.schema import OF_THE_MACHINE, REFUTED, Measure, Member, Row, error_text
from rdpbench.results.store.store import Contents, Store
from rdpbench.runners import pool
from rdpbench.runners.coding import Setup
from rdpbench.runners.decodes import refuted
from rdpbench.runners.grid import run_name
from rdpbench.runners.plan import Plan, chunks, make_plan
from rdpbench.runners.pool import import_ahead, start_for
from rdpbench.runners.preflight import check_contracts
from rdpbench.runners.rows import resolved, without_environment
from rdpbench.runners.sets import originals, reduce_all, set_metrics
from rdpbench.runners.verify import asked_of, decode_elsewhere, unlike
from rdpbench.runners.worker import Result
from rdpbench.setting import Bench, CodecSetting

SYNC_EVERY = 32
"""Records between two syncs to the disk."""


@dataclass(frozen=True)
class Done:
    """What a run did, in tasks."""

    store: Store
    plan: Plan
    coded: int = 0
    scored: int = 0
    """Scored, timed or written out from the store, without encoding."""
    out_of_range: int = 0
    verified: int = 0
    """Bitstreams of this run that gave the recorded pixels in a fresh process."""
    findings: tuple[str, ...] = ()
    """Those that did not, or did not decode."""
    errors: tuple[Row, ...] = ()
    """What failed now. A row that was good before stays in the store as it is, even if doing more with it failed."""

    @property
    def failed(self) -> int:
        return len(self.errors)

    @property
    def any(self) -> bool:
        """Was there anything to do?"""
        return bool(self.coded or self.scored or self.failed or self.out_of_range or self.plan.judged)


def store_of(bench: Bench) -> Store:
    """The run folder of a command.

    Raises:
        ConfigError: a codec, metric or dataset of the user's is not what it must be.
    """
    check_contracts(bench)
    return Store(bench.root / run_name(bench))


def execute(bench: Bench, announce: Callable[[Plan, Store], None] | None = None) -> Done:
    """Do what is left of a command; running it again is resume.

    ``announce`` is told the plan before anything runs, and may raise.

    Raises:
        RdpbenchError: before anything ran if it cannot run; later only if the store cannot be written.
    """
    store = store_of(bench)
    start_for(bench)
    workers = workers_of(bench)
    # Nothing is written, not even the folder with its lock, before a plan stands.
    ahead = None if store.folder.exists() else make_plan(bench, store)
    with store.lock():
        plan = ahead or make_plan(bench, store)
        if announce:
            announce(plan, store)
        if not plan.work and not plan.members and not plan.measures and not plan.judged:
            reduce_sets(store, plan, bench)
            store.compact()
            return Done(store, plan)
        session = store.new_session()
        try:
            made_of = resolved(bench, plan.tasks, plan.metrics)
            path = write_session(store.folder, session, provenance(bench, len(plan.tasks), made_of))
            noted = {"session": session, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        except OSError as error:
            raise unwritable(store.folder, error) from error
        setup = Setup(Store(store.folder.resolve()), session, bench.device, batch_of(bench))
        portions = chunks(plan.work, setup.batch)
        import_ahead()  # only now: a plan that fails ends this process, and must not end it amid an import
        with exclusive(bench):
            results = (
                pool.run_processes(portions, setup, workers, bench.timeout)
                if workers
                else pool.run_here(portions, setup)
            )
            done = _write(results, Done(store, plan), noted, bench.verify)
        reduce_sets(store, plan, bench)
        _check_stored(store, store.compact() or store.read(), done)
    return done


def _check_stored(store: Store, contents: Contents, done: Done) -> None:
    """Raise `StoreCorrupt` unless the store holds a row for each task that this call, or one before it, has done."""
    held = sum(task.key in contents.rows for task in {task.key: task for task in done.plan.tasks}.values())
    every = len({task.key for task in done.plan.tasks})
    if held < every:
        raise StoreCorrupt(
            f"{store.folder} holds {held} of the {every} tasks of this run: its files were deleted or replaced while "
            "it ran. What is there is whole; run the same command again: it does the others"
        )


def reduce_sets(store: Store, plan: Plan, bench: Bench) -> None:
    """Compute and store the values of set metrics that are missing; the store is locked."""
    if not set_metrics(plan.metrics):
        return
    contents = store.read()
    writer: PartWriter | None = None
    for value in reduce_all(store, contents, plan.tasks, plan.metrics, bench.device, unreliable=bench.allow_unreliable):
        writer = writer or store.writer(store.new_session())
        writer.append({"set": vars(value)})
    if writer:
        writer.close()


def batch_of(bench: Bench) -> int:
    """How many images of one size are coded together; one where anything is timed."""
    return 1 if bench.timing else bench.batch


def workers_of(bench: Bench) -> int:
    """How many worker processes; 0 means this one. Timing takes one process alone."""
    if bench.timing:
        return 1
    return pool.cores() if bench.workers is None else bench.workers


def _write(results: Iterator[Result], done: Done, noted: Mapping[str, str], sample: int) -> Done:
    """Store results as they come, decode a sample of what was coded in a fresh process; says what became of all."""
    counts = {"coded": 0, "scored": 0, "out_of_range": 0}
    names = {"ok": "coded", "out_of_range": "out_of_range"}
    errors: list[Row] = []
    chosen = _Reservoir(sample)
    session = noted["session"]
    writer: PartWriter = done.store.writer(session)
    writer.append(dict(noted))
    stated: list[tuple[str, Member | Measure]] = [("member", member) for member in done.plan.members]
    for kind, one in [*stated, *(("measure", measure) for measure in done.plan.measures)]:
        writer.append({kind: vars(replace(one, session=session))})
    for row in done.plan.judged:
        writer.append({"row": row.record()})
    codecs = {work.task.key: work.task.codec for work in done.plan.work}
    arrays, cached = done.store.features.writer(session), originals().writer(session)
    # Closed in this order, and all of them, whatever goes wrong with one.
    closing = (contextlib.closing(file) for file in (writer, cached, arrays))
    with contextlib.ExitStack() as files:
        for file in closing:
            files.enter_context(file)
        with show_progress("", len(done.plan.work), "tasks") as shown, contextlib.closing(results) as stream:  # type: ignore[type-var]
            for result in map(_public, stream, itertools.repeat(codecs)):
                # Arrays first: a row whose features were lost is scored again, the other way round is for nothing.
                for made in result.features:
                    arrays.append(made)
                for made in result.originals:
                    cached.append(made)
                if result.row and result.row.status != "ok" and result.row.task_key in done.plan.changed:
                    # What was true before is not: a failure, too, takes its place.
                    writer.append({"refuted": result.row.task_key, "error": "a file that its codec opened changed"})
                if record := result.record():
                    writer.append(record)
                bad = result.row is not None and result.row.status == "error"
                if bad:
                    assert result.row is not None
                    errors.append(result.row)
                else:
                    counts[names[result.row.status] if result.row else "scored"] += 1
                if result.row is not None and result.row.status == "ok":
                    chosen.offer(result)
                shown.advance(failed=bad)
                if writer.lines % SYNC_EVERY == 0:
                    arrays.sync()
                    writer.sync()
        verified, findings = _decoded_again(done.store, chosen.results, codecs, writer)
    return replace(
        done,
        coded=counts["coded"],
        scored=counts["scored"],
        out_of_range=counts["out_of_range"],
        errors=tuple(errors),
        findings=tuple(findings),
        verified=verified,
    )


def _public(result: Result, codecs: Mapping[str, CodecSetting]) -> Result:
    """A result without what the environment holds."""
    row = result.row
    return replace(result, row=without_environment(row, codecs[row.task_key])) if row else result


def _decoded_again(
    store: Store, results: Sequence[Result], codecs: Mapping[str, CodecSetting], writer: PartWriter
) -> tuple[int, list[str]]:
    """Decode bitstreams in a fresh process; returns how many gave the recorded pixels, and what else was found.

    A number that is not one of the bytes alone must not enter a mean: the row becomes a failed one, or loses the
    values that were made of further decodes.
    """
    verified, findings = 0, []
    asked = {
        one: result
        for result in results
        if result.row
        for one in asked_of(result.row, result.scores, codecs[result.row.task_key])
    }
    for one, answer in decode_elsewhere(store, list(asked)).items():
        key, right = one.row.task_key, answer == one.expected
        if not right:
            findings.append(unlike(one, answer))
        if one.decodes > 1 and not right:
            writer.append({"scores": [vars(score) for score in refuted(asked[one].scores, findings[-1])]})
        elif one.decodes == 1:
            # A file that is gone, or a process that the system killed, says nothing of the codec.
            prefix = OF_THE_MACHINE if answer.startswith(OF_THE_MACHINE) else REFUTED
            wrong = {} if right else {"refuted": key, "error": error_text(prefix + findings[-1])}
            writer.append(wrong or {"verified": key})
            verified += right
    return verified, findings


class _Reservoir:
    """A fair sample of results, seeded, without keeping them all."""

    def __init__(self, size: int) -> None:
        self.results: list[Result] = []
        self._size, self._seen = size, 0
        self._random = random.Random(0)  # noqa: S311 (no secret)

    def offer(self, result: Result) -> None:
        self._seen += 1
        kept = replace(result, features=(), originals=())  # arrays are stored, and large
        if len(self.results) < self._size:
            self.results.append(kept)
        elif (place := self._random.randrange(self._seen)) < self._size:
            self.results[place] = kept


def lock_folder() -> Path:
    """Where timings of this machine find one another."""
    return Path(tempfile.gettempdir())


@contextlib.contextmanager
def exclusive(bench: Bench) -> Iterator[None]:
    """While timing, keep other timings of this user off the machine's device; the load average tells of the rest.

    Raises:
        StoreBusy: another timing is running.
    """
    if not bench.timing:
        yield
        return
    from filelock import FileLock, Timeout

    # Each user's own: a lock file of another user's cannot be opened.
    name = f"rdpbench-timing-{os.getuid()}-{bench.device.replace(':', '-').replace('/', '-')}.lock"
    lock = FileLock(lock_folder() / name, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StoreBusy(f"another rdpbench is timing on {bench.device}; two at once would time each other") from None
    try:
        yield
    finally:
        lock.release()
