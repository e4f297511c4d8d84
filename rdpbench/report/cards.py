"""What a report states of its numbers: cards of codecs, datasets and metrics.

Nothing that leaves this machine holds an absolute path of it (`published`). Dates are those of the runs, so that the
same runs give the same files.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from rdpbench import registry
from rdpbench.datasets.command import named_dataset
from rdpbench.errors import RdpbenchError
from rdpbench.paths import records
from rdpbench.results import read
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.store.columns import groups_of
from rdpbench.results.store.records import used
from rdpbench.setting import split_label

if TYPE_CHECKING:
    from rdpbench.report.data import ReportedPoint, ReportedRun
    from rdpbench.results.stats.points import Point, Where

Facts = list[list[str]]
"""Lines of a card: what, and what is known of it."""
T = TypeVar("T")

GRADES = {
    "decoded": "decoded: each rate counts the bytes from which a decoder made the picture that was scored",
    "joint": "joint: one command made bitstream and picture, so that no decoder proves the rate",
    "reported": "reported: no bitstream is known; somebody else states the rate",
}
LISTED = 3
"""So many values of a fact are written out."""


# What may be published

_WORD = r"[^\s/\"'\\<>|;,:()\[\]{}]+"
_PATH = re.compile(
    rf"(?:(?<![\w.~/<>)\]}}*%$-])|(?<=file://)|(?<=\\n))/(?:{_WORD}(?: {_WORD}){{0,2}}/)*({_WORD})",
)


def published(value: T) -> T:
    """Data in which absolute paths are cut to their last part, in all of its texts.

    >>> published({"command": "rdpbench run codec=/home/ada/mine.py:Mine data=folder:pictures lpips/alex"})
    {'command': 'rdpbench run codec=…/mine.py:Mine data=folder:pictures lpips/alex'}
    >>> published(["see https://example.org/a/b", "</b>", 0.5])
    ['see https://example.org/a/b', '</b>', 0.5]
    """
    if isinstance(value, str):
        return _cut(value) if "/" in value else value  # type: ignore[return-value]  # a text is a text
    if isinstance(value, dict):
        return {published(name): published(inner) for name, inner in value.items()}  # type: ignore[return-value]
    return [published(inner) for inner in value] if isinstance(value, (list, tuple)) else value  # type: ignore[return-value]


@cache
def _cut(text: str) -> str:
    return _PATH.sub(r"…/\1", text)


# Cards


def of_codec(curve: Sequence[ReportedPoint]) -> Facts:
    """How far a codec's rates are proven, what it was set to, and what coded: of all its points in a run."""
    points, run = [point.point for point in curve], curve[0].run
    calls = _used(points, "session")
    record = _records("codec").get(split_label(curve[0].codec)[0], {})
    devices = {f"{read.model(hardware) or 'model not known'} ({device})" for device, hardware in _devices(points)}
    verified = sum(int(point.rows.codes("verified").where("fresh_process".__eq__).sum()) for point in points)
    facts = {
        "rate": [GRADES.get(grade, grade) for grade in _used(points, "grade")] or [GRADES["decoded"]],
        "decoded again": f"{verified:,} of {sum(len(point.good) for point in points):,} bitstreams in a fresh process",
        "bits": _used(points, "bits_kind"),
        "codec": _used(points, "use"),
        "title": record.get("title", ""),
        "paper": record.get("paper", ""),
        "options": _used(points, "configuration"),
        "versions": _used(points, "coder"),
        "weights": _used(points, "weights"),
        "licence": _licence_of_codec(points) if record else "",
        "files": _used(points, "files"),
        "machine": sorted(devices),
        "run": run.name,
        "rdpbench": sorted({version_of(run.sessions[name]) for name in calls if name in run.sessions}),
        "calls": calls,
    }
    return _lines(facts)


