"""Figures of papers: what is chosen is what there is, origins stay apart, nothing is silent, no text covers another."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image as pil

from rdpbench.errors import StoreUnwritable, UnknownName
from rdpbench.figures import curves, examples, notes
from rdpbench.figures.data import FigurePreset, Filled, Panel, Series, between, fill, heat_maps, presented, presets
from rdpbench.figures.style import STYLES, drawing, paper_style
from rdpbench.results.names import meaning
from rdpbench.results.published import published
from rdpbench.results.tables import latex, markdown
from rdpbench.setting import Presentation

ALL = {one.name: one for one in presets()}
DRAWN = [name for name, one in ALL.items() if one.kind in ("curves", "scatter")]
PANEL = Panel("set", "as-is", "bpp", "psnr", accept=("psnr@unstated",))
TWO = FigurePreset("two", "", "", "A title", "curves", (), (PANEL,), (Series("a", "A"), Series("b", "B")))


@pytest.fixture(scope="module")
def numbers() -> pd.DataFrame:
    return published()


def theirs(codec: str, bpp: float, value: float, **changes: Any) -> dict[str, Any]:
    """A published point."""
    known = {"dataset": "set", "protocol": "as-is", "codec": codec, "variant": "", "source_id": "first"}
    known |= {"source": "first/one@1:file", "bits_kind": "file", "bpp": bpp, "metric": "psnr", "value": value}
    known |= {"value_lo": math.nan, "value_hi": math.nan, "n": 3, "digitised": False, "doubtful": ""}
    return known | {"partial": False, "reliable": True} | changes


def ours(codec: str, bpp: float, value: float, **changes: Any) -> dict[str, Any]:
    """A measured point."""
    known = {"dataset": "set", "protocol": "as-is", "codec": codec, "rate_field": "quality", "rate": 100 * bpp}
    known |= {"manifest": "12ab", "target_bpp": math.nan}
    known |= {"n": 3, "partial": False, "bpp": bpp, "metric": "psnr", "value": value, "value_lo": value - 1}
    known |= {"value_hi": value + 1, "weights": "", "run": "mine", "bits_kind": "file", "reliable": True}
    return known | changes


def frame(*lines: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(lines)


def curve(make: Callable[..., dict[str, Any]], codec: str, **changes: Any) -> list[dict[str, Any]]:
    return [make(codec, 0.1 * 2**k, 30.0 + 2 * k, **changes) for k in range(4)]


def synthetic(preset: FigurePreset) -> pd.DataFrame:
    """Points of random weights for every series and panel."""
    lines = []
    for panel, (number, series), k in itertools.product(preset.panels, enumerate(preset.series), range(5)):
        for metric in {panel.x, panel.y} if panel.at_bpp is not None else {panel.metric}:
            label, rate = (f"{series.codec}[{series.variant}]" if series.variant else series.codec), 10.0 * k
            bpp = 0.02 * 2.2**k * (1 + 0.1 * number)
            if panel.settings:
                label = series.codec + "[" + ",".join(f"{name}={5 * k + 1}" for name in panel.settings) + "]"
                named = re.search(r"[0-9.]+", series.variant or "")
                bpp = rate = float(named[0]) if named else 0.1
            better = meaning(metric).higher_is_better
            value = 30 + k + 0.1 * number if better else 0.5 - 0.05 * k + 0.1 * number
            where = {"dataset": panel.dataset, "protocol": panel.protocol, "metric": metric, "rate": rate}
            lines.append(ours(f"{label}[weights=random]", bpp, value, weights="random", **where))
    return pd.DataFrame(lines).drop_duplicates(ignore_index=True)


# What is drawn


def test_origins_are_never_joined() -> None:
    lines = [*curve(theirs, "a"), *curve(theirs, "a", bits_kind="payload"), *curve(theirs, "a", source_id="second")]
    lines += [*curve(theirs, "a", variant="v2"), *curve(theirs, "a", metric="psnr@unstated")]
    lines += [*curve(theirs, "a", protocol="512"), *curve(theirs, "a", metric="psnr@float"), *curve(theirs, "z")]
    (one,) = fill(TWO, frame(*curve(ours, "a"), *curve(ours, "a", run="other")), frame(*lines), every=True)
    assert [len(curve.points) for curve in one.curves] == [4] * 7
    alike = {(c.bits_kind, c.origin, c.variant, c.metric, c.measured) for c in one.curves}
    assert len(alike) == 7
    with drawing(paper_style("default")):
        figure = curves.compose(TWO, [one], paper_style("default"))
    drawn = [line for line in figure.axes[0].lines if line.get_gid()]
    assert [len(np.asarray(line.get_xdata())) for line in drawn] == [4] * 7
    assert one.empty == ("B",)


def test_labels_of_a_series_are_its_curves() -> None:
    """Runs name MS-ILLM as it is typed; two labels of a series are two curves, and then each says which it is."""
    series = Series("a", "A", measured=("a[captions=ofa]", "aa"))
    preset = FigurePreset("two", "", "", "A title", "curves", (), (PANEL,), (series,))
    (one,) = fill(preset, frame(*curve(ours, "aa"), *curve(ours, "b"), *curve(ours, "a[captions=blip]")), None)
    assert [(each.label, len(each.points)) for each in one.curves] == [("A", 4)]
    (one,) = fill(preset, frame(*curve(ours, "aa"), *curve(ours, "a[captions=ofa][weights=random]")), None)
    assert [each.label for each in one.curves] == ["A, a[captions=ofa]", "A, aa"]


def test_one_published_curve_is_drawn_and_the_others_are_said() -> None:
    short = curve(theirs, "a", source_id="short")[:3]
    lines = [*short, *curve(theirs, "a", variant="retrained"), *curve(theirs, "a", source_id="bad", doubtful="why")]
    (one,) = fill(TWO, None, frame(*lines))
    assert [(curve.origin, len(curve.points)) for curve in one.curves] == [("short", 3)]
    assert {curve.origin for curve in one.others} == {"first", "bad"}
    assert "Published, too, and not drawn: 2 more curves (two.md lists them)." in notes.short(TWO, [one])
    page = notes.page(TWO, [one], style="default", command="x")
    assert page.count("not drawn") == 3


def test_rates_outside_are_left_out() -> None:
    (one,) = between(fill(TWO, frame(*curve(ours, "a")), None), 0.2, 0.4)
    assert [point.bpp for point in one.curves[0].points] == [0.2, 0.4]


def test_a_scatter_is_interpolated_and_reaches_the_rate_from_both_sides() -> None:
    panel = Panel("set", "as-is", "lpips/alex", "psnr", at_bpp=0.2, accept=("lpips@taco",))
    preset = FigurePreset("s", "", "", "", "scatter", (), (panel,), (Series("a", "A"), Series("b", "B")))
    lines = [ours("a", bpp, value) for bpp, value in ((0.1, 30.0), (0.4, 34.0))]
    lines += [ours("a", bpp, value, metric="lpips/alex") for bpp, value in ((0.1, 0.4), (0.4, 0.2))]
    lines += [ours("b", bpp, 30.0, metric=metric) for bpp in (0.3, 0.4) for metric in ("psnr", "lpips/alex")]
    (one,) = fill(preset, frame(*lines), None)
    (point,) = one.curves[0].points
    assert (round(point.x, 12), round(point.y, 12)) == (0.3, 32.0)
    assert one.empty == ("B",)


# How it is drawn


def test_measured_is_filled_and_published_hollow_and_marked() -> None:
    doubtful = [theirs("b", 0.1, 31.0, doubtful="why"), theirs("b", 0.2, 32.0, digitised=True, bits_kind="file")]
    filled = fill(TWO, frame(*curve(ours, "a", partial=True)), frame(*doubtful))
    with drawing(paper_style("icml")):
        figure = curves.compose(TWO, filled, paper_style("icml"))
    axis = figure.axes[0]
    named = {line.get_gid(): line for line in axis.lines if line.get_gid()}
    assert named["published"].get_markerfacecolor() == "white"
    assert named["measured"].get_markerfacecolor() == named["measured"].get_color()
    assert named["measured"].get_fillstyle() == "left"
    marks = {str(line.get_marker()): np.asarray(line.get_xdata()).tolist() for line in axis.lines if not line.get_gid()}
    assert marks == {"x": [0.1], ".": [0.2]}
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["A (measured)", "B [1]", "doubtful", "read off a plot", "fewer images"]


def test_what_must_be_said_is_below_the_figure(numbers: pd.DataFrame) -> None:
    filled = fill(ALL["taco-7"], None, numbers)
    with drawing(paper_style("icml")):
        figure = curves.compose(ALL["taco-7"], filled, paper_style("icml"), show=Presentation(notes=True))
    note = next(text.get_text() for text in figure.texts if text.get_gid() == "note").replace("\n", " ")
    assert "facebookresearch/NeuralCompression" in note
    assert "Rates count different things, which matters most below 0.05 bpp" in note
    assert "object: MS-ILLM" in note
    assert "* Not the panel's own: PSNR (rounding not stated) for PSNR." in note
    assert "No data: TACO; LIC-TCM for LPIPS (AlexNet) on Kodak; CMMD (not projected) on Kodak." in note
    assert len(figure.axes) == 2
    starred = [text.get_text() for text in figure.legends[0].get_texts() if text.get_text().endswith("*")]
    assert any(text.startswith("VTM, 18.0") for text in starred)
    styles = {line.get_linestyle() for line in figure.axes[0].lines}
    assert len(styles) >= 2


def test_the_page_names_every_source_and_what_to_run(numbers: pd.DataFrame) -> None:
    filled = fill(ALL["taco-7"], None, numbers)
    page = notes.page(ALL["taco-7"], filled, style="icml", command="rdpbench figure taco-7")
    for one in filled:
        for each in (*one.curves, *one.others):
            assert each.source in page
    assert "    rdpbench run experiment=taco-7\n    rdpbench figure taco-7 --run taco-7\n" in page
    assert "Codecs that rdpbench does not have" not in page
    other = notes.page(ALL["taco-8"], fill(ALL["taco-8"], None, numbers), style="icml", command="x")
    assert "Codecs that rdpbench does not have: qin2023, tgic." in other
    own = FigurePreset("curves", "", "", "mine", "curves", (), ALL["taco-8"].panels, ALL["taco-8"].series)
    assert "does not have" not in notes.page(own, fill(own, None, numbers), style="icml", command="x")
    assert "8 doubtful: against the original after 8-bit YCbCr" in page


def test_random_weights_are_watermarked() -> None:
    filled = fill(TWO, frame(*curve(ours, "a[weights=random]", weights="random")), None)
    for one, expected in ((filled, 1), (fill(TWO, frame(*curve(ours, "a")), None), 0)):
        with drawing(paper_style("default")):
            figure = curves.compose(TWO, one, paper_style("default"))
        assert sum(text.get_gid() == "watermark" for text in figure.texts) == expected
        assert any("random weights" in line for line in notes.short(TWO, one)) == bool(expected)


def _texts(figure: Figure) -> Iterator[Any]:
    """What is written, without what lies outside the axes' limits and is not drawn, and without the watermark."""
    for axis in figure.axes:
        yield from (axis.xaxis.label, axis.yaxis.label, axis.title, *axis.texts)
        yield from (child for child in axis.get_children() if getattr(child, "get_text", None) and child.get_text())
        for along, limits in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
            for tick in along.get_major_ticks():
                if min(limits) <= tick.get_loc() <= max(limits):
                    yield tick.label1
    for legend in figure.legends:
        yield from legend.get_texts()
    yield from (text for text in figure.texts if text.get_gid() != "watermark")


