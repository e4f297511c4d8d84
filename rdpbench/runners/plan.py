"""Planning: which tasks a command stands for, minus what the store holds, and whether what is left can run.

Pure but for reading: nothing is coded here, and no plan starts work.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rdpbench import registry
from rdpbench.codecs.contract import needs_of
from rdpbench.config import Bench, CodecSetting, DataSetting
from rdpbench.datasets.contract import Dataset
from rdpbench.datasets.index import index
from rdpbench.errors import ConfigError, MissingNeed
from rdpbench.needs import Need
from rdpbench.results.reconstructions import reconstruction_path
from rdpbench.results.schema import Row
from rdpbench.results.store import Contents, Store
from rdpbench.runners.task import Task, Work, axis_of, build, device_of, identity, score_key, task_key, timing_key

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


def dataset_of(setting: DataSetting) -> Dataset:
    """Build a dataset from its setting."""
    cls = registry.load("dataset", setting.use)
    try:
        dataset = cls(**dict(setting.options))
    except TypeError as error:
        raise ConfigError(f"dataset {setting.name!r} does not take {dict(setting.options)}: {error}") from error
    if not isinstance(dataset, Dataset):
        raise ConfigError(f"{setting.use!r} is no dataset: it needs name, protocol, needs, samples() and len()")
    return dataset


def run_name(bench: Bench) -> str:
    """The run folder's name: as given, or the datasets' names."""
    if bench.run:
        if "/" in bench.run or bench.run.startswith("."):
            raise ConfigError(f"run={bench.run!r} must be a plain name; root=FOLDER says where runs lie")
        return bench.run
    names = dict.fromkeys(dataset_of(data).name for _, data in bench.grid)
    return "+".join(names)


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
    """Stop if a dataset would have to be downloaded and may not be.

    Raises:
        MissingNeed: how to get each.
    """
    if bench.download:
        return
    for data in dict.fromkeys(data for _, data in bench.grid):
        missing = getattr(dataset_of(data), "missing", None)
        if missing and (text := missing()):
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
        needs: Iterable[Need] = getattr(registry.load("metric", name), "needs", ())
        if lacks := [missing for need in needs if (missing := need.missing())]:
            lacking[name] = "; ".join(lacks)
    if lacking and not bench.metrics_available:
        lines = [f"  metric {name}: {why}" for name, why in lacking.items()]
        raise MissingNeed(
            "this run cannot start:\n" + "\n".join(lines) + "\nor leave out what is missing: metrics=available"
        )
    return tuple(name for name in bench.metrics if name not in lacking), lacking


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
    stored = store.read() if store.exists() else Contents()
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
        missing = tuple(name for name in metrics if _unscored(stored, score_key(task.key, name), bench.retry_failed))
        key = timing_key(task.key, device_of(task.codec, bench.device), 1, TIMING_WARMUP, TIMING_REPEATS)
        timing = bench.timing and key not in stored.timings
        unkept = task.keep and row is not None and not reconstruction_path(store, row).is_file()
        if row is None or missing or timing or unkept:
            work.append(Work(task, missing if row else metrics, row, timing))
    return Plan(tasks, tuple(work), metrics, left_out, failed, _expected(work, stored.rows.values()))


def _unscored(stored: Contents, key: str, retry: bool) -> bool:
    score = stored.scores.get(key)
    return score is None or (retry and score.value is None)


def list_tasks(bench: Bench) -> Iterator[Task]:
    """Every task of a command, in the order of codecs, rates, seeds and images."""
    sets: dict[DataSetting, tuple[Dataset, Sequence[Any]]] = {}
    for _, data in bench.grid:
        if data not in sets:
            dataset = dataset_of(data)
            if dataset.name in {other.name for other, _ in sets.values()}:
                raise ConfigError(
                    f"two datasets have the name {dataset.name!r}, and their means would mix; "
                    "measure them in two runs, with run=NAME for each"
                )
            sets[data] = dataset, index(dataset, bench.limit)
    for codec, data in bench.grid:
        dataset, entries = sets[data]
        made = identity(codec)
        for rate, target, seed in _points(bench, codec):
            if target is None:
                build(codec, rate)  # a rate outside the range stops the plan, not the run
            for number, entry in enumerate(entries):
                key = task_key(made, rate, target, seed, dataset.protocol, entry)
                keep = bench.keep is None or number < bench.keep
                size = len(dataset)
                yield Task(key, codec, made, rate, target, seed, dataset.name, size, dataset.protocol, entry, keep)


def _points(bench: Bench, codec: CodecSetting) -> Iterator[tuple[float | None, float | None, int]]:
    axis = axis_of(codec)
    # Without random numbers another seed is the same result: it must not be another key.
    seeds = bench.seeds if getattr(registry.load("codec", codec.use), "seeded", False) else (0,)
    if axis is None:
        if bench.targets or bench.rates:
            raise ConfigError(f"codec {codec.name!r} has a single rate point; leave out rate= and bpp=")
        yield from ((None, None, seed) for seed in seeds)
    elif bench.targets:
        yield from ((None, target, seed) for target, seed in itertools.product(bench.targets, seeds))
    else:
        rates = bench.rates or codec.rates or axis.points
        if not rates:
            raise ConfigError(f"codec {codec.name!r} lists no rate points; write rate=... ({axis.field})")
        yield from ((float(rate), None, seed) for rate, seed in itertools.product(thin(rates, bench.points), seeds))


def thin(values: Sequence[float], points: int | None) -> list[float]:
    """At most ``points`` of the values, evenly chosen, both ends among them.

    >>> thin([5, 10, 15, 20, 25], 3)
    [5, 15, 25]
    """
    if points is None or points >= len(values):
        return list(values)
    if points == 1:
        return [values[len(values) // 2]]
    last = len(values) - 1
    return [values[round(k * last / (points - 1))] for k in range(points)]


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
