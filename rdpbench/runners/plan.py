"""Planning: which tasks a command stands for, minus what the store holds, and whether what is left can run.

Pure but for reading: nothing is coded here, and no plan starts work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rdpbench import registry
from rdpbench.codecs.contract import needs_of
from rdpbench.config import Bench
from rdpbench.errors import ConfigError, MetricError, MissingNeed
from rdpbench.metrics.feature_sets import check_side
from rdpbench.needs import Need
from rdpbench.results.reconstructions import reconstruction_path
from rdpbench.results.schema import Row
from rdpbench.results.store import Contents, Store
from rdpbench.runners.features import Stored, is_set, pair_metrics, set_metric, set_metrics
from rdpbench.runners.grid import dataset_of, list_tasks
from rdpbench.runners.reference import lacking as missing_reference
from rdpbench.runners.task import (
    Task,
    Work,
    device_of,
    score_key,
    timing_key,
)

LARGE = 1_000_000_000
"""Bytes of a dataset above which only `rdpbench data fetch` downloads it: nobody expects 19 GB from a first run."""
CHUNK = 32
TAIL = 8
TIMING_WARMUP, TIMING_REPEATS = 1, 5


@dataclass(frozen=True)
class Plan:
    """What a command stands for."""

    tasks: tuple[Task, ...]
    work: tuple[Work, ...]
    """What is left to do."""
    metrics: tuple[str, ...]
    left_out: Mapping[str, str]
    """Metrics left out on the user's word (``metrics=available``), with what each lacks."""
    failed: int
    """Tasks that failed before and are not tried again unless ``retry_failed=true``."""
    expected_s: float | None
    """Seconds of computing that earlier rows promise for what is left, over all workers; None without such rows."""

    @property
    def cells(self) -> int:
        """Codec x rate point x dataset x seed."""
        return len({(t.codec, t.rate, t.target, t.dataset, t.seed) for t in self.tasks})


def check_needs(bench: Bench) -> None:
    """Stop with one message if a codec or dataset lacks something.

    Raises:
        MissingNeed: all that is missing, each with what to type.
    """
    lines: list[str] = []
    for use in dict.fromkeys(codec.use for codec, _ in bench.grid):
        lines += _lacks(f"codec {use}", needs_of(registry.load("codec", use)))
    for use in dict.fromkeys(data.use for _, data in bench.grid):
        lines += _lacks(f"dataset {use}", registry.load("dataset", use).needs)  # type: ignore[attr-defined]
    if lines:
        raise MissingNeed("this run cannot start:\n" + "\n".join(lines) + "\n`rdpbench doctor` shows all of them")


def check_downloads(bench: Bench) -> None:
    """Stop if a dataset would have to be downloaded and may not be, or is too large to come unasked.

    Raises:
        MissingNeed: how to get each.
    """
    for data in dict.fromkeys(data for _, data in bench.grid):
        dataset = dataset_of(data)
        missing = getattr(dataset, "missing", None)
        text = missing() if missing else None
        if text and getattr(dataset, "download_bytes", 0) > LARGE:
            raise MissingNeed(text)
        if text and not bench.download:
            raise MissingNeed(f"{text}, or let `rdpbench run` download it (download=true, its default)")


def check_device(device: str) -> None:
    """Stop if the device is not here: rows must not name one that was not used.

    >>> check_device("cpu")
    """
    if device == "cpu":
        return
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number.isdigit() or not number):
        raise ConfigError(f"device={device!r} is none of cpu, cuda, cuda:0, cuda:1, ...")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise MissingNeed(f"device={device!r} is not here: torch {torch.__version__} sees {count} GPUs; use device=cpu")


def choose_metrics(bench: Bench) -> tuple[tuple[str, ...], dict[str, str]]:
    """The metrics that can run, and those left out; missing ones stop the plan unless the user allowed leaving out."""
    lacking: dict[str, str] = {}
    for name in bench.metrics:
        cls = registry.load("metric", name)
        needs: Iterable[Need] = getattr(cls, "needs", ())
        lacks = [missing for need in needs if (missing := need.missing())]
        if is_set(name) and (text := missing_reference(set_metric(name))):
            lacks.append(text)
        if lacks:
            lacking[name] = "; ".join(lacks)
    if lacking and not bench.metrics_available:
        lines = [f"  metric {name}: {why}" for name, why in lacking.items()]
        raise MissingNeed(
            "this run cannot start:\n" + "\n".join(lines) + "\nor leave out what is missing: metrics=available"
        )
    return tuple(name for name in bench.metrics if name not in lacking), lacking


