"""A run as one HTML file: its curves, its tables, what failed, and where it comes from.

The file needs nothing beside it and no network: styles, script and figures are inside, and its content policy forbids
to load anything. All that comes from images, codecs and errors is escaped. The same run gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdpbench.results import tables
from rdpbench.results.figures import draw_all
from rdpbench.results.parts import unwritable
from rdpbench.results.schema import Row
from rdpbench.results.show import latency, select
from rdpbench.results.store import Contents, Store
from rdpbench.results.summary import summarise
from rdpbench.results.tables import Table

if TYPE_CHECKING:
    import pandas as pd

MOST = 200
"""Failed tasks that are listed; rows.csv has all."""

LONG = ("config", "packages")
"""Provenance that is folded away."""


def report(store: Store, contents: Contents, metrics: Sequence[str]) -> Path:
    """Write ``report.html`` into the run's folder; returns its path.

    Raises:
        StoreUnwritable: the folder cannot be written.
    """
    rows = select(contents.rows.values(), None)
    frame = summarise(rows, contents.scores.values(), metrics, contents.sets.values())
    path = store.folder / "report.html"
    beside = path.with_name(".report.html.tmp")
    try:
        page = _page(store, contents, rows, frame)
        beside.write_text(page, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def _page(store: Store, contents: Contents, rows: Sequence[Row], frame: pd.DataFrame) -> str:
    name = store.folder.resolve().name
    older = len(contents.rows) - len(rows)
    body = [f"<h1>{escape(name)}</h1>", f"<p>{escape(_counts(rows))}</p>"]
    if older:
        body.append(f"<p class=note>{older} rows of earlier versions of codecs or images are left out.</p>")
    sets = list(dict.fromkeys(frame["dataset"]))
    for dataset in sets:
        part = frame[frame["dataset"] == dataset]
        folder = store.folder / "figures"
        drawn = draw_all(part, folder if len(sets) == 1 else folder / dataset)
        # A figure for each metric: side by side on a desk, one below the other on a phone.
        figures = "".join(_figure(path) for path in drawn if path.suffix == ".svg" and path.stem != "curves")
        body += [f"<h2>{escape(dataset)}</h2>"] if dataset != name else []
        body.append(f'<div class="figures">{figures}</div>')
        body.append(_table(tables.measured(part), sortable=True))
        equal = "".join(f"<div>{_table(one)}</div>" for one in tables.at_equal_rates(part))
        body.append(f'<div class="figures">{equal}</div>')
        timed = latency([row for row in rows if row.dataset == dataset], contents)
        body += [_table(timed, sortable=True)] if timed else []
    body += _failures(rows, contents)
    body += _sessions(sorted((store.folder / "sessions").glob("*.json")))
    script = _beside("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # The script is allowed by its hash: nothing that slipped through the escaping could run.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(name)} · rdpbench</title>",
            f"<style>{_beside('report.css')}</style>",
            "<main>",
            *body,
            "</main>",
            f"<script>{script}</script>",
            "</html>\n",
        ]
    )


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _counts(rows: Sequence[Row]) -> str:
    good = [row for row in rows if row.status == "ok"]
    again = sum(row.verified == "fresh_process" for row in good)
    curves, images = ({(row.dataset, getattr(row, what)) for row in rows} for what in ("codec", "image"))
    return (
        f"{len(curves)} curves, {len(images)} images, {len(good)} bitstreams: each was decoded by a second object "
        f"from its bytes alone, {again} of them once more in a fresh process. "
        f"Failed or out of range: {len(rows) - len(good)}."
    )


def _figure(path: Path) -> str:
    """The SVG without what only a file of its own needs."""
    svg = path.read_text(encoding="utf-8")
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return f'<div class="figure">{svg.strip()}</div>'


def _table(table: Table, *, sortable: bool = False) -> str:
    marks = {1: "<b>{}</b>", 2: "<u>{}</u>"}
    heads = (f"<button>{escape(name)}</button>" if sortable else escape(name) for name in table.header)
    lines = [f"<tr>{''.join(f'<th scope=col>{head}' for head in heads)}"]
    for line in table.lines:
        cells = []
        for cell in line:
            key = f' data-key="{_key(cell.text)}"' if sortable and _key(cell.text) else ""
            cells.append(f"<td{key}>{marks.get(cell.rank, '{}').format(escape(cell.text))}")
        lines.append(f"<tr>{''.join(cells)}")
    kind = ' class="sortable"' if sortable else ""
    head, *rest = lines
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in table.notes)
    caption = f"<caption>{escape(table.caption)}</caption>"
    inner = f"<table{kind}>{caption}<thead>{head}</thead><tbody>\n" + "\n".join(rest) + "\n</tbody></table>"
    return f'<div class="wide" tabindex="0">{inner}</div>{notes}'


def _key(text: str) -> str:
    """The number that a cell is sorted by; empty where it is sorted by its text.

    >>> _key("quality 50"), _key("36.02 ±2.19"), _key("∞"), _key("jpeg2000")
    ('50', '36.02', 'Infinity', '')
    """
    if text == "∞":
        return "Infinity"
    number = re.search(r"(?:^|\s)(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)", text)
    return number[1] if number else ""


def _failures(rows: Sequence[Row], contents: Contents) -> list[str]:
    by_key = {row.task_key: row for row in rows}
    lines: list[tuple[str, ...]] = [
        (row.codec, _setting(row), row.image, row.status, row.error) for row in rows if row.status != "ok"
    ]
    for score in contents.scores.values():
        row = by_key.get(score.task_key)
        if row is not None and score.value is None:
            lines.append((row.codec, _setting(row), row.image, score.metric, score.error))
    if not lines:
        return ["<h2>What failed</h2>", "<p>Nothing.</p>"]
    shown = tuple(tuple(tables.Cell(text) for text in line) for line in lines[:MOST])
    notes = (f"and {len(lines) - MOST} more, all in rows.csv",) if len(lines) > MOST else ()
    table = Table("Tasks and scores that are in no mean", ("codec", "setting", "image", "what", "why"), shown, notes)
    return ["<h2>What failed</h2>", _table(table)]


def _setting(row: Row) -> str:
    if row.target_bpp is not None:
        return f"target {row.target_bpp:g} bpp"
    return f"{row.rate_field} {row.rate:g}" if row.rate is not None else "–"


def _sessions(paths: Sequence[Path]) -> list[str]:
    """The command to type, and the provenance, of each call that coded or scored."""
    records = [_session(path) for path in paths]
    commands = "\n".join(dict.fromkeys(str(record["command"]) for record in records if "command" in record))
    out = ["<h2>To get these numbers again</h2>", f"<pre>{escape(commands)}</pre>", "<h2>Where they come from</h2>"]
    for record in records:
        short = {key: value for key, value in record.items() if key not in LONG}
        rows = "".join(f"<dt>{escape(key)}<dd>{escape(_value(value))}" for key, value in short.items())
        long = {key: _value(record[key]) for key in LONG if record.get(key)}
        more = "".join(
            f"<details><summary>{key}</summary><p>{escape(text)}</p></details>" for key, text in long.items()
        )
        out.append(f"<dl>{rows}</dl>{more}")
    return out


def _session(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {"session": path.stem, "provenance": f"cannot be read: {error}"}
    return {"session": path.stem, **record} if isinstance(record, dict) else {"session": path.stem}


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list, bool)) else str(value)
