"""Tables of results: on the terminal, in Markdown, in LaTeX with booktabs, and CSV files.

Two tables of a run: every point as it was measured, and codecs at equal rates (interpolated between measured points,
the best in bold, the second underlined). Arrows say which way is better.

Whatever a name holds comes out as text. In LaTeX, letters that its usual encodings lack are written as their code
point, so that a table never stops a document from compiling. In CSV, a quote is put before a text that a spreadsheet
would run as a formula; `read_cell` takes it off again.
"""

from __future__ import annotations

import csv
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rdpbench.errors import StoreCorrupt, spelled
from rdpbench.lazy import pd
from rdpbench.metrics.contract import short_name
from rdpbench.paths import written_whole
from rdpbench.results.names import Names, arrow
from rdpbench.results.stats.points import K, Points, grouped
from rdpbench.results.stats.summary import POINT, WIDE, at_rate, common_rates, compared
from rdpbench.results.store.contents import Contents
from rdpbench.setting import Setting, digits

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table as RichTable

DIGITS = {"dB": 2, "": 4}
SKEWED = 0.4
"""An interval whose middle is further from the value than this share of its half is written with both ends."""


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

    @classmethod
    def of_texts(
        cls, caption: str, header: Sequence[str], lines: Iterable[Iterable[object]], notes: Sequence[str] = ()
    ) -> Table:
        """A table in which nothing competes."""
        cells = tuple(tuple(Cell(str(text)) for text in line) for line in lines)
        return cls(caption, tuple(header), cells, tuple(notes))


def untrained(frame: pd.DataFrame) -> pd.Series[bool]:
    """Which lines are of networks with random weights; frames of older runs do not say.

    >>> import pandas as pd
    >>> int(untrained(pd.DataFrame({"weights": ["official", "official, random", ""]})).sum())
    1
    """
    if "weights" not in frame:
        return pd.Series(False, index=frame.index)
    return frame["weights"].fillna("").str.contains("random").astype(bool)


def best_two(values: Mapping[K, float], higher_is_better: bool) -> dict[K, int]:
    """Rank 1 and 2 of what competes, which NaN does not; equal values share a rank, and one alone has none.

    >>> best_two({"a": 3.0, "b": 1.0, "c": 3.0, "d": 0.0}, True), best_two({"a": 3.0, "b": math.nan}, True)
    ({'a': 1, 'b': 2, 'c': 1}, {})
    """
    known = [value for value in values.values() if not math.isnan(value)]
    best = sorted(set(known), reverse=higher_is_better)[:2] if len(known) > 1 else []
    return {key: best.index(value) + 1 for key, value in values.items() if value in best}


def measured(frame: pd.DataFrame, name: str = "") -> Table:
    """Every point as it was measured, mean and half width of its 95 % interval.

    The rate of a line is that of all images that were coded. A value that is over fewer of them says over how many, and
    the rate of those.
    """
    metrics = _metrics(frame)
    # Do pixels and images weigh differently anywhere?
    pooled = bool((np.abs(frame["bpp_pooled"] / frame["bpp"] - 1) > 1e-9).any())
    header = ["codec", "setting", "n", "bpp", *(["pooled bpp"] if pooled else ())]
    header += [_heading(frame, metric) for metric in metrics]
    lines: list[tuple[Cell, ...]] = []
    notes: dict[str, None] = {}
    for _, point in frame.groupby(POINT, sort=False, dropna=False):
        first = point.iloc[0]
        # The rate is that of a line over all images that were coded, if there is one.
        complete = point[(point["n_scored"] == point["n"]) & (point["infinite"] == 0)]
        whole = (complete if len(complete) else point).iloc[0]
        cells = [Cell(str(first["codec"])), Cell(Setting.of_line(first).words), Cell(_count(first, notes))]
        cells.append(Cell(_bpp(whole)))
        cells += [Cell(f"{whole['bpp_pooled']:.4f}" if _covers_all(whole) else "–")] if pooled else []
        for metric in metrics:
            line = point[point["metric"] == metric]
            cells.append(Cell(_value(line.iloc[0], notes) if len(line) else "–"))
        lines.append(tuple(cells))
    if (frame["seeds"] > 1).any():
        notes["s: standard deviation over the seeds of a stochastic codec, which the intervals do not hold"] = None
    if pooled:
        notes["pooled bpp: all bits over all pixels; images of several sizes weigh by their pixels"] = None
    if untrained(frame).any():
        names = ", ".join(dict.fromkeys(frame[untrained(frame)]["codec"]))
        notes[f"random weights, which are no results: {names}"] = None
    title = name or ", ".join(dict.fromkeys(frame["dataset"]))
    return Table(f"{title}: means over images, ± half of the 95 % interval", tuple(header), tuple(lines), tuple(notes))


