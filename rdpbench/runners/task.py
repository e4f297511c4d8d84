"""The unit of work: one image of one cell, and the key that says what its result depends on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rdpbench import registry
from rdpbench.datasets.captions.files import Caption
from rdpbench.datasets.contract import Pin
from rdpbench.datasets.index import Entry
from rdpbench.metrics.contract import beside, meaning_of
from rdpbench.results.store.keys import TOLERANCE, _sha256, definition, key_of, metric_identity
from rdpbench.results.store.schema import Measure, Member, Place, Row
from rdpbench.runners.beside import identity as identity_beside
from rdpbench.setting import CodecSetting


@dataclass(frozen=True)
class Task:
    """One image of one cell."""

    key: str
    codec: CodecSetting
    identity: str
    """What codes, as JSON: configuration and coder without the rate."""
    rate: float | None
    target: float | None
    """Target in bpp, where the rate is searched per image."""
    seed: int
    dataset: str
    dataset_size: int
    pin: Pin
    root: str
    """Where a set of the user's lies; empty for a set that is known by its name."""
    protocol: str
    entry: Entry
    caption: Caption | None = None
    """What the encoder is given; None for a codec that takes none."""
    keep: bool = False
    """Is the reconstruction to be kept as PNG?"""
    tolerance: float = TOLERANCE
    """How far from the target the rate may be, as a ratio."""


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


def task_key(
    codec: str,
    rate: float | None,
    target: float | None,
    seed: int,
    protocol: str,
    entry: Entry,
    caption: Caption | None = None,
    tolerance: float = TOLERANCE,
) -> str:
    """sha256 over all that changes the result of a task. Device and batch size do not enter: they are recorded.

    The image's id is in it too: a set that holds the same pixels twice counts them twice in its means. A tolerance is
    in it where it is tighter than usual, as a search may then end elsewhere; a looser one finds the same.
    """
    text = caption.text if caption else None
    return key_of(codec, rate, target, seed, protocol, entry.sample.id, entry.sha256, text, tolerance)


def place_of(task: Task) -> Place:
    """To which curve a task belongs."""
    source = task.caption.source if task.caption else ""
    return Place(task.codec.name, task.dataset, task.pin.sha256, task.root, source)


def member_of(task: Task) -> Member:
    """That a task belongs to its point; without the call that names it."""
    member = Member(
        member_key="",
        task_key=task.key,
        dataset_size=task.dataset_size,
        manifest_kind=task.pin.kind,
        tags=",".join(task.entry.sample.tags),
        session="",
        **place_of(task)._asdict(),
    )
    return replace(member, member_key=_sha256(vars(member)))


def score_key(task: Task, metric: str) -> str:
    """sha256 over a task, all of a metric that changes its value, and what it takes beside the image."""
    record = {"task": task.key, "metric": metric_identity(metric)}
    if names := beside(registry.load("metric", metric)):
        record["beside"] = identity_beside(names, task.entry.sample)
    return _sha256(record)


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
