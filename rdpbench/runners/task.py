"""Tasks: every image of every codec, setting, seed and source of captions; and their rows before they are measured."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.assets.hashes import file_facts
from rdpbench.codecs.contract import configuration_of
from rdpbench.datasets.captioning import CaptionSettings
from rdpbench.datasets.captions import Caption, captions_of, parse, survey
from rdpbench.datasets.contract import KINDS, Dataset, Pin, dataset_of
from rdpbench.datasets.index import Entry, index, notes
from rdpbench.datasets.manifest import manifest_sha256
from rdpbench.errors import ConfigError, MissingNeed
from rdpbench.metrics.contract import meaning_of
from rdpbench.paths import file_name
from rdpbench.progress import tell
from rdpbench.results.stats.current import Membership
from rdpbench.results.store.columns import HASH, Codes, Hashes, coded, joined
from rdpbench.results.store.keys import (
    axis_of,
    build_at,
    codec_identity,
    definition,
    device_of,
    facts,
    identity_at,
    keys_of,
    metric_identity,
    sha256_of,
    single_point,
)
from rdpbench.results.store.schema import AS_RAN, Measure, Member, Place, Row, Status, place_name
from rdpbench.runners.search import Nearest, is_near, missed
from rdpbench.setting import Bench, CodecSetting, DataSetting, Setting, thin


@dataclass(frozen=True, kw_only=True)
class Spot:
    """What the tasks of a cell share: a codec at a setting on a dataset, with a seed."""

    codec: CodecSetting
    """Its name is the curve's label."""
    identity: str
    """What codes, as JSON: configuration and coder without the rate."""
    setting: Setting
    """A target in it is searched per image."""
    seed: int
    dataset: str
    dataset_size: int
    pin: Pin
    root: str
    """Which folder a set of the user's is (`place_name`); empty for a set that is known by its name."""
    folder: str
    """Where the files of the set lie."""
    protocol: str
    tolerance: float
    """How far from the target the rate may be, as a ratio."""


@dataclass(frozen=True, kw_only=True)
class Task(Spot):
    """One image of one cell."""

    key: str
    entry: Entry
    caption: Caption | None
    """What the encoder is given; None for a codec that takes none."""
    keep: bool
    """Is the reconstruction to be kept as PNG?"""

    @property
    def place(self) -> Place:
        """To which curve it belongs."""
        source = self.caption.source if self.caption else ""
        return Place(self.codec.name, self.dataset, self.pin.sha256, self.root, source)

    @property
    def pixels(self) -> int:
        """Of its image, as it is coded."""
        return self.entry.height * self.entry.width


@dataclass(frozen=True)
class Work:
    """What is left to do for a task: code it, score it, time it, or some of these."""

    task: Task
    metrics: tuple[str, ...]
    """Pair metrics whose scores are missing."""
    row: Row | None
    """The stored row, if it was coded before: its bitstream is decoded, never encoded again."""
    timing: bool = False
    features: tuple[str, ...] = ()
    """Set metrics, one for each kind of features that the reconstruction still lacks."""
    originals: tuple[str, ...] = ()
    """The same for the original; the first task of an image makes them for all."""


def pin_of(dataset: Dataset) -> Pin:
    """Which files a set is, in which order: what it says itself; for a class that does not say it, their hashes.

    Raises:
        ConfigError: it says what is no `Pin`.
    """
    if pinned := getattr(dataset, "pinned", None):
        pin = pinned()
        if isinstance(pin, Pin) and re.fullmatch("[0-9a-f]{64}", str(pin.sha256)) and pin.kind in KINDS:
            return pin
        must = f"Pin(sha256, kind), with 64 hexadecimal digits in small letters and a kind of {', '.join(KINDS)}"
        raise ConfigError(f"pinned() of dataset {dataset.name!r} gives {pin!r:.80}; it must give {must}")
    samples = list(dataset.samples())
    facts_of_files = file_facts(sample.path for sample in samples)
    pairs = ((sample.id, fact.sha256) for sample, (_, fact) in zip(samples, facts_of_files, strict=True))
    return Pin(manifest_sha256(pairs), "made")


def _root_of(setting: DataSetting) -> str:
    """Which folder or file a set of the user's is: two may have one name."""
    options = dict(setting.options)
    place = options.get("path") or options.get("file")
    return place_name(str(Path(str(place)).expanduser().absolute())) if place else ""


def _folder_of(entries: Sequence[Entry]) -> str:
    """The folder below which all images of a set lie."""
    folders = {os.path.dirname(os.path.abspath(entry.sample.path)) for entry in entries}  # noqa: PTH100, PTH120
    return os.path.commonpath(folders) if folders else ""