def overlaps(figure: Figure) -> list[str]:
    """Pairs of texts that lie on one another, and texts that leave the figure."""
    figure.canvas.draw()
    texts = {id(text): text for text in _texts(figure) if text.get_visible() and text.get_text().strip()}
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts.values()]
    wide, high = figure.bbox.width, figure.bbox.height
    out = [
        f"{text!r} leaves the figure"
        for text, b in boxes
        if b.x0 < -1 or b.y0 < -1 or b.x1 > wide + 1 or b.y1 > high + 1
    ]
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        # Two dots of 200 an inch between them at the least: letters that touch are not read apart.
        if min(a.x1, b.x1) - max(a.x0, b.x0) > -2 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1:
            out.append(f"{one!r} on {other!r}")
    return out


def _composed(name: str, style: str, size: str, numbers: pd.DataFrame | None, **show: Any) -> Figure | None:
    """A preset from published numbers, or else from random weights; None where there is nothing to draw."""
    preset, paper = ALL[name], paper_style(style).of_size(size)
    with drawing(paper):
        if preset.kind == "heat-map":
            rows = heat_maps(preset, synthetic(preset) if numbers is None else synthetic(preset).iloc[:0])
            figure = examples.compose_maps(rows, paper, Presentation(size=size, **show)) if rows else None
        else:
            filled = fill(preset, synthetic(preset), None) if numbers is None else fill(preset, None, numbers)
            there = any(each.curves for each in filled)
            shown = Presentation(size=size, **show)
            figure = curves.compose(preset, filled, paper, show=shown) if there else None
        assert figure is None or overlaps(figure) == []
    return figure


