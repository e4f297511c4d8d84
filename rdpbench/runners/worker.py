"""What one worker does with a chunk: read, code, score, time; images of one size together where ``batch=`` says so.

Runs at one thread: threads change pixels, and with some encoders bytes (``conf/runner``). Nothing here knows of other
workers or of the store's rows; results go back to whoever runs the worker.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import statistics
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, Literal, NamedTuple, TypeVar

from rdpbench.codecs.contract import make_ready
from rdpbench.datasets.index import ahead
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import BitstreamError, CodecError, ImageError, MetricError, StoreCorrupt, StoreError
from rdpbench.image import Image, lent, pixel_sha256
from rdpbench.metrics.contract import Lender, number_of
from rdpbench.provenance import hardware
from rdpbench.results.store.bitstreams import put_reconstruction
from rdpbench.results.store.keys import (
    TIMING_REPEATS,
    TIMING_WARMUP,
    build,
    definition,
    device_of,
    facts,
    score_key,
    timing_key,
)
from rdpbench.results.store.log import Extracted
from rdpbench.results.store.schema import OF_THE_MACHINE, Row, Score, Timing, error_text
from rdpbench.runners.coding import (
    DETERMINISTIC,
    Setup,
    captioning_s,
    check_untouched,
    code,
    code_batch,
    decode_row,
    decodes_of,
    further_of,
    is_stochastic,
    note_of,
    on_hardware,
    opened_by,
    side_of,
    why_other_pixels,
)
from rdpbench.runners.scoring import FAULTS, Original, PairScores, is_own_metric, no_score
from rdpbench.runners.sets import FeatureExtractor, set_metric
from rdpbench.runners.task import Task, Work, new_row
from rdpbench.setting import CodecSetting

Kind = Literal["device", "cpu"]
"""What a codec computes on: ``device=``, or processors whatever that is."""


KINDS: tuple[Kind, ...] = ("device", "cpu")


def kind_of(codec: CodecSetting) -> Kind:
    """The kind of a codec; all of a chunk are of one."""
    return "device" if facts(codec).uses_device else "cpu"


class Seat(NamedTuple):
    """A place for one worker process."""

    device: str
    """The only GPU that it sees, or ``cpu``."""
    kinds: tuple[Kind, ...]
    """The chunks that it takes."""


def time_task(task: Task, row: Row, original: Image, setup: Setup) -> Timing:
    """Repeat encode and decode at the row's setting after a warm-up, alone; garbage collection is off while timing."""
    side = side_of(task)
    started = time.perf_counter()
    codec = build(task.codec, row.rate, setup.here)
    make_ready(codec)
    build_s = time.perf_counter() - started
    seconds: dict[str, list[float]] = {"encode": [], "decode": []}
    load = os.getloadavg()[0]
    gc.collect()
    gc.disable()
    try:
        for turn in range(TIMING_WARMUP + TIMING_REPEATS):
            copy = lent(original)
            synchronise(setup.here)
            started = time.perf_counter()
            data = codec.encode(copy, side).data
            synchronise(setup.here)
            encoded = time.perf_counter()
            codec.decode(data)
            synchronise(setup.here)
            decoded = time.perf_counter()
            check_untouched(copy, original, "encode()")
            if turn >= TIMING_WARMUP:
                seconds["encode"].append(encoded - started + captioning_s(task))
                seconds["decode"].append(decoded - encoded)
    finally:
        gc.enable()
    spread: dict[str, float] = {}
    for what, values_s in seconds.items():
        median = statistics.median(values_s)
        spread |= {f"{what}_s": median, f"{what}_min_s": min(values_s), f"{what}_max_s": max(values_s)}
    # Of another machine they are other times.
    here = json.dumps(hardware(device_of(task.codec, setup.here)))
    used = on_hardware(device_of(task.codec, setup.device), here)
    return Timing(
        timing_key=timing_key(task.key, used),
        task_key=task.key,
        device=used,
        threads=1,
        warmup=TIMING_WARMUP,
        repeats=TIMING_REPEATS,
        build_s=build_s,
        load_average=load,
        **spread,
    )


def synchronise(device: str = "cuda") -> None:
    """Wait until a device has done what it was given: asynchronous work must not escape a timing."""
    torch = sys.modules.get("torch")
    if device != "cpu" and torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize(device)


REMEMBERED_ORIGINALS = 2
"""Originals kept with what metrics computed of them: chunks hold the rate points of an image together."""


