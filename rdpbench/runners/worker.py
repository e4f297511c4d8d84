"""What one worker does with a chunk: read, code, store, score; images of one size together where ``batch=`` says so.

Runs at one thread: threads change pixels, and with some encoders bytes (``conf/runner``). Nothing here knows of other
workers or of the store's rows; results go back to whoever runs the worker.

Honest seconds of one row: alone on the device, warmed up, repeated, one image at a time.
"""

from __future__ import annotations

import errno
import gc
import os
import statistics
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from rdpbench import registry
from rdpbench.codecs.contract import make_ready
from rdpbench.datasets.index import ahead
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import BitstreamError, CodecError, ImageError, MetricError, StoreCorrupt, StoreError
from rdpbench.image import Image, lent, pixel_sha256
from rdpbench.metrics.contract import Lender, beside, meaning_of, number_of
from rdpbench.results.store.features import Made
from rdpbench.results.store.schema import OF_THE_MACHINE, Row, Score, Timing, error_text
from rdpbench.results.store.store import put_reconstruction
from rdpbench.runners.beside import values
from rdpbench.runners.coding import (
    Setup,
    captioning_s,
    check_untouched,
    code,
    code_batch,
    decode_row,
    go_together,
    opened_by,
    side_of,
)
from rdpbench.runners.decodes import DETERMINISTIC, decodes_of, further_of, is_stochastic, note
from rdpbench.runners.plan import TIMING_REPEATS, TIMING_WARMUP
from rdpbench.runners.rows import new_row
from rdpbench.runners.sets import Extractor
from rdpbench.runners.task import Task, Work, build, definition, device_of, score_key, timing_key


def time_task(task: Task, row: Row, original: Image, device: str) -> Timing:
    """Repeat encode and decode at the row's setting after a warm-up; garbage collection is off while timing."""
    side = side_of(task)
    started = time.perf_counter()
    codec = build(task.codec, row.rate, device)
    make_ready(codec)
    build_s = time.perf_counter() - started
    seconds: dict[str, list[float]] = {"encode": [], "decode": []}
    load = os.getloadavg()[0]
    gc.collect()
    gc.disable()
    try:
        for turn in range(TIMING_WARMUP + TIMING_REPEATS):
            copy = lent(original)
            synchronise()
            at = time.perf_counter()
            data = codec.encode(copy, side).data
            synchronise()
            encoded = time.perf_counter()
            codec.decode(data)
            synchronise()
            decoded = time.perf_counter()
            check_untouched(copy, original, "encode()")
            if turn >= TIMING_WARMUP:
                seconds["encode"].append(encoded - at + captioning_s(task))
                seconds["decode"].append(decoded - encoded)
    finally:
        gc.enable()
    used = device_of(task.codec, device)
    return Timing(
        timing_key=timing_key(task.key, used, 1, TIMING_WARMUP, TIMING_REPEATS),
        task_key=task.key,
        device=used,
        threads=1,
        warmup=TIMING_WARMUP,
        repeats=TIMING_REPEATS,
        build_s=build_s,
        load_average=load,
        **_spread(seconds),
    )


def synchronise() -> None:
    """Wait for the accelerator, if torch is loaded and has one: asynchronous work must not escape a timing."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _spread(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    out: dict[str, float] = {}
    for what, ones in seconds.items():
        out |= {f"{what}_s": statistics.median(ones), f"{what}_min_s": min(ones), f"{what}_max_s": max(ones)}
    return out


REMEMBERED_ORIGINALS = 2
"""Originals kept with what metrics computed of them: chunks hold the rate points of an image together."""


@dataclass(frozen=True)
class Result:
    """What became of one piece of work."""

    row: Row | None
    scores: tuple[Score, ...] = ()
    timing: Timing | None = None
    features: tuple[Made, ...] = ()
    """Arrays of the reconstruction, for set metrics."""
    originals: tuple[Made, ...] = ()
    """Arrays of the original."""

    def record(self) -> dict[str, Any]:
        """As stored: one line, so that a row is never without the scores that were made with it."""
        record: dict[str, Any] = {"row": self.row.record()} if self.row else {}
        if self.scores:
            record["scores"] = [vars(score) for score in self.scores]
        if self.timing:
            record["timing"] = vars(self.timing)
        return record


class Scoring(NamedTuple):
    """What there is of a piece of work when code of the user's begins to score it: it may end the process."""

    sofar: Result
    """Without arrays, which are made again."""
    coded: Row
    unscored: Score
    """What the metric gets if the process ends."""