def run_name(bench: Bench) -> str:
    """The run folder's name: as given, or the datasets' names."""
    if bench.run:
        if file_name(bench.run) != bench.run:
            raise ConfigError(f"run={bench.run!r} must be a plain name of one folder; root=FOLDER says where runs lie")
        return bench.run
    names = dict.fromkeys(dataset_of(data).name for data in bench.datasets)
    return file_name("+".join(names))


@dataclass(frozen=True, eq=False, kw_only=True)
class Cell(Spot):
    """A codec at a setting on a dataset, with a seed and a source of captions: a task for each image.

    A plan holds cells, not tasks: of 80 cells over 30,000 images there are millions.
    """

    entries: Sequence[Entry]
    captions: Mapping[str, Caption]
    """By image; empty for a codec that takes none."""
    keep: int | None
    """Of so many images the reconstruction is kept; None: of all."""

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def keys(self) -> Hashes:
        """Of its tasks, in the order of the images."""
        key = keys_of(self.identity, self.setting, self.seed, self.protocol, self.tolerance)
        texts = {image: caption.text for image, caption in self.captions.items()}
        return Hashes.joined(key(entry.sample.id, entry.sha256, texts.get(entry.sample.id)) for entry in self.entries)

    def task(self, number: int, *, keep: bool = False) -> Task:
        """The task of an image; ``keep`` if another cell that shares it keeps its reconstruction."""
        entry = self.entries[number]
        return Task(
            key=self.keys[number],
            entry=entry,
            caption=self.captions.get(entry.sample.id),
            keep=keep or self.keeps(number),
            **{field.name: getattr(self, field.name) for field in fields(Spot)},
        )

    def keeps(self, number: int) -> bool:
        """Is the reconstruction of an image kept?"""
        return self.keep is None or number < self.keep


def cells(bench: Bench) -> Iterator[Cell]:
    """The cells of a command, in the order of codecs, captions, rates and seeds: it follows from the command alone."""
    sets: dict[DataSetting, tuple[Dataset, Sequence[Entry], Pin, str]] = {}
    for data in bench.datasets:
        dataset = dataset_of(data)
        images = index(dataset, bench.limit)
        sets[data] = dataset, images, pin_of(dataset), _folder_of(images)
        for note in notes(dataset, images):
            tell(note)
    for codec, data in bench.grid:
        dataset, entries, pin, folder = sets[data]
        size, protocol = len(dataset), dataset.protocol
        root = _root_of(data) if pin.kind == "made" else ""
        for labelled, captions in _captioned(bench, codec, dataset, entries):
            for setting, seed in points(bench, codec):
                yield Cell(
                    codec=labelled,
                    # A rate outside the range stops the plan, not the run.
                    identity=identity_at(codec, setting),
                    setting=setting,
                    seed=seed,
                    dataset=dataset.name,
                    dataset_size=size,
                    pin=pin,
                    root=root,
                    folder=folder,
                    protocol=protocol,
                    tolerance=bench.tolerance,
                    entries=entries,
                    captions=captions,
                    keep=bench.keep,
                )


def keys_of_cells(every: Sequence[Cell]) -> Hashes:
    """The keys of all tasks, in the order of cells and images."""
    return Hashes(np.concatenate([cell.keys.raw for cell in every]) if every else np.empty(0, HASH))


def list_tasks(bench: Bench) -> Iterator[Task]:
    """Every task of a command, in the order of its cells and their images."""
    return (cell.task(number) for cell in cells(bench) for number in range(len(cell)))


def points(bench: Bench, codec: CodecSetting) -> Iterator[tuple[Setting, int]]:
    """The settings of a codec that a command asks for, each with each of its seeds."""
    axis = axis_of(codec)
    # Without random numbers another seed is the same result: it must not be another key.
    seeds = bench.seeds if facts(codec).seeded else (0,)
    if axis is None:
        if bench.targets or bench.rates:
            raise ConfigError(single_point(codec))
        settings = [Setting("")]
    elif bench.targets:
        settings = [Setting(axis.field, target=target) for target in bench.targets]
    else:
        rates = bench.rates or codec.rates or axis.points
        if not rates:
            raise ConfigError(f"codec {codec.name!r} lists no rate points; write rate=... ({axis.field})")
        settings = [Setting(axis.field, float(rate)) for rate in thin(rates, bench.points)]
    yield from itertools.product(settings, seeds)


NOT_MADE = "(a model has yet to make this caption)"
"""What stands for one in a plan that runs nothing: its task counts as left to do, which it is."""


def _captioned(
    bench: Bench, codec: CodecSetting, dataset: Dataset, entries: Sequence[Entry]
) -> Iterator[tuple[CodecSetting, Mapping[str, Caption]]]:
    """The codec once for each source of captions, if it takes one; the source is part of the curve's label."""
    if not facts(codec).uses_caption:
        yield codec, {}
        return
    for source in bench.captions or ("human",):
        label = codec.name + (f"[captions={source}]" if bench.captions else "")
        yield replace(codec, name=label), _captions_for(bench, source, dataset, entries)


