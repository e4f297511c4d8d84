"""Which figures and tables of the four papers there are numbers for: measured, published only, or none.

What a paper shows is in ``conf/figure`` (`rdpbench.figures.presets`). A cell is one series in
one panel. It is measured if there is a point of exactly that codec, dataset, protocol and metric; an ablation, which is
a series whose variant is not empty, if there is one of a codec labelled ``codec[variant]``. Print the page again with

    python -m rdpbench.figures.coverage > docs/coverage.md
"""

from __future__ import annotations

import html as escaping
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rdpbench.figures.presets import PAPERS, Panel, Preset, Series, presets
from rdpbench.paths import available
from rdpbench.results.published import family

if TYPE_CHECKING:
    import pandas as pd

    Groups = dict[tuple[str, str], pd.DataFrame]


EXPERIMENTS = "../conf/experiment"
"""From the page in ``docs``."""


@dataclass(frozen=True)
class Cell:
    """What there is for one series in one panel."""

    measured: int
    """Points."""
    published: int
    doubtful: int
    """Of the published points."""
    digitised: int
    others: tuple[tuple[str, int], ...] = ()
    """Metrics of published points that are not the panel's own, and how many points."""

    @property
    def status(self) -> str:
        """In the words of the page.

        >>> Cell(0, 6, 0, 0).status, len(Cell(3, 0, 0, 0).status)
        ('published only', 8)
        """
        if self.measured:
            return "measured"
        return "published only" if self.published else "empty"


@dataclass(frozen=True)
class Covered:
    """A figure with its cells: by series, then by panel."""

    preset: Preset
    cells: tuple[tuple[Cell, ...], ...]


def coverage(
    measured: pd.DataFrame | None, published: pd.DataFrame, of: Iterable[Preset] | None = None
) -> list[Covered]:
    """What there is for each figure and table: `markdown` and `html` write it down.

    ``measured`` is a frame of `rdpbench.results.stats.summary.summarise` without rows of random weights, or None;
    ``published`` one of `rdpbench.results.published.published`.
    """
    groups = published.groupby(["dataset", "codec"])
    by_codec = {(str(dataset), str(codec)): rows for (dataset, codec), rows in groups}
    out = []
    for preset in presets() if of is None else of:
        cells = [[_cell(panel, one, measured, by_codec) for panel in preset.panels] for one in preset.series]
        out.append(Covered(preset, tuple(tuple(line) for line in cells)))
    return out


def _cell(panel: Panel, series: Series, measured: pd.DataFrame | None, published: Groups) -> Cell:
    own = 0 if measured is None else len(_measured(panel, series, measured))
    if not panel.metric or panel.settings:  # images are not copied, and no source has a setting on its axis
        return Cell(own, 0, 0, 0)
    keys = [(name, series.codec) for name in (panel.dataset, *panel.accept_datasets)]
    points = _together([published[key] for key in keys if key in published])
    if points is None:
        return Cell(own, 0, 0, 0)
    points = points[points["protocol"] == panel.protocol]
    if series.variant is not None:
        points = points[points["variant"] == series.variant]
    if panel.x:
        points = points[points["bpp"].notna()]
    points = _of_metrics(panel, points)
    counts = points[~points["metric"].isin([panel.metric, panel.x])]["metric"].value_counts()
    others = tuple(sorted((str(name), int(count)) for name, count in counts.items()))
    return Cell(own, len(points), int((points["doubtful"] != "").sum()), int(points["digitised"].sum()), others)


def _together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame | None:
    import pandas as pd

    return pd.concat(parts) if parts else None


def _measured(panel: Panel, series: Series, frame: pd.DataFrame) -> pd.DataFrame:
    """The points of exactly this codec, or of any setting of it where settings are the axes."""
    points = frame[(frame["dataset"] == panel.dataset) & (frame["protocol"] == panel.protocol) & (frame["n"] > 0)]
    if panel.settings:
        points = points[points["codec"].str.partition("[")[0] == series.codec]
        for name in panel.settings:
            points = points[(points["rate_field"] == name) | points["codec"].str.contains(f"{name}=", regex=False)]
    else:
        points = points[points["codec"].isin(series.labels)]
    return _of_metrics(replace(panel, accept=()), points) if panel.metric else points


def _of_metrics(panel: Panel, points: pd.DataFrame) -> pd.DataFrame:
    """Points under the panel's metrics; of a scatter only of curves that reach its rate from both sides in both."""
    points = points[points["value"].notna()]
    if panel.at_bpp is None:
        return points[points["metric"].isin([panel.metric, *panel.accept])]
    keys = [name for name in ("variant", "source_id") if name in points]
    kept = points.iloc[:0]
    for _, curve in points.groupby(["codec", *keys]):
        axes = [_like(axis, curve, panel.accept) for axis in (panel.x, panel.y)]
        if all(len(one) and one["bpp"].min() <= panel.at_bpp <= one["bpp"].max() for one in axes):
            kept = points.loc[[*kept.index, *axes[0].index, *axes[1].index]]
    return kept