@dataclass(frozen=True)
class Result:
    """What became of one piece of work."""

    row: Row | None
    scores: tuple[Score, ...] = ()
    timing: Timing | None = None
    features: tuple[Extracted, ...] = ()
    """Arrays of the reconstruction, for set metrics."""
    originals: tuple[Extracted, ...] = ()
    """Arrays of the original."""
    more: bool = False
    """Is the rest of the piece of work still to come?"""

    @property
    def task_key(self) -> str:
        """Of its task; empty where there are only arrays."""
        return next((made.task_key for made in (self.row, *self.scores, self.timing) if made), "")

    def record(self) -> dict[str, Any]:
        """As stored: one line, so that a row is never without the scores that were made with it."""
        record: dict[str, Any] = {"row": dict(vars(self.row))} if self.row else {}
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


class Stop:
    """Set when workers are to end after the task that each has in hand: by a signal, or when time is up."""

    def __init__(self) -> None:
        self.reason = ""
        self._end, self._start = os.pipe()

    def set(self, reason: str) -> None:
        """From now on; also from a handler of a signal, and from another thread."""
        if not self.reason:
            self.reason = reason
            os.write(self._start, b".")

    def fileno(self) -> int:
        """To wait for, beside pipes: what can be read from when it is set."""
        return self._end

    def __bool__(self) -> bool:
        return bool(self.reason)

    def __del__(self) -> None:
        os.close(self._end)
        os.close(self._start)


class Chunk(NamedTuple):
    """What a worker is given, and how many images it may code together."""

    work: Sequence[Work]
    batch: int


