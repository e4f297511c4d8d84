"""Tables say what the frame says: bold best, arrows, marks; and names are names, whatever letters they hold."""

from __future__ import annotations

import io
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rdpbench.results.stats.current import gather
from rdpbench.results.stats.points import Points
from rdpbench.results.store.schema import Row, Score
from rdpbench.results.tables import Cell, Table, Terminal, at_equal_rates, latency, latex, markdown, measured

NASTY = r"a_b%c&d#e$f{g}h~i^j\k|l<m>*n [o] `p`"


def line(codec: str, bpp: float, value: float, metric: str = "psnr", **changes: Any) -> dict[str, Any]:
    return {
        "dataset": "set",
        "manifest": "12ab",
        "protocol": "as-is",
        "codec": codec,
        "rate_field": "quality",
        "target_bpp": math.nan,
        "rate": 100 * bpp,
        "n": 3,
        "dataset_size": 3,
        "partial": False,
        "failed": 0,
        "out_of_range": 0,
        "bpp": bpp,
        "bpp_lo": bpp - 0.01,
        "bpp_hi": bpp + 0.01,
        "bpp_seed_sd": math.nan,
        "bpp_pooled": bpp,
        "bpp_all": bpp,
        "seeds": 1,
        "weights": "official",
        "metric": metric,
        "value": value,
        "value_lo": value - 0.5,
        "value_hi": value + 0.5,
        "value_seed_sd": math.nan,
        "n_scored": 3,
        "infinite": 0,
        "images": "abc",
        "unit": "dB" if metric == "psnr" else "",
        "higher_is_better": metric != "lpips/alex",
        "perceptual": metric != "psnr",
        "reliable": True,
        "note": "said",
        **changes,
    }


Curves = dict[str, dict[float, list[float | None]]]
"""By codec and rate, the values of three images; None where the image failed."""


def points_of(curves: Curves, metric: str = "psnr", **changes: Any) -> Points:
    rows, scores = [], []
    for codec, along in curves.items():
        for bpp, values in along.items():
            for image, value in enumerate(values):
                key = f"{codec}-{bpp}-{image}"
                known: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__, "")
                known |= {"task_key": key, "codec": codec, "rate_field": "quality", "rate": bpp, "target_bpp": None}
                known |= {"seed": 0, "dataset": "set", "dataset_size": 3, "protocol": "as-is", "image": f"{image}"}
                known |= {"status": "error" if value is None else "ok", "bpp": None if value is None else bpp}
                rows.append(Row(**known | {"height": 10, "width": 10} | changes))
                scores += [] if value is None else [Score(key, key, metric, value)]
    return gather(rows, scores)


def two_curves() -> Curves:
    return {"jpeg": {0.09: [0.30] * 3, 1.0: [0.40] * 3}, "webp": {0.05: [0.35] * 3, 1.0: [0.45] * 3}}


def test_measured_points() -> None:
    table = measured(pd.DataFrame([line("jpeg", 0.25, 31.126), line("jpeg", 0.25, 0.5, "ms-ssim")]))
    assert table.header == ("codec", "setting", "n", "bpp", "psnr dB ↑", "ms-ssim ↑")
    assert [cell.text for cell in table.lines[0]] == [
        "jpeg", "quality 25", "3", "0.2500 ±0.0100", "31.13 ±0.50", "0.5000 ±0.5000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "column", "text", "note"),
    [
        ({"n": 2, "partial": True, "n_scored": 2}, 2, "2*", "* partial: fewer images than the 3 of set"),
        ({"failed": 1}, 2, "3 (1 failed)", "failed images are not in the means"),
        ({"out_of_range": 2}, 2, "3 (2 out of range)", "nothing is extrapolated"),
        ({"value": math.inf, "infinite": 3}, 4, "∞", "lossless images, whose value is infinite, are left out"),
        ({"value": math.nan, "n_scored": 0, "note": "too few"}, 4, "–", "psnr of jpeg: too few"),
        (
            {"n_scored": 2, "bpp": 0.2, "bpp_pooled": 0.2},
            4,
            "31.00 ±0.50 (2 of 3, 0.2000 bpp)",
            "left out of its mean, and of the rate beside it",
        ),
        ({"infinite": 1, "bpp": 0.2, "bpp_pooled": 0.2}, 4, "31.00 ±0.50 (2 of 3, 0.2000 bpp)", "lossless"),
        ({"bpp": 0.2, "n_scored": 2}, 3, "0.2500", ""),
        ({"bpp_lo": 0.05, "bpp_hi": 1.85}, 3, "0.2500 [0.0500, 1.8500]", ""),
        ({"bpp": math.nan, "bpp_all": math.nan}, 3, "–", ""),
        ({"target_bpp": 0.5}, 1, "target 0.5 bpp", ""),
        ({"rate": math.nan}, 1, "the only point", ""),
    ],
)
def test_what_a_point_is_not_is_marked(changes: dict[str, Any], column: int, text: str, note: str) -> None:
    table = measured(pd.DataFrame([line("jpeg", 0.25, 31.0) | changes]))
    assert table.lines[0][column].text == text
    assert note in " ".join(table.notes)


