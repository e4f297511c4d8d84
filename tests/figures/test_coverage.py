"""The coverage page, which is written here: it lists every figure and table, and counts only what belongs in a cell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rdpbench import registry
from rdpbench.datasets.protocols import PROTOCOLS
from rdpbench.errors import ConfigError
from rdpbench.figures.data import PAPERS, DrawnCurve, DrawnPoint, FigurePreset, Filled, Panel, Series, fill, presets
from rdpbench.paths import available
from rdpbench.results.names import meaning
from rdpbench.results.published import published
from rdpbench.results.tables import markdown_text

PAGE, MARK = Path(__file__).parents[2] / "docs/coverage.md", "<!-- below: python tests/figures/test_coverage.py -->"
PANEL = Panel("kodak", "as-is", "bpp", "psnr", accept=("psnr@float",))
SERIES = Series("taco", "TACO")


@pytest.fixture(scope="module")
def others() -> pd.DataFrame:
    return published()


@pytest.fixture(scope="module")
def covered(others: pd.DataFrame) -> list[Covered]:
    return coverage(others)


def number(**changes: Any) -> dict[str, Any]:
    """A published point."""
    known = {"dataset": "kodak", "protocol": "as-is", "codec": "taco", "variant": "", "source_id": "x", "source": "x"}
    known |= {"bits_kind": "file", "bpp": 0.2, "metric": "psnr", "value": 30.0, "n": 24, "digitised": False}
    unknown = {"value_lo": math.nan, "value_hi": math.nan, "doubtful": "", "partial": False, "reliable": True}
    return known | unknown | changes


def drawn(panel: Panel = PANEL, series: Series = SERIES, *found: dict[str, Any]) -> list[DrawnPoint]:
    """The published points of a series in a panel."""
    preset = FigurePreset("taco-0", "taco", "Figure 0", "A title", "curves", (), (panel,), (series,))
    [filled] = fill(preset, None, pd.DataFrame([number(codec="another"), *found]), every=True)
    return [point for curve in filled.curves for point in curve.points]


def test_every_figure_and_table_is_there() -> None:
    """TACO's 9 figures, 3 of its appendix and 3 tables; PerCo's 8 and a table; Pan's 5 and a table, as they count."""
    listed = {(one.paper, one.figure) for one in presets()}
    wanted = {("taco", f"Figure {name}") for name in (*range(1, 10), "A1", "A2", "A3")}
    wanted |= {("taco", f"Table {number}") for number in (1, 2, 3)}
    wanted |= {("perco", f"Figure {number}") for number in range(1, 9)} | {("perco", "Table 1")}
    wanted |= {("textual-inversion", f"Figure {number}") for number in range(1, 6)} | {("textual-inversion", "Table 1")}
    assert wanted <= listed
    assert {paper for paper, _ in listed - wanted} == {"text-sketch"}
    assert {one.paper for one in presets()} == set(PAPERS)


def test_presets_ask_for_what_exists(others: pd.DataFrame) -> None:
    """Sets, protocols and metrics are ours, what may stand in has been published, and every panel is another."""
    latency = {"encode-ms", "decode-ms", "total-ms"}  # of the runner, not of a metric
    for preset in presets():
        assert len(set(preset.panels)) == len(preset.panels), preset.name
        assert len(set(preset.series)) == len(preset.series), preset.name
        for panel in preset.panels:
            assert panel.dataset in available("data"), preset.name
            assert panel.protocol in PROTOCOLS, preset.name
            ours = panel.metric in registry.names("metric")
            assert not panel.metric or ours or panel.metric in {"spice", *latency}, preset.name  # SPICE needs Java
            assert not panel.metric or meaning(panel.metric).higher_is_better is not None, preset.name
            sets = others[others["dataset"].isin([panel.dataset, *panel.accept_datasets])]
            assert set(panel.accept) <= set(sets["metric"]), preset.name
            assert set(panel.accept_datasets) <= set(others["dataset"]), preset.name


