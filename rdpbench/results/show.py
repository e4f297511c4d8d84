"""What a run leaves behind for people: a table on the terminal, Markdown, LaTeX, CSV and figures, from one frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rdpbench.results import tables
from rdpbench.results.figures import draw_all
from rdpbench.results.latex import latex
from rdpbench.results.parts import unwritable
from rdpbench.results.schema import Row
from rdpbench.results.spreadsheets import to_csv
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Point, Points, titles
from rdpbench.results.store import Contents, Store
from rdpbench.results.style import safe
from rdpbench.results.summary import compared, frame
from rdpbench.setting import Setting

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console


def show(
    store: Store,
    contents: Contents,
    points: Points,
    metrics: Sequence[str],
    console: Console,
    *,
    figures: bool = True,
) -> list[Path]:
    """Print the summary of points and write all outputs; returns the files worth naming."""
    for note in points.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    store.check_links("tables", "figures")
    drawn: list[tables.Table] = []
    written: list[Path] = []
    try:
        names = titles(points.places)
        for where, name in names.items():
            here = points.at(where)
            table = tables.measured(frame(here, metrics), name)
            timed = latency(here.rows, contents)
            for shown in (table, timed):
                if shown is not None:
                    console.print(tables.terminal(shown))
            drawn += [table, *tables.at_equal_rates(here, metrics, name), *([timed] if timed else [])]
            if figures:
                # Curves of two datasets, or of two protocols, in one panel would be joined to one.
                folder = store.folder / "figures"
                side_by_side, notes = compared(here, metrics)
                place = folder if len(names) == 1 else folder / safe(name)
                written += draw_all(side_by_side, place, name, notes)[:3]
        folder = store.folder / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        summary, rows = folder / "summary.csv", store.folder / "rows.csv"
        for path, how in ((folder / "summary.md", tables.markdown), (folder / "summary.tex", latex)):
            path.unlink(missing_ok=True)
            path.write_text("\n".join(map(how, drawn)))
        to_csv(frame(points, metrics), summary)
        to_csv(tidy(points, metrics), rows)
    except OSError as error:
        raise unwritable(store.folder, error) from error
    made = [store.folder / "rows.parquet", store.folder / "rows.csv"]
    return [*made, *(folder / f"summary.{ending}" for ending in ("csv", "md", "tex")), *written]


def by_tag(points: Points, metrics: Sequence[str]) -> Iterator[tables.Table]:
    """One table for each tag of the images: a mean over photographs and scans together may be true of neither."""
    for tag in sorted({tag for row in points.rows for tag in row.tags.split(",") if tag}):
        for where, name in titles(points.places).items():
            here = [_tagged(point, tag) for point in points.at(where).points]
            size = len({row.image for point in here for row in point.rows})
            sized = [replace(p, rows=tuple(replace(row, dataset_size=size) for row in p.rows)) for p in here if p.rows]
            if sized:
                # A distance between sets is of all images; of those of a tag there is none.
                of_pairs = [metric for metric in metrics if meaning(metric).kind != "set"]
                yield tables.measured(frame(replace(points, points=tuple(sized)), of_pairs), f"{name}, {tag}")


def _tagged(point: Point, tag: str) -> Point:
    return replace(point, rows=tuple(row for row in point.rows if tag in row.tags.split(",")))


def tidy(points: Points, metrics: Sequence[str]) -> pd.DataFrame:
    """One line per image, rate point and metric: the long form that plotting libraries want."""
    import pandas as pd

    lines = []
    for row in points.rows:
        fixed = row.record()
        for metric in metrics or [""]:
            score = points.score(row, metric)
            error = score.error if score else ""
            lines.append({**fixed, "metric": metric, "value": points.value(row, metric), "metric_error": error})
    return pd.DataFrame(lines)


def latency(rows: Sequence[Row], contents: Contents) -> tables.Table | None:
    """The honest times of these rows as a table; None where none were measured."""
    import pandas as pd

    by_key = {row.task_key: row for row in rows}
    lines = []
    for timing in contents.timings.values():
        row = by_key.get(timing.task_key)
        if row is not None:
            lines.append({**vars(timing), "codec": row.codec, "setting": Setting.of(row).words})
    return tables.latency(pd.DataFrame(lines)) if lines else None
