"""Figures are made of the frame alone: drawn again, in another process, they are the same bytes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image as pil

import rdpbench.report
from rdpbench import registry
from rdpbench.figures.curves import _deltas, _of_series, draw_all
from rdpbench.figures.data import FigurePreset, Panel, Run, Series, fill, measured, presets, read_runs
from rdpbench.figures.style import MARKERS, PALETTE, log_ticks, new_figure
from rdpbench.paths import conf_folder, read_yaml, records
from rdpbench.results.names import SIGNS, Names, signs
from rdpbench.results.store.store import Store
from rdpbench.setting import Presentation

DRAW = """
import sys
from pathlib import Path
import pandas as pd
from rdpbench.figures.curves import draw_all
for path in draw_all(pd.read_pickle(sys.argv[1]), Path(sys.argv[2])):
    print(path)
"""


def curves(
    codecs: list[str], dataset: str = "set", span: float = 4.0, metrics: Sequence[str] = ("psnr",)
) -> pd.DataFrame:
    lines = [
        {
            "dataset": dataset,
            "codec": codec,
            "bpp": 0.1 * span ** (k / 3),
            "metric": metric,
            "value": 30.0 + k + number,
            "value_lo": 29.5 + k,
            "value_hi": 31.0 + k + number,
            "partial": codec == "half",
            "unit": "dB" if metric == "psnr" else "",
            "higher_is_better": metric == "psnr",
            "reliable": True,
            "n": 4,
        }
        for metric in metrics
        for number, codec in enumerate(codecs)
        for k in range(4)
    ]
    return pd.DataFrame(lines)


def test_the_same_bytes_in_separate_processes(tmp_path: Path) -> None:
    frame = tmp_path / "frame.pkl"
    curves(["jpeg", "webp", "half"], span=40, metrics=["lpips/alex"]).to_pickle(frame)
    hashes = []
    for number, seed in enumerate(("1", "2")):
        folder = tmp_path / str(number)
        line = [sys.executable, "-c", DRAW, str(frame), str(folder)]
        subprocess.run(line, check=True, env={**os.environ, "PYTHONHASHSEED": seed, "TZ": f"UTC+{number}"})
        hashes.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()})
    assert sorted(hashes[0]) == sorted(
        f"{name}.{ending}" for name in ("curves", "rate-lpips-alex") for ending in ("png", "pdf", "svg", "txt")
    )
    assert hashes[0] == hashes[1]


def test_the_last_digits_of_where_a_panel_lies_are_cut() -> None:
    figure = new_figure(7, 4)
    panels = figure.subplots(2, 3).flat
    for number, axes in enumerate(panels):
        axes.set_ylabel("a label " * number)
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.get_in_layout()
        for original in (True, False):
            points = axes.get_position(original=original).get_points()
            assert (points == points.round(9)).all()


@pytest.mark.slow
def test_other_numbers_are_another_picture(tmp_path: Path) -> None:
    frame = curves(["jpeg", "webp"])
    first = draw_all(frame, tmp_path / "a")[0].read_bytes()
    frame.loc[0, "value"] += 0.3
    assert draw_all(frame, tmp_path / "b")[0].read_bytes() != first


def test_names_are_text(tmp_path: Path) -> None:
    """Dollars are no formulas, and a leading underscore hides nothing."""
    names = ["$a$", "$", r"$\frac$", "_hidden", "100%", "a{b}", "<b>"]
    svg = draw_all(curves(names, dataset=r"$\frac$ _x"), tmp_path)[2].read_text()
    plain = draw_all(curves(["_hidden"] * 7), tmp_path / "one")[2].read_text()
    assert svg.count('<g id="text_') == plain.count('<g id="text_') + 6


def test_random_weights_are_watermarked(tmp_path: Path) -> None:
    frame = curves(["jpeg", "pic"])
    plain = draw_all(frame.assign(weights=""), tmp_path / "plain")[2].read_text()
    assert draw_all(frame, tmp_path / "older")[2].read_text() == plain
    marked = frame.assign(weights=["official, random" if codec == "pic" else "" for codec in frame["codec"]])
    svg = draw_all(marked, tmp_path / "marked")[2].read_text()
    assert svg.count('id="watermark"') == 1
    assert "watermark" not in plain


@pytest.mark.parametrize(("low", "high", "most"), [(0.02, 3.0, 4), (0.001, 10.0, 4), (0.1, 0.9, 3), (0.004, 0.13, 4)])
def test_ticks_of_rates_are_round_and_few(low: float, high: float, most: int) -> None:
    ticks = log_ticks(low, high, most)
    assert 1 <= len(ticks) <= most + 1
    assert all(low <= tick <= high for tick in ticks)
    assert {f"{tick:e}"[0] for tick in ticks} <= set("1235")


def test_all_that_ships_has_a_name_for_readers() -> None:
    names, stated = Names(), read_yaml(conf_folder() / "names.yaml")
    for metric in registry.BUILTIN["metric"]:
        stem, _, last = metric.rpartition("/")
        known = metric in stated["metrics"] or (stem in stated["metrics"] and last in stated["variants"])
        assert known, f"conf/names.yaml has no line for {metric}"
    texts = [names.metric(metric) for metric in registry.BUILTIN["metric"]]
    assert len(set(texts)) == len(texts)
    for record in records("codec"):
        if record["title"]:
            assert names.codec(record["name"]) in record["title"] + names.codec("mini-msssim"), record["name"]
    shipped = [names.codec(record["name"]) for record in records("codec") if record["title"]]
    assert len(set(shipped)) == len(shipped)


def test_no_axis_shows_a_typed_name(tmp_path: Path) -> None:
    """Of any preset, and of a run under every metric that ships."""
    typed = {name for name in registry.BUILTIN["metric"] if "/" in name}
    everything = [*typed, "acme/blur", "diversity/deviation/5", "/home/me/own.py:Error"]
    figures = [(Names().axis(metric), metric) for metric in everything]
    figures += [(Names().axis(name), name) for p in presets() for panel in p.panels for name in (panel.metric, panel.x)]
    for text, metric in figures:
        assert not any(name in text for name in (*typed, "acme/blur", "/home", "_")), (metric, text)


def test_a_codec_looks_the_same_wherever_it_is(tmp_path: Path) -> None:
    shipped = [record["name"] for record in records("codec") if record["title"]]
    places = signs(shipped)
    assert len(set(places.values())) == len(shipped)
    for name in shipped:  # whoever is beside it
        assert signs([name, "mine"])[name] == places[name]
    svg = draw_all(curves(["webp", "jpeg"]), tmp_path)[2].read_text()
    for name in ("webp", "jpeg"):
        assert PALETTE[places[name][0]].lower() in svg.lower()
    preset = FigurePreset("p", "", "", "", "curves", (), (), (Series("ms-illm", "MS-ILLM"), Series("jpeg", "JPEG")))
    assert _of_series(preset, {0, 1}) == {0: places["msillm"], 1: places["jpeg"]}
    css = (Path(rdpbench.report.__file__).with_name("static") / "page.css").read_text()
    assert len(set(re.findall(r"--c(\d): light-dark", css))) == len(PALETTE) == len(MARKERS) == SIGNS


def test_many_codecs_are_told_apart() -> None:
    own = [f"Mine{number}" for number in range(60)]
    options = [f"jpeg[quality={number}]" for number in range(20)]
    assert len(set(signs([*own, *options, "jpeg", "webp"]).values())) == 82
    assert len({colour for colour, _ in signs(["jpeg", *options]).values()}) <= 3


def test_variants_of_one_codec_have_colours_of_their_own() -> None:
    (ablation,) = [preset for preset in presets() if preset.name == "perco-7"]
    chosen = _of_series(ablation, set(range(7)))
    assert len({colour for colour, _ in chosen.values()}) == 7
    assert chosen[0] == signs(["perco"])["perco"]


def test_few_images_and_doubt_have_one_mark_each(tmp_path: Path) -> None:
    """As in figures of papers: half filled, and a cross; hollow is published, and nothing here is."""
    frame = curves(["half", "jpeg"]).assign(reliable=lambda lines: lines["codec"] != "jpeg")
    text = draw_all(frame, tmp_path)[3].read_text()
    assert text == (
        "set.\nCrosses, doubtful: 4 images are fewer than this metric needs.\n"
        "Half filled: measured on fewer images than the dataset has.\nBands: 95 % intervals over images.\n"
    )


def test_the_caption_is_drawn_only_if_asked_for(tmp_path: Path) -> None:
    said = ["psnr: half, quality 5, is not compared: 1 of 4 images"]
    plain = draw_all(curves(["half"]), tmp_path / "a", "", said)
    noted = draw_all(curves(["half"]), tmp_path / "b", "", said, Presentation(notes=True))
    assert plain[3].read_text() == noted[3].read_text()
    assert "PSNR: half, quality 5, is not compared: 1 of 4 images\n" in plain[3].read_text()
    assert plain[2].read_text().count('id="note"') <= noted[2].read_text().count('id="note"')
    assert len(noted[2].read_text()) > len(plain[2].read_text()) + 1000


def test_labels_order_panels_and_size_of_a_run(tmp_path: Path) -> None:
    show = Presentation({"jpeg": "Ours"}, order=("webp",), panels=("lpips/alex",), size="slide")
    frame = curves(["jpeg", "webp"], metrics=["psnr", "lpips/alex"])
    written = draw_all(frame, tmp_path, "", (), show)
    assert {path.stem for path in written} == {"curves", "rate-lpips-alex"}
    with pil.open(written[0]) as image:
        assert image.width == 2400


def test_infinite_and_missing_values_are_not_drawn(tmp_path: Path) -> None:
    frame = curves(["jpeg", "webp"])
    frame.loc[:3, "value"] = float("inf")
    frame.loc[4, ["bpp", "value_lo"]] = float("nan")
    assert len(draw_all(frame, tmp_path)) == 8
    assert draw_all(frame.assign(value=float("nan")), tmp_path / "none") == []


def test_runs_beside_one_another_say_what_differs(here: Any, images: Any, tmp_path: Path, capsys: Any) -> None:
    """Runs and sets of one name, fewer images, another edition of a metric: none is joined to, or held against, others.

    A set is another one if its files are, be the codecs that two runs have others.
    """
    known = ["run", "rate=20,40,60,80", "figures=false", "workers=0", "verify=0"]
    metric = tmp_path / "metric.py"
    text = Path(__file__).parents[2].joinpath("docs/own-metric.md").read_text()
    metric.write_text(text.partition("```python\n")[2].partition("```")[0])
    asked = f"metrics=psnr,{metric}:EdgeError"
    one, other = images(2, "one/pictures"), images(2, "other/pictures", seed=7)
    assert here(*known, asked, "codec=jpeg,webp", f"data=folder:{one}", "run=mine") == 0
    shutil.copytree("results/runs/mine", "elsewhere/mine")
    assert here(*known, "metrics=psnr", "codec=jpeg", f"data=folder:{one}", "limit=1", "run=few") == 0
    assert here(*known, "metrics=psnr", "codec=webp", f"data=folder:{other}", "run=files") == 0
    metric.write_text(metric.read_text().replace('version = "1"', 'version = "2"').replace(".mean()", ".mean() * 9"))
    assert here("score", *known[1:], asked, "codec=jpeg,webp", f"data=folder:{one}", "run=mine") == 0

    def drawn(*runs: str) -> dict[str, tuple[str, str, str]]:
        """Of each curve its points, source and what stands behind its name, by metric."""
        page = tmp_path / "out/curves.md"
        words = (f"--run={run}" for run in runs)
        assert here("figure", "curves", *words, f"--out={page.parent}", "--anchor=jpeg", "--measured-only") == 0
        parts = page.read_text().split("## ")[1:]
        return {
            part.partition(" ")[0].rpartition(":")[2]: re.findall(r"\| (\w+) \| (\d+) \|.* run (.*) \|", part)
            for part in parts
        }

    found = drawn("mine", "elsewhere/mine", "mine")
    assert [points for _, points, _ in found["psnr"]] == ["4"] * 4
    assert {run for *_, run in found["psnr"]} == {"runs/mine", "elsewhere/mine"}
    assert {run for *_, run in found["EdgeError"]} == {"runs/mine"}
    assert "of run elsewhere/mine on folder-pictures is left out: its edition" in capsys.readouterr().out
    assert all(", files " in run for *_, run in drawn("few", "files")["psnr"])
    run, _ = read_runs([Store(Path("results/runs") / name) for name in ("mine", "few", "files")])
    panel, series = Panel("folder-pictures", "as-is", "bpp", "psnr"), (Series("jpeg", "JPEG"), Series("webp", "WebP"))
    preset = FigurePreset("p", "", "", "", "curves", (), (panel,), series)

    def deltas(*runs: Run) -> list[str]:
        filled = fill(preset, measured(runs), None)
        return [*_deltas(preset, filled, Presentation(anchor="jpeg")).values()]

    assert len(deltas(run[0])) == 1
    assert deltas(run[1], run[2]) == deltas(run[1], replace(run[0], frame=run[0].frame.query("codec == 'webp'"))) == []
