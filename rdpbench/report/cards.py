"""What a report states of its numbers: cards of codecs, datasets and metrics, data files, and how to cite them.

Nothing that leaves this machine holds an absolute path of it (`published`). Dates are those of the runs, so that the
same runs give the same files.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from rdpbench import registry
from rdpbench.datasets.command import named_dataset
from rdpbench.errors import RdpbenchError
from rdpbench.lazy import pa, parquet, pd
from rdpbench.paths import records
from rdpbench.results import read, tables
from rdpbench.results.stats.joined import editions_of
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.store.columns import groups_of
from rdpbench.setting import split_label

if TYPE_CHECKING:
    from rdpbench.report.data import Report, ReportedPoint, ReportedRun
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
MOST_LINES = 100_000
"""Lines of images and metrics, each of a kilobyte, up to which they are written."""


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
        "rdpbench": sorted({_version(run.sessions[name]) for name in _used(points, "session") if name in run.sessions}),
        "calls": _used(points, "session"),
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
        editions = {text for (_, name), own in editions_of(run.current).items() if name == metric for text in own}
        # Anybody may have written these records.
        stated = [own for record in run.sessions.values() if isinstance(own := record.get("metrics"), dict)]
        editions_known = [own[metric] for own in stated if isinstance(own.get(metric), dict)]
        packages = {json.dumps(own["packages"]) for own in editions_known if own.get("packages")}
        facts[f"in {run.name}"] = [f"edition {', '.join(sorted(editions))}", *sorted(packages)] if editions else ""
    return _lines(facts)


def _used(points: Sequence[Point], column: str) -> list[str]:
    texts = {text for point in points for text in point.rows.codes(column).used()}
    return sorted(texts - {"", "{}"})


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


def _version(record: Mapping[str, Any]) -> str:
    commit = f", commit {str(record['commit'])[:12]}" if record.get("commit") else ""
    return f"{record.get('rdpbench', 'of unknown version')}{commit}{', changed since' * bool(record.get('dirty'))}"


# Data


def files(report: Report, author: str) -> dict[str, bytes]:
    """Data and citation by their paths in the folder; lines for each image only where these are not too many."""
    frames = {"results": [read.points_of(run.name, run.current) for run in report.runs]}
    if sum(len(point.point.rows) for point in report.points) * len(report.metrics) <= MOST_LINES:
        frames["images"] = [read.images_of(run.name, run.current) for run in report.runs]
    written: dict[str, bytes] = {}
    with TemporaryDirectory() as folder:
        for name, parts in frames.items():
            frame = read.joined(parts, read.IMAGES if name == "images" else read.POINTS)
            texts = [str(column) for column, kind in frame.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
            frame = frame.assign(**{column: published(frame[column].tolist()) for column in texts})
            for ending in ("csv", "parquet"):
                path = Path(folder, f"{name}.{ending}")
                if ending == "csv":
                    tables.to_csv(frame, path)
                else:
                    parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
                written[f"data/{path.name}"] = path.read_bytes()
    written["data/columns.md"] = read.columns_in_words().encode()
    written["CITATION.cff"] = citation(report, author).encode()
    return written


def citation(report: Report, author: str) -> str:
    """The runs as a Citation File (1.2.0): what was run, by which version, when, with which commands, on what."""
    import yaml

    sessions = [(run.name, record) for run in report.runs for record in run.sessions.values()]
    times = sorted(str(record["time"])[:10] for _, record in sessions if record.get("time"))
    commands = dict.fromkeys(f"{run}: {record['command']}" for run, record in sessions if record.get("command"))
    names = ", ".join(run.name for run in report.runs)
    used: list[dict[str, Any]] = [
        {
            "type": "software",
            "title": "rdpbench",
            "authors": [{"name": "The rdpbench authors"}],
            "version": version,
            "license": "Apache-2.0",
        }
        for version in sorted({_version(record) for _, record in sessions})
    ]
    used += [
        _reference("data", facts.pop("title", where.dataset), facts)
        for where in report.panels
        if (facts := dict(of_set(where, [point.point for point in report.panels[where]])))
    ]
    for codec in dict.fromkeys(point.codec for point in report.points):
        facts = dict(of_codec([point for point in report.points if point.codec == codec]))
        used.append(_reference("generic", facts.pop("title", codec), facts))
    stated = {
        "cff-version": "1.2.0",
        "message": "If you use these numbers, please cite them, and what they were measured with.",
        "type": "dataset",
        "title": f"Image compression benchmark by rdpbench: {names}",
        "authors": [{"name": author or "The authors of this report"}],
        **({"date-released": times[-1]} if times else {}),
        "abstract": "\n".join(["Commands, behind the name of their run:", *commands]),
        "references": used,
    }
    head = "" if author else "# rdpbench report author='Your Name' puts a name here.\n"
    return head + yaml.safe_dump(published(stated), sort_keys=False, allow_unicode=True, width=100)


def _reference(kind: str, title: str, facts: Mapping[str, str]) -> dict[str, Any]:
    link = facts.get("paper") or facts.get("page") or ""
    told = {name: facts[name] for name in ("licence", "versions", "weights", "protocol", "files") if name in facts}
    if link and not link.startswith("http"):
        told["standard"] = link
    return {
        "type": kind,
        "title": title,
        "authors": [{"name": f"The authors of {title}"}],
        **({"url": link} if link.startswith("http") else {}),
        **({"notes": "; ".join(f"{name}: {text}" for name, text in told.items())} if told else {}),
    }