def of_set(where: Where, points: Sequence[Point]) -> Facts:
    """What is known of a set of images."""
    known = _dataset(where.dataset)
    facts = {
        "images": f"{max(int(point.rows.numbers('dataset_size').max()) for point in points):,}",
        "protocol": where.protocol,
        "files": [f"sha256 of their list {where.manifest[:16]}", *_used(points, "manifest_kind")],
        "folder": _used(points, "root"),
        "captions": _used(points, "caption_source"),
        **known,
    }
    return _lines(facts)


def of_metric(runs: Sequence[ReportedRun], metric: str) -> Facts:
    """What a metric's values mean, and which edition of it each run has."""
    meant = meaning(metric)
    facts: dict[str, Any] = {
        "name": metric,
        "value": f"of {'a set of images' if meant.kind == 'set' else 'each image'}, "
        f"{'higher' if meant.higher_is_better else 'lower'} is better{f', in {meant.unit}' if meant.unit else ''}",
    }
    for run in runs:
        editions = {text for (_, name), own in run.current.editions.items() if name == metric for text in own}
        # Anybody may have written these records.
        stated = [own for record in run.sessions.values() if isinstance(own := record.get("metrics"), dict)]
        editions_known = [own[metric] for own in stated if isinstance(own.get(metric), dict)]
        packages = {json.dumps(own["packages"]) for own in editions_known if own.get("packages")}
        facts[f"in {run.name}"] = [f"edition {', '.join(sorted(editions))}", *sorted(packages)] if editions else ""
    return _lines(facts)


def _used(points: Sequence[Point], column: str) -> list[str]:
    return [text for text in used((point.rows for point in points), column) if text not in ("", "{}")]


def _devices(points: Sequence[Point]) -> set[tuple[str, str]]:
    """Devices, each with what is stored of its hardware."""
    pairs: set[tuple[str, str]] = set()
    for point in points:
        columns = [point.rows.codes(name) for name in ("device", "hardware")]
        _, first = groups_of([column.codes for column in columns])
        pairs.update(zip(*(column.of(first).texts() for column in columns), strict=True))
    return pairs


def _lines(facts: Mapping[str, Any]) -> Facts:
    """Facts that are known, one text each."""
    lines = []
    for name, told in facts.items():
        texts = [told] if isinstance(told, str) else told
        more = f"; and {len(texts) - LISTED} more" if len(texts) > LISTED else ""
        if any(texts):
            lines.append([name, "; ".join(map(_plain, texts[:LISTED])) + more])
    return lines


def _plain(text: str) -> str:
    """An object as JSON in words."""
    with contextlib.suppress(ValueError):
        if isinstance(record := json.loads(text), dict):
            return ", ".join(f"{k} {v if isinstance(v, str) else json.dumps(v)}" for k, v in record.items())
    return text


@cache
def _records(group: str) -> dict[str, dict[str, Any]]:
    return {str(record["name"]): record for record in records(group)}


@cache
def _dataset(name: str) -> dict[str, str]:
    """Title, page and licence of a set that ships; nothing of a user's own."""
    with contextlib.suppress(RdpbenchError, OSError):
        known = named_dataset(name)
        page = getattr(getattr(known, "release", None), "page", "")
        return {"title": _records("data")[name]["title"], "page": page, "licence": str(getattr(known, "licence", ""))}
    return {}


def _licence_of_codec(points: Sequence[Point]) -> str:
    """Of the weights of a codec that ships; only such a class is imported, never what a run names."""
    if not any(kind.startswith(("official", "unpinned")) for kind in _used(points, "weights")):
        return ""
    with contextlib.suppress(RdpbenchError, ImportError, OSError), registry.installed_only():
        return str(getattr(registry.load("codec", _used(points, "use")[0]), "licence", ""))
    return ""


def version_of(record: Mapping[str, Any]) -> str:
    commit = f", commit {str(record['commit'])[:12]}" if record.get("commit") else ""
    return f"{record.get('rdpbench', 'of unknown version')}{commit}{', changed since' * bool(record.get('dirty'))}"