@pytest.mark.parametrize("name", ["perco-3", "textual-inversion-3"])
def test_no_text_lies_on_another(name: str, numbers: pd.DataFrame) -> None:
    figure = _composed(name, "icml", "page", None, notes=True)
    assert figure is not None
    # Room for eight panels is nine places wide.
    assert sum(bool(axis.get_xlabel()) for axis in figure.axes) == len(ALL[name].panels)
    _composed(name, "icml", "page", numbers, notes=True)


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", ["column", "page", "slide"])
def test_no_text_lies_on_another_in_any_preset(style: str, size: str, numbers: pd.DataFrame) -> None:
    for name, known in itertools.product([*DRAWN, "textual-inversion-3"], (numbers, None)):
        figure = _composed(name, style, size, known, notes=known is None)
        assert figure is None or figure.get_figwidth() == paper_style(style).of_size(size).width(size)


def test_the_check_of_overlaps_finds_one() -> None:
    with drawing(paper_style("default")):
        figure = curves.compose(TWO, fill(TWO, frame(*curve(ours, "a")), None), paper_style("default"))
        assert overlaps(figure) == []
        figure.text(0.5, 0.02, "A long text across the note and what else is there")
        figure.text(-0.2, 0.5, "outside")
        found = overlaps(figure)
    assert any("leaves the figure" in line for line in found)