class Worker:
    """Does pieces of work, one after the other."""

    announce: Callable[[Scoring], object] | None = None
    """Told before code of the user's scores, if anybody survives this process to go on."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.extractor = FeatureExtractor(setup.here)
        self._most = sys.maxsize
        """Images that fit into memory together; learned from what did not."""
        self.pairs = PairScores(setup.here)
        self._originals: OrderedDict[str, Original] = OrderedDict()
        self._ahead: Iterator[tuple[str, Image | ImageError]] = iter(())

    def run(self, chunk: Sequence[Work], batch: int = 1) -> Iterator[Result]:
        """One result for each piece of work, in order. Failures are results too; only the store may raise.

        Neighbours that may be coded together are, up to ``batch`` of them.
        """
        images = [next(tasks) for _, tasks in groupby((work.task for work in chunk), lambda task: task.entry.sha256)]
        # Chunks of heavy codecs go through images at one rate point: the next is decoded while one is coded. But
        # nothing runs beside what is timed.
        several = len(images) > 1 and not any(work.timing for work in chunk)
        with ahead(images, _read, depth=1) if several else nullcontext(iter(())) as self._ahead:
            start = 0
            while start < len(chunk):
                end = start + 1
                while end < min(len(chunk), start + min(batch, self._most)) and _go_together(chunk[start], chunk[end]):
                    end += 1
                yield from self._together(chunk[start:end]) if end - start > 1 else map(self._do, chunk[start:end])
                start = end

    def _together(self, batch: Sequence[Work]) -> Iterator[Result]:
        """Code images of one size together; where that fails, one by one: each has its own row or error.

        What does not fit into memory is tried again by halves.
        """
        least = 0
        try:
            originals = [self._original(work.task) for work in batch]
            coded = code_batch(self.setup, [work.task for work in batch], [original.pixels for original in originals])
        except StoreError:
            raise
        except FAULTS as error:
            if _is_short_of_memory(error):
                least = self._most = max(1, len(batch) // 2)
            how = "by halves" if least > 1 else "one by one"
            print(f"a batch of {len(batch)} images failed, {how} now: {_message(error)}", file=sys.stderr)
            coded = None
        if coded is None:  # not where it is caught: the error holds on to all that the batch took
            if least > 1:
                yield from self._together(batch[:least])
                yield from self._together(batch[least:])
            else:
                yield from map(self._do, batch)
            return
        for work, original, outcome in zip(batch, originals, coded, strict=True):
            if isinstance(outcome, CodecError):
                yield failed(work.task, self.setup, _message(outcome), opened_by(work.task))
            else:
                row, reconstruction = outcome
                yield _Measurement(self, work, row, None).result(original, reconstruction)
            original.prepared.clear()  # features of a whole batch would be gigabytes

    def _do(self, work: Work) -> Result:
        """Do one piece of work; what goes wrong in a codec or an image becomes a row with ``status=error``."""
        task = work.task
        row: Row | None = None
        reconstruction: Image | None = None
        timing: Timing | None = None
        try:
            original = self._original(task)
            if work.row is None:
                row, reconstruction = code(self.setup, task, original.pixels)
            elif work.metrics or work.features or task.keep:
                reconstruction = self._decode_stored(task, work.row)
                if task.keep:
                    put_reconstruction(self.setup.store, work.row, reconstruction)
            timed = row or work.row
            if work.timing and timed is not None and timed.status == "ok":  # there is none to time out of range
                timing = time_task(task, timed, original.pixels, self.setup)
        except StoreError as error:
            # Deleted since the plan was made: the next call codes it again. One that changed stops the run.
            if work.row is None or not isinstance(error, StoreCorrupt) or self.setup.store.has_bitstream(work.row):
                raise
            return failed(task, self.setup, OF_THE_MACHINE + _message(error))
        except FAULTS as error:
            # What it failed over may be a file of the user's: the task is tried again when that changes.
            return failed(task, self.setup, _message(error), opened_by(task))
        return _Measurement(self, work, row, timing).result(original, reconstruction)

    def _original(self, task: Task) -> Original:
        """The image and what metrics prepared of it; refused if it is no longer the image that was planned."""
        key = task.entry.sha256
        if key not in self._originals:
            # What was read ahead and is not this image is one that was still remembered.
            _, pixels = next((image for image in self._ahead if image[0] == key), None) or _read(task)
            if isinstance(pixels, ImageError):
                raise pixels
            if pixel_sha256(pixels) != key:
                raise ImageError(f"{task.entry.sample.path} changed since it was planned; run the command again")
            pixels.flags.writeable = False
            self._originals[key] = Original(pixels)
            if len(self._originals) > REMEMBERED_ORIGINALS:
                self._originals.popitem(last=False)
        return self._originals[key]

    def _decode_stored(self, task: Task, row: Row) -> Image:
        """Decode a stored bitstream again; pixels that are not the recorded ones are not scored under its row."""
        # By the codec of the command: the row has its key, but who wrote the row may have named anything beside it.
        device = self.setup.decodes_on(row)
        reconstruction = decode_row(self.setup.store, row, task.codec, device)
        sha256 = pixel_sha256(reconstruction)
        if sha256 != row.reconstruction_sha256:
            raise BitstreamError(
                f"the stored bitstream of {row.point}, {row.image} decodes to other pixels here ({sha256}) than when "
                f"it was made ({row.reconstruction_sha256}), and is not scored: {why_other_pixels(row, device)}"
            )
        return reconstruction


T = TypeVar("T")


class _Measurement:
    """Everything that is measured on a reconstruction, and on its original; ``row`` is there if it is new."""

    def __init__(self, worker: Worker, work: Work, row: Row | None, timing: Timing | None) -> None:
        self.worker, self.work, self.task, self.row, self.timing = worker, work, work.task, row, timing
        self.coded = row or work.row
        self.scores: list[Score] = []

    def result(self, original: Original, reconstruction: Image | None) -> Result:
        """What became of the piece of work."""
        started = time.perf_counter()
        work, row = self.work, self.row
        of_original = self._features(work.originals, original.pixels, self.task.entry.sha256)
        features: tuple[Extracted, ...] = ()
        if reconstruction is not None and self.coded is not None:
            counts = {name: decodes_of(name) for name in work.metrics}
            copies, sample = Lender(reconstruction, "reconstruction"), self.task.entry.sample
            score = partial(self.worker.pairs.score, sample=sample, protocol=self.task.protocol)
            for name in work.metrics:
                if not counts[name] and (pair := self._try(name, partial(score, name, original, copies))):
                    self._add(name, *pair)
            if several := {name: count for name, count in counts.items() if count}:
                self._score_decodes(several, self.coded, reconstruction)
            features = self._features(work.features, reconstruction, self.coded.reconstruction_sha256)
        if row is not None and row.status == "ok":
            row = replace(row, score_s=time.perf_counter() - started)
        scores = tuple({score.score_key: score for score in self.scores}.values())
        return Result(row, scores, self.timing, features, of_original)

    def _try(self, name: str, measure: Callable[[], T]) -> T | None:
        """What a metric gives; None where it refuses or breaks, which is a score without a value: the row is good."""
        if self.worker.announce is not None and self.coded is not None and is_own_metric(name):
            sofar = Result(self.row, tuple(self.scores), self.timing)
            self.worker.announce(Scoring(sofar, self.coded, self._scored(name, None)))
        try:
            return measure()
        except FAULTS as error:
            self._refuse(name, error)
            return None

    def _features(self, names: Sequence[str], image: Image, pixels: str) -> tuple[Extracted, ...]:
        """Arrays for set metrics."""
        extract, task = self.worker.extractor.extract, self.task
        given = image, pixels, task.entry.sample, task.protocol
        arrays = (self._try(name, partial(extract, name, set_metric(name), *given)) for name in names)
        return tuple(array for array in arrays if array)

    def _score_decodes(self, counts: dict[str, int], row: Row, reconstruction: Image) -> None:
        """Metrics over several decodes of the row's bitstream, by name with their numbers of decodes."""
        try:
            if not is_stochastic(self.task.codec):
                for name in counts:
                    self._add(name, 0.0, DETERMINISTIC)
                return
            setup = self.worker.setup
            further = further_of(setup.store, row, max(counts.values()), self.task.codec, setup.decodes_on(row))
        except StoreError:
            raise
        except FAULTS as error:
            for name in counts:
                self._refuse(name, error)
            return

        def score(name: str, images: Sequence[Image]) -> float:
            with ExitStack() as stack:
                copies = [Lender(image, "decodes").lending("score()", is_own_metric(name)) for image in images]
                return number_of(self.worker.pairs.metric(name).score([stack.enter_context(copy) for copy in copies]))

        for name, count in counts.items():
            images = [reconstruction, *further[: count - 1]]
            value = self._try(name, partial(score, name, images))
            if value is not None:
                self._add(name, value, note_of(images[1:]))

    def _add(self, name: str, value: float, note: str) -> None:
        error = no_score(type(self.worker.pairs.metric(name)), value)
        self.scores.append(self._scored(name, None if error else value, error, note))

    def _refuse(self, name: str, error: BaseException) -> None:
        """A metric without a value: what it refuses in its own words, what breaks it with the place."""
        self.scores.append(self._scored(name, None, _message(error, MetricError)))

    def _scored(self, name: str, value: float | None, error: str = "", note: str = "") -> Score:
        key, session = score_key(self.task.key, name, self.task.entry.sample), self.worker.setup.session
        return Score(key, self.task.key, name, value, error, note, definition(name), session)