def test_the_pooled_rate_stands_beside_a_mean_over_several_sizes() -> None:
    table = measured(pd.DataFrame([line("jpeg", 0.25, 31.0, bpp_pooled=0.2)]))
    assert table.header[4] == "pooled bpp"
    assert table.lines[0][4].text == "0.2000"


def test_best_is_by_direction() -> None:
    for metric, best in (("psnr", "webp"), ("lpips/alex", "jpeg")):
        tables = at_equal_rates(points_of(two_curves(), metric), [metric])
        assert [table.caption.split(" at ")[1].split(",")[0] for table in tables] == [
            "0.1 bpp",
            "0.2 bpp",
            "0.4 bpp",
            "0.8 bpp",
        ]
        ranks = {cells[0].text: cells[1].rank for cells in tables[0].lines}
        assert ranks == {best: 1, "webp" if best == "jpeg" else "jpeg": 2}


def test_equal_digits_share_the_rank() -> None:
    curves: Curves = {"jpeg": {0.1: [0.3] * 3, 1.0: [0.4] * 3}, "webp": {0.1: [0.3] * 3, 1.0: [0.40004] * 3}}
    table = at_equal_rates(points_of(curves, "ms-ssim"), ["ms-ssim"])[-1]
    assert {cells[1].rank for cells in table.lines} == {1}


def test_codecs_are_compared_over_the_images_that_all_have() -> None:
    """One that fails where it is bad gains nothing by it: against the same codec without failures it draws."""
    curves: Curves = {
        "all": {0.1: [30, 31, 20], 1.0: [40, 41, 30]},
        "fails": {0.1: [30, 31, None], 1.0: [40, 41, None]},
    }
    for table in at_equal_rates(points_of(curves), ["psnr"]):
        assert {cells[1].rank for cells in table.lines} == {1}
        assert table.notes[0] == "psnr: compared over the 2 of 3 images that all have"


def test_wide_interpolation_is_marked() -> None:
    curves: Curves = {"jpeg": {0.25: [30.0], 0.5: [32.0], 1.0: [34.0]}, "webp": {0.25: [31.0], 1.0: [35.0]}}
    tables = at_equal_rates(points_of(curves), ["psnr"])
    assert [cells[1].text for cells in tables[0].lines] == ["31.36", "32.36‡"]
    assert tables[0].notes[-1] == "‡ interpolated between rates that differ by more than a factor of 2"


def test_targets_compete_over_the_images_that_all_reach() -> None:
    curves: Curves = {"jpeg": {0.5: [30.0, 31, 35]}, "webp": {0.5: [33.0, 34, 35]}, "bpg": {0.5: [29.0, 30, None]}}
    (table,) = at_equal_rates(points_of(curves, target_bpp=0.5), ["psnr"])
    assert "searched per image" in table.caption
    assert [(cells[0].text, cells[1].text, cells[1].rank) for cells in table.lines] == [
        ("jpeg", "30.50", 2),
        ("webp", "33.50", 1),
        ("bpg", "29.50", 0),
    ]
    assert "psnr: compared over the 2 of 3 images that all have" in table.notes