def test_a_legend_never_covers_data(numbers: pd.DataFrame) -> None:
    with drawing(paper_style("neurips")):
        figure = curves.compose(ALL["taco-6"], fill(ALL["taco-6"], None, numbers), paper_style("neurips"))
        figure.canvas.draw()
        (legend,) = figure.legends
        top = legend.get_window_extent().y1
        bottoms = [axis.get_tightbbox().y0 for axis in figure.axes if isinstance(axis, Axes)]
    assert top < min(bottoms) + 1


def test_names_are_text(tmp_path: Path) -> None:
    series = (Series("a", r"$\frac$ _x & %"), Series("b", "_hidden"))
    preset = FigurePreset("odd", "", "", "", "curves", (), (PANEL,), series)
    filled = fill(preset, frame(*curve(ours, "a"), *curve(ours, "b")), None)
    assert len(curves.draw(preset, filled, tmp_path / "odd", paper_style("cvpr"))) == 4
    with drawing(paper_style("cvpr")):
        assert overlaps(curves.compose(preset, filled, paper_style("cvpr"))) == []


def test_a_line_ends_at_its_last_marker(numbers: pd.DataFrame) -> None:
    for name in DRAWN:
        filled = fill(ALL[name], None, numbers, every=True)
        if not any(each.curves for each in filled):
            continue
        with drawing(paper_style("default")):
            figure = curves.compose(ALL[name], filled, paper_style("default"))
        for line in (
            line for axis in figure.axes for line in axis.lines if line.get_gid() in ("measured", "published")
        ):
            last = len(np.asarray(line.get_xdata())) - 1
            marked = line.get_markevery()
            assert isinstance(marked, list)
            assert {0, last} <= set(marked) <= set(range(last + 1))