def fitting(bench: Bench, metrics: Sequence[str], tasks: Sequence[Task]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The metrics without those that these images are too few for, or of another size, and why these are left out.

    Raises:
        ConfigError: there are such metrics, and the user allowed neither leaving them out nor an unreliable number.
    """
    sizes = {(task.entry.height, task.entry.width) for task in tasks}
    left_out = {name: why for name in set_metrics(metrics) if (why := _misfit(name, sizes))}
    if left_out and not bench.metrics_available:
        raise ConfigError("\n".join(left_out.values()))
    if not bench.allow_unreliable:
        few = _too_few(metrics, tasks)
        if few and not bench.metrics_available:
            lines = [f"  metric {name} {why}" for name, why in few.items()]
            raise ConfigError(
                "too few images for a number that means anything:\n" + "\n".join(lines) + "\n"
                "allow_unreliable=true computes it all the same, and marks it wherever it stands"
            )
        left_out |= few
    return tuple(name for name in metrics if name not in left_out), left_out


def _too_few(metrics: Sequence[str], tasks: Sequence[Task]) -> dict[str, str]:
    images: dict[str, set[str]] = defaultdict(set)
    for task in tasks:
        images[task.dataset].add(task.entry.sample.id)
    fewest, dataset = min((len(ids), name) for name, ids in images.items())
    return {
        name: f"needs at least {least} images, {dataset} has {fewest} here"
        for name in set_metrics(metrics)
        if (least := set_metric(name).minimum_images) > fewest
    }


def _misfit(name: str, sizes: Iterable[tuple[int, int]]) -> str | None:
    """Why a set metric is not for images of these sizes; None if it is."""
    try:
        for height, width in sizes:
            check_side(set_metric(name), height, width)
    except MetricError as error:
        return str(error)
    return None


def _lacks(what: str, needs: Iterable[Need]) -> list[str]:
    return [f"  {what}: {missing}" for need in needs if (missing := need.missing())]


def make_plan(bench: Bench, store: Store) -> Plan:
    """All tasks of a command, and the work that the store does not hold yet.

    Raises:
        MissingNeed: a codec, dataset or metric lacks something; nothing has run.
        ConfigError: a rate, option or name that cannot be meant.
        ImageError: images that cannot be read.
    """
    check_needs(bench)
    check_downloads(bench)
    check_device(bench.device)
    metrics, left_out = choose_metrics(bench)
    tasks = tuple({task.key: task for task in list_tasks(bench)}.values())
    metrics, unfit = fitting(bench, metrics, tasks)
    left_out |= unfit
    stored = store.read() if store.exists() else Contents()
    pairs, sets = pair_metrics(metrics), Stored.of(set_metrics(metrics), store.features)
    work: list[Work] = []
    failed = 0
    for task in tasks:
        row = stored.rows.get(task.key)
        if row is not None and row.status == "error" and not bench.retry_failed:
            failed += 1
            continue
        if row is not None and row.status == "out_of_range":
            continue
        if row is not None and (row.status == "error" or not store.has_bitstream(row)):
            row = None
        missing = tuple(name for name in pairs if _unscored(stored, score_key(task, name), bench.retry_failed))
        key = timing_key(task.key, device_of(task.codec, bench.device), 1, TIMING_WARMUP, TIMING_REPEATS)
        timing = bench.timing and key not in stored.timings
        unkept = task.keep and row is not None and not reconstruction_path(store, row).is_file()
        sample = task.entry.sample
        features = sets.missing(row.reconstruction_sha256 if row else None, sample)
        originals = sets.missing_original(task.entry.sha256, sample)
        # Features that were refused once, as for an image below the size of a patch, are not tried again.
        features, originals = (
            tuple(name for name in names if _unscored(stored, score_key(task, name), bench.retry_failed))
            for names in (features, originals)
        )
        if row is None or missing or timing or unkept or features or originals:
            work.append(Work(task, missing if row else pairs, row, timing, features, originals))
    return Plan(tasks, tuple(work), metrics, left_out, failed, _expected(work, stored.rows.values()))


def _unscored(stored: Contents, key: str, retry: bool) -> bool:
    score = stored.scores.get(key)
    return score is None or (retry and score.value is None)


def chunks(work: Sequence[Work]) -> list[list[Work]]:
    """Work in portions for one worker each, the largest first.

    Codecs with weights are kept together by rate point, so that these load once; for the others all that concerns one
    image is, so that it is read, and what metrics need of the original is computed, once. The last ones are cut small,
    so that the workers end together.
    """
    groups: dict[object, list[Work]] = defaultdict(list)
    for one in work:
        task = one.task
        groups[(task.codec, task.rate, task.dataset) if _heavy(one) else task.entry.sha256].append(one)
    portions = [group[at : at + CHUNK] for group in groups.values() for at in range(0, len(group), CHUNK)]
    portions.sort(key=lambda portion: -sum(one.task.entry.height * one.task.entry.width for one in portion))
    whole, last = portions[:-TAIL], portions[-TAIL:]
    return whole + [piece for portion in last for piece in _pieces(portion)]


def _pieces(portion: list[Work]) -> list[list[Work]]:
    size = len(portion) if _heavy(portion[0]) else max(2, len(portion) // 4)
    return [portion[at : at + size] for at in range(0, len(portion), size)]


def _heavy(work: Work) -> bool:
    return bool(getattr(registry.load("codec", work.task.codec.use), "heavy", False))


def _expected(work: Sequence[Work], rows: Iterable[Row]) -> float | None:
    """Seconds for the work, from the seconds per pixel of earlier rows of the same codec."""
    seen: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.status == "ok" and row.encode_s is not None:
            seconds = row.encode_s + (row.decode_s or 0) + (row.score_s or 0)
            seen[row.codec].append(seconds / (row.height * row.width))
    if not work or any(one.task.codec.name not in seen for one in work):
        return None
    mean = {codec: sum(values) / len(values) for codec, values in seen.items()}
    return sum(mean[one.task.codec.name] * one.task.entry.height * one.task.entry.width for one in work)