def test_latency_is_the_median_of_medians() -> None:
    plain = {"codec": "jpeg", "setting": "quality 5", "device": "cpu", "warmup": 1, "repeats": 5, "load_average": 0.2}
    frame = pd.DataFrame(
        [{**plain, "encode_s": e, "decode_s": d} for e, d in ((0.001, 0.004), (0.002, 0.005), (0.9, 0.9))]
    )
    table = latency(frame)
    assert [cell.text for cell in table.lines[0]] == ["jpeg", "quality 5", "3", "2.00", "5.00", "cpu"]
    assert "1 warm-up and 5 repeats" in table.notes[0]


TABLE = Table(
    f"caption {NASTY}",
    ("codec", "psnr dB ↑", "lpips/alex ↓"),
    ((Cell(NASTY), Cell("31.20 ±0.10", 1), Cell("0.1–0.2", 2)), (Cell("webp"), Cell("∞"), Cell("–"))),
    ("a note of 50 % & more",),
)


def test_markdown() -> None:
    text = markdown(TABLE)
    rows = [one for one in text.splitlines() if one.startswith("|")]
    assert len(rows) == 4
    # As many bars that separate as there are columns, whatever a name holds.
    assert {one.replace(r"\|", "").count("|") for one in rows} == {4}
    assert "**31.20 ±0.10**" in text
    assert "<u>0.1–0.2</u>" in text
    assert r"a\_b%c" in text


def test_latex() -> None:
    text = latex(TABLE)
    assert r"\textbf{31.20 $\pm$0.10}" in text
    assert r"\underline{0.1--0.2}" in text
    assert r"psnr dB $\uparrow$ & lpips/alex $\downarrow$ \\" in text
    assert r"a\_b\%c\&d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k|l$<$m$>$*n" in text
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")
    assert r"\begin{tabular}{lrr}" in text


