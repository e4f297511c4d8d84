"""What one worker does with a chunk: read, encode, store, decode with a fresh object, score.

Runs at one thread: threads change pixels, and with some encoders bytes (``conf/runner``). Nothing here knows of other
workers or of the store's rows; results go back to whoever runs the worker.
"""

from __future__ import annotations

import gc
import json
import math
import resource
import statistics
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from rdpbench import registry
from rdpbench.codecs.contract import Bitstream, Codec, Side, make_ready
from rdpbench.datasets.loader import ahead
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import BitstreamError, CodecError, ImageError, MetricError, StoreError
from rdpbench.image import Image, check_image, pixel_sha256
from rdpbench.metrics.contract import Metric, beside
from rdpbench.results.features import Made
from rdpbench.results.reconstructions import put_reconstruction
from rdpbench.results.schema import Row, Score, Timing
from rdpbench.results.store import Store
from rdpbench.runners.beside import values
from rdpbench.runners.features import Extractor
from rdpbench.runners.plan import TIMING_REPEATS, TIMING_WARMUP
from rdpbench.runners.rows import new_row
from rdpbench.runners.search import search
from rdpbench.runners.task import Task, Work, axis_of, build, device_of, score_key, timing_key

REMEMBERED_ORIGINALS = 2
"""Originals kept with what metrics computed of them: chunks hold the rate points of an image together."""


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know, beside its chunks."""

    store: Store
    session: str
    device: str


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


class Worker:
    """Does pieces of work, one after the other."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._originals: OrderedDict[str, tuple[Image, dict[str, Any]]] = OrderedDict()
        self._metrics: dict[str, Metric] = {}
        self._extractor = Extractor(setup.device)
        self._ahead: Iterator[_Read] = iter(())

    def run(self, chunk: Sequence[Work]) -> Iterator[Result]:
        """One result for each piece of work, in order. Failures are results too; only the store may raise."""
        images = [next(tasks) for _, tasks in groupby((one.task for one in chunk), lambda task: task.entry.sha256)]
        if len(images) > 1 and not any(work.timing for work in chunk):  # nothing runs beside what is timed
            # Chunks of heavy codecs go through images at one rate point: the next is decoded while one is coded.
            with ahead(images, _read, depth=1) as self._ahead:
                yield from map(self.do, chunk)
        else:
            yield from map(self.do, chunk)
        self._ahead = iter(())

    def do(self, work: Work) -> Result:
        """Do one piece of work; what goes wrong in a codec or an image becomes a row with ``status=error``."""
        task = work.task
        try:
            original, prepared = self._original(task)
            row: Row | None = None
            reconstruction: Image | None = None
            if work.row is None:
                row, reconstruction = self._code(task, original)
            elif work.metrics or work.features or task.keep:
                reconstruction = self._decode_stored(work.row)
                if task.keep:
                    put_reconstruction(self.setup.store, work.row, reconstruction)
            timing = self._time(task, row or work.row, original) if work.timing else None
        except StoreError:
            raise
        except Exception as error:
            return Result(new_row(task, self.setup.session, self.setup.device, status="error", error=_message(error)))
        started = time.perf_counter()
        of_original, refused = self._features(work.originals, task, original, task.entry.sha256)
        scores: list[Score] = list(refused)
        made: tuple[Made, ...] = ()
        coded = row or work.row
        if reconstruction is not None and coded is not None:
            scores += [self._score(name, task, original, prepared, reconstruction) for name in work.metrics]
            made, refused = self._features(work.features, task, reconstruction, coded.reconstruction_sha256)
            scores += refused
        if row is not None and row.status == "ok":
            row = replace(row, score_s=time.perf_counter() - started)
        return Result(row, tuple({one.score_key: one for one in scores}.values()), timing, made, of_original)

    def _features(
        self, names: Sequence[str], task: Task, image: Image, pixels: str
    ) -> tuple[tuple[Made, ...], list[Score]]:
        """Arrays for set metrics; what is refused is told as an empty score of the metric."""
        made: list[Made] = []
        refused: list[Score] = []
        for name in names:
            try:
                made.append(self._extractor.extract(name, image, pixels, task.entry.sample, task.protocol))
            except MetricError as error:
                refused.append(Score(score_key(task, name), task.key, name, None, str(error)))
            except Exception as error:  # a metric of the user's; the row itself is good
                refused.append(Score(score_key(task, name), task.key, name, None, _message(error)))
        return tuple(made), refused

    def _original(self, task: Task) -> tuple[Image, dict[str, Any]]:
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
            pixels.flags.writeable = False  # a codec that writes into its input would spoil the next rate point
            self._originals[key] = pixels, {}
            if len(self._originals) > REMEMBERED_ORIGINALS:
                self._originals.popitem(last=False)
        return self._originals[key]

    def _code(self, task: Task, original: Image) -> tuple[Row, Image | None]:
        side = _side(task)
        device = self.setup.device
        started = time.perf_counter()
        rate, attempts = task.rate, 1
        codec: Codec
        if task.target is None:
            codec = build(task.codec, rate, device)
            make_ready(codec)
            started = time.perf_counter()
            bitstream = _checked(codec.encode(original, side))
        else:
            axis = axis_of(task.codec)
            assert axis is not None
            made: dict[float, Bitstream] = {}

            def measure(setting: float) -> float:
                made[setting] = _checked(build(task.codec, setting, device).encode(original, side))
                return 8 * len(made[setting].data) / (original.shape[0] * original.shape[1])

            found = search(axis, task.target, measure)
            if found.setting is None:
                message = f"{task.target:g} bpp is out of range: {task.codec.name} comes no nearer than {found.bpp:.4g}"
                row = new_row(task, self.setup.session, self.setup.device, status="out_of_range", error=message)
                return replace(row, attempts=found.attempts), None
            rate, attempts = float(found.setting), found.attempts
            bitstream = made[found.setting]
        # Where a model wrote the caption, its seconds are the encoder's.
        encode_s = (time.perf_counter() - started) / attempts + _captioning_s(task)
        decoder = build(task.codec, rate, device)
        make_ready(decoder)
        started = time.perf_counter()
        # Plain bytes: an object that only looks like them could carry more than is counted.
        reconstruction = check_image(decoder.decode(bytes(bitstream.data)), "the decoded image")
        decode_s = time.perf_counter() - started
        if reconstruction.shape != original.shape:
            raise CodecError(f"decoded to {reconstruction.shape}, but the image is {original.shape}")
        row = new_row(task, self.setup.session, self.setup.device, status="ok")
        row = replace(
            row,
            rate=rate,
            bytes=len(bitstream.data),
            parts=json.dumps({name: int(size) for name, size in bitstream.parts.items()}),
            bpp=8 * len(bitstream.data) / (original.shape[0] * original.shape[1]),
            legacy=bitstream.info.get("legacy", "{}"),
            bitstream_sha256=self.setup.store.put_bitstream(bytes(bitstream.data)),
            reconstruction_sha256=pixel_sha256(reconstruction),
            verified="fresh_object",
            encode_s=encode_s,
            decode_s=decode_s,
            peak_memory_mb=_peak_memory_mb(),
            command=bitstream.info.get("command", ""),
            attempts=attempts,
        )
        if task.keep:
            put_reconstruction(self.setup.store, row, reconstruction)
        return row, reconstruction

    def _decode_stored(self, row: Row) -> Image:
        """Decode a stored bitstream again; pixels that are not the recorded ones are not scored under its row."""
        reconstruction = decode_row(self.setup.store, row)
        found = pixel_sha256(reconstruction)
        if found != row.reconstruction_sha256:
            raise BitstreamError(
                f"the stored bitstream of {row.codec} {row.rate:g} {row.image} decodes to other pixels here ({found}) "
                f"than when it was made ({row.reconstruction_sha256}); it is not scored. Another device or library?"
            )
        return reconstruction

    def _score(self, name: str, task: Task, original: Image, prepared: dict[str, Any], reconstruction: Image) -> Score:
        key = score_key(task, name)
        try:
            if name not in self._metrics:
                self._metrics[name] = self._built(registry.load("metric", name))
            metric = self._metrics[name]
            if name not in prepared:
                extra = values(beside(type(metric)), task.entry.sample, task.protocol)
                prepared[name] = metric.prepare(original, **extra)
            value = float(metric.score(prepared[name], reconstruction))
        except MetricError as error:
            return Score(key, task.key, name, None, str(error))
        except Exception as error:  # a metric of the user's; the row itself is good
            return Score(key, task.key, name, None, _message(error))
        if math.isnan(value):
            return Score(key, task.key, name, None, "the metric gave NaN")
        remarks = getattr(metric, "remarks", None)
        return Score(key, task.key, name, value, note="; ".join(remarks(prepared[name])) if remarks else "")

    def _built(self, cls: type) -> Metric:
        metric: Metric = cls(device=self.setup.device) if getattr(cls, "uses_device", False) else cls()
        return metric

    def _time(self, task: Task, row: Row | None, original: Image) -> Timing:
        """Repeat encode and decode at the row's setting after a warm-up; garbage collection is off while timing."""
        assert row is not None
        side = _side(task)
        started = time.perf_counter()
        codec = build(task.codec, row.rate, self.setup.device)
        make_ready(codec)
        build_s = time.perf_counter() - started
        seconds: dict[str, list[float]] = {"encode": [], "decode": []}
        load = _load_average()
        gc.collect()
        gc.disable()
        try:
            for turn in range(TIMING_WARMUP + TIMING_REPEATS):
                synchronise()
                at = time.perf_counter()
                data = codec.encode(original, side).data
                synchronise()
                encoded = time.perf_counter()
                codec.decode(data)
                synchronise()
                decoded = time.perf_counter()
                if turn >= TIMING_WARMUP:
                    seconds["encode"].append(encoded - at + _captioning_s(task))
                    seconds["decode"].append(decoded - encoded)
        finally:
            gc.enable()
        device = device_of(task.codec, self.setup.device)
        return Timing(
            timing_key=timing_key(task.key, device, 1, TIMING_WARMUP, TIMING_REPEATS),
            task_key=task.key,
            device=device,
            threads=1,
            warmup=TIMING_WARMUP,
            repeats=TIMING_REPEATS,
            build_s=build_s,
            load_average=load,
            **_spread(seconds),
        )


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


