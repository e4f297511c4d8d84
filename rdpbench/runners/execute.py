"""A whole command: search target rates of a dataset; plan, run, verify a sample, compact; show."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rdpbench.codecs.contract import GRADES
from rdpbench.datasets.contract import dataset_of
from rdpbench.errors import ConfigError, MissingNeed, StoreBusy, StoreCorrupt, StoreError
from rdpbench.figures.command import show
from rdpbench.metrics.contract import short_name
from rdpbench.networks.precision import devices_of
from rdpbench.progress import Progress, Report, say, show_progress
from rdpbench.provenance import command, cores
from rdpbench.results.stats.current import PROVEN, of_store
from rdpbench.results.stats.points import Points
from rdpbench.results.store.calls import Named
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.keys import axis_of, facts
from rdpbench.results.store.log import PartWriter
from rdpbench.results.store.schema import OF_THE_MACHINE, REFUTED, Row, error_text
from rdpbench.results.store.store import Store
from rdpbench.results.tables import CROSSINGS, Terminal, crossed
from rdpbench.runners import server
from rdpbench.runners.chunks import chunks
from rdpbench.runners.claim import Agenda, Reservoir, Share, Tally, lacks_of, plan_record, queue_name
from rdpbench.runners.coding import refuted
from rdpbench.runners.cost import Left
from rdpbench.runners.launch import Launcher, launcher_of
from rdpbench.runners.plan import Plan, lines, make_plan
from rdpbench.runners.preflight import check_contracts, check_devices, check_metrics, fetch_weights
from rdpbench.runners.queue import POLL_S, Queue, living, remove_abandoned
from rdpbench.runners.search import Nearest, is_near, missed, search
from rdpbench.runners.sets import is_set, reduce_all
from rdpbench.runners.task import membership, run_name
from rdpbench.runners.verify import cross, decode_elsewhere, note_crossings, trials_of, unlike, verify
from rdpbench.runners.worker import KINDS, Result, Seat, Stop, kind_of
from rdpbench.setting import Bench, CodecSetting, DataSetting, digits

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Done:
    """What a run did, in tasks."""

    store: Store
    plan: Plan
    contents: Contents
    """What the store holds now."""
    coded: int = 0
    scored: int = 0
    """Scored, timed or written out from the store, without encoding."""
    out_of_range: int = 0
    verified: int = 0
    """Bitstreams of this run that gave the recorded pixels in a fresh process."""
    findings: tuple[str, ...] = ()
    """Those that did not, or did not decode."""
    grades: tuple[str, ...] = PROVEN
    """Of rates, that tables and figures show."""
    stopped: str = ""
    """Why it ended before all was done."""
    errors: tuple[Row, ...] = ()
    """What failed now. A row that was good before stays in the store as it is, even if doing more with it failed."""

    @property
    def points(self) -> Points:
        """The points of the command."""
        return of_store(self.contents, membership(self.plan.cells), grades=self.grades)

    @property
    def any(self) -> bool:
        """Was there anything to do?"""
        return bool(self.coded or self.scored or self.errors or self.out_of_range or self.plan.judged)


def store_of(bench: Bench) -> Store:
    """The run folder of a command.

    Raises:
        ConfigError: a codec, metric or dataset of the user's is not what it must be.
    """
    check_contracts(bench)
    return Store(bench.root / run_name(bench))


def execute(bench: Bench, announce: Callable[[Plan, Store], None] | None = None, report: Report | None = None) -> Done:
    """Do what is left of a command; running it again is resume.

    ``announce`` is told the plan before anything runs, and may raise; ``report`` shows the progress in place of a bar.

    Raises:
        RdpbenchError: before anything ran if it cannot run; later only if the store cannot be written.
    """
    store = store_of(bench)
    seats, launcher = seats_of(bench), launcher_of(bench, store.folder)
    if launcher and bench.timing:
        raise ConfigError("timing=true takes one process alone on this machine; leave out runner=")
    if seats or bench.verify:
        server.start_for(bench)
    # Nothing is written, not even the folder with its lock, before a plan stands.
    ahead = None if store.folder.exists() else make_plan(bench, store)
    with contextlib.ExitStack() as held:
        held.enter_context(store.lock(wait=True, alone=bench.timing))
        writing = living(store.folder)
        if writing and bench.timing:
            raise StoreBusy(f"{len(writing)} others work on {store.folder}, and would be timed too; wait for them")
        plan = make_plan(bench, store) if ahead is None or store.exists() else ahead
        if announce:
            announce(plan, store)
        # What a GPU of other machines coded, this one may decode to other pixels: `rdpbench verify` is run there.
        sample = 0 if launcher and bench.runner["device"] != "cpu" else bench.verify
        done, tally = Done(store, plan, plan.stored, grades=grades_of(bench)), Tally(Reservoir(sample))
        if not plan.idle:
            agenda, queue = _opened(bench, store, plan)
            server.import_ahead()  # only now: a plan that fails ends this process, and must not end it amid an import
            with exclusive(bench):
                # Once we are seen to be alive, others may claim, plan and finish.
                release = held.close if not bench.timing else lambda: None
                share = Share(queue, agenda, bench, store, seats, Stop(), release)
                _take_part(share, launcher, plan, tally, report)
            _wait_for_others(queue)
            if not bench.timing:
                held.enter_context(store.lock(wait=True))
            queue.bury()
            writing |= living(store.folder)
        # A part that others wrote to when it was read has grown.
        contents = store.read(None if any(path.stem in writing for path in plan.stored.parts) else plan.stored)
        if not plan.idle:
            _count_others(plan, contents, tally)
            done = _verify_sample(done, tally)
            contents = store.read(contents)
        _reduce_sets(store, plan, contents, bench)
        done = replace(done, contents=store.compact(contents, living(store.folder)))
        if not plan.idle:
            done = replace(done, stopped=share.stop.reason)
            if not done.stopped:
                _check_stored(done)
        remove_abandoned(store.folder)
    return done


def _opened(bench: Bench, store: Store, plan: Plan) -> tuple[Agenda, Queue]:
    """The queue of a plan: a new one, or that of others who are at work on the same command."""
    agenda = Agenda(plan.cells, plan.lacks, plan.metrics, lambda: plan.stored.rows)
    queue = Queue(store.folder / "queue" / queue_name(agenda, bench))
    if queue.living():
        return replace(agenda, lacks=lacks_of(queue)), queue
    portions = (agenda.chunk_of(chunk, plan.changed) for chunk in chunks(plan, 1 if bench.timing else bench.batch))
    return agenda, Queue.publish(queue.folder, plan_record(bench, agenda, len(plan.left)), portions)


def _take_part(share: Share, launcher: Launcher | None, plan: Plan, tally: Tally, report: Report | None) -> None:
    """Do what is left together with whoever else claims it; the members of the plan and the like are noted first."""
    first = [{"member": vars(member)} for member in plan.members]
    first += [{"measure": vars(measure)} for measure in plan.measures]
    first += [{"row": vars(row)} for row in plan.judged]
    if launcher:
        share.lead(launcher, first)
        return
    left = Left(plan.kinds, plan.stored_s, plan.costs, max(1, len(share.seats)))
    with show_progress("", len(plan.left), "tasks", report, left.seconds) as shown:
        share.take(tally, shown, left.done, first)


def _wait_for_others(queue: Queue) -> None:
    """Let those who worked on the queue close their parts, if they are alive."""
    ends = time.monotonic() + 10
    while queue.living() and time.monotonic() < ends:
        time.sleep(POLL_S / 5)


def _count_others(plan: Plan, contents: Contents, tally: Tally) -> None:
    """Take into account what others did of the plan."""
    planned = ((plan.cells[cell].keys[entry], lack) for cell, entry, lack in plan.left)
    theirs = [(key, lack) for key, lack in planned if key not in tally.keys]
    rows, scores = contents.of_kind("row"), contents.of_kind("score")
    places = rows.locate([key for key, _ in theirs])
    coded = np.array([lack.coded for lack in plan.lacks], bool)[[lack for _, lack in theirs]] if theirs else places
    tally.scored += int((coded & (places >= 0)).sum())
    new = places[(places >= 0) & ~coded] if theirs else places
    status = rows.codes("status").of(new)
    tally.out_of_range += int(status.where("out_of_range".__eq__).sum())
    tally.errors += rows.at(new[status.where("error".__eq__)])
    good = new[status.where("ok".__eq__)]
    tally.coded += len(good)
    for place, row in zip(*tally.sample.some(good, rows.at), strict=True):
        of_row = np.flatnonzero(scores.owners(rows) == place)
        tally.sample.offer(Result(row, tuple(scores.at(of_row))))


def _check_stored(done: Done) -> None:
    """Raise `StoreCorrupt` unless the store holds a row for each task that this call, or one before it, has done."""
    if lost := done.plan.lost_of(done.contents):
        size = done.plan.distinct
        raise StoreCorrupt(
            f"{done.store.folder} holds {size - lost} of the {size} tasks of this run: its files were "
            "deleted or replaced while it ran. What is there is whole; run the same command again: it does the others"
        )


def _reduce_sets(store: Store, plan: Plan, contents: Contents, bench: Bench) -> None:
    """Compute and store the values of set metrics that are missing; the store is locked."""
    writer: PartWriter | None = None
    for value in reduce_all(store, contents, plan.cells, plan.metrics, bench.device, unreliable=bench.allow_unreliable):
        writer = writer or store.writer(store.new_session())
        writer.append({"set": vars(value)})
    if writer:
        writer.close()


def grades_of(bench: Bench) -> tuple[str, ...]:
    """The grades that a command shows: those that were asked for, or those of its codecs if it names no others."""
    named = tuple(dict.fromkeys(facts(codec).grade for codec in bench.codecs))
    return bench.grades if set(named) & set(bench.grades) else (*bench.grades, *named)


def seats_of(bench: Bench) -> list[Seat]:
    """The worker processes of a command; none if all runs in this one.

    On each GPU ``workers_per_device`` for codecs that compute there, and one per core for those that do not, whose
    metrics are spread over the GPUs. Timing takes one process alone.
    """
    workers = cores() if bench.workers is None else bench.workers
    if bench.timing or bench.device == "cpu":
        return [Seat(bench.device, KINDS)] * (1 if bench.timing else workers)
    if not workers:
        return []
    kinds = {*map(kind_of, bench.codecs)}
    on_gpus = [Seat(device, ("device",)) for _ in range(bench.workers_per_device) for device in bench.devices]
    others = [Seat(bench.devices[number % len(bench.devices)], ("cpu",)) for number in range(workers)]
    return [seat for seat in (*on_gpus, *others) if kinds & {*seat.kinds}]


def _verify_sample(done: Done, tally: Tally) -> Done:
    """Decode a sample of what was coded in a fresh process, note what that gave; says what became of all tasks."""
    sampled, cells = {result.task_key for result in tally.sample.results}, done.plan.cells
    planned = ((cells[cell].keys[entry], cells[cell].codec) for cell, entry, _ in done.plan.left)
    codecs = {key: codec for key, codec in planned if key in sampled}
    records, verified, findings = _decoded_again(done.store, tally.sample.results, codecs)
    if records:
        with contextlib.closing(done.store.writer(done.store.new_session())) as writer:
            for record in records:
                writer.append(record)
    counts: dict[str, Any] = {"coded": tally.coded, "scored": tally.scored, "out_of_range": tally.out_of_range}
    return replace(done, **counts, errors=tuple(tally.errors), findings=tuple(findings), verified=verified)


def _decoded_again(
    store: Store, results: Sequence[Result], codecs: Mapping[str, CodecSetting]
) -> tuple[list[dict[str, Any]], int, list[str]]:
    """Decode bitstreams in a fresh process; returns records of it, how many gave the recorded pixels, and what did not.

    A number that is not one of the bytes alone must not enter a mean: the row becomes a failed one, or loses the
    values that were made of further decodes.
    """
    records: list[dict[str, Any]] = []
    verified, findings = 0, []
    trials = {
        trial: result
        for result in results
        if result.row
        for trial in trials_of(result.row, result.scores, codecs[result.row.task_key])
    }
    for trial, answer in decode_elsewhere(store, list(trials)).items():
        key, right = trial.row.task_key, answer == trial.expected
        if not right:
            findings.append(unlike(trial, answer))
        if trial.decodes > 1 and not right:
            records.append({"scores": [vars(score) for score in refuted(trials[trial].scores, findings[-1])]})
        elif trial.decodes == 1:
            # A file that is gone, or a process that the system killed, says nothing of the codec.
            prefix = OF_THE_MACHINE if answer.startswith(OF_THE_MACHINE) else REFUTED
            wrong = {} if right else {"refuted": key, "error": error_text(prefix + findings[-1])}
            records.append(wrong or {"verified": key})
            verified += right
    return records, verified, findings


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


# Commands


class Outcome(NamedTuple):
    """What a command came to."""

    done: Done
    points: Points
    """Of the command."""
    wrong: list[str]
    """Tasks that failed, what verification found, and the like: the command ends with 1."""


def run_bench(bench: Bench, console: Console, *, encode: bool = True) -> Outcome:
    """Run a command to its tables and figures."""
    fetch_weights(bench)
    notes: list[str] = []
    if bench.targets and bench.search != "image":
        # The search codes without metrics: what they lack must be known before.
        check_metrics(bench)
        bench, notes = search_dataset(bench)

    def announce(plan: Plan, store: Store) -> None:
        lack = [not lack.coded for lack in plan.lacks]
        coded_by = [facts(cell.codec).grade != "reported" for cell in plan.cells]
        uncoded = sum(bool(lack[n] and coded_by[c]) for c, n in zip(plan.left.cells, plan.left.lacks, strict=True))
        if not encode and uncoded:
            changed = f", or a file changed that their codec opened ({len(plan.changed)})" if plan.changed else ""
            raise MissingNeed(
                f"score never encodes, but {uncoded} of {plan.size} tasks are not in {store.folder}{changed}"
                f". Code them first: {command(bench.overrides)}"
            )
        say("\n".join(lines(plan, store, len(seats_of(bench)), bench.device)))

    return _finish(bench, execute(bench, announce), notes, console)


def _finish(bench: Bench, done: Done, notes: Sequence[str], console: Console) -> Outcome:
    """Print the summary and what went wrong, name the files."""

    def say(text: str, *, wrong: bool = False) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)  # a label may end in [option=value]
        outcome.wrong.extend([text] * wrong)

    points = done.points
    outcome = Outcome(done, points, [])
    written = show(
        done.store, done.contents, points, done.plan.metrics, console, figures=bench.figures, presented=bench.show
    )
    for note in notes:
        say(note)
    bad = list({row.task_key: row for row in (*points.with_status("error"), *done.errors)}.values())
    for row in bad[:10]:
        say(f"failed: {row.point}, {row.image}: {row.error}", wrong=True)
    if len(bad) > 10:
        say(f"... and {len(bad) - 10} more failed tasks, all in rows.csv", wrong=True)
    for row in points.with_status("out_of_range")[:10]:
        say(f"out of range: {row.point}, {row.image}: {row.error}")
    for path in written:
        say(f"  {path}")
    if not done.any:
        say(f"nothing to do: all {done.plan.distinct} tasks are stored in {done.store.folder}")
    else:
        told = f"{done.coded} tasks coded, {done.scored} scored or timed from the store, {len(done.errors)} failed"
        told += f", {done.out_of_range} out of range" if done.out_of_range else ""
        told += f", {len(done.plan.judged)} judged again by tolerance=" if done.plan.judged else ""
        say(f"{told}\n{done.verified} of them decoded again in a fresh process to the same pixels")
        for line in done.findings:
            say(f"FOUND {line}", wrong=True)
        if done.stopped:
            say(f"stopped: {done.stopped}; the same command goes on", wrong=True)
    status = [point.rows.codes("status") for point in points.points]
    nothing = bool(status) and all(of_point.where("out_of_range".__eq__).all() for of_point in status)
    if nothing:
        say(
            "no task is in range: try a larger tolerance=, another bpp=, or rate= for settings of the codec", wrong=True
        )
    # Some metrics of the default refuse small images; only who names a metric asks for its value.
    asked = any(line.startswith("metrics=") for line in bench.overrides)
    for line in _without_values(points, done.plan.metrics):
        say(line, wrong=asked)
    return outcome


def _without_values(points: Points, metrics: Sequence[str]) -> list[str]:
    """Metrics that have no value of any point, each with the first reason."""
    lines = []
    for name in metrics if any(point.good for point in points.points) else ():
        if is_set(name):
            of_sets = [score for point in points.points for score in points.set_scores(point, name).values() if score]
            known = any(score.value is not None for score in of_sets)
            reasons = [score.reason for score in of_sets]
        else:
            places = [(point.where, point.rows.places) for point in points.points]
            known = any(not np.isnan(points.values(*place, name)).all() for place in places)
            reasons = [] if known else [why for place in places for why in points.errors(*place, name)]
        if not known:
            lines.append(
                f"{short_name(name)} has no value at all: {next(filter(None, reasons), '') or 'nothing was scored'}"
            )
    return lines


def cross_devices(
    store: Store, sample: int | None, seed: int, named: Named, devices: Sequence[str], console: Console
) -> int:
    """Print and store which devices decode what others coded (`cross`); 1 unless all pixels are within one level.

    Raises:
        ConfigError: what is named is no device.
        MissingNeed: it is not here.
    """
    devices = devices_of(devices)
    check_devices([device for device in devices if device != "cpu"] or ["cpu"])
    record = cross(store, sample, seed, named, devices)
    if not record["cells"]:
        console.print(f"no codec of {store.folder} computes on a device=", highlight=False, markup=False)
        return 1 if record["notes"] else 0
    store.check_links(CROSSINGS)
    note_crossings(store.folder, record)
    console.print(Terminal(crossed(record)))
    return int(any(cell["other"] or cell["failed"] for cell in record["cells"]))


def verify_store(store: Store, sample: int | None, seed: int, named: Named) -> int:
    """Verify, record what was decoded in the fresh process, print findings.

    Returns the exit code: 1 if there are any, or if bitstreams were not decoded.
    """
    verified = verify(store, sample, seed, named)
    if verified.decoded or verified.refuted:
        try:
            with store.lock(wait=True):
                writer = store.writer(store.new_session())
                for key in verified.decoded:
                    writer.append({"verified": key})
                for key in verified.refuted:  # not an error: another library or machine may be the reason
                    writer.append({"suspect": key})
                writer.close()
                if not verified.findings:
                    store.compact(writing=living(store.folder))
        except StoreError as error:
            print(f"rdpbench: what was verified cannot be noted in the rows: {error}", file=sys.stderr)
    for line in verified.findings:
        print(f"FOUND {line}")
    for line in verified.undecoded:
        print(f"NOT DECODED {line}")
    print(
        f"verified {store.folder}: {len(verified.decoded)} bitstreams decoded in a fresh process to the recorded "
        f"pixels, {verified.bitstreams} bitstreams and {verified.images} images checked, "
        f"{len(verified.findings)} findings"
    )
    return 1 if verified.findings or verified.undecoded else 0


# Targets for the mean of a dataset


def search_dataset(bench: Bench) -> tuple[Bench, list[str]]:
    """Find for each curve and target the native setting whose rate over the whole dataset is nearest.

    Every setting that is tried is an ordinary cell of the run: stored, resumed, and kept as a point of the curve.

    Raises:
        MissingNeed: no target is reached, or nothing could be coded at a setting.
    """
    bench = replace(bench, run=run_name(bench))  # parts of the grid alone would have other names
    # Captions cost bits, so each source of them is a curve of its own.
    sources = {codec: (bench.captions if facts(codec).uses_caption else ()) or ("",) for codec in bench.codecs}
    searches = len(bench.targets or ()) * sum(len(sources[codec]) for codec, _ in bench.grid)
    with show_progress("search", searches, "target rates") as shown:
        return _search_all(bench, sources, shown)


def _search_all(
    bench: Bench, sources: Mapping[CodecSetting, Sequence[str]], shown: Progress
) -> tuple[Bench, list[str]]:
    grid: list[tuple[CodecSetting, DataSetting]] = []
    notes: list[str] = []
    for codec, data in bench.grid:
        rates: list[float] = []
        dataset = dataset_of(data).name
        for source, target in itertools.product(sources[codec], bench.targets or ()):
            name = codec.name + (f"[captions={source}]" if source else "")
            captions = (source,) if source else bench.captions
            nearest, field = _search_whole(replace(bench, grid=((codec, data),), captions=captions), target, shown)
            shown.advance()
            if is_near(nearest.bpp, target, bench.tolerance):
                rate = f"{nearest.bpp:.4f} bpp{' pooled' if bench.search == 'pooled' else ''}"
                notes.append(f"{name} on {dataset}: {digits(target)} bpp → setting {digits(nearest.setting)}, {rate}")
                rates.append(nearest.setting)
            else:
                over = f"{'all pixels of' if bench.search == 'pooled' else 'the mean of'} {dataset}"
                notes.append(f"out of range: {missed(name, over, field, target, bench.tolerance, nearest)}")
        if rates:
            grid.append((replace(codec, rates=tuple(dict.fromkeys(rates))), data))
    if not grid:
        raise MissingNeed("no codec reaches any of the targets:\n" + "\n".join(notes))
    return replace(bench, grid=tuple(grid), targets=None, points=None), notes


def _search_whole(bench: Bench, target: float, shown: Progress) -> tuple[Nearest, str]:
    """Search for one codec on one dataset; with the name of its setting."""
    ((codec, data),) = bench.grid
    axis = axis_of(codec)
    if axis is None:
        raise MissingNeed(f"codec {codec.name!r} has a single rate point; leave out bpp=")

    def measure(rate: float) -> float:
        grid = ((replace(codec, rates=(rate,)), data),)
        cell = replace(bench, grid=grid, targets=None, metrics=(), timing=False, points=None, keep=0, grades=GRADES)

        def report(done: int, total: int) -> None:
            shown(shown.done, note=f"{codec.name} at {axis.field} {digits(rate)}: {done} of {total} tasks")

        current = execute(cell, report=report).points
        taken = current.taken(current.points[0], "")
        if not taken.images:
            why = current.rows[0].error
            raise MissingNeed(f"no image could be coded by {codec.name} at {axis.field} {digits(rate)}: {why}")
        # The mean of bpp, or all bits over all pixels.
        weights = taken.pixels if bench.search == "pooled" else [1.0] * len(taken.images)
        return math.fsum(taken.bpp * weights) / math.fsum(weights)

    return search(axis, target, measure, bench.tolerance), axis.field