def _covers_all(line: Any) -> bool:
    return bool(line["bpp"] == line["bpp_all"])


def at_equal_rates(points: Points, metrics: Sequence[str], name: str = "") -> list[Table]:
    """For each round rate that codecs share: their metrics there over the same images, best first in bold.

    Points are of one place. Networks with random weights do not compete. Where rates were searched, their targets are
    compared, each over the images that all codecs reach it on.
    """
    trained = points.only(lambda point: point.competes)
    targets = sorted({point.setting.target for point in trained.points if point.setting.target is not None})
    if targets:
        trained = trained.only(lambda point: point.setting.target is not None)
    lines, left_out = compared(trained, metrics, per_setting=bool(targets))
    lines = lines[lines["reliable"].astype(bool)]
    tables = []
    for bpp in targets or common_rates(lines):
        if targets:
            there = lines[(lines["target_bpp"] == bpp) & (lines["n"] > 0)].assign(wide=False)
        else:
            there = at_rate(lines, bpp)
        columns = _metrics(there)
        if not columns:
            continue
        header = ("codec", *(_heading(there, metric) for metric in columns))
        ranks = {metric: _ranks(there[there["metric"] == metric]) for metric in columns}
        named = Setting("", None, bpp).words, "compared over"
        notes = [note for note in left_out if not targets or any(part in note for part in named)]
        rows = []
        for codec in dict.fromkeys(there["codec"]):
            by_metric = there[there["codec"] == codec].set_index("metric").to_dict("index")
            cells = [Cell(codec)]
            for metric in columns:
                line, text = by_metric.get(metric), "–"
                if line and not math.isnan(line["value"]):
                    text = _digits(line["value"], line["unit"]) + ("‡" if line["wide"] else "")
                cells.append(Cell(text, ranks[metric].get(codec, 0)))
            rows.append(tuple(cells))
        if there["wide"].any():
            notes.append(f"‡ interpolated between rates that differ by more than a factor of {WIDE:g}")
        how = "searched per image" if targets else "interpolated between measured points"
        title = name or ", ".join(dict.fromkeys(lines["dataset"]))
        tables.append(Table(f"{title} at {digits(bpp)} bpp, {how}", header, tuple(rows), tuple(notes)))
    return tables


def latency(frame: pd.DataFrame, name: str = "") -> Table:
    """Honest times: medians over images of the median of repeats."""
    header = ("codec", "setting", "n", "encode ms", "decode ms", "device")
    lines = []
    machines = list(dict.fromkeys(frame["device"]))
    short = {machine: machine.partition(" (")[0] for machine in machines}
    names = short if len({*short.values()}) == len(short) else dict(zip(machines, machines, strict=True))
    for (codec, setting, device), timed in frame.groupby(["codec", "setting", "device"], sort=False):
        encode, decode = (f"{1000 * timed[name].median():.2f}" for name in ("encode_s", "decode_s"))
        lines.append((codec, setting, len(timed), encode, decode, names[device]))
    loads = frame["load_average"]
    first = frame.iloc[0]
    note = (
        f"{', '.join(machines)}: exclusive, one thread, {first['warmup']} warm-up and {first['repeats']} repeats an "
        f"image; building the codec is not in it; load average of the machine {loads.min():.2f} to {loads.max():.2f}"
    )
    title = f"{name}: latency" if name else "Latency"
    return Table.of_texts(f"{title}: median over images of the median of repeats", header, lines, [note])