def test_panels_of_a_figure_share_one_axis_of_rates(numbers: pd.DataFrame) -> None:
    """One point beside curves over three decades is on their axis."""
    with drawing(paper_style("default")):
        figure = curves.compose(ALL["perco-3"], fill(ALL["perco-3"], None, numbers), paper_style("default"))
    panels = [axis for axis in figure.axes if axis.get_xlabel() == "bits per pixel"]
    assert len(panels) == 7
    assert {(axis.get_xscale(), axis.get_xlim()) for axis in panels} == {("log", panels[0].get_xlim())}


def test_ms_ssim_is_in_decibels_where_it_saturates() -> None:
    panel = Panel("set", "as-is", "bpp", "ms-ssim")
    preset = FigurePreset("two", "", "", "A title", "curves", (), (panel,), (Series("a", "A"),))
    for top, asked, label in (
        (0.99, (), "MS-SSIM (dB) ↑"),
        (0.7, (), "MS-SSIM ↑"),
        (0.99, ("ms-ssim",), "MS-SSIM (dB) ↑"),
        (0.99, ("ms-ssim-linear",), "MS-SSIM ↑"),
        (0.7, ("ms-ssim-db",), "MS-SSIM (dB) ↑"),
    ):
        show = Presentation(panels=asked)
        lines = [ours("a", 0.1 * n, top - 0.1 / n, metric="ms-ssim", value_lo=0.5, value_hi=1.0) for n in (1, 2, 3)]
        filled = fill(presented(preset, show), frame(*lines), None)
        with drawing(paper_style("default")):
            figure = curves.compose(preset, filled, paper_style("default"), show=show)
        (axis,) = figure.axes
        assert axis.get_ylabel().replace("\N{NO-BREAK SPACE}", " ") == label
        value = np.asarray(axis.lines[0].get_ydata())[-1]
        expected = top - 0.1 / 3
        assert value == pytest.approx(-10 * math.log10(1 - expected) if "dB" in label else expected)
        assert any("decibels" in line for line in curves.caption_lines(preset, filled, (), show)) == ("dB" in label)


def test_bd_rates_are_in_the_legend() -> None:
    faster = [line | {"bpp": 0.8 * line["bpp"]} for line in curve(ours, "b")]
    preset, show = presented(TWO, Presentation(anchor="a")), Presentation(anchor="a")
    filled = fill(preset, frame(*curve(ours, "a"), *faster), None)
    with drawing(paper_style("default")):
        figure = curves.compose(preset, filled, paper_style("default"), show=show)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B, \N{MINUS SIGN}20.0 %"]
    said = curves.caption_lines(preset, filled, (), show)
    assert "Percent behind a name: BD-rate against A for PSNR; below 0 is better." in said