def _captions_for(bench: Bench, source: str, dataset: Dataset, entries: Sequence[Entry]) -> Mapping[str, Caption]:
    """The caption of each image, by its id: part of a task's key, so a model makes them before anything is coded.

    Raises:
        ConfigError: no such source, or images without a caption.
        MissingNeed: a list or a model that is not here, and may not or cannot be downloaded.
    """
    parsed, settings = parse(source), CaptionSettings(device=bench.device)
    if bench.dry or not bench.download:
        cost = survey(parsed, entries, dataset=dataset.name, settings=settings)
        if cost.lacks:
            raise MissingNeed(cost.lacks)
        if bench.dry and cost.to_make:
            return {entry.sample.id: Caption(NOT_MADE, None, source, "") for entry in entries}
    captions = captions_of(parsed, entries, dataset=dataset.name, protocol=dataset.protocol, settings=settings)
    for note in captions.notes:
        tell(note)
    return captions.by_id


def member_of(task: Task) -> Member:
    """That a task belongs to its point; without the call that names it."""
    member = Member(
        member_key="",
        task_key=task.key,
        dataset_size=task.dataset_size,
        manifest_kind=task.pin.kind,
        tags=",".join(task.entry.sample.tags),
        session="",
        **task.place._asdict(),
    )
    return replace(member, member_key=sha256_of(vars(member)))


def membership(every: Iterable[Cell]) -> Membership:
    """What cells say of the points that their tasks belong to: what `member_of` says, in columns."""
    along = list(every)
    counts = np.array([len(cell) for cell in along], np.int64)
    columns: dict[str, Codes | NDArray[Any]] = {}
    stated = [(cell.codec.name, cell.dataset, cell.pin.sha256, cell.root, cell.pin.kind) for cell in along]
    for number, name in enumerate(("codec", "dataset", "manifest", "root", "manifest_kind")):
        of_cell = coded([texts[number] for texts in stated])
        columns[name] = Codes(np.repeat(of_cell.codes, counts), of_cell.names)
    columns["dataset_size"] = np.repeat([cell.dataset_size for cell in along], counts)
    sources: list[Codes] = []
    tags: list[Codes] = []
    of_entries: dict[int, Codes] = {}
    for cell in along:
        captions = [cell.captions.get(entry.sample.id) for entry in cell.entries] if cell.captions else []
        sources.append(coded([c.source if c else "" for c in captions] or [""] * len(cell)))
        if id(cell.entries) not in of_entries:
            of_entries[id(cell.entries)] = coded([",".join(entry.sample.tags) for entry in cell.entries])
        tags.append(of_entries[id(cell.entries)])
    columns |= {"caption_source": joined(sources), "tags": joined(tags)}
    return Membership(keys_of_cells(along), columns)


def measure_of(name: str) -> Measure:
    """What a run stores of a metric that does not ship, so that its values are read without it."""
    means = meaning_of(registry.load("metric", name))
    return Measure(
        measure_key=f"{name} {definition(name)}",
        metric=name,
        definition=definition(name),
        source=registry.source_sha256("metric", name),
        kind=means.kind,
        unit=means.unit,
        higher_is_better=means.higher_is_better,
        perceptual=means.perceptual,
        averaged=means.averaged,
        low=float(means.bounds[0]),
        high=float(means.bounds[1]),
        session="",
    )


# Rows


def new_row(task: Task, session: str, device: str, *, status: Status, error: str = "") -> Row:
    """A row with all that is known before anything is coded."""
    entry, caption = task.entry, task.caption
    return Row(
        task_key=task.key,
        session=session,
        use=task.codec.use,
        options=json.dumps(dict(task.codec.options)),
        configuration=configuration(task.codec, task.setting.rate),
        coder=_coder(task.identity),
        rate_field=task.setting.field,
        rate=task.setting.rate,
        target_bpp=task.setting.target,
        tolerance=None if task.setting.target is None else task.tolerance,
        seed=task.seed,
        dataset_size=task.dataset_size,
        manifest_kind=task.pin.kind,
        protocol=task.protocol,
        image=entry.sample.id,
        tags=",".join(entry.sample.tags),
        path=Path(os.path.relpath(entry.sample.path, task.folder)).as_posix(),
        pixel_sha256=entry.sha256,
        source_mode=entry.mode,
        source_height=entry.source_height,
        source_width=entry.source_width,
        height=entry.height,
        width=entry.width,
        caption=caption.text if caption else "",
        caption_s=caption.seconds if caption else None,
        status=status,
        error=error,
        weights=_weights(task.identity),
        grade=facts(task.codec).grade,
        device=device_of(task.codec, device),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        **task.place._asdict(),
    )


