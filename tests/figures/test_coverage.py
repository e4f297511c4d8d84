"""The coverage page: every figure and table is listed, and a cell counts only what belongs in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rdpbench import registry
from rdpbench.datasets.protocols import PROTOCOLS
from rdpbench.errors import ConfigError
from rdpbench.figures.coverage import PAGE, CellCoverage, Covered, coverage, markdown
from rdpbench.figures.presets import PAPERS, FigurePreset, Panel, Series, presets
from rdpbench.paths import available
from rdpbench.results.names import FAMILIES, family
from rdpbench.results.published import published

DOCS = Path(__file__).parents[2] / "docs"
PANEL = Panel("kodak", "as-is", "bpp", "psnr", accept=("psnr@float",))
SERIES = Series("taco", "TACO")


@pytest.fixture(scope="module")
def others() -> pd.DataFrame:
    return published()


@pytest.fixture(scope="module")
def covered(others: pd.DataFrame) -> list[Covered]:
    return coverage(None, others)


def point(**changes: Any) -> dict[str, Any]:
    made = {"dataset": "kodak", "protocol": "as-is", "codec": "taco", "rate_field": "lambda", "n": 24, "bpp": 0.2}
    return made | {"metric": "psnr", "value": 30.0} | changes


def number(**changes: Any) -> dict[str, Any]:
    own = {"variant": "", "source_id": "x", "digitised": False, "doubtful": ""}
    return point() | own | changes


def cell(
    panel: Panel = PANEL,
    series: Series = SERIES,
    measured: list[dict[str, Any]] | None = None,
    found: list[dict[str, Any]] | None = None,
) -> CellCoverage:
    preset = FigurePreset("taco-0", "taco", "Figure 0", "A title", "curves", (), (panel,), (series,))
    there = pd.DataFrame(found or [number(codec="another")])
    (one,) = coverage(pd.DataFrame(measured) if measured else None, there, [preset])
    return one.cells[0][0]


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
            assert not panel.metric or family(panel.metric) in {*FAMILIES, "pieapp", "cmmd", "caption"}, preset.name
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


def test_the_page_in_the_docs_is_current(covered: list[Covered]) -> None:
    assert (DOCS / "coverage.md").read_text() == f"{PAGE}\n{markdown(covered)}"


def test_what_there_is_for_some_figures(covered: list[Covered]) -> None:
    """Counts that follow from the sources: six MS-ILLM rates, HiFiC's three, nothing of TACO's own curves."""
    by_name = {one.preset.name: one for one in covered}
    clic = by_name["taco-6"]
    of = {series.codec: cells for series, cells in zip(clic.preset.series, clic.cells, strict=True)}
    assert [one.published for one in of["ms-illm"]] == [6, 6, 6]
    assert of["ms-illm"][2].others == (("fid/hific-patch", 6),)
    assert [one.published for one in of["hific"]] == [3, 3, 3]
    assert [one.status for one in of["taco"]] == ["empty"] * 3
    assert all(one.status == "published only" for line in by_name["taco-table-1"].cells for one in line)
    assert all(one.doubtful == 1 for line in by_name["taco-table-2"].cells for one in line)
    assert all(one.status == "published only" for line in by_name["perco-table-1"].cells for one in line)
    assert all(one.status == "empty" for line in by_name["taco-1"].cells for one in line)


def test_a_measured_point_fills_its_cell() -> None:
    assert cell(measured=[point(), point(bpp=0.4)]).measured == 2
    assert cell(measured=[point()]).status == "measured"
    assert cell(measured=[point()], found=[number()]) == CellCoverage(1, 1, 0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "div2k-valid"},
        {"protocol": "centre-crop-256"},
        {"codec": "taco[lambda=1]"},
        {"codec": "elic"},
        {"metric": "psnr-pooled"},
        {"metric": "psnr@float"},
        {"value": float("nan")},
        {"n": 0},
    ],
)
def test_what_is_not_the_same_does_not_fill_it(changes: dict[str, Any]) -> None:
    assert cell(measured=[point(**changes)]).status == "empty"


def test_published_points_are_counted_with_their_marks() -> None:
    found = [number(), number(metric="psnr@float", doubtful="a reason"), number(digitised=True), number(metric="ssim")]
    assert cell(found=found) == CellCoverage(0, 3, 1, 1, (("psnr@float", 1),))
    assert cell(found=[number(protocol="512@gencodec")]).status == "empty"
    assert cell(found=[number(bpp=float("nan"))]).status == "empty"


def test_a_bound_without_a_rate_counts_in_a_table_only() -> None:
    table = replace(PANEL, x="")
    assert cell(table, found=[number(bpp=float("nan"))]).published == 1


def test_variants_are_apart() -> None:
    ablation = replace(SERIES, variant="frozen base")
    assert cell(series=ablation, found=[number()]).status == "empty"
    assert cell(series=ablation, found=[number(variant="frozen base")]).published == 1
    assert cell(series=ablation, measured=[point()]).status == "empty"
    assert cell(series=ablation, measured=[point(codec="taco[frozen base]")]).measured == 1
    assert cell(series=replace(SERIES, variant=""), found=[number(variant="frozen base")]).status == "empty"


def test_settings_on_the_axes_need_points_along_them() -> None:
    heat = Panel("kodak", "as-is", "guidance", "strength", "psnr")
    assert cell(heat, measured=[point()], found=[number()]).status == "empty"
    assert cell(heat, measured=[point(codec="taco[guidance=3]")]).status == "empty"
    assert cell(heat, measured=[point(codec="taco[guidance=3,strength=2]")]).measured == 1
    steps = replace(PANEL, x="steps")
    assert cell(steps, measured=[point(rate_field="steps")]).measured == 1
    assert cell(steps, measured=[point(rate_field="lambda")]).status == "empty"


def test_a_scatter_needs_both_metrics_around_its_rate() -> None:
    scatter = Panel("kodak", "as-is", "lpips/alex", "psnr", accept=("lpips@taco",), at_bpp=0.4)
    both = [point(bpp=bpp, metric=metric) for bpp in (0.3, 0.5) for metric in ("psnr", "lpips/alex")]
    assert cell(scatter, measured=both).measured == 4
    assert cell(scatter, measured=both[:2]).status == "empty"
    assert cell(scatter, measured=[one for one in both if one["metric"] == "psnr"]).status == "empty"
    found = [number(**{**one, "metric": one["metric"].replace("/alex", "@taco")}) for one in both]
    assert cell(scatter, found=found) == CellCoverage(0, 4, 0, 0, (("lpips@taco", 2),))
    apart = [one | {"source_id": one["metric"]} for one in found]
    assert cell(scatter, found=apart).status == "empty"


def test_images_are_measured_or_empty() -> None:
    images = Panel("kodak", "as-is")
    assert cell(images, found=[number()]).status == "empty"
    assert cell(images, measured=[point()]).status == "measured"


def test_an_added_series_is_shown_and_not_counted() -> None:
    added = replace(SERIES, label="Ours | two", added=True)
    preset = FigurePreset("taco-0", "taco", "Figure 0", "A <title>", "curves", ("A note.",), (PANEL,), (SERIES, added))
    covered = coverage(None, pd.DataFrame([number()]), [preset])
    page = markdown(covered)
    assert "1 figures and tables with 1 cells: 0 measured, 1 published only, 0 empty." in page
    assert "| Ours \\| two (not in the paper) | published: 1 |" in page
    assert "### Figure 0: A \\<title>" in page


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