def test_latex_compiles(tmp_path: Path) -> None:
    program = shutil.which("pdflatex") or shutil.which("tectonic")
    if program is None:
        pytest.skip("no LaTeX on this machine")
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + latex(TABLE) + "\\end{document}\n"
    (tmp_path / "table.tex").write_text(document)
    subprocess.run([program, "table.tex"], cwd=tmp_path, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def test_terminal_shows_names_as_they_are() -> None:
    from rich.console import Console

    console = Console(width=200, file=io.StringIO())
    console.print(Terminal(TABLE))
    assert isinstance(console.file, io.StringIO)
    assert NASTY in console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_terminal_cuts_no_number(width: int) -> None:
    from rich.console import Console

    header = ("codec", "setting", *(f"metric{n}" for n in range(9)))
    texts = [f"{n}.2345 ±0.0{n}†" for n in range(9)]
    table = Table("caption", header, ((Cell("jpeg"), Cell("quality 50"), *map(Cell, texts)),), ("a note",))
    console = Console(width=width, file=io.StringIO())
    console.print(Terminal(table))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert all(text in shown for text in (*texts, *header, "caption", "a note"))


def test_csv_round_trip(tmp_path: Path) -> None:
    """No digit is lost, and infinite and missing values come back as such."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame([line("jpeg", float(rng.random()), float(rng.normal() * 40)) for _ in range(50)])
    frame.loc[3, "value"], frame.loc[4, "value"] = math.inf, math.nan
    frame.loc[5, "codec"] = 'with "quotes", commas\nand lines'
    frame.to_csv(tmp_path / "a.csv", index=False)
    again = pd.read_csv(tmp_path / "a.csv", float_precision="round_trip", dtype={"unit": str}, keep_default_na=True)
    pd.testing.assert_frame_equal(again, frame, check_exact=True)


def test_rows_csv_is_tidy(tmp_path: Path, here: Any, images: Any) -> None:
    line = ["run", "codec=jpeg", "rate=30,60", f"data=folder:{images(2)}", "metrics=psnr,ms-ssim"]
    assert here(*line, "figures=false", "verify=0", "workers=0") == 1, "a metric that was asked for has no value"
    folder = tmp_path / "results/runs/folder-pictures"
    tidy = pd.read_csv(folder / "rows.csv", float_precision="round_trip")
    assert len(tidy) == 2 * 2 * 2
    rows, scores = pd.read_parquet(folder / "rows.parquet"), pd.read_parquet(folder / "scores.parquet")
    joined = tidy.merge(scores, on=["task_key", "metric"]).merge(rows, on="task_key")
    psnr = joined[joined["metric"] == "psnr"]
    assert (psnr["value_x"] == psnr["value_y"]).all()
    assert (joined["bpp_x"] == joined["bpp_y"]).all()
    # The images are too small for MS-SSIM: no value, and the reason.
    refused = tidy[tidy["metric"] == "ms-ssim"]
    assert refused["value"].isna().all()
    assert refused["metric_error"].str.contains("pixels").all()
    # And the mean in the summary is the mean of the rows.
    summary = pd.read_csv(folder / "tables/summary.csv", float_precision="round_trip")
    for _, one in summary[summary["metric"] == "psnr"].iterrows():
        of = tidy[(tidy["metric"] == "psnr") & (tidy["rate"] == one["rate"])]
        assert one["value"] == pytest.approx(of["value"].mean(), rel=1e-14)
        assert one["bpp"] == pytest.approx((8 * of["bytes"] / (of["height"] * of["width"])).mean(), rel=1e-14)


@pytest.mark.parametrize("figures", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_datasets_are_two_tables(
    tmp_path: Path, here: Any, images: Any, capsys: pytest.CaptureFixture[str], figures: bool
) -> None:
    sets = f"data=folder:{images(2, 'one')},folder:{images(3, 'two', seed=9)}"
    line = ["run", "codec=jpeg,webp", "rate=30,60,90", sets, "metrics=psnr", "verify=0", "workers=0"]
    assert here(*line, f"figures={str(figures).lower()}") == 0
    shown = capsys.readouterr().out
    assert "folder-one: means over images" in shown
    assert "folder-two: means over images" in shown
    folder = tmp_path / "results/runs/folder-one+folder-two"
    text = (folder / "tables/summary.md").read_text()
    assert "folder-one, folder-two" not in text
    assert (folder / "figures/folder-one/curves.png").is_file() == figures
    assert (folder / "figures/folder-two/curves.png").is_file() == figures


def test_two_folders_of_one_name_have_a_table_each(
    here: Any, images: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measured by one command or by two, shown by `run` or by `show`."""
    first, second = images(2, "a/same"), images(1, "b/same", seed=9)
    usual = ("codec=jpeg", "rate=50", "metrics=psnr", "workers=0", "figures=false")
    assert here("run", f"data=folder:{first},folder:{second}", *usual, "run=together") == 0
    for folder in (first, second):
        assert here("run", f"data=folder:{folder}", *usual) == 0
    capsys.readouterr()
    for run in ("together", "folder-same"):
        assert here("show", run) == 0
        told = capsys.readouterr().out
        records = re.findall(r"files \w{8}: same-\w{8}, a folder that (sessions/\S+\.json) tells", told)
        assert len(records) == 2
        noted = "".join((tmp_path / "results/runs" / run / record).read_text() for record in records)
        assert f'"folder": "{first}"' in noted
        assert f'"folder": "{second}"' in noted
        summary = pd.read_csv(tmp_path / f"results/runs/{run}/tables/summary.csv")
        assert sorted(summary["n"]) == [1, 2]
        assert summary["manifest"].nunique() == 2


def test_files_of_an_older_state_do_not_stay(
    here: Any, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a run ends while `show` draws, and where a run has outgrown its rows.csv."""
    from rdpbench.figures import command

    line = ("run", "codec=jpeg", f"data=folder:{images(1)}", "metrics=psnr", "workers=0", "figures=false", "run=a")
    assert here(*line, "rate=20") == 0
    shown, rates = command.show, ["rate=20,40"]

    def show(*arguments: Any, **named: Any) -> Any:
        if rates and "rows" in named:
            assert here(*line, rates.pop()) == 0
        return shown(*arguments, **named)

    monkeypatch.setattr(command, "show", show)
    assert here("show", "a") == 0
    run = tmp_path / "results/runs/a"
    assert pd.read_csv(run / "tables/summary.csv")["rate"].tolist() == [20, 40]
    assert pd.read_csv(run / "rows.csv")["rate"].tolist() == [20, 40]
    monkeypatch.setattr(command, "LISTED", 1)
    assert here("show", "a") == 0
    assert not (run / "rows.csv").exists()