def test_a_scatter_has_its_pareto_front_and_says_what_is_better() -> None:
    panel = Panel("set", "as-is", "lpips/alex", "psnr", at_bpp=0.2)
    series = tuple(Series(name, name.upper()) for name in "abcd")
    preset = FigurePreset("s", "", "", "", "scatter", (), (panel,), series)
    places = {"a": (0.1, 30.0), "b": (0.2, 33.0), "c": (0.3, 32.0), "d": (0.4, 34.0)}
    lines = [
        ours(codec, bpp, value, metric=metric)
        for codec, values in places.items()
        for metric, value in zip(("lpips/alex", "psnr"), values, strict=True)
        for bpp in (0.15, 0.25)
    ]
    filled = fill(preset, frame(*lines), None)
    with drawing(paper_style("default")):
        figure = curves.compose(preset, filled, paper_style("default"))
    (front,) = [line for line in figure.axes[0].lines if line.get_gid() == "front"]
    assert np.asarray(front.get_xdata()).round(9).tolist() == [0.1, 0.2, 0.4]  # c is worse than b in both
    (note,) = figure.axes[0].texts
    assert note.get_text() == "better"
    tip, tail = note.xy, note.get_position()  # type: ignore[attr-defined]  # an Annotation
    assert tip[0] < tail[0]
    assert tip[1] > tail[1]


def test_what_is_asked_for_is_what_is_drawn() -> None:
    panels = (PANEL, Panel("set", "as-is", "bpp", "flip"), Panel("other", "as-is", "bpp", "psnr"))
    whole = FigurePreset("two", "", "", "A title", "curves", (), panels, (Series("a", "A"), Series("b", "B")))
    chosen = presented(whole, Presentation({"a": "Ours"}, order=("b",), panels=("other", "flip")))
    assert [(panel.dataset, panel.metric) for panel in chosen.panels] == [("other", "psnr"), ("set", "flip")]
    assert [series.label for series in chosen.series] == ["B", "Ours"]


# Files


@pytest.mark.parametrize(("style", "font"), [("icml", "STIXGeneral"), ("default", "DejaVuSans")])
def test_fonts_are_embedded_and_sizes_are_the_column_s(style: str, font: str, tmp_path: Path) -> None:
    filled = fill(TWO, frame(*curve(ours, "a")), frame(*curve(theirs, "b")))
    paths = curves.draw(TWO, filled, tmp_path / "two", paper_style(style), show=Presentation(size="column"))
    assert [path.suffix for path in paths] == [".png", ".pdf", ".svg", ".txt"]
    data = (tmp_path / "two.pdf").read_bytes()
    fonts = set(re.findall(rb"/FontName /[A-Z]{6}\+([A-Za-z-]+)", data))
    assert any(name.decode().startswith(font) for name in fonts)
    assert data.count(b"/FontFile2") == len(re.findall(rb"/Type /FontDescriptor", data)) >= 1
    assert b"/Type3" not in data
    box = re.search(rb"/MediaBox \[ 0 0 ([0-9.]+) ", data)
    assert box is not None
    assert float(box[1]) == pytest.approx(72 * STYLES[style].single)
    with pil.open(tmp_path / "two.png") as image:
        assert image.width == int(200 * STYLES[style].single)


def test_no_dates(tmp_path: Path) -> None:
    filled = fill(TWO, frame(*curve(ours, "a")), None)
    curves.draw(TWO, filled, tmp_path / "two", paper_style("icml"))
    pdf = (tmp_path / "two.pdf").read_bytes()
    streams = b"".join(_inflated(part) for part in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL))
    for data in (pdf, streams, (tmp_path / "two.svg").read_bytes(), (tmp_path / "two.png").read_bytes()):
        assert b"Date" not in data
        assert b"Matplotlib v" not in data or b"<!-- Created with matplotlib" in data


def _inflated(part: bytes) -> bytes:
    try:
        return zlib.decompress(part)
    except zlib.error:
        return b""


