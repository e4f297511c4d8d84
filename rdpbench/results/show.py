"""What a run leaves behind for people: a table on the terminal, Markdown, LaTeX, CSV and figures, from one frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rdpbench.results import tables
from rdpbench.results.figures import draw_all
from rdpbench.results.parts import unwritable
from rdpbench.results.schema import Row, Score
from rdpbench.results.store import Contents, Store
from rdpbench.results.summary import summarise

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console


def show(
    store: Store,
    contents: Contents,
    labels: dict[str, str] | None,
    metrics: Sequence[str],
    console: Console,
    *,
    figures: bool = True,
) -> list[Path]:
    """Print the summary and write all outputs; returns the files worth naming.

    ``labels`` selects rows by task key and gives each the curve it belongs to; None takes the whole store.
    """
    rows = select(contents.rows.values(), labels)
    frame = summarise(rows, contents.scores.values(), metrics)
    table = tables.measured(frame)
    console.print(tables.terminal(table))
    written: list[Path] = []
    try:
        equal = tables.at_equal_rates(frame)
        folder = store.folder / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        drawn = [table, *equal]
        timed = _latency(rows, contents)
        if timed is not None:
            console.print(tables.terminal(timed))
            drawn.append(timed)
        (folder / "summary.md").write_text("\n".join(tables.markdown(one) for one in drawn))
        (folder / "summary.tex").write_text("\n".join(tables.latex(one) for one in drawn))
        frame.to_csv(folder / "summary.csv", index=False)
        tidy(rows, contents.scores.values(), metrics).to_csv(store.folder / "rows.csv", index=False)
        written += [store.folder / "rows.parquet", store.folder / "rows.csv"]
        written += [folder / f"summary.{ending}" for ending in ("csv", "md", "tex")]
        if figures:
            written += draw_all(frame, store.folder / "figures")[:3]
    except OSError as error:
        raise unwritable(store.folder, error) from error
    return written


def select(rows: Iterable[Row], labels: dict[str, str] | None) -> list[Row]:
    """The rows of a command in the order of its tasks, each under its curve's label."""
    if labels is None:
        return list(rows)
    by_key = {row.task_key: row for row in rows}
    return [replace(by_key[key], codec=codec) for key, codec in labels.items() if key in by_key]


def tidy(rows: Iterable[Row], scores: Iterable[Score], metrics: Sequence[str]) -> pd.DataFrame:
    """One line per image, rate point and metric: the long form that plotting libraries want."""
    import pandas as pd

    values = {(score.task_key, score.metric): score for score in scores}
    lines = []
    for row in rows:
        fixed = row.record()
        for metric in metrics or [""]:
            score = values.get((row.task_key, metric))
            lines.append({**fixed, "metric": metric, "value": score.value if score else None})
    return pd.DataFrame(lines)


def _latency(rows: Sequence[Row], contents: Contents) -> tables.Table | None:
    import pandas as pd

    by_key = {row.task_key: row for row in rows}
    lines = []
    for timing in contents.timings.values():
        row = by_key.get(timing.task_key)
        if row is not None:
            point = f"{row.rate_field} {row.rate:g}" if row.rate is not None else "–"
            lines.append({**vars(timing), "codec": row.codec, "setting": point})
    return tables.latency(pd.DataFrame(lines)) if lines else None
