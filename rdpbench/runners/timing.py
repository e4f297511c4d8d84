"""Honest seconds of one row: alone on the device, warmed up, repeated, one image at a time."""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence

from rdpbench.codecs.contract import make_ready
from rdpbench.image import Image, lent
from rdpbench.results.schema import Row, Timing
from rdpbench.runners.coding import captioning_s, check_untouched, side_of
from rdpbench.runners.plan import TIMING_REPEATS, TIMING_WARMUP
from rdpbench.runners.task import Task, build, device_of, timing_key


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