@dataclass(frozen=True)
class Terminal:
    """A table for the terminal that cuts no number: one too wide goes on below, with its first columns again."""

    table: Table

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[RichTable]:
        table = _spelled(self.table, options.encoding)
        parts = parted(table, options.max_width - 1)
        for number, part in enumerate(parts):
            yield _part(table, part, first=number == 0, last=number == len(parts) - 1)


def say(console: Console, *parts: object) -> None:
    """Print tables, and all else as lines as they are: markup would eat the ``[option=value]`` of a label."""
    for part in parts:
        if isinstance(part, Table):
            console.print(Terminal(part))
        else:
            console.print(str(part), highlight=False, markup=False, soft_wrap=True)


def parted(table: Table, room: int, between: int = 3) -> list[list[int]]:
    """The columns of a table in parts that are as wide as so many letters allow; each begins with the first columns.

    >>> parted(Table.of_texts("", ("codec", "psnr", "flip"), [("jpeg", "31.20", "0.1")]), 18)
    [[0, 1], [0, 2]]
    """
    widths = [max(map(len, [name, *(line[n].text for line in table.lines)])) for n, name in enumerate(table.header)]
    fixed = 2 if "setting" in table.header else 1
    room -= sum(widths[:fixed]) + fixed * between
    parts: list[list[int]] = [[]]
    for column in range(fixed, len(widths)):
        if parts[-1] and sum(widths[n] + between for n in parts[-1]) + widths[column] + between > room:
            parts.append([])
        parts[-1].append(column)
    return [[*range(fixed), *part] for part in parts]


def _spelled(table: Table, encoding: str) -> Table:
    """The table as the terminal can show it, so that its columns still fit."""
    lines = tuple(tuple(replace(cell, text=spelled(cell.text, encoding)) for cell in line) for line in table.lines)
    header, notes = ([spelled(text, encoding) for text in texts] for texts in (table.header, table.notes))
    return replace(
        table, caption=spelled(table.caption, encoding), header=tuple(header), lines=lines, notes=tuple(notes)
    )


def _part(table: Table, columns: Sequence[int], *, first: bool, last: bool) -> RichTable:
    from rich.markup import escape
    from rich.table import Table as Rich

    title, caption = (escape(table.caption) if first else None), (escape("\n".join(table.notes)) if last else None)
    rich = Rich(title=title, caption=caption or None, title_justify="left")
    for number in columns:
        rich.add_column(escape(table.header[number]), justify="left" if number == 0 else "right", no_wrap=True)
    marks = {1: "[bold]{}[/bold]", 2: "[underline]{}[/underline]"}
    for line, label, new_group in _grouped(table):
        if new_group:
            rich.add_section()
        cells = [marks.get(line[n].rank, "{}").format(escape(line[n].text)) for n in columns[1:]]
        rich.add_row(escape(label), *cells)
    return rich


def _grouped(table: Table) -> Iterator[tuple[tuple[Cell, ...], str, bool]]:
    """Each line with its label, which is written once for a group of equal ones; does a new group begin?"""
    labels = [line[0].text for line in table.lines]
    grouped = len(set(labels)) < len(labels)
    for line, label, previous in zip(table.lines, labels, ["", *labels], strict=False):
        yield line, "" if label == previous else label, grouped and bool(previous) and label != previous


