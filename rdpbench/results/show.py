"""What a run leaves behind for people: a table on the terminal, Markdown, LaTeX, CSV and figures, from one frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rdpbench.results import tables
from rdpbench.results.figures import draw_all
from rdpbench.results.latex import latex
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
    if len(rows) < len(contents.rows) and labels is None:
        older = len(contents.rows) - len(rows)
        console.print(f"{older} rows of earlier versions of codecs, or of images that changed since, are left out")
    frame = summarise(rows, contents.scores.values(), metrics, contents.sets.values())
    drawn: list[tables.Table] = []
    written: list[Path] = []
    try:
        sets = list(dict.fromkeys(frame["dataset"]))
        for dataset in sets:
            part = frame[frame["dataset"] == dataset]
            table = tables.measured(part)
            timed = latency([row for row in rows if row.dataset == dataset], contents)
            for one in (table, timed):
                if one is not None:
                    console.print(tables.terminal(one))
            drawn += [table, *tables.at_equal_rates(part), *([timed] if timed else [])]
            if figures:
                # Curves of two datasets in one panel would be joined to one.
                folder = store.folder / "figures"
                written += draw_all(part, folder if len(sets) == 1 else folder / dataset)[:3]
        folder = store.folder / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.md").write_text("\n".join(tables.markdown(one) for one in drawn))
        (folder / "summary.tex").write_text("\n".join(latex(one) for one in drawn))
        frame.to_csv(folder / "summary.csv", index=False)
        tidy(rows, contents.scores.values(), metrics).to_csv(store.folder / "rows.csv", index=False)
    except OSError as error:
        raise unwritable(store.folder, error) from error
    made = [store.folder / "rows.parquet", store.folder / "rows.csv"]
    return [*made, *(folder / f"summary.{ending}" for ending in ("csv", "md", "tex")), *written]


def by_tag(rows: Sequence[Row], scores: Iterable[Score], metrics: Sequence[str]) -> Iterator[tables.Table]:
    """One table for each tag of the images: a mean over photographs and scans together may be true of neither."""
    scores = list(scores)
    for tag in sorted({tag for row in rows for tag in row.tags.split(",") if tag}):
        tagged = [row for row in rows if tag in row.tags.split(",")]
        sizes = {row.dataset: len({one.image for one in tagged if one.dataset == row.dataset}) for row in tagged}
        named = [replace(row, dataset=f"{row.dataset}, {tag}", dataset_size=sizes[row.dataset]) for row in tagged]
        yield tables.measured(summarise(named, scores, metrics))


def select(rows: Iterable[Row], labels: dict[str, str] | None) -> list[Row]:
    """The rows of a command in the order of its tasks, each under its curve's label; or what is current of a store."""
    if labels is None:
        return _current(list(rows))
    by_key = {row.task_key: row for row in rows}
    return [replace(by_key[key], codec=codec) for key, codec in labels.items() if key in by_key]


def _current(rows: Sequence[Row]) -> list[Row]:
    """Without what a later row stands for: an earlier version of a codec, an image under the same name that changed.

    A mean over both would be of neither.
    """

    def coder(row: Row) -> tuple[str, ...]:
        return (row.use, row.options, row.coder)

    newest: dict[tuple[str, str], Row] = {}
    latest: dict[tuple[object, ...], Row] = {}
    for row in sorted(rows, key=lambda row: (row.session, row.time)):
        newest[row.dataset, row.codec] = row
        native = row.rate if row.target_bpp is None else None
        latest[row.dataset, row.protocol, row.codec, native, row.target_bpp, row.seed, row.image] = row
    current = {row.task_key for row in latest.values() if coder(row) == coder(newest[row.dataset, row.codec])}
    return [row for row in rows if row.task_key in current]


def tidy(rows: Iterable[Row], scores: Iterable[Score], metrics: Sequence[str]) -> pd.DataFrame:
    """One line per image, rate point and metric: the long form that plotting libraries want."""
    import pandas as pd

    values = {(score.task_key, score.metric): score for score in scores}
    lines = []
    for row in rows:
        fixed = row.record()
        for metric in metrics or [""]:
            score = values.get((row.task_key, metric))
            found = {"value": score.value, "metric_error": score.error} if score else {}
            lines.append({**fixed, "metric": metric, "value": None, "metric_error": "", **found})
    return pd.DataFrame(lines)


def latency(rows: Sequence[Row], contents: Contents) -> tables.Table | None:
    """The honest times of these rows as a table; None where none were measured."""
    import pandas as pd

    by_key = {row.task_key: row for row in rows}
    lines = []
    for timing in contents.timings.values():
        row = by_key.get(timing.task_key)
        if row is not None:
            point = f"{row.rate_field} {row.rate:g}" if row.rate is not None else "–"
            lines.append({**vars(timing), "codec": row.codec, "setting": point})
    return tables.latency(pd.DataFrame(lines)) if lines else None