AGAIN = """
import sys
from pathlib import Path
from rich.console import Console
import argparse
from rdpbench.figures import command
parser = argparse.ArgumentParser()
command.add_arguments(parser)
command.run(parser.parse_args(sys.argv[1:]), Console(quiet=True))
"""


@pytest.mark.slow
def test_the_same_bytes_in_separate_processes(tmp_path: Path, environment: dict[str, str]) -> None:
    hashes = []
    for number in range(2):
        out = tmp_path / "out"
        line = [sys.executable, "-c", AGAIN, "taco-7", "textual-inversion-3", "--style", "icml", "--out", str(out)]
        subprocess.run(line, check=True, env={**environment, "PYTHONHASHSEED": str(number), "TZ": f"UTC+{number}"})
        hashes.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()})
        for path in out.iterdir():
            path.unlink()
    assert hashes[0] == hashes[1]
    assert sorted(hashes[0]) == [
        *(f"taco-7.{ending}" for ending in ("md", "pdf", "png", "svg", "txt")),
        "textual-inversion-3.md",
    ]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnwritable, match="two"):
        curves.draw(TWO, fill(TWO, frame(*curve(ours, "a")), None), tmp_path / "file" / "two", paper_style("icml"))


def test_unknown_styles_and_widths() -> None:
    with pytest.raises(UnknownName, match="did you mean 'icml'"):
        paper_style("icmll")


# Heat maps


def guided(**changes: Any) -> list[dict[str, Any]]:
    where = {"dataset": "kodak", "rate_field": "none", "rate": math.nan} | changes
    lines = []
    for scale, compression in ((1, 0), (1, 10), (3, 0)):
        label = f"textual-inversion[guidance={scale},compression_guidance={compression}]"
        lines += [ours(label, 0.07, 20.0 + scale + compression, **where)]
        lines += [ours(label, 0.07, 0.5 + scale / 100, **where, metric="lpips/alex")]
    return lines


def test_a_heat_map_has_each_value_in_its_place() -> None:
    (row,) = heat_maps(ALL["textual-inversion-3"], frame(*guided()))
    first = row[0]
    assert (first.xs, first.ys) == ((1.0, 3.0), (0.0, 10.0))
    assert first.values.tolist()[0] == [21.0, 23.0]
    assert first.values[1, 0] == 31.0
    assert math.isnan(first.values[1, 1])
    with drawing(paper_style("icml")):
        figure = examples.compose_maps([row], paper_style("icml"))
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["21.00", "23.00", "31.00"]
    assert figure.axes[0].images[0].get_cmap().name == "cividis"
    assert figure.axes[2].images[0].get_cmap().name == "cividis_r"  # LPIPS: lower is better, and bright
    assert [text.get_text() for text in figure.axes[1].texts] == ["not measured"]


def test_heat_maps_of_two_runs_are_two_rows() -> None:
    lines = [*guided(), *guided(run="other", weights="random")]
    rows = heat_maps(ALL["textual-inversion-3"], frame(*lines))
    assert [row[0].title for row in rows] == [f"Textual inversion, {run}, 0.0700 bpp" for run in ("mine", "other")]
    assert [row[0].random for row in rows] == [False, True]
    assert examples.notes_of_maps(rows)[0] == "random weights: not results."


