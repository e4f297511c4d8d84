"""A row before anything is measured: what the plan knows of a task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from rdpbench import registry
from rdpbench.codecs.contract import configuration_of
from rdpbench.datasets.contract import dataset_of
from rdpbench.provenance import as_typed
from rdpbench.results.store.schema import AS_RAN, Row, Status
from rdpbench.runners.grid import root_of
from rdpbench.runners.search import Found, is_near, missed
from rdpbench.runners.task import Task, axis_of, build, definition, device_of, identity, metric_identity
from rdpbench.setting import Bench, CodecSetting, DataSetting


def new_row(task: Task, session: str, device: str, *, status: Status, error: str = "") -> Row:
    """A row with all that is known before anything is coded."""
    entry = task.entry
    axis = axis_of(task.codec)
    return Row(
        task_key=task.key,
        session=session,
        codec=task.codec.name,
        use=task.codec.use,
        options=json.dumps(dict(task.codec.options)),
        configuration=configuration(task.codec, task.rate),
        coder=_coder(task.identity),
        rate_field=axis.field if axis else "",
        rate=task.rate,
        target_bpp=task.target,
        tolerance=None if task.target is None else task.tolerance,
        seed=task.seed,
        dataset=task.dataset,
        dataset_size=task.dataset_size,
        manifest=task.pin.sha256,
        manifest_kind=task.pin.kind,
        root=task.root,
        protocol=task.protocol,
        image=entry.sample.id,
        tags=",".join(entry.sample.tags),
        path=str(entry.sample.path),
        pixel_sha256=entry.sha256,
        source_mode=entry.mode,
        source_height=entry.source_height,
        source_width=entry.source_width,
        height=entry.height,
        width=entry.width,
        caption=task.caption.text if task.caption else "",
        caption_source=task.caption.source if task.caption else "",
        caption_s=task.caption.seconds if task.caption else None,
        status=status,
        error=error,
        bytes=None,
        parts="{}",
        bpp=None,
        bits_kind="file",
        legacy="{}",
        weights=_weights(task.identity),
        bitstream_sha256="",
        reconstruction_sha256="",
        verified="",
        encode_s=None,
        decode_s=None,
        score_s=None,
        peak_memory_mb=None,
        device=device_of(task.codec, device),
        threads=1,
        batch=1,
        command="",
        info="{}",
        files="{}",
        attempts=1,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def without_environment(row: Row, setting: CodecSetting) -> Row:
    """A row with what was typed, such as ``${oc.env:TOKEN}``, in the place of what the environment held."""
    if not setting.typed:
        return row
    held = dict(setting.typed)
    told: dict[str, Any] = {name: json.dumps(as_typed(json.loads(getattr(row, name)), held)) for name in _OF_OPTIONS}
    # An option that is a path is made absolute, so that the value is a part of it, or is written otherwise.
    options = json.loads(told["options"])
    told["options"] = json.dumps(options | {name: text for (name, _), text in setting.typed if name in options})
    return replace(row, **told, **{name: as_typed(getattr(row, name), held) for name in ("error", "command")})


_OF_OPTIONS = ("options", "configuration", "coder", "info")


def judged(row: Row, tolerance: float) -> Row:
    """A row of a searched target, ``ok`` or ``out_of_range`` by the tolerance; the bitstream is the same either way."""
    assert row.target_bpp is not None
    assert row.rate is not None
    assert row.bpp is not None
    if is_near(row.bpp, row.target_bpp, tolerance):
        return row if row.status == "ok" else replace(row, status="ok", error="", tolerance=tolerance)
    nearest = Found(row.rate, row.bpp, row.attempts)
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
    axis = axis_of(setting)
    codec = build(setting, (axis.low if rate is None else rate) if axis else None)
    keyed: dict[str, Any] = json.loads(identity(setting, rate))["options"]
    whole = json.loads(json.dumps(configuration_of(codec), default=str))
    ran = {name: value for name, value in whole.items() if name not in keyed or keyed[name] != value}
    return json.dumps({**keyed, **({AS_RAN: ran} if ran else {})})


def _as_it_ran(told: str) -> dict[str, Any]:
    """A row's configuration in one level: what was derived in the place of what was typed."""
    options: dict[str, Any] = json.loads(told)
    ran = options.pop(AS_RAN, {})
    return {**options, **ran}


@cache
def _coder(identity: str) -> str:
    """What codes, as JSON: libraries or programs, and what tells the codec from an earlier one of the same name.

    That is its version, and its source if it is the user's.
    """
    made: Mapping[str, Any] = json.loads(identity)
    own = {"version": made["version"], **({"source_sha256": made["source"]} if made["source"] else {})}
    return json.dumps({**made["coder"], **own})


def resolved(bench: Bench, tasks: Iterable[Task], metrics: Iterable[str]) -> dict[str, Any]:
    """What the codecs, data and metrics of a command were set to, for its record."""
    points: dict[str, dict[tuple[float | None, float | None], Task]] = {}
    sets: dict[tuple[str, str, str], Task] = {}
    for task in tasks:
        points.setdefault(task.codec.name, {}).setdefault((task.rate, task.target), task)
        sets.setdefault((task.dataset, task.protocol, task.root), task)
    return {
        "codecs": {label: _codec(list(of.values())) for label, of in points.items()},
        "data": [_data(data, sets) for data in dict.fromkeys(data for _, data in bench.grid)],
        "metrics": {name: _metric(name) for name in metrics},
    }


def _codec(tasks: Sequence[Task]) -> dict[str, Any]:
    """A curve: what all of its points share, and what is a point's own."""
    axis, first = axis_of(tasks[0].codec), tasks[0].codec
    made = [
        {"configuration": _as_it_ran(configuration(first, task.rate)), "coder": json.loads(_coder(task.identity))}
        for task in tasks
    ]
    shared = {
        part: {
            name: value
            for name, value in made[0][part].items()
            if all(one[part].get(name, _ABSENT) == value for one in made)
        }
        for part in made[0]
    }
    points: list[dict[str, Any]] = []
    for task, one in zip(tasks, made, strict=True):
        own = {part: {k: v for k, v in of.items() if k not in shared[part]} for part, of in one.items()}
        where: dict[str, Any] = {axis.field: task.rate} if axis and task.rate is not None else {}
        where |= {"target_bpp": task.target} if task.target is not None else {}
        points.append(where | {part: of for part, of in own.items() if of})
    return {"use": first.use, "options": dict(first.options), **shared, "points": points}


_ABSENT = object()


def _data(setting: DataSetting, sets: Mapping[tuple[str, str, str], Task]) -> dict[str, Any]:
    dataset: Any = dataset_of(setting)
    options = asdict(dataset) if is_dataclass(type(dataset)) else dict(setting.options)
    told: dict[str, Any] = {"name": dataset.name, "use": setting.use, "options": options, "protocol": dataset.protocol}
    places = [(dataset.name, dataset.protocol, root) for root in (root_of(setting), "")]
    if task := next((sets[place] for place in places if place in sets), None):
        told |= {"images": task.dataset_size, "manifest": task.pin.sha256, "manifest_kind": task.pin.kind}
    return told


def _metric(name: str) -> dict[str, Any]:
    features = getattr(registry.load("metric", name), "features", None)
    of_images = {"features": {"id": features.id, "version": str(features.version)}} if features else {}
    return {"definition": definition(name), **metric_identity(name), **of_images}
