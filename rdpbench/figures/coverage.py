"""Which figures and tables of the four papers there are numbers for: measured, published only, or none.

What a paper shows is in ``conf/figure`` (`rdpbench.figures.presets`). A cell is one series in one panel. It is measured
if there is a point of exactly that codec, dataset, protocol and metric; an ablation, which is a series whose variant is
not empty, if there is one of a codec labelled ``codec[variant]``. The page in the docs is printed by

    python -m rdpbench.figures.coverage > docs/coverage.md
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rdpbench.figures.data import Groups, by_codec, measured_points, of_metric, published_points, setting
from rdpbench.figures.presets import PAPERS, FigurePreset, Panel, Series, presets
from rdpbench.lazy import pd
from rdpbench.paths import available
from rdpbench.results.tables import markdown_text


@dataclass(frozen=True)
class CellCoverage:
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

        >>> CellCoverage(0, 6, 0, 0).status, len(CellCoverage(3, 0, 0, 0).status)
        ('published only', 8)
        """
        if self.measured:
            return "measured"
        return "published only" if self.published else "empty"


@dataclass(frozen=True)
class Covered:
    """A figure with its cells: by series, then by panel."""

    preset: FigurePreset
    cells: tuple[tuple[CellCoverage, ...], ...]


def coverage(
    measured: pd.DataFrame | None, published: pd.DataFrame, chosen: Iterable[FigurePreset] | None = None
) -> list[Covered]:
    """What there is for each figure and table: `markdown` writes it down.

    ``measured`` is a frame of `rdpbench.results.stats.summary.summarise` without rows of random weights, or None;
    ``published`` one of `rdpbench.results.published.published`.
    """
    groups = by_codec(published)
    covered = []
    for preset in presets() if chosen is None else chosen:
        cells = [tuple(_cell(p, series, measured, groups) for p in preset.panels) for series in preset.series]
        covered.append(Covered(preset, tuple(cells)))
    return covered


def _cell(panel: Panel, series: Series, measured: pd.DataFrame | None, groups: Groups) -> CellCoverage:
    own = 0
    if measured is not None:
        points = measured_points(panel, series, measured)
        for name in panel.settings:
            lines = points.to_dict("records")
            known = [line["rate_field"] == name or math.isfinite(setting(line, name)) for line in lines]
            points = points[np.array(known, bool)]
        own = len(_of_metrics(replace(panel, accept=()), points) if panel.metric else points)
    theirs = published_points(panel, series, groups)
    if theirs is None:
        return CellCoverage(own, 0, 0, 0)
    theirs = _of_metrics(panel, theirs)
    counts = theirs[~theirs["metric"].isin([panel.metric, panel.x])]["metric"].value_counts()
    others = tuple(sorted((str(name), int(count)) for name, count in counts.items()))
    doubtful, digitised = int((theirs["doubtful"] != "").sum()), int(theirs["digitised"].sum())
    return CellCoverage(own, len(theirs), doubtful, digitised, others)


def _of_metrics(panel: Panel, points: pd.DataFrame) -> pd.DataFrame:
    """Points under the panel's metrics; of a scatter only of curves that reach its rate from both sides in both."""
    if panel.at_bpp is None:
        return points[points["metric"].isin([panel.metric, *panel.accept])]
    keys = [name for name in ("codec", "variant", "source_id") if name in points]
    kept = points.iloc[:0]
    for _, curve in points.groupby(keys):
        axes = [of_metric(metric, curve, panel.accept)[0] for metric in (panel.x, panel.y)]
        if all(len(part) and part["bpp"].min() <= panel.at_bpp <= part["bpp"].max() for part in axes):
            kept = points.loc[[*kept.index, *axes[0].index, *axes[1].index]]
    return kept


def markdown(covered: Sequence[Covered]) -> str:
    """The page: a count for each paper, then a table for each figure."""
    parts = []
    for paper, title in PAPERS.items():
        own = [each for each in covered if each.preset.paper == paper]
        if own:
            parts += [f"## {markdown_text(title)}", _counts(own), *map(_section, own)]
    return "\n\n".join(parts) + "\n"


def _counts(covered: Sequence[Covered]) -> str:
    lines = [pair for each in covered for pair in zip(each.cells, each.preset.series, strict=True)]
    cells = [cell.status for line, series in lines for cell in line if not series.added]
    states = ", ".join(f"{cells.count(state)} {state}" for state in ("measured", "published only", "empty"))
    return f"{len(covered)} figures and tables with {len(cells)} cells: {states}."


def _section(covered: Covered) -> str:
    preset = covered.preset
    title = f"### {preset.figure}: {markdown_text(preset.title)}"
    if preset.kind == "diagram":
        return f"{title} (a diagram: nothing to measure)"
    labels = [markdown_text(series.label) + (" (not in the paper)" if series.added else "") for series in preset.series]
    rows = dict(zip(labels, covered.cells, strict=True))
    without = [label for label, cells in rows.items() if all(cell.status == "empty" for cell in cells)]
    experiment = f"[`rdpbench run experiment={preset.name}`](../conf/experiment/{preset.name}.yaml)"
    by = f"; measured by {experiment}" if preset.name in available("experiment") else ""
    missing = f". Without numbers: {'; '.join(without)}" if without else ""
    parts = [title, f"`rdpbench figure {preset.name}`, {preset.kind}{by}{missing}."]
    if len(without) < len(rows):
        header = ["", *(_heading(panel) for panel in preset.panels)]
        table = [header, ["---"] * len(header)]
        table += [[label, *map(_text, cells)] for label, cells in rows.items() if label not in without]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in table))
    parts.append("\n".join(f"- {markdown_text(note)}" for note in preset.notes))
    return "\n\n".join(filter(None, parts))


def _heading(panel: Panel) -> str:
    metric = panel.metric or "images"
    over = f" over {', '.join(panel.settings)}" if panel.settings else ""
    if panel.at_bpp is not None:
        over = f" over {panel.x} at {panel.at_bpp:g} bpp"
    return f"{metric}{over}<br>{panel.dataset}"


def _text(cell: CellCoverage) -> str:
    """A cell in words: how many points, under which other metric, how many of them doubtful or read off a plot."""
    words = [f"measured: {cell.measured}"] if cell.measured else []
    if cell.published:
        marks = [f"{count if count < cell.published else ''} as {name}".strip() for name, count in cell.others]
        marks += [f"{cell.doubtful} doubtful"] if cell.doubtful else []
        marks += [f"{cell.digitised} digitised"] if cell.digitised else []
        words.append(f"published: {cell.published}" + (f" ({'; '.join(marks)})" if marks else ""))
    return "<br>".join(words) or "–"


PAGE = """# Coverage: the figures and tables of four papers

This page lists every figure and table of the four papers that this project was made for, and says which numbers there
are for it: points that were measured here, points that others published ([published.md](published.md)), or none (–). A
cell gives the number of points; "as" names the published metric if its protocol is not ours. Images of papers are never
copied. An [experiment](experiments.md) of the same name measures each figure; its file says which parts nobody can run.

So far all numbers are published ones: nothing of these papers has been measured here, since no official weights are at
hand. The page is made by

    python -m rdpbench.figures.coverage > docs/coverage.md
"""


if __name__ == "__main__":
    from rdpbench.results.published import published

    sys.stdout.write(f"{PAGE}\n{markdown(coverage(None, published()))}")