def test_settings_that_are_on_no_axis_are_not_mixed() -> None:
    """Steps 10 and 20 at two rates are four maps, and four lines over the guidance."""
    lines = [
        line | {"codec": line["codec"].replace("]", f",steps={steps}]"), "value": value}
        for steps, rate, value in ((10, 1.0, 30.0), (10, 2.0, 31.0), (20, 1.0, 32.0), (20, 2.0, 33.0))
        for line in guided(dataset="set", rate_field="lambda", rate=rate)
    ]
    panel = Panel("set", "as-is", "guidance", "compression_guidance", "psnr")
    preset = FigurePreset("x", "", "", "", "heat-map", (), (panel,), (Series("textual-inversion", "T"),))
    maps = [row[0] for row in heat_maps(preset, frame(*lines))]
    assert {each.title.partition(", 0.07")[0]: {*each.values[np.isfinite(each.values)]} for each in maps} == {
        "T, mine, steps=10, lambda 1": {30.0},
        "T, mine, steps=10, lambda 2": {31.0},
        "T, mine, steps=20, lambda 1": {32.0},
        "T, mine, steps=20, lambda 2": {33.0},
    }
    alone = [line for line in lines if "compression_guidance=0" in line["codec"]]
    (filled,) = fill(
        replace(preset, kind="curves", panels=(Panel("set", "as-is", "guidance", "psnr"),)), frame(*alone), None
    )
    assert [{point.y for point in curve.points} for curve in filled.curves] == [{30.0}, {31.0}, {32.0}, {33.0}]
    assert filled.curves[0].label == "T, compression_guidance=0, steps=10, lambda 1"


# Tables


def test_a_table_ranks_only_what_may_be_compared() -> None:
    columns = (Panel("set", "as-is", y="psnr"), Panel("set", "as-is", y="lpips/alex"))
    preset = FigurePreset(
        "t", "", "", "A table", "table", (), columns, (Series("a", "A"), Series("b", "B"), Series("c", "C"))
    )
    lines = [ours("a", 0.1, 30.0), ours("b", 0.1, 31.0)]
    lines += [ours(codec, 0.1, value, metric="lpips/alex") for codec, value in (("a", 0.1), ("b", 0.2))]
    table = notes.paper_table(preset, fill(preset, frame(*lines), None))
    assert table.header == ("", "from", "bpp", "PSNR (dB) ↑", "LPIPS (AlexNet) ↓")
    assert [[cell.text for cell in line] for line in table.lines] == [
        ["A", "run mine", "0.1000", "30.00 ±1.00", "0.1000 ±1.0000"],
        ["B", "run mine", "0.1000", "31.00 ±1.00", "0.2000 ±1.0000"],
        ["C", "–", "–", "–", "–"],
    ]
    assert [[cell.rank for cell in line[3:]] for line in table.lines] == [[2, 1], [1, 2], [0, 0]]
    for other in ({"run": "other"}, {"bpp": 0.2}, {"weights": "random"}):
        mixed = fill(preset, frame(lines[0], lines[1] | other), None)
        assert {cell.rank for line in notes.paper_table(preset, mixed).lines for cell in line} == {0}
    doubtful = frame(theirs("a", 0.1, 30.0), theirs("b", 0.1, 31.0, doubtful="why"))
    table = notes.paper_table(preset, fill(preset, None, doubtful))
    assert [line[3].text for line in table.lines] == ["30", "31†", "–"]
    assert {cell.rank for line in table.lines for cell in line} == {0}
    assert "† doubtful: why." in table.notes


def test_the_papers_tables_have_the_digits_of_their_sources(numbers: pd.DataFrame) -> None:
    table = notes.paper_table(ALL["perco-table-1"], fill(ALL["perco-table-1"], None, numbers))
    texts = [[cell.text for cell in line[2:]] for line in table.lines]
    assert texts[2] == ["0.0112", "4.42", "0.39*", "0.58*†", "0.4664*", "29.05"]
    assert texts[3][0] == "–"
    for write in (markdown, latex):
        assert "PerCo, arXiv 2310.10325" in write(table).replace("~", " ").replace("\N{NO-BREAK SPACE}", " ")


def test_every_preset_is_filled_without_numbers() -> None:
    for preset in ALL.values():
        filled = fill(preset, None, None)
        assert all(not one.curves and len(one.empty) == len(preset.series) for one in filled)
        assert isinstance(notes.page(preset, filled, style="icml", command="x"), str)
        assert all(isinstance(one, Filled) for one in filled)