def markdown(table: Table) -> str:
    """For Markdown."""
    marks = {1: "**{}**", 2: "<u>{}</u>"}
    rows = [[markdown_text(name) for name in table.header], ["---"] + ["---:"] * (len(table.header) - 1)]
    rows += [[marks.get(cell.rank, "{}").format(markdown_text(cell.text)) for cell in line] for line in table.lines]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{markdown_text(table.caption)}\n\n{text}\n" + "".join(f"\n{markdown_text(note)}\n" for note in table.notes)


def markdown_text(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "|\\<_*`" else letter for letter in text).replace("\n", " ")


def _metrics(frame: pd.DataFrame) -> list[str]:
    return [name for name in dict.fromkeys(frame["metric"]) if name]


def _heading(frame: pd.DataFrame, metric: str) -> str:
    line = frame[frame["metric"] == metric].iloc[0]
    return f"{short_name(metric)} {'dB ' if line['unit'] == 'dB' else ''}{arrow(line['higher_is_better'])}"


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
        notes["out of range: no setting is within the tolerance of the target; nothing is extrapolated"] = None
    return text


def _bpp(line: Any) -> str:
    """The rate of all images of a point; its interval where a line of it is over all of them."""
    if not math.isfinite(line["bpp_all"]):
        return "–"
    text = f"{line['bpp_all']:.4f}"
    if not _covers_all(line):
        return text
    return text + _half(line["bpp_all"], line["bpp_lo"], line["bpp_hi"], 4) + _seeds(line["bpp_seed_sd"], 4)


def _value(line: Any, notes: dict[str, None]) -> str:
    value, metric = line["value"], line["metric"]
    left_out = "images that a metric could not score are left out of its mean"
    if math.isnan(value):
        if line["note"]:
            notes[f"{metric} of {line['codec']}: {line['note']}"] = None
        elif line["n"]:
            notes[f"{left_out}; rows.csv says why"] = None
        return "–"
    if line["infinite"]:
        notes[f"{metric}: lossless images, whose value is infinite, are left out of a mean and of its rate"] = None
    if math.isinf(value):
        return "∞"
    if not line["reliable"]:
        notes["† fewer images than this metric needs: not to be compared with anything"] = None
    if line["note"]:
        notes[f"{metric}: {line['note']}"] = None
    places = DIGITS.get(line["unit"], 4)
    text = _digits(value, line["unit"]) + ("" if line["reliable"] else "†")
    text += _half(value, line["value_lo"], line["value_hi"], places) + _seeds(line["value_seed_sd"], places)
    taken = line["n_scored"] - line["infinite"]
    if taken == line["n"]:
        return text
    notes[f"(k of n, r bpp): {left_out}, and of the rate beside it; rows.csv says why"] = None
    return f"{text} ({taken} of {line['n']}, {line['bpp']:.4f} bpp)"


def _digits(value: float, unit: str) -> str:
    return f"{value:.{DIGITS.get(unit, 4)}f}"


def _half(value: float, low: float, high: float, digits: int) -> str:
    """Half of an interval; both ends where the value is not near its middle, as near the end of a metric's range."""
    if not math.isfinite(high - low):
        return ""
    if abs(high + low - 2 * value) > SKEWED * (high - low):
        return f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f" ±{(high - low) / 2:.{digits}f}"


def _seeds(spread: float, digits: int) -> str:
    return f" s {spread:.{digits}f}" if math.isfinite(spread) else ""


def _ranks(points: pd.DataFrame) -> dict[str, int]:
    """Best and second; ties at the printed digits share a rank."""
    shown = {line["codec"]: float(_digits(line["value"], line["unit"])) for _, line in points.iterrows()}
    return best_two(shown, bool(len(points) and points["higher_is_better"].iloc[0]))