@dataclass
class _Given:
    """An original, and what metrics prepared of it."""

    pixels: Image
    copies: Lender
    """For metrics of the user's."""
    prepared: dict[str, Any] = field(default_factory=dict)


FAULTS = (Exception, SystemExit)
"""What code of the user's may raise over one image or score, and the next ones go on."""


class Worker:
    """Does pieces of work, one after the other."""

    announce: Callable[[Scoring], object] | None = None
    """Told before code of the user's scores, if anybody survives this process to go on."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._most = sys.maxsize
        """Images that fit into memory together; learned from what did not."""
        self._originals: OrderedDict[str, _Given] = OrderedDict()
        self._metrics: dict[str, Any] = {}
        self._own: dict[str, bool] = {}
        self._extractor = Extractor(setup.device)
        self._ahead: Iterator[_Read] = iter(())

    def run(self, chunk: Sequence[Work], batch: int = 1) -> Iterator[Result]:
        """One result for each piece of work, in order. Failures are results too; only the store may raise.

        Neighbours that may be coded together are, up to ``batch`` of them.
        """
        images = [next(tasks) for _, tasks in groupby((one.task for one in chunk), lambda task: task.entry.sha256)]
        if len(images) > 1 and not any(work.timing for work in chunk):  # nothing runs beside what is timed
            # Chunks of heavy codecs go through images at one rate point: the next is decoded while one is coded.
            with ahead(images, _read, depth=1) as self._ahead:
                yield from self._run(chunk, batch)
        else:
            yield from self._run(chunk, batch)
        self._ahead = iter(())

    def _run(self, chunk: Sequence[Work], batch: int) -> Iterator[Result]:
        at = 0
        while at < len(chunk):
            end = at + 1
            while end < min(len(chunk), at + min(batch, self._most)) and go_together(chunk[at], chunk[end]):
                end += 1
            yield from self._together(chunk[at:end]) if end - at > 1 else map(self.do, chunk[at:end])
            at = end

    def _together(self, batch: Sequence[Work]) -> Iterator[Result]:
        """Code images of one size together; where that fails, one by one: each has its own row or error."""
        try:
            given = [self._original(work.task) for work in batch]
            coded = code_batch(self.setup, [work.task for work in batch], [one.pixels for one in given])
        except StoreError:
            raise
        except FAULTS as error:
            print(f"a batch of {len(batch)} images failed, one by one now: {_message(error)}", file=sys.stderr)
            if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the second is torch's
                self._most = max(1, len(batch) // 2)
            coded = None
        if coded is None:  # not where it is caught: the error holds on to all that the batch took
            yield from map(self.do, batch)
            return
        for work, one, (row, reconstruction) in zip(batch, given, coded, strict=True):
            yield self._scored(work, one, row, reconstruction)
            one.prepared.clear()  # features of a whole batch would be gigabytes

    def do(self, work: Work) -> Result:
        """Do one piece of work; what goes wrong in a codec or an image becomes a row with ``status=error``."""
        task = work.task
        try:
            given = self._original(task)
            row: Row | None = None
            reconstruction: Image | None = None
            if work.row is None:
                row, reconstruction = code(self.setup, task, given.pixels)
            elif work.metrics or work.features or task.keep:
                reconstruction = self._decode_stored(task, work.row)
                if task.keep:
                    put_reconstruction(self.setup.store, work.row, reconstruction)
            timed = row or work.row
            timing: Timing | None = None
            if work.timing and timed is not None and timed.status == "ok":  # there is none to time out of range
                timing = time_task(task, timed, given.pixels, self.setup.device)
        except StoreError as error:
            # Deleted since the plan was made: the next call codes it again. One that changed stops the run.
            if work.row is None or not isinstance(error, StoreCorrupt) or self.setup.store.has_bitstream(work.row):
                raise
            return failed(task, self.setup, OF_THE_MACHINE + _message(error))
        except FAULTS as error:
            result = failed(task, self.setup, _message(error))
            # What it failed over may be a file of the user's: the task is tried again when that changes.
            return replace(result, row=replace(result.row, files=opened_by(task))) if result.row else result
        return self._scored(work, given, row, reconstruction, timing)

    def _scored(
        self, work: Work, given: _Given, row: Row | None, reconstruction: Image | None, timing: Timing | None = None
    ) -> Result:
        """Everything that is measured on a reconstruction, and on its original; ``row`` is there if it is new."""
        task = work.task
        started = time.perf_counter()
        coded = row or work.row
        scores: list[Score] = []

        def begin(name: str) -> None:
            if self.announce is not None and coded is not None and self._is_own(name):
                unscored = self._scored_as(task, name, None)
                self.announce(Scoring(Result(row, tuple(scores), timing), coded, unscored))

        of_original = self._features(work.originals, task, given.pixels, task.entry.sha256, scores, begin)
        made: tuple[Made, ...] = ()
        if reconstruction is not None and coded is not None:
            counts = {name: decodes_of(name) for name in work.metrics}
            copies = Lender(reconstruction, "reconstruction")
            for name in work.metrics:
                if not counts[name]:
                    begin(name)
                    scores.append(self._score(name, task, given, copies))
            if several := {name: count for name, count in counts.items() if count}:
                self._score_decodes(several, task, coded, reconstruction, scores, begin)
            made = self._features(work.features, task, reconstruction, coded.reconstruction_sha256, scores, begin)
        if row is not None and row.status == "ok":
            row = replace(row, score_s=time.perf_counter() - started)
        return Result(row, tuple({one.score_key: one for one in scores}.values()), timing, made, of_original)

    def _features(
        self,
        names: Sequence[str],
        task: Task,
        image: Image,
        pixels: str,
        scores: list[Score],
        begin: Callable[[str], None],
    ) -> tuple[Made, ...]:
        """Arrays for set metrics; what is refused is told as an empty score of the metric."""
        made: list[Made] = []
        for name in names:
            begin(name)
            try:
                made.append(self._extractor.extract(name, image, pixels, task.entry.sample, task.protocol))
            except FAULTS as error:  # a metric of the user's; the row itself is good
                scores.append(self._unscored(task, name, error))
        return tuple(made)

    def _original(self, task: Task) -> _Given:
        """The image and what metrics prepared of it; refused if it is no longer the image that was planned."""
        key = task.entry.sha256
        if key not in self._originals:
            # What was read ahead and is not this image is one that was still remembered.
            read = next((one for one in self._ahead if one.key == key), None) or _read(task)
            if read.error:
                raise read.error
            pixels = read.pixels
            if pixel_sha256(pixels) != key:
                raise ImageError(f"{task.entry.sample.path} changed since it was planned; run the command again")
            pixels.flags.writeable = False
            self._originals[key] = _Given(pixels, Lender(pixels, "original"))
            if len(self._originals) > REMEMBERED_ORIGINALS:
                self._originals.popitem(last=False)
        return self._originals[key]

    def _decode_stored(self, task: Task, row: Row) -> Image:
        """Decode a stored bitstream again; pixels that are not the recorded ones are not scored under its row."""
        # By the codec of the command: the row has its key, but who wrote the row may have named anything beside it.
        reconstruction = decode_row(self.setup.store, row, task.codec)
        found = pixel_sha256(reconstruction)
        if found != row.reconstruction_sha256:
            point = "" if row.rate is None else f" {row.rate:g}"
            raise BitstreamError(
                f"the stored bitstream of {row.codec}{point} {row.image} decodes to other pixels here ({found}) "
                f"than when it was made ({row.reconstruction_sha256}); it is not scored. Another device or library?"
            )
        return reconstruction

    def _score(self, name: str, task: Task, given: _Given, reconstruction: Lender) -> Score:
        own = self._is_own(name)
        prepared = given.prepared
        try:
            metric = self._metric(name)
            if name not in prepared:
                extra = values(beside(type(metric)), task.entry.sample, task.protocol)
                with given.copies.lending("prepare()", own) as original:
                    prepared[name] = metric.prepare(original, **extra)
                del original
                given.copies.release()
            # What was prepared may be the original itself.
            with given.copies.guarding("score()"), reconstruction.lending("score()", own) as image:
                value = number_of(metric.score(prepared[name], image))
            remarks = getattr(metric, "remarks", None)
            told = "; ".join(remarks(prepared[name])) if remarks else ""
        except FAULTS as error:  # a metric of the user's; the row itself is good
            if own:  # what was prepared is of no use if it holds the copy that was written into
                for other in filter(self._is_own, list(prepared)):
                    del prepared[other]
            return self._unscored(task, name, error)
        return self._scored_as(task, name, value, note=told)

    def _score_decodes(
        self,
        counts: dict[str, int],
        task: Task,
        row: Row,
        reconstruction: Image,
        scores: list[Score],
        begin: Callable[[str], None],
    ) -> None:
        """Metrics over several decodes of the row's bitstream, by name with their numbers of decodes."""
        try:
            if not is_stochastic(task.codec):
                scores += [self._scored_as(task, name, 0.0, note=DETERMINISTIC) for name in counts]
                return
            further = further_of(self.setup.store, row, max(counts.values()), task.codec)
        except StoreError:
            raise
        except FAULTS as error:
            scores += [self._unscored(task, name, error) for name in counts]
            return
        for name, count in counts.items():
            begin(name)
            own = self._is_own(name)
            some = further[: count - 1]
            try:
                with ExitStack() as stack:
                    copies = [Lender(image, "decodes").lending("score()", own) for image in (reconstruction, *some)]
                    value = number_of(self._metric(name).score([stack.enter_context(copy) for copy in copies]))
            except FAULTS as error:
                scores.append(self._unscored(task, name, error))
            else:
                scores.append(self._scored_as(task, name, value, note=note(some)))

    def _scored_as(self, task: Task, name: str, value: float | None, error: str = "", note: str = "") -> Score:
        if value is not None and not meaning_of(registry.load("metric", name)).usable(value):
            value, error = None, f"the metric gave {value}, which is no score"
        key = score_key(task, name)
        return Score(key, task.key, name, value, error, note, definition(name), self.setup.session)

    def _unscored(self, task: Task, name: str, error: BaseException) -> Score:
        """A metric without a value: what it refuses in its own words, what breaks it with the place."""
        return self._scored_as(task, name, None, _message(error, MetricError))

    def _is_own(self, name: str) -> bool:
        """Is it a metric of the user's? Asked several times for each score."""
        if name not in self._own:
            self._own[name] = bool(registry.own_place("metric", name))
        return self._own[name]

    def _metric(self, name: str) -> Any:
        """A metric, built once."""
        if name not in self._metrics:
            cls = registry.load("metric", name)
            uses = getattr(cls, "uses_device", False)
            self._metrics[name] = cls(device=self.setup.device) if uses else cls()
        return self._metrics[name]


