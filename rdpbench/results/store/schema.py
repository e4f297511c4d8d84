"""What is stored, field by field. One row per task, scores in long form beside it.

``SCHEMA_VERSION`` is written into every file. A file of an older version is migrated while it is read (`MIGRATIONS`);
a newer one stops with the instruction to upgrade. Field names are what ``rows.parquet`` and the CSV files call them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from rdpbench.errors import StoreCorrupt, StoreError
from rdpbench.setting import Setting

SCHEMA_VERSION = 6


def _to_version_2(kind: str, _: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew neither manifests nor captions, the size of an image before the protocol, nor notes to scores."""
    if kind == "score":
        return {"note": ""}
    later = {"manifest": "", "manifest_kind": "", "source_height": None, "source_width": None}
    without = {"caption": "", "caption_source": "", "caption_s": None, "weights": "", "legacy": "{}"}
    return {**later, **without} if kind == "row" else {}


def _to_version_3(kind: str, record: dict[str, Any]) -> dict[str, Any]:
    """Version 2 did not say where a dataset lies, all options, what a codec told or opened, nor a metric's version."""
    if kind == "set":
        return {"definition": "", "left_out": None, "note": ""}
    if kind == "score":
        later: dict[str, Any] = {"definition": "", "session": ""}
        if record["metric"] == "psnr-pooled" and record["value"] is not None:  # a squared error, beside a unit of dB
            later["value"] = 10 * math.log10(255**2 / record["value"]) if record["value"] else math.inf
        return later
    if kind == "row":
        root = _root_of(record["path"], record["image"]) if record["manifest_kind"] in ("made", "") else ""
        return {"root": root, "configuration": "", "info": "{}", "files": "{}", "tolerance": None}
    return {}


def _root_of(path: str, image: str) -> str:
    """The folder of a set of the user's, from where an image lies and from its id, which is its path in there."""
    tails = (tail for tail in (path, path.rpartition(".")[0]) if tail.endswith(f"/{image}"))
    return next((tail.removesuffix(f"/{image}") for tail in tails), "")


def _to_version_4(kind: str, _: dict[str, Any]) -> dict[str, Any]:
    """Version 3 knew no codecs whose rates are not proven."""
    return {"grade": "decoded"} if kind == "row" else {}


def _to_version_5(kind: str, _: dict[str, Any]) -> dict[str, Any]:
    """Version 4 named the device of a row, such as ``cuda:0``, but not what that was."""
    return {"hardware": "{}"} if kind == "row" else {}


def _to_version_6(kind: str, record: dict[str, Any]) -> dict[str, Any]:
    """Version 5 held the whole path of a set's folder; images keep theirs, which is where they are looked for."""
    return {"root": place_name(record["root"])} if kind in ("row", "member") else {}


def place_name(folder: str) -> str:
    """A folder as rows name it: rows are published, and a path tells of a machine. Where it lies says the call.

    >>> place_name("/data/pictures"), len(place_name(""))
    ('pictures-ff98bc6b', 0)
    """
    return f"{PurePath(folder).name}-{hashlib.sha256(folder.encode()).hexdigest()[:8]}" if folder else ""


MIGRATIONS: dict[int, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    1: _to_version_2,
    2: _to_version_3,
    3: _to_version_4,
    4: _to_version_5,
    5: _to_version_6,
}
"""From version n to n + 1: what changes in a ``row``, ``score``, ``timing`` or ``set``."""

AS_RAN = "as it ran"
"""What in a row's configuration is apart from the options of the key; no option can have this name."""

REFUTED = "refuted: "
"""How the error of a row begins whose bitstream did not give its pixels in a fresh process."""

