"""From settings to tasks: every image of every codec, rate point, seed and source of captions.

Captions of a dataset for a plan: they are part of a task's key, so a model makes them before anything is coded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rdpbench import registry
from rdpbench.assets.hashes import file_facts
from rdpbench.datasets.captions.models import Settings
from rdpbench.datasets.captions.sources import Caption, captions_of, parse, survey
from rdpbench.datasets.contract import Dataset, Pin, dataset_of
from rdpbench.datasets.index import Entry, index, notes
from rdpbench.datasets.manifest import manifest_sha256
from rdpbench.errors import ConfigError, MissingNeed
from rdpbench.paths import file_name
from rdpbench.progress import tell
from rdpbench.runners.task import Task, axis_of, identity, identity_of_all, single_point, task_key, uses_caption
from rdpbench.setting import Bench, CodecSetting, DataSetting


def pin_of(dataset: Dataset) -> Pin:
    """Which files a set is, in which order: what it says itself; for a class that does not say it, their hashes."""
    pinned = getattr(dataset, "pinned", None)
    if pinned:
        pin: Pin = pinned()
        return pin
    samples = list(dataset.samples())
    facts = file_facts(sample.path for sample in samples)
    return Pin(
        manifest_sha256((sample.id, fact.sha256) for sample, (_, fact) in zip(samples, facts, strict=True)), "made"
    )


def root_of(setting: DataSetting) -> str:
    """Where a set of the user's lies: two folders may have one name."""
    options = dict(setting.options)
    place = options.get("path") or options.get("file")
    return str(Path(str(place)).expanduser().absolute()) if place else ""


def run_name(bench: Bench) -> str:
    """The run folder's name: as given, or the datasets' names."""
    if bench.run:
        if file_name(bench.run) != bench.run:
            raise ConfigError(f"run={bench.run!r} must be a plain name of one folder; root=FOLDER says where runs lie")
        return bench.run
    names = dict.fromkeys(dataset_of(data).name for _, data in bench.grid)
    return file_name("+".join(names))


def list_tasks(bench: Bench) -> Iterator[Task]:
    """Every task of a command, in the order of codecs, rates, seeds and images."""
    sets: dict[DataSetting, tuple[Dataset, Sequence[Any]]] = {}
    for _, data in bench.grid:
        if data not in sets:
            dataset = dataset_of(data)
            sets[data] = dataset, index(dataset, bench.limit)
            for note in notes(dataset, sets[data][1]):
                tell(note)
    for codec, data in bench.grid:
        dataset, entries = sets[data]
        pin, size, protocol = pin_of(dataset), len(dataset), dataset.protocol
        root = root_of(data) if pin.kind == "made" else ""
        for labelled, captions in captioned(bench, codec, dataset, entries):
            for rate, target, seed in points(bench, codec):
                # A rate outside the range stops the plan, not the run.
                made = identity(codec, rate) if target is None else identity_of_all(codec)
                for number, entry in enumerate(entries):
                    caption = captions.get(entry.sample.id)
                    key = task_key(made, rate, target, seed, protocol, entry, caption, bench.tolerance)
                    keep = bench.keep is None or number < bench.keep
                    what = (labelled, made, rate, target, seed, dataset.name, size, pin, root, protocol, entry, caption)
                    yield Task(key, *what, keep, bench.tolerance)


def captioned(
    bench: Bench, codec: CodecSetting, dataset: Dataset, entries: Sequence[Entry]
) -> Iterator[tuple[CodecSetting, Mapping[str, Caption]]]:
    """The codec once for each source of captions, if it takes one; the source is part of the curve's label.

    Captions are part of a task's key, so they are made here, before anything is coded.
    """
    if not uses_caption(codec):
        yield codec, {}
        return

    for source in bench.captions or ("human",):
        label = codec.name + (f"[captions={source}]" if bench.captions else "")
        yield replace(codec, name=label), captions_for(bench, source, dataset, entries)


def points(bench: Bench, codec: CodecSetting) -> Iterator[tuple[float | None, float | None, int]]:
    axis = axis_of(codec)
    # Without random numbers another seed is the same result: it must not be another key.
    seeds = bench.seeds if getattr(registry.load("codec", codec.use), "seeded", False) else (0,)
    if axis is None:
        if bench.targets or bench.rates:
            raise ConfigError(single_point(codec))
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


NOT_MADE = "(a model has yet to make this caption)"
"""What stands for one in a plan that runs nothing: its task counts as left to do, which it is."""


def captions_for(bench: Bench, source: str, dataset: Dataset, entries: Sequence[Entry]) -> Mapping[str, Caption]:
    """The caption of each image, by its id.

    Raises:
        ConfigError: no such source, or images without a caption.
        MissingNeed: a list or a model that is not here, and may not or cannot be downloaded.
    """
    parsed, settings = parse(source), Settings(device=bench.device)
    if bench.dry or not bench.download:
        cost = survey(parsed, entries, dataset=dataset.name, settings=settings)
        if cost.lacks:
            raise MissingNeed(cost.lacks)
        if bench.dry and cost.to_make:
            return {entry.sample.id: Caption(NOT_MADE, None, source, "") for entry in entries}
    made = captions_of(parsed, entries, dataset=dataset.name, protocol=dataset.protocol, settings=settings)
    for note in made.notes:
        tell(note)
    return made.by_id