def test_variants_of_presets_are_those_of_published_curves(others: pd.DataFrame) -> None:
    """A mistyped variant would leave a cell empty for ever: of codecs with numbers it exists, or is an ablation's."""
    ablations = {"taco-9", "taco-a2", "perco-3", "perco-7", "perco-8"}
    for preset in presets():
        for one in preset.series:
            known = set(others[others["codec"] == one.codec]["variant"])
            if one.variant and preset.name not in ablations:
                assert one.variant in known, (preset.name, one.variant)


Covered = tuple[FigurePreset, list[Filled]]
"""A figure with all that was published of it."""


def coverage(numbers: pd.DataFrame) -> list[Covered]:
    """What there is for each figure and table, of the published numbers."""
    return [(each, fill(each, None, numbers, every=True)) for each in presets()]


def page(covered: Sequence[Covered]) -> str:
    """What docs/coverage.md has below its head: a count for each paper, then a table for each figure."""
    parts = []
    for paper, title in PAPERS.items():
        if own := [pair for pair in covered if pair[0].paper == paper]:
            parts += [f"## {markdown_text(title)}", _counted(own), *(_section(*pair) for pair in own)]
    return "\n\n".join(parts) + "\n"


def _counted(covered: Sequence[Covered]) -> str:
    """A cell is one series in one panel."""
    filled = [
        bool(_of_series(each, row))
        for preset, panels in covered
        for each in panels
        for row, s in enumerate(preset.series)
        if not s.added
    ]
    known = f"{sum(filled)} published, {len(filled) - sum(filled)} empty"
    return f"{len(covered)} figures and tables with {len(filled)} cells: {known}."


def _of_series(filled: Filled, number: int) -> list[DrawnCurve]:
    return [curve for curve in filled.curves if curve.series == number]


def _section(preset: FigurePreset, filled: Sequence[Filled]) -> str:
    title = f"### {preset.figure}: {markdown_text(preset.title)}"
    if preset.kind == "diagram":
        return f"{title} (a diagram: nothing to measure)"
    labels = [markdown_text(series.label) + (" (not in the paper)" if series.added else "") for series in preset.series]
    without = [label for row, label in enumerate(labels) if not any(_of_series(each, row) for each in filled)]
    experiment = f"[`rdpbench run experiment={preset.name}`](../conf/experiment/{preset.name}.yaml)"
    by = f"; measured by {experiment}" if preset.name in available("experiment") else ""
    missing = f". Without numbers: {'; '.join(without)}" if without else ""
    parts = [title, f"`rdpbench figure {preset.name}`, {preset.kind}{by}{missing}."]
    if len(without) < len(labels):
        table = [["", *(_heading(each.panel) for each in filled)], ["---"] * (1 + len(filled))]
        rows = [[label, *(_covered(each, row) for each in filled)] for row, label in enumerate(labels)]
        table += [row for row in rows if row[0] not in without]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in table))
    parts.append("\n".join(f"- {markdown_text(note)}" for note in preset.notes))
    return "\n\n".join(filter(None, parts))


def _heading(panel: Panel) -> str:
    over = f" over {', '.join(panel.settings)}" if panel.settings else ""
    if panel.at_bpp is not None:
        over = f" over {panel.x} at {panel.at_bpp:g} bpp"
    return f"{panel.metric or 'images'}{over}<br>{panel.dataset}"


def _covered(filled: Filled, number: int) -> str:
    """A cell in words: how many points, under which other metric, how many of them doubtful or read off a plot."""
    curves = _of_series(filled, number)
    points = [point for curve in curves for point in curve.points]
    others: Counter[str] = Counter()
    for curve in curves:
        others[curve.metric] += len(curve.points)
    marks = [
        f"{count if count < len(points) else ''} as {name}".strip()
        for name, count in sorted(others.items())
        if name not in (filled.panel.metric, filled.panel.x)
    ]
    for word, count in (
        ("doubtful", sum(bool(point.doubts) for point in points)),
        ("digitised", sum(point.digitised for point in points)),
    ):
        marks += [f"{count} {word}"] if count else []
    return f"published: {len(points)}" + (f" ({'; '.join(marks)})" if marks else "") if points else "–"