def _like(metric: str, points: pd.DataFrame, accept: Sequence[str]) -> pd.DataFrame:
    names = [metric, *(name for name in accept if family(name) == family(metric))]
    return points[points["metric"].isin(names)]


def markdown(covered: Sequence[Covered]) -> str:
    """The page: a count for each paper, then a table for each figure."""
    parts = []
    for paper, title in PAPERS.items():
        of = [one for one in covered if one.preset.paper == paper]
        if of:
            parts += [f"## {_plain(title)}", _counts(of), *(_section(one) for one in of)]
    return "\n\n".join(parts) + "\n"


def _counts(of: Sequence[Covered]) -> str:
    cells = [
        cell.status
        for one in of
        for line, series in zip(one.cells, one.preset.series, strict=True)
        for cell in line
        if not series.added
    ]
    states = ", ".join(f"{cells.count(state)} {state}" for state in ("measured", "published only", "empty"))
    return f"{len(of)} figures and tables with {len(cells)} cells: {states}."


def _section(one: Covered) -> str:
    preset = one.preset
    lines = [f"### {preset.figure}: {_plain(preset.title)}", ""]
    if preset.kind == "diagram":
        return "\n".join([*lines, "A diagram: nothing to measure."])
    header = ["", *(_heading(panel) for panel in preset.panels)]
    lines += [f"`rdpbench figure {preset.name}`, {preset.kind}{_measured_by(preset)}", ""]
    lines += [f"| {' | '.join(header)} |", f"| {' | '.join(['---'] * len(header))} |"]
    for series, cells in zip(preset.series, one.cells, strict=True):
        label = _plain(series.label) + (" (not in the paper)" if series.added else "")
        lines.append(f"| {' | '.join([label, *map(_text, cells)])} |")
    return "\n".join([*lines, *(["", *(f"- {_plain(note)}" for note in preset.notes)] if preset.notes else [])])


def _measured_by(preset: Preset) -> str:
    """The experiment that measures it, if it has one."""
    there = preset.name in available("experiment")
    return f"; measured by [`rdpbench run experiment={preset.name}`]({EXPERIMENTS}/{preset.name}.yaml)" if there else ""


def _heading(panel: Panel) -> str:
    metric = panel.metric or "images"
    over = f" over {', '.join(panel.settings)}" if panel.settings else ""
    if panel.at_bpp is not None:
        over = f" over {panel.x} at {panel.at_bpp:g} bpp"
    return f"{metric}{over}<br>{panel.dataset}"


def _text(cell: Cell) -> str:
    """A cell in words: how many points, under which other metric, how many of them doubtful or read off a plot."""
    words = [f"measured: {cell.measured}"] if cell.measured else []
    if cell.published:
        marks = [f"{count if count < cell.published else ''} as {name}".strip() for name, count in cell.others]
        marks += [f"{cell.doubtful} doubtful"] if cell.doubtful else []
        marks += [f"{cell.digitised} digitised"] if cell.digitised else []
        words.append(f"published: {cell.published}" + (f" ({'; '.join(marks)})" if marks else ""))
    return "<br>".join(words) or "–"


def _plain(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "|\\<_*`" else letter for letter in text)


def html(covered: Sequence[Covered]) -> str:
    """The same as a fragment for the report: a section for each figure, the state of each cell as its class."""
    parts = []
    for one in covered:
        preset = one.preset
        head = "".join(f"<th>{_heading_html(panel)}</th>" for panel in preset.panels)
        body = "".join(
            f"<tr><th>{escaping.escape(series.label)}</th>"
            + "".join(f'<td class="{cell.status.replace(" ", "-")}">{_text_html(cell)}</td>' for cell in cells)
            + "</tr>"
            for series, cells in zip(preset.series, one.cells, strict=True)
        )
        table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>" if head else ""
        notes = "".join(f"<li>{escaping.escape(note)}</li>" for note in preset.notes)
        title = escaping.escape(f"{PAPERS[preset.paper]}, {preset.figure}: {preset.title}")
        listed = f"<ul>{notes}</ul>" if notes else ""
        parts.append(f'<section class="coverage" id="{preset.name}"><h3>{title}</h3>{table}{listed}</section>')
    return "\n".join(parts)


def _heading_html(panel: Panel) -> str:
    return "<br>".join(escaping.escape(part) for part in _heading(panel).split("<br>"))


def _text_html(cell: Cell) -> str:
    return "<br>".join(escaping.escape(part) for part in _text(cell).split("<br>"))


PAGE = """# Coverage: the figures and tables of four papers

For every figure and table of the papers that this project was made for, what there is: points that were measured here,
points that others published (`docs/published.md`), or nothing. A cell says how many points; "as" names the published
metric where its protocol is not ours. Images are never copied. An experiment (`docs/experiments.md`) measures each; its
file says what of it nobody can run. Made by

    python -m rdpbench.figures.coverage > docs/coverage.md

with published numbers only: nothing of these papers has been measured here yet, since no official weights are at hand.
"""


def main() -> None:
    """Print the page with published numbers only."""
    from rdpbench.results.published import published

    sys.stdout.write(f"{PAGE}\n{markdown(coverage(None, published()))}")


if __name__ == "__main__":
    main()