_MARKS = {1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}
_SYMBOLS = r"""
^ \textasciicircum{}  ~ \textasciitilde{}  < $<$  > $>$  ± $\pm$  × $\times$  · $\cdot$  ° $^{\circ}$  − $-$  ≤ $\leq$
≥ $\geq$  ↑ $\uparrow$  ↓ $\downarrow$  → $\rightarrow$  ← $\leftarrow$  ∞ $\infty$  Δ $\Delta$  λ $\lambda$
σ $\sigma$  µ $\mu$  μ $\mu$  † \dag{}  ‡ \ddag{}  § \S{}  – --  — ---  … \dots{}
"""
_QUOTES = {"\u2018": "`", "\u2019": "'", "\u201c": "``", "\u201d": "''", "\N{NO-BREAK SPACE}": "~"}
_TEX = (
    dict(zip(_SYMBOLS.split()[::2], _SYMBOLS.split()[1::2], strict=True))
    | _QUOTES
    | {mark: f"\\{mark}" for mark in "%_&#${}"}
)
_TEX["\\"] = r"\textbackslash{}"
"""What LaTeX writes otherwise, letter by letter: a replacement must not be replaced again."""


WIDE_PAGE, LONG_PAGE = 100, 36
"""Letters beside one another in a text 5.5 inches wide at ``\\footnotesize``, and lines of a table that floats."""


def latex(table: Table, names: Names | None = None, *, siunitx: bool = False) -> str:
    r"""For LaTeX with booktabs: a ``table``, or a ``longtable`` where it is longer than a page.

    A table too wide for the page goes on below, with its first columns again. The first column holds labels, and equal
    ones are written once. With ``names`` codecs and metrics are called as readers know them. With ``siunitx`` columns
    of numbers are aligned at their points.

    >>> from rdpbench.results.tables import Cell, Table
    >>> text = latex(Table("Rates", ("codec", "psnr ↑"), ((Cell("a_b"), Cell("31.2 ±0.1", 1)),)))
    >>> r"a\_b & \textbf{31.2 $\pm$0.1} \\" in text, text.count(r"\toprule")
    (True, 1)
    """
    table = named(table, names) if names else table
    long = len(table.lines) > LONG_PAGE
    caption = rf"\caption{{{escape(' '.join((table.caption.rstrip('.') + '.', *table.notes)))}}}"
    packages = ["booktabs", *(["longtable"] if long else []), *(["siunitx"] if siunitx else [])]
    text = [f"% \\usepackage{{{name}}}" for name in packages]
    text += [r"% \sisetup{separate-uncertainty, detect-weight}"] if siunitx else []
    compact = r"\footnotesize\setlength{\tabcolsep}{4pt}"
    text += [rf"\begingroup{compact}"] if long else [r"\begin{table}", rf"\centering{compact}", caption]
    for number, columns in enumerate(parted(table, WIDE_PAGE, 2)):
        shapes = [_shape([line[n] for line in table.lines]) if siunitx else "" for n in columns]
        kinds = "".join("l" if not place else shape or "r" for place, shape in enumerate(shapes))
        heads = [escape(table.header[n]) for n in columns]
        head = _line([f"{{{name}}}" if shape else name for name, shape in zip(heads, shapes, strict=True)])
        top, rows = [r"\toprule", head, r"\midrule"], _rows(table, columns, shapes)
        if long:
            text += [rf"\begin{{longtable}}{{{kinds}}}", *([rf"{caption} \\"] if number == 0 else [])]
            text += [*top, r"\endfirsthead", *top, r"\endhead", *rows, r"\bottomrule", r"\end{longtable}"]
        else:
            text += [r"\par\medskip"] * (number > 0)
            text += [rf"\begin{{tabular}}{{{kinds}}}", *top, *rows, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*text, r"\endgroup" if long else r"\end{table}", ""])


def named(table: Table, names: Names) -> Table:
    """A table whose codecs and metrics are called as readers know them."""
    of_codecs = table.header[0] == "codec"
    lines = [
        (replace(line[0], text=names.codec(line[0].text)) if of_codecs else line[0], *line[1:]) for line in table.lines
    ]
    header, notes = (tuple(map(names.sentence, texts)) for texts in (table.header, table.notes))
    return Table(names.sentence(table.caption), header, tuple(lines), notes)