def written(covered: list[Covered]) -> str:
    head, mark, _ = PAGE.read_text().partition(MARK)
    return f"{head}{mark}\n\n{page(covered)}"


def test_the_page_in_the_docs_is_current(covered: list[Covered]) -> None:
    assert PAGE.read_text() == written(covered), "type: python tests/figures/test_coverage.py"


def test_what_there_is_for_some_figures(covered: list[Covered]) -> None:
    """Counts that follow from the sources: six MS-ILLM rates, HiFiC's three, nothing of TACO's own curves."""
    count = {
        (preset.name, preset.series[curve.series].codec, column): len(curve.points)
        for preset, panels in covered
        for column, each in enumerate(panels)
        for curve in each.curves
    }
    for codec, points in (("ms-illm", 6), ("hific", 3), ("taco", None)):
        assert [count.get(("taco-6", codec, column)) for column in range(3)] == [points] * 3
    assert not [key for key in count if key[0] == "taco-1"]
    by_name = {preset.name: (preset, panels) for preset, panels in covered}
    for name in ("taco-table-1", "perco-table-1"):
        assert "–" not in {cell for line in page([by_name[name]]).splitlines() for cell in line.split(" | ")}
    assert page([by_name["taco-table-2"]]).count("1 doubtful)") == 12


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "div2k-valid"},
        {"protocol": "512@gencodec"},
        {"codec": "elic"},
        {"metric": "psnr-pooled"},
        {"metric": "ssim"},
        {"value": math.nan},
        {"bpp": math.nan},
    ],
)
def test_what_is_not_the_same_does_not_fill_it(changes: dict[str, Any]) -> None:
    assert not drawn(PANEL, SERIES, number(**changes))


def test_published_points_are_there_with_their_marks() -> None:
    found = [number(), number(metric="psnr@float", doubtful="a reason"), number(digitised=True), number(metric="ssim")]
    points = drawn(PANEL, SERIES, *found)
    assert [(len(point.doubts), point.digitised) for point in points] == [(0, False), (0, True), (1, False)]


def test_a_bound_without_a_rate_counts_in_a_table_only() -> None:
    assert len(drawn(replace(PANEL, x=""), SERIES, number(bpp=math.nan))) == 1


def test_variants_are_apart() -> None:
    ablation, found = replace(SERIES, variant="frozen base"), number(variant="frozen base")
    assert not drawn(PANEL, ablation, number())
    assert len(drawn(PANEL, ablation, found)) == 1
    assert not drawn(PANEL, replace(SERIES, variant=""), found)


def test_neither_settings_nor_images_are_published() -> None:
    assert not drawn(Panel("kodak", "as-is", "guidance", "strength", "psnr"), SERIES, number())
    assert not drawn(Panel("kodak", "as-is"), SERIES, number())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("paper: nobody\nfigure: 1\ntitle: t\nkind: curves\n", "paper is 'nobody'; it can be text-sketch"),
        ("paper: taco\nfigure: 1\ntitle: t\nkind: pie\n", "kind is 'pie'; it can be curves"),
        ("paper: taco\nfigure: 1\ntitle: t\nkind: curves\n", "a diagram has no panels"),
        ("paper: taco\nfigur: 1\ntitle: t\nkind: diagram\n", "figur is not known here"),
        ("paper: taco\ntitle: t\nkind: diagram\n", "missing 1 required positional argument: 'figure'"),
        ("paper: taco\nfigure: 1\ntitle: t\nkind: curves\npanels: [{data: kodak}]\n", "data is not known here"),
        ("- nothing\n", "is not known here"),
    ],
)
def test_a_preset_with_a_mistake_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "odd.yaml").write_text(content)
    with pytest.raises(ConfigError, match=says):
        presets(tmp_path)


if __name__ == "__main__":
    PAGE.write_text(written(coverage(published())))