Status = Literal["ok", "error", "out_of_range"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image coded by one codec at one rate point; what has a default is known once it is coded.

    Each column is explained in ``rdpbench/results/columns.md``.
    """

    task_key: str
    session: str
    codec: str
    use: str
    options: str
    configuration: str
    coder: str
    rate_field: str
    rate: float | None
    target_bpp: float | None
    tolerance: float | None
    seed: int
    dataset: str
    dataset_size: int
    manifest: str
    manifest_kind: str
    root: str
    protocol: str
    image: str
    tags: str
    path: str
    pixel_sha256: str
    source_mode: str
    source_height: int | None
    source_width: int | None
    height: int
    width: int
    caption: str
    caption_source: str
    caption_s: float | None
    status: Status
    error: str = ""
    bytes: int | None = None
    parts: str = "{}"
    bpp: float | None = None
    bits_kind: str = "file"
    grade: str = "decoded"
    legacy: str = "{}"
    weights: str
    bitstream_sha256: str = ""
    reconstruction_sha256: str = ""
    verified: str = ""
    encode_s: float | None = None
    decode_s: float | None = None
    score_s: float | None = None
    peak_memory_mb: float | None = None
    device: str
    hardware: str = "{}"
    threads: int = 1
    batch: int = 1
    command: str = ""
    info: str = "{}"
    files: str = "{}"
    attempts: int = 1
    time: str

    @property
    def setting(self) -> Setting:
        """What it was coded at: the target, where one was searched, since each image then has a rate of its own."""
        rate = self.rate if self.target_bpp is None else None
        return Setting(self.rate_field, rate, self.target_bpp)

    @property
    def proven(self) -> bool:
        """Does a decoder make its picture from its bytes alone?"""
        return self.grade in ("decoded", "")

    @property
    def point(self) -> str:
        """Its codec and setting in words, for messages."""
        return f"{self.codec}, {self.setting.words}"


@dataclass(frozen=True)
class Score:
    """One metric's value for one row."""

    score_key: str
    """sha256 over the task key, the metric's name and version, its weights and its reference side."""
    task_key: str
    metric: str
    value: float | None
    """None where the metric refused the image; ``error`` says why."""
    error: str = ""
    note: str = ""
    """What one should know of the value, such as a caption that was cut."""
    definition: str = ""
    """Which edition of the metric: its version and a hash of all that changes its value; empty if not known."""
    session: str = ""
    """Which call of rdpbench scored it; empty if not known."""


@dataclass(frozen=True)
class Member:
    """That a row belongs to one more point than the one that it was coded for: another dataset, label or source.

    A row is stored once however many points share it. What a point is called and which set it is of does not change a
    result, so none of it is in a task's key; it is stored here, apart from the row.
    """

    member_key: str
    """sha256 over all of the following but the session."""
    task_key: str
    codec: str
    """The curve's label."""
    dataset: str
    dataset_size: int
    manifest: str
    manifest_kind: str
    root: str
    tags: str
    caption_source: str
    session: str
    """Which call of rdpbench named it."""


@dataclass(frozen=True)
class Measure:
    """What must be known to read the values of a metric that does not ship, as it was when it scored.

    It is stored, since who reads a run does not import what the run names. Fields are as in
    `rdpbench.metrics.contract.Meaning`; ``low`` and ``high`` are its bounds.
    """

    measure_key: str
    """The metric's name and its edition."""
    metric: str
    definition: str
    """Which edition of the metric, as for a score."""
    source: str
    """sha256 of the source of its class; empty if it is not known."""
    kind: str
    unit: str
    higher_is_better: bool
    perceptual: bool
    averaged: str
    low: float
    high: float
    session: str
    """Which call of rdpbench stored it."""


class Place(NamedTuple):
    """To which curve a row or a member belongs, with the protocol, which is in the task's key."""

    codec: str
    dataset: str
    manifest: str
    root: str
    caption_source: str

    @classmethod
    def of(cls, stated: Row | Member) -> Place:
        """What a row or a member states."""
        return cls(stated.codec, stated.dataset, stated.manifest, stated.root, stated.caption_source)


@dataclass(frozen=True)
class Timing:
    """Honest seconds of one row: exclusive device, warmed up, repeated. The only times that enter latency tables."""

    timing_key: str
    task_key: str
    device: str
    """With its model, as ``cpu (AMD EPYC)``: two models have two times, two machines of one model have one. Earlier
    versions did not say it."""
    threads: int
    warmup: int
    repeats: int
    build_s: float
    """Building the codec, loading its weights included."""
    encode_s: float
    """Median over the repeats, device synchronised."""
    encode_min_s: float
    encode_max_s: float
    decode_s: float
    decode_min_s: float
    decode_max_s: float
    load_average: float
    """Of the machine, in the minute before: above about 1 it was not exclusive."""


@dataclass(frozen=True)
class SetScore:
    """A set metric's value for one point: a codec at one setting and seed over the images of a dataset."""

    set_key: str
    """sha256 over the metric (name, version, network, weights) and the pixels of both sides."""
    point_key: str
    """sha256 over the metric's name and the reconstructions; what a point of a curve is looked up by."""
    metric: str
    images: int
    """In the value: those that the protocol takes and that have features on both sides."""
    value: float | None
    """None where there is none; ``reason`` says why."""
    lo: float | None
    """95 % interval over images: delete-a-block jackknife."""
    hi: float | None
    spread: float | None
    """Of the method's own resampling, such as the standard deviation over KID's subsets."""
    reliable: bool
    """False: fewer images than the method needs, computed on the user's word."""
    reason: str
    extra: str
    """What belongs beside the value, as JSON: the mIoU of the originals."""
    reference: str
    """The other side: ``originals``, or a set of its own."""
    time: str
    definition: str = ""
    """Which edition of the metric, as for a score."""
    left_out: str | None = None
    """Ids of images of the point that are not in the value, as a JSON list; None if that is not known."""
    note: str = ""
    """What one should know of the value or of its interval."""


OF_THE_MACHINE = "machine, not codec: "
"""How an error begins that says nothing of the codec or metric: the next call tries such a task again by itself."""

LONGEST_ERROR = 4000
"""Characters of an error text; more is cut, with a mark."""


def error_text(text: str) -> str:
    """An error as it is stored and printed: not endless, and of characters that every file can hold.

    >>> len(error_text("x" * 10_000))
    4038
    """
    if len(text) > LONGEST_ERROR:
        text = f"{text[:LONGEST_ERROR]}… (cut here: {len(text):,} characters in all)"
    return text.encode(errors="backslashreplace").decode()


def encodable(value: Any) -> Any:
    """Data with what is no character, such as half of a pair of surrogates, spelled out in all of its texts.

    >>> encodable({"error": ["\\ud800", 1]})
    {'error': ['\\\\ud800', 1]}
    """
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {encodable(name): encodable(inner) for name, inner in value.items()}
    return [encodable(inner) for inner in value] if isinstance(value, (list, tuple)) else value


KINDS: dict[str, type] = {
    "row": Row,
    "score": Score,
    "timing": Timing,
    "set": SetScore,
    "member": Member,
    "measure": Measure,
}
"""What a part holds under these names, and the Parquet files ``rows``, ``scores``, ..."""
_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int), "bool": (bool,)}
JSON_FIELDS = {"options", "configuration", "coder", "parts", "legacy", "hardware", "info", "files", "extra"}
"""Fields that hold an object as JSON, or nothing."""