def _read(task: Task) -> tuple[str, Image | ImageError]:
    """An image that is read, maybe ahead of its turn, or why it cannot be."""
    try:
        return task.entry.sha256, load_under(task.protocol, task.entry.sample.path).pixels
    except ImageError as error:
        return task.entry.sha256, error


def failed(task: Task, setup: Setup, message: str, files: str = "{}") -> Result:
    """The result for a task that could not be done, or whose worker died; ``files`` are those that it opened."""
    return Result(replace(new_row(task, setup.session, setup.device, status="error", error=message), files=files))


def together(chunk: Sequence[Work], batch: int) -> int:
    """How many images of a chunk may be coded together: all, where that is what the codec is made for."""
    stated = facts(chunk[0].task.codec)
    return max(batch, len(chunk)) if stated.any_size and stated.batches else batch


def _go_together(first: Work, second: Work) -> bool:
    """May two pieces of work be coded in one batch? They may if only size and rate point are to be equal, and are."""
    if any(work.row is not None or work.timing or work.task.setting.target is not None for work in (first, second)):
        return False
    stated = facts(first.task.codec)
    alike = [
        (task.codec, task.setting, task.dataset, task.protocol)
        + ((task.seed,) if stated.any_size else (task.entry.height, task.entry.width))
        for task in (first.task, second.task)
    ]
    return alike[0] == alike[1] and stated.batches


def _message(error: BaseException, *plain: type[Exception]) -> str:
    """What a row says of a failure: our own errors as they are, others with the place they came from."""
    if plain and isinstance(error, plain):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
        if not isinstance(error, (CodecError, ImageError, StoreError)):
            place = traceback.extract_tb(error.__traceback__)[-1]
            text += f" (in {place.filename}:{place.lineno})"
    return error_text((OF_THE_MACHINE if _of_machine(error) else "") + text)


def _of_machine(error: BaseException | None) -> bool:
    """Is a full disk, short memory, or too many open files at the bottom of an error? That may pass."""
    if error is not None and _is_short_of_memory(error):
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
        return True
    return error is not None and _of_machine(error.__cause__)


def _is_short_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # the second is torch's