def judged(row: Row, tolerance: float) -> Row:
    """A row of a searched target, ``ok`` or ``out_of_range`` by the tolerance; the bitstream is the same either way."""
    assert row.target_bpp is not None
    assert row.rate is not None
    assert row.bpp is not None
    if is_near(row.bpp, row.target_bpp, tolerance):
        return row if row.status == "ok" else replace(row, status="ok", error="", tolerance=tolerance)
    nearest = Nearest(row.rate, row.bpp, row.attempts)
    error = missed(row.codec, f"image {row.image}", row.rate_field, row.target_bpp, tolerance, nearest)
    return replace(row, status="out_of_range", error=error, tolerance=tolerance)


@cache
def _weights(identity: str) -> str:
    """The kind of weights that code, if any."""
    kind: str = json.loads(identity).get("weights", "")
    return kind


@cache
def configuration(setting: CodecSetting, rate: float | None) -> str:
    """The options that are in a codec's key, and apart from them, under `AS_RAN`, what else it is set to at a rate.

    Only the first tell two editions of a codec from one another: a target that is searched may end at another rate, and
    thus with other steps or weights, in each image. As JSON; without a rate at the lowest.
    """
    keyed: dict[str, Any] = json.loads(codec_identity(setting, rate))["options"]
    whole = json.loads(json.dumps(configuration_of(build_at(setting, rate)), default=str))
    ran = {name: value for name, value in whole.items() if name not in keyed or keyed[name] != value}
    return json.dumps({**keyed, **({AS_RAN: ran} if ran else {})})


@cache
def _coder(identity: str) -> str:
    """What codes, as JSON: libraries or programs, the version of the codec, and its source if it is the user's."""
    keyed: Mapping[str, Any] = json.loads(identity)
    source = {"source_sha256": keyed["source"]} if keyed["source"] else {}
    return json.dumps({**keyed["coder"], "version": keyed["version"], **source})


# The record of a command


def resolved(bench: Bench, every: Iterable[Cell], metrics: Iterable[str]) -> dict[str, Any]:
    """What the codecs, data and metrics of a command were set to, for its record."""
    curves: dict[str, dict[Setting, Cell]] = {}
    sets: dict[tuple[str, str, str], Cell] = {}
    for cell in every:
        curves.setdefault(cell.codec.name, {}).setdefault(cell.setting, cell)
        sets.setdefault((cell.dataset, cell.protocol, cell.root), cell)
    return {
        "codecs": {label: _codec(list(curve.values())) for label, curve in curves.items()},
        "data": [_data(data, sets) for data in bench.datasets],
        "metrics": {name: _metric(name) for name in metrics},
    }


def _codec(along: Sequence[Cell]) -> dict[str, Any]:
    """A curve: what all of its points share, and what is a point's own."""
    codec = along[0].codec
    points: list[dict[str, Any]] = []
    for cell in along:
        options: dict[str, Any] = json.loads(configuration(codec, cell.setting.rate))
        options |= options.pop(AS_RAN, {})  # what was derived in the place of what was typed
        points.append({"configuration": options, "coder": json.loads(_coder(cell.identity))})
    shared = {
        part: {
            name: value
            for name, value in values.items()
            if all(point[part].get(name, _ABSENT) == value for point in points)
        }
        for part, values in points[0].items()
    }
    apart: list[dict[str, Any]] = []
    for cell, point in zip(along, points, strict=True):
        own_parts = {
            part: {name: value for name, value in values.items() if name not in shared[part]}
            for part, values in point.items()
        }
        setting = cell.setting
        place = {setting.field: setting.rate, "target_bpp": setting.target}
        place = {name: value for name, value in place.items() if value is not None}
        apart.append(place | {part: values for part, values in own_parts.items() if values})
    return {"use": codec.use, "options": dict(codec.options), **shared, "points": apart}


_ABSENT = object()


def _data(setting: DataSetting, sets: Mapping[tuple[str, str, str], Cell]) -> dict[str, Any]:
    dataset: Any = dataset_of(setting)
    options = asdict(dataset) if is_dataclass(type(dataset)) else dict(setting.options)
    record = {"name": dataset.name, "use": setting.use, "options": options, "protocol": dataset.protocol}
    places = [(dataset.name, dataset.protocol, root) for root in (_root_of(setting), "")]
    if cell := next((sets[place] for place in places if place in sets), None):
        record |= {
            "root": cell.root,
            "folder": cell.folder,
            "images": cell.dataset_size,
            "manifest": cell.pin.sha256,
            "manifest_kind": cell.pin.kind,
        }
    return record


def _metric(name: str) -> dict[str, Any]:
    features = getattr(registry.load("metric", name), "features", None)
    of_images = {"features": {"id": features.id, "version": str(features.version)}} if features else {}
    return {"definition": definition(name), **metric_identity(name), **of_images}