def _rows(table: Table, columns: Sequence[int], shapes: Sequence[str]) -> list[str]:
    rows: list[str] = []
    for line, label, new_group in _grouped(table):
        cells = [_tex_cell(line[n], shape) for n, shape in zip(columns, shapes, strict=True)]
        rows += [r"\midrule"] * new_group + [_line([cells[0] if label else "", *cells[1:]])]
    return rows


_NUMBER = re.compile(r"(-?(\d+)(?:\.(\d+))?(?: ±(\d+)(?:\.(\d+))?)?)([*†‡]?)")


def _shape(column: Sequence[Cell]) -> str:
    """What siunitx must know of a column of numbers; empty for one of other texts."""
    known = [match for cell in column if (match := _NUMBER.fullmatch(cell.text))]
    if 2 * len(known) <= len(column):
        return ""
    whole, digits = (max(len(match[part] or "") for match in known) for part in (2, 3))
    # An uncertainty is in units of the last digit: 31.20(10).
    spread = max(len(f"{match[4] or ''}{match[5] or ''}".lstrip("0")) for match in known)
    sign = "-" if any(match[0].startswith("-") for match in known) else ""
    mark = next((f",table-space-text-post={escape(match[6])}" for match in known if match[6]), "")
    return f"S[table-format={sign}{whole}.{digits}{f'({spread})' if spread else ''}{mark}]"


def _tex_cell(cell: Cell, shape: str) -> str:
    if shape and (match := _NUMBER.fullmatch(cell.text)) and cell.rank != 2:
        number = match[1].replace(" ±", " +- ") + (f"{{{escape(match[6])}}}" if match[6] else "")
        return (r"\bfseries " if cell.rank == 1 else "") + number
    text = _MARKS.get(cell.rank, "{}").format(escape(cell.text))
    return f"{{{text}}}" if shape else text


def _line(cells: list[str]) -> str:
    row = " & ".join(cells)
    # After the line break above, a bracket would be read as its length, and a star as its form.
    return f"{'{}' if row[:1] in ('[', '*') else ''}{row} \\\\"


def escape(text: str) -> str:
    r"""Text as LaTeX writes it.

    >>> escape("50 % of a_b, 3±1")
    '50 \\% of a\\_b, 3$\\pm$1'
    >>> escape("é, 中"), len(escape("$"))
    ('é, \\texttt{U+4E2D}', 2)
    """
    return "".join(map(_letter, text.replace("\n", " ")))


def _letter(letter: str) -> str:
    """As LaTeX writes it; what none of the encodings has that it loads by itself (ASCII, Latin) as its code point."""
    latin = "À" <= letter <= "ž" and unicodedata.category(letter)[0] == "L"
    plain = letter if "\x20" <= letter <= "\x7e" or latin else rf"\texttt{{U+{ord(letter):04X}}}"
    return _TEX.get(letter, plain)


_STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
"""What a formula may begin with; the last four are the wide forms, which some spreadsheets read as the others."""


def cell(value: object) -> str:
    """A value as the text of a cell that is no formula.

    >>> cell("=1+1"), cell(-5.5), cell("-5.5"), cell("kodak"), cell("-1+cmd")
    ("'=1+1", '-5.5', '-5.5', 'kodak', "'-1+cmd")
    """
    text = str(value)
    # Of a text that has quotes before such a letter already, one more: so that taking one off is always right.
    return f"'{text}" if text.lstrip("'")[:1] in tuple(_STARTS) and not _is_number(text) else text