def _fields(kind: type) -> dict[str, tuple[tuple[type, ...], bool]]:
    """The types that each field can have, and whether it holds JSON."""
    known: dict[str, tuple[tuple[type, ...], bool]] = {}
    for column in fields(kind):
        first, _, none = str(column.type).replace("Status", "str").partition(" | ")
        known[column.name] = (*_TYPES[first], *((type(None),) if none else ())), column.name in JSON_FIELDS
    return known


_FIELDS = {kind: _fields(kind) for kind in KINDS.values()}
R = TypeVar("R")


def types_of(kind: type) -> dict[str, tuple[type, ...]]:
    """The types that the fields of a kind of record can have, the first of which says what column it is."""
    return {name: types for name, (types, _) in _FIELDS[kind].items()}


@lru_cache(8192)
def is_object(text: str) -> bool:
    """Is a text an object as JSON, or empty?"""
    try:
        return text == "" or isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def parse(kind: type[R], record: Any, where: str) -> R:
    """Turn a stored record back into its class.

    Raises:
        StoreCorrupt: other fields, or values of another kind than is written, with the place.
    """
    known = _FIELDS[kind]
    if not isinstance(record, dict):
        raise StoreCorrupt(f"{where}: found {record!r:.80} where a {kind.__name__} should be")
    if record.keys() != known.keys():
        names = ", ".join(name.strip("'") for name in sorted(map(repr, record.keys() ^ known.keys())))
        raise StoreCorrupt(f"{where}: a {kind.__name__} with unexpected or missing fields: {names:.400}")
    for name, (types, is_json) in known.items():
        value = record[name]
        if type(value) not in types or (is_json and not is_object(value)):
            raise StoreCorrupt(f"{where}: {value!r:.80} cannot be the {name} of a {kind.__name__}")
    if kind is Row and record["status"] not in get_args(Status):
        raise StoreCorrupt(f"{where}: {record['status']!r:.80} cannot be the status of a Row")
    return kind(**record)


def migrate(record: dict[str, Any], version: object, where: str, kind: str = "") -> dict[str, Any]:
    """Bring a record of an older version to this one: of a ``kind``, or a line of a part that holds several.

    Raises:
        StoreError: written by a newer rdpbench, or no version at all.
        StoreCorrupt: it is not what that version wrote.
    """
    if not isinstance(version, int) or version < 1:
        raise StoreError(f"{where} states no schema version; it was not written by rdpbench")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{where} has schema version {version}; this rdpbench reads up to {SCHEMA_VERSION}. "
            "It was written by a newer rdpbench; type: pip install --upgrade rdpbench"
        )
    if version == SCHEMA_VERSION:
        return record
    try:
        if kind:
            for step in range(version, SCHEMA_VERSION):
                record = {**record, **MIGRATIONS[step](kind, record)}
            return record
        inner: dict[str, Any] = {
            name: migrate(record[name], version, where, name) for name in KINDS.keys() & record.keys()
        }
        if "scores" in record:
            inner["scores"] = [migrate(score, version, where, "score") for score in record["scores"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreCorrupt(f"{where} is no record of version {version}: {type(error).__name__} {error}") from error
    return {**record, **inner}