def _side(task: Task) -> Side:
    return Side(task.caption.text if task.caption else None, task.seed)


def _captioning_s(task: Task) -> float:
    return (task.caption.seconds or 0) if task.caption else 0


def _checked(bitstream: object) -> Bitstream:
    if not isinstance(bitstream, Bitstream):
        raise CodecError(f"encode must return a Bitstream, found {type(bitstream).__name__}; see Bitstream.whole(data)")
    return bitstream


def decode_row(store: Store, row: Row) -> Image:
    """Decode a row's stored bitstream with a codec built from nothing but the row."""
    from rdpbench.config import CodecSetting

    made = json.loads(row.options)
    setting = CodecSetting(row.codec, row.use, tuple(sorted(made.items())), ())
    codec = build(setting, row.rate, row.device)
    return check_image(codec.decode(store.get_bitstream(row.bitstream_sha256)), "the decoded image")


def synchronise() -> None:
    """Wait for the accelerator, if torch is loaded and has one: asynchronous work must not escape a timing."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def failed(task: Task, setup: Setup, message: str) -> Result:
    """The result for a task whose worker died."""
    return Result(new_row(task, setup.session, setup.device, status="error", error=message))


def _message(error: Exception) -> str:
    """What a row says of a failure: our own errors as they are, others with the place they came from."""
    if isinstance(error, (CodecError, ImageError)):
        return f"{type(error).__name__}: {error}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {place.filename}:{place.lineno})"


def _spread(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    out: dict[str, float] = {}
    for what, ones in seconds.items():
        out |= {f"{what}_s": statistics.median(ones), f"{what}_min_s": min(ones), f"{what}_max_s": max(ones)}
    return out


def _peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _load_average() -> float:
    import os

    return os.getloadavg()[0]
