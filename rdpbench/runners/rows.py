"""A row before anything is measured: what the plan knows of a task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from rdpbench.results.schema import Row, Status
from rdpbench.runners.search import Found, is_near, missed
from rdpbench.runners.task import Task, axis_of, device_of


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
        configuration=_configuration(task.identity),
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
def _configuration(identity: str) -> str:
    """All options, defaults too."""
    return json.dumps(json.loads(identity)["options"])


@cache
def _coder(identity: str) -> str:
    """What codes, as JSON: libraries or programs, and what tells the codec from an earlier one of the same name.

    That is its version, and its source if it is the user's.
    """
    made: Mapping[str, Any] = json.loads(identity)
    own = {"version": made["version"], **({"source_sha256": made["source"]} if made["source"] else {})}
    return json.dumps({**made["coder"], **own})
