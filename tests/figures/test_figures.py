"""Figures are made of the frame alone: drawn again, in another process, they are the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from rdpbench.figures.curves import draw_all
from rdpbench.figures.style import log_ticks, new_figure

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
        f"{name}.{ending}" for name in ("curves", "rate-lpips-alex") for ending in ("png", "pdf", "svg")
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


def test_infinite_and_missing_values_are_not_drawn(tmp_path: Path) -> None:
    frame = curves(["jpeg", "webp"])
    frame.loc[:3, "value"] = float("inf")
    frame.loc[4, ["bpp", "value_lo"]] = float("nan")
    assert len(draw_all(frame, tmp_path)) == 6
    assert draw_all(frame.assign(value=float("nan")), tmp_path / "none") == []
