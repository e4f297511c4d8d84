"""The summary as a table, on the terminal and in Markdown; `rdpbench.results.latex` writes the same tables for papers.

Two tables: every point as it was measured, and codecs at equal rates (interpolated between measured points, with the
best in bold and the second underlined). Arrows say which way is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rdpbench.results.summary import at_rate, common_rates, comparable

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table as RichTable

DIGITS = {"dB": 2, "": 4}


@dataclass(frozen=True)
class Cell:
    """A table cell: text, with its rank where cells compete."""

    text: str
    rank: int = 0
    """1 is best, 2 second; 0 does not compete."""


@dataclass(frozen=True)
class Table:
    """A table before it is drawn. Cells of the first column are labels."""

    caption: str
    header: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def untrained(frame: pd.DataFrame) -> pd.Series[bool]:
    """Which lines are of networks with random weights; frames of older runs do not say.

    >>> import pandas as pd
    >>> int(untrained(pd.DataFrame({"weights": ["official", "official, random", ""]})).sum())
    1
    """
    import pandas as pd

    if "weights" not in frame:
        return pd.Series(False, index=frame.index)
    return frame["weights"].fillna("").str.contains("random").astype(bool)


def measured(frame: pd.DataFrame) -> Table:
    """Every point as it was measured, mean and half width of its 95 % interval."""
    metrics = _metrics(frame)
    header = ("codec", "setting", "n", "bpp", *(_heading(frame, metric) for metric in metrics))
    lines: list[tuple[Cell, ...]] = []
    notes: dict[str, None] = {}
    keys = ["dataset", "codec", "target_bpp", "rate"]
    for _, point in frame.groupby(keys, sort=False, dropna=False):
        first = point.iloc[0]
        cells = [Cell(str(first["codec"])), Cell(_setting(first)), Cell(_count(first, notes)), Cell(_bpp(first))]
        for metric in metrics:
            one = point[point["metric"] == metric]
            cells.append(Cell(_value(one.iloc[0]) if len(one) else "–"))
            if len(one) and one.iloc[0]["infinite"]:
                notes[f"{metric}: {one.iloc[0]['infinite']} lossless images are left out of a mean"] = None
            if len(one) and not one.iloc[0]["reliable"]:
                notes["† fewer images than this metric needs: not to be compared with anything"] = None
            if len(one) and one.iloc[0].get("note"):
                notes[f"{metric}: {one.iloc[0]['note']}"] = None
            if len(one) and one.iloc[0]["n_scored"] < first["n"]:
                notes["(k of n): images that a metric could not score are left out of its mean; rows.csv says why"] = (
                    None
                )
        lines.append(tuple(cells))
    if "seeds" in frame and (frame["seeds"] > 1).any():
        notes["s: standard deviation over the seeds of a stochastic codec, which the intervals do not hold"] = None
    if untrained(frame).any():
        names = ", ".join(dict.fromkeys(frame[untrained(frame)]["codec"]))
        notes[f"random weights, which are no results: {names}"] = None
    return Table(f"{_names(frame)}: means over images, ± half of the 95 % interval", header, tuple(lines), tuple(notes))


def at_equal_rates(frame: pd.DataFrame) -> list[Table]:
    """For each round rate that codecs share: their metrics there over the same images, best first in bold.

    Networks with random weights do not compete.
    """
    tables = []
    targets = sorted(frame["target_bpp"].dropna().unique())
    frame = frame[frame["reliable"] & ~untrained(frame)]
    everything, frame = frame, comparable(frame)
    for bpp in targets or common_rates(frame):
        points = _at_target(frame, bpp) if targets else at_rate(frame, bpp)
        metrics = _metrics(points)
        if not metrics:
            continue
        header = ("codec", *(_heading(points, metric) for metric in metrics))
        ranks = {metric: _ranks(points[points["metric"] == metric]) for metric in metrics}
        lines = []
        for codec in dict.fromkeys(points["codec"]):
            of = points[points["codec"] == codec].set_index("metric")
            cells = [Cell(codec)]
            for metric in metrics:
                there = metric in of.index and math.isfinite(of.loc[metric, "value"])
                text = _digits(of.loc[metric, "value"], of.loc[metric, "unit"]) if there else "–"
                cells.append(Cell(text, ranks[metric].get(codec, 0)))
            lines.append(tuple(cells))
        how = "searched per image" if targets else "interpolated between measured points"
        notes = _left_out(everything, frame, bpp) if targets else _left_out(everything, frame)
        tables.append(Table(f"{_names(frame)} at {bpp:g} bpp, {how}", header, tuple(lines), notes))
    return tables


def _left_out(everything: pd.DataFrame, compared: pd.DataFrame, bpp: float | None = None) -> tuple[str, ...]:
    out = everything.drop(compared.index)
    out = out[np.isfinite(out["bpp"])]
    if bpp is not None:
        out = out[out["target_bpp"] == bpp]
    names = ", ".join(dict.fromkeys(out["codec"]))
    return (f"not compared, since their means are over other images: points of {names}",) if names else ()


def latency(frame: pd.DataFrame) -> Table:
    """Honest times: medians over images of the median of repeats."""
    header = ("codec", "setting", "n", "encode ms", "decode ms", "device")
    lines = []
    for (codec, setting, device), of in frame.groupby(["codec", "setting", "device"], sort=False):
        encode, decode = (1000 * of[name].median() for name in ("encode_s", "decode_s"))
        texts = (codec, setting, len(of), f"{encode:.2f}", f"{decode:.2f}", device)
        lines.append(tuple(Cell(str(text)) for text in texts))
    loads = frame["load_average"]
    first = frame.iloc[0]
    note = (
        f"exclusive, one thread, {first['warmup']} warm-up and {first['repeats']} repeats an image; "
        f"building the codec is not in it; load average of the machine {loads.min():.2f} to {loads.max():.2f}"
    )
    return Table("Latency: median over images of the median of repeats", header, tuple(lines), (note,))


def terminal(table: Table) -> RichTable:
    """For a terminal."""
    from rich.markup import escape
    from rich.table import Table as Rich

    rich = Rich(title=escape(table.caption), caption=escape("\n".join(table.notes)) or None, title_justify="left")
    for number, name in enumerate(table.header):
        rich.add_column(escape(name), justify="left" if number == 0 else "right", no_wrap=number == 0)
    previous = ""
    for line in table.lines:
        label, *rest = line
        if previous and label.text != previous and len(table.lines) > len({one[0].text for one in table.lines}):
            rich.add_section()
        shown = "" if label.text == previous else label.text
        previous = label.text
        marks = {1: "[bold]{}[/bold]", 2: "[underline]{}[/underline]"}
        rich.add_row(escape(shown), *(marks.get(cell.rank, "{}").format(escape(cell.text)) for cell in rest))
    return rich


def markdown(table: Table) -> str:
    """For Markdown."""
    marks = {1: "**{}**", 2: "<u>{}</u>"}
    rows = [[_md(name) for name in table.header], ["---"] + ["---:"] * (len(table.header) - 1)]
    rows += [[marks.get(cell.rank, "{}").format(_md(cell.text)) for cell in line] for line in table.lines]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{_md(table.caption)}\n\n{text}\n" + "".join(f"\n{_md(note)}\n" for note in table.notes)


def _md(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "|\\<_*`" else letter for letter in text).replace("\n", " ")


def _metrics(frame: pd.DataFrame) -> list[str]:
    return [name for name in dict.fromkeys(frame["metric"]) if name]


def _names(frame: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(frame["dataset"]))


def _heading(frame: pd.DataFrame, metric: str) -> str:
    one = frame[frame["metric"] == metric].iloc[0]
    arrow = "↑" if one["higher_is_better"] else "↓"
    return f"{metric} {'dB ' if one['unit'] == 'dB' else ''}{arrow}"


def _setting(point: Any) -> str:
    if not math.isnan(point["target_bpp"] or math.nan):
        return f"target {point['target_bpp']:g} bpp"
    return f"{point['rate_field']} {point['rate']:g}" if not math.isnan(point["rate"]) else "–"


def _count(point: Any, notes: dict[str, None]) -> str:
    text = str(point["n"])
    if point["partial"] and point["n"]:
        text += "*"
        notes[f"* partial: fewer images than the {point['dataset_size']} of {point['dataset']}"] = None
    if point["failed"]:
        text += f" ({point['failed']} failed)"
        notes["failed images are not in the means; retry_failed=true tries them again"] = None
    if point["out_of_range"]:
        text += f" ({point['out_of_range']} out of range)"
        notes["out of range: the codec cannot reach the target for that image; nothing is extrapolated"] = None
    return text


def _bpp(point: Any) -> str:
    if not math.isfinite(point["bpp"]):
        return "–"
    return (
        f"{point['bpp']:.4f}"
        + _half(point["bpp_lo"], point["bpp_hi"], 4)
        + _seeds(point.get("bpp_seed_sd", math.nan), 4)
    )


def _value(line: Any) -> str:
    value = line["value"]
    if math.isinf(value):
        return "∞"
    if math.isnan(value):
        return "–"
    mark = "" if line["reliable"] else "†"
    places = DIGITS.get(line["unit"], 4)
    text = _digits(value, line["unit"]) + mark + _half(line["value_lo"], line["value_hi"], places)
    text += _seeds(line.get("value_seed_sd", math.nan), places)
    return text if line["n_scored"] == line["n"] else f"{text} ({line['n_scored']} of {line['n']})"


def _digits(value: float, unit: str) -> str:
    return f"{value:.{DIGITS.get(unit, 4)}f}"


def _half(low: float, high: float, digits: int) -> str:
    return f" ±{(high - low) / 2:.{digits}f}" if math.isfinite(high - low) else ""


def _seeds(spread: float, digits: int) -> str:
    return f" s {spread:.{digits}f}" if math.isfinite(spread) else ""


def _ranks(points: pd.DataFrame) -> dict[str, int]:
    """Best and second; ties at the printed digits share a rank."""
    if len(points) < 2:
        return {}
    better = bool(points["higher_is_better"].iloc[0])
    shown = {line["codec"]: float(_digits(line["value"], line["unit"])) for _, line in points.iterrows()}
    order: Sequence[float] = sorted(set(shown.values()), reverse=better)
    return {codec: order.index(value) + 1 for codec, value in shown.items() if order.index(value) < 2}


def _at_target(frame: pd.DataFrame, bpp: float) -> pd.DataFrame:
    """Points searched for one target; only complete ones compete."""
    chosen = frame[(frame["target_bpp"] == bpp) & (frame["out_of_range"] == 0) & (frame["n"] > 0)]
    return chosen[["dataset", "codec", "metric", "bpp", "value", "higher_is_better", "unit"]]