class _Read(NamedTuple):
    """An image that was read, maybe ahead of its turn, or why it could not be."""

    key: str
    pixels: Image
    error: ImageError | None = None


def _read(task: Task) -> _Read:
    try:
        return _Read(task.entry.sha256, load_under(task.protocol, task.entry.sample.path).pixels)
    except ImageError as error:
        return _Read(task.entry.sha256, np.empty((0, 0, 3), np.uint8), error)


def failed(task: Task, setup: Setup, message: str) -> Result:
    """The result for a task that could not be done, or whose worker died."""
    return Result(new_row(task, setup.session, setup.device, status="error", error=message))


def _message(error: BaseException, *plain: type[Exception]) -> str:
    """What a row says of a failure: our own errors as they are, others with the place they came from."""
    return error_text((OF_THE_MACHINE if _of_machine(error) else "") + _told(error, *plain))


def _of_machine(error: BaseException | None) -> bool:
    """Is a full disk, or too many open files, at the bottom of an error? No codec or metric is to blame for that."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
        return True
    return error is not None and _of_machine(error.__cause__)


def _told(error: BaseException, *plain: type[Exception]) -> str:
    if plain and isinstance(error, plain):
        return str(error)
    if isinstance(error, (CodecError, ImageError, StoreError)):
        return f"{type(error).__name__}: {error}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {place.filename}:{place.lineno})"