def read_cell(text: str) -> str:
    """What `cell` was given, as text.

    >>> [read_cell(cell(text)) for text in ("=1+1", "'=1", "'quoted'", "-5")]
    ['=1+1', "'=1", "'quoted'", '-5']
    """
    return text[1:] if text[:1] == "'" and text.lstrip("'")[:1] in tuple(_STARTS) else text


def to_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame whose texts are cells; other columns are as they were.

    Raises:
        StoreUnwritable: it cannot be written.

    >>> import pandas as pd, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_csv(pd.DataFrame({"image": ["@a", "b"], "bpp": [-1.5, 2.0]}), Path(folder, "a.csv"))
    ...     Path(folder, "a.csv").read_text().split()
    ['image,bpp', "'@a,-1.5", 'b,2.0']
    """
    texts = [name for name in frame.columns if frame[name].map(lambda value: isinstance(value, str)).any()]
    once = cache(cell)  # most texts of a frame are there many times
    cells = {name: frame[name].map(lambda value: once(value) if isinstance(value, str) else value) for name in texts}
    # Python's writer leaves a carriage return bare, where readers see the end of a line.
    bare = any("\r" in value for column in cells.values() for value in column if isinstance(value, str))
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL
    with written_whole(path) as beside:
        frame.assign(**cells).to_csv(beside, index=False, quoting=quoting)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "\n" not in text and "\r" not in text and "\t" not in text


def times(points: Points, contents: Contents, name: str = "") -> Table | None:
    """The honest times of points of one place as a table; None where none were measured."""
    timings = grouped(contents.timings.values(), lambda timing: timing.task_key)
    lines = [
        {**vars(timing), "codec": point.codec, "setting": point.setting.words}
        for point, row in points.rows_of(timings)
        for timing in sorted(timings[row.task_key], key=lambda timing: timing.device)
    ]
    return latency(pd.DataFrame(lines), name) if lines else None


CROSSINGS = "decodes.json"
"""What `rdpbench verify --device` stores in a run's folder."""


def crossings(folder: Path) -> Table | None:
    """Which devices decode what others coded, as it was last tried; None for a run where it was not.

    Raises:
        StoreCorrupt: the file does not hold that.
    """
    path = folder / CROSSINGS
    if not path.is_file():
        return None
    try:
        return crossed(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreCorrupt(f"{path} is damaged: {error!r}. Delete it: verify --device makes it again") from error


def crossed(record: Mapping[str, Any]) -> Table:
    """The same as a table: bitstreams by what became of their pixels.

    >>> cell = {"codec": "elic", "coded on": "cpu", "decoded on": "cuda:0", "same": 7, "within one": 1, "other": 0}
    >>> crossed({"cells": [cell | {"failed": 0, "largest": 1, "share": 0.25}], "notes": []}).lines[0][2].text
    '7 same, 1 within 1 (up to 1 of 255 in 25 % of pixels)'
    """
    cells, lines = record["cells"], []
    decoders = list(dict.fromkeys(cell["decoded on"] for cell in cells))
    texts = {(cell["codec"], cell["coded on"], cell["decoded on"]): _became(cell) for cell in cells}
    for codec, coder in dict.fromkeys((cell["codec"], cell["coded on"]) for cell in cells):
        lines.append((codec, coder, *(texts.get((codec, coder, decoder), "–") for decoder in decoders)))
    header = ("codec", "coded on", *(f"decoded on {decoder}" for decoder in decoders))
    return Table.of_texts("Bitstreams decoded on other devices", header, lines, record["notes"])


def _became(cell: Mapping[str, Any]) -> str:
    words = {"same": "same", "within one": "within 1", "other": "other", "failed": "failed"}
    counts = ", ".join(f"{cell[name]} {word}" for name, word in words.items() if cell[name]) or "none"
    if cell["largest"] is None:
        return f"{counts} (how far is not known: its own device is not here)"
    size = f" (up to {cell['largest']} of 255 in {100 * cell['share']:.2g} % of pixels)"
    return counts + (size if cell["largest"] else "")
