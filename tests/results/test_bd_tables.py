"""Codecs against an anchor: deltas, intervals and reasons; pairs of images; and tables that LaTeX can read."""

from __future__ import annotations

import itertools
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import bjontegaard
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdpbench.cli import bd_arguments
from rdpbench.errors import UnknownName
from rdpbench.figures import command
from rdpbench.results.names import Names
from rdpbench.results.stats import against as matched
from rdpbench.results.stats import bootstrap
from rdpbench.results.stats.against import Against, against, at_a_glance, bd_table, bd_tables, crossover_tables
from rdpbench.results.stats.bd import Delta, Floats, bd_rate, rate_at, value_at
from rdpbench.results.stats.current import gather
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import ImageCurve, image_curves, point_key
from rdpbench.results.stats.summary import frame
from rdpbench.results.store.schema import Row, Score, SetScore
from rdpbench.results.tables import Cell, Table, at_equal_rates, escape, latex, markdown, measured
from rdpbench.setting import Setting

SETTINGS = tuple(Setting("quality", float(10 * k)) for k in range(5))
METRIC = "psnr"


def arrays(images: int = 12, seed: int = 0) -> tuple[Floats, Floats]:
    """Rates and PSNR of five points on images of different difficulty."""
    rng = np.random.default_rng(seed)
    hard = np.exp(rng.normal(0, 0.4, images))
    rates = np.outer([0.1, 0.2, 0.4, 0.8, 1.6], hard)
    values = 30 + 4 * np.log2(rates) - 3 * np.log2(hard) + rng.normal(0, 0.05, rates.shape)
    return rates, values


def a_curve(codec: str, rates: Floats, values: Floats, images: list[str] | None = None) -> ImageCurve:
    names = images or [f"image{n:02d}" for n in range(rates.shape[1])]
    return ImageCurve(codec, SETTINGS[: len(rates)], tuple(names), rates, values)


def rows_of(curve: ImageCurve, **changes: Any) -> tuple[list[Row], list[Score]]:
    """What a run would store of a curve."""
    rows, scores = [], []
    for (point, image), bpp in np.ndenumerate(curve.rates):
        key = f"{curve.codec}-{point}-{image}"
        known: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__, "")
        known |= {"task_key": key, "codec": curve.codec, "rate_field": "quality", "rate": curve.settings[point].rate}
        known |= {"target_bpp": None, "seed": 0, "dataset": "set", "dataset_size": curve.rates.shape[1]}
        known |= {"protocol": "as-is", "image": curve.images[image], "status": "ok", "bpp": float(bpp)}
        known |= {"height": 10, "width": 10}
        rows.append(Row(**known | {"bits_kind": "file"} | changes))
        scores.append(Score(f"{key}-{METRIC}", key, METRIC, float(curve.values[point, image])))
    return rows, scores


def three() -> tuple[list[Row], list[Score]]:
    rates, values = arrays()
    made = [a_curve("anchor", rates, values), a_curve("smaller", 0.9 * rates, values)]
    made.append(a_curve("better", rates, values + 0.5))
    rows, scores = zip(*(rows_of(one) for one in made), strict=True)
    return [row for part in rows for row in part], [score for part in scores for score in part]


# Deltas


def test_a_tenth_less_is_a_tenth_less() -> None:
    rates, values = arrays()
    found = against(a_curve("a", rates, values), a_curve("b", 0.9 * rates, values), METRIC, resamples=50)
    assert len(found.images) == 12
    assert found.rate.value == pytest.approx(-10, abs=1e-9)
    assert found.rate_interval is not None
    assert found.rate_interval.low == pytest.approx(-10, abs=1e-9) == found.rate_interval.high
    # A shift of the curve is the same on all images: the interval of the gain is not degenerate, as slopes differ.
    assert found.metric_interval is not None
    assert found.metric_interval.low <= found.metric.value <= found.metric_interval.high


def test_deltas_are_the_library_s_on_the_means() -> None:
    first, second = arrays(seed=1), arrays(seed=2)
    found = against(a_curve("a", *first), a_curve("b", *second), METRIC, resamples=20)
    means = [one.mean(axis=1) for one in (*first, *second)]
    how: dict[str, Any] = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    assert found.rate.value == pytest.approx(bjontegaard.bd_rate(*means, **how), abs=1e-9)
    assert found.metric.value == pytest.approx(bjontegaard.bd_psnr(*means, **how), abs=1e-9)
    by_hand = bootstrap.of_curves(first, second, bd_rate, resamples=20)
    assert found.rate_interval is not None
    assert vars(found.rate_interval) == pytest.approx(vars(by_hand), abs=1e-9)


def test_only_images_that_both_have_whole_are_compared() -> None:
    rates, values = arrays()
    holes = values.copy()
    holes[2, 3], holes[0, 5] = math.nan, math.inf
    names = [f"image{n:02d}" for n in range(12)]
    other = a_curve("b", rates[:, ::-1], values[:, ::-1] + 1, names[::-1])
    found = against(a_curve("a", rates, holes), other, METRIC, resamples=20)
    assert len(found.images) == 10
    assert found.metric.value == pytest.approx(1, abs=1e-9)
    none = against(a_curve("a", rates, values), a_curve("b", rates, values, [f"x{n}" for n in range(12)]), METRIC)
    assert none.rate.reason == none.metric.reason == "no image has all points of both curves"
    assert none.rate_interval is None


def test_the_table_of_a_run() -> None:
    rows, scores = three()
    (made,) = bd_tables(gather(rows, scores), "anchor", resamples=50)
    assert made.header == ("codec", "images", "BD-rate % ↓", "shared quality", "BD-psnr dB ↑", "shared rate")
    by_codec = {line[0].text: line for line in made.lines}
    assert by_codec["smaller"][1].text == "12"
    assert by_codec["smaller"][2].text == "-10.0 [-10.0, -10.0]"
    assert by_codec["better"][4].text == "+0.50 [+0.50, +0.50]"
    gain = float(by_codec["better"][2].text.split(" ")[0])
    ranks = {codec: line[2].rank for codec, line in by_codec.items()}
    assert ranks == {"smaller": 2 if gain < -10 else 1, "better": 1 if gain < -10 else 2}
    assert by_codec["smaller"][5].text.endswith(" %")
    assert "against anchor (pchip)" in made.caption


def test_reasons_stand_where_numbers_do_not() -> None:
    rates, values = arrays()
    turned = values.copy()
    turned[3] = turned[1]
    few = against(a_curve("a", rates, values), a_curve("few", rates[:3], values[:3]), METRIC, resamples=20)
    flat = against(a_curve("a", rates, values), a_curve("flat", rates, turned), METRIC, resamples=20)
    same = against(a_curve("a", rates, values), a_curve("flat", rates, turned), METRIC, resamples=20)
    made = bd_table([few, flat, same], "a", METRIC, "set", "pchip")
    texts = [[cell.text for cell in line] for line in made.lines]
    assert texts[0][2] == texts[0][4] == "– (a)"
    assert texts[1][2] == texts[2][2] == "– (b)"
    assert texts[1][4][0] in "+-"  # the gain asks nothing of the metric
    assert made.notes[0] == "(a) few: test: 3 points, and at least 4 needed"
    assert "the metric does not rise" in made.notes[1]
    assert all(cell.rank == 0 for line in made.lines for cell in line[2:3])


def test_more_than_26_reasons_have_names() -> None:
    found = [Against(f"c{n}", ("x",), Delta(math.nan, "pchip", f"why {n}"), Delta(1.0, "pchip")) for n in range(30)]
    made = bd_table(found, "a", METRIC, "set", "pchip")
    assert made.lines[25][2].text == "– (z)"
    assert made.lines[26][2].text == "– (aa)"
    assert len(made.notes) == 30


def test_deltas_over_other_images_do_not_compete() -> None:
    """Also where these are as many."""
    images = tuple(f"image{n}" for n in range(24))
    good = [
        Against(f"c{n}", images, Delta(-float(n), "pchip", "", (1, 2), 1.0), Delta(float(n), "pchip")) for n in range(3)
    ]
    odd = Against("odd", (*images[1:], "x"), Delta(-99.0, "pchip", "", (1, 2), 1.0), Delta(99.0, "pchip"))
    made = bd_table([*good, odd], "a", METRIC, "set", "pchip")
    assert {line[0].text: line[2].rank for line in made.lines} == {"c0": 0, "c1": 2, "c2": 1, "odd": 0}
    assert any(note.startswith("Over different images") for note in made.notes)


def test_at_a_glance_only_what_is_over_the_same_images_is_ranked() -> None:
    rates, values = arrays()
    parts = [a_curve("a", rates, values), *(a_curve(f"{k}", (1 - k / 10) * rates, values) for k in (1, 2, 3))]
    half = a_curve("half", 0.5 * rates[:, :8], values[:, :8], list(parts[0].images[:8]))
    rows, scores = zip(*(rows_of(curve) for curve in (*parts, half)), strict=True)
    [table] = at_a_glance(gather(itertools.chain(*rows), itertools.chain(*scores)), [METRIC], "a")
    cells = {line[0].text: (line[1].text, line[1].rank) for line in table.lines}
    assert cells == {"1": ("-10.0", 0), "2": ("-20.0", 2), "3": ("-30.0", 1), "half": ("-50.0*", 0)}
    assert table.notes[1:] == ("* over 8 images shared with a, not ranked with those over 12",)


def distances(rows: list[Row], left_out: dict[str, str] | None = None) -> list[SetScore]:
    """A distance for each point, which falls with the rate; some are of fewer images."""
    groups: dict[tuple[str, float | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.codec, row.rate), []).append(row)
    scores = []
    for (codec, _), of in groups.items():
        value = 100 - 20 * math.log2(float(np.mean([row.bpp for row in of if row.bpp]))) - 3 * (codec == "better")
        known: dict[str, Any] = dict.fromkeys(SetScore.__dataclass_fields__, "")
        known |= {"set_key": point_key("fid/clean", of), "point_key": point_key("fid/clean", of), "metric": "fid/clean"}
        known |= {"images": len(of), "value": value, "lo": None, "hi": None, "spread": None, "reliable": True}
        scores.append(SetScore(**known | {"left_out": (left_out or {}).get(codec, "[]")}))
    return scores


def test_a_metric_of_sets_has_deltas_and_no_interval() -> None:
    rows, _ = three()
    rows = [replace(row, reconstruction_sha256=row.task_key) for row in rows]
    (made,) = bd_tables(gather(rows, [], distances(rows)), "anchor", ["fid/clean"])
    better = next(line for line in made.lines if line[0].text == "better")
    assert better[1].text == "12"
    assert better[4].text == "-3.0000"  # no interval
    assert made.header[4] == "BD-fid/clean ↓"


def test_distances_over_other_images_are_not_compared() -> None:
    """Also where these are nearly as many: a distance cannot be taken of some of its images."""
    rows, _ = three()
    rows = [replace(row, reconstruction_sha256=row.task_key) for row in rows]
    points = gather(rows, [], distances(rows, {"better": '["image03"]'}))
    (made,) = bd_tables(points, "anchor", ["fid/clean"])
    better = next(line for line in made.lines if line[0].text == "better")
    assert better[4].text.startswith("–")
    assert better[4].rank == 0
    assert any("better, quality 0, is not compared" in note for note in made.notes)
    line = frame(points, ["fid/clean"]).query("codec == 'better'").iloc[0]
    taken = [row.bpp for row in rows if row.codec == "better" and row.rate == 0 and row.image != "image03"]
    assert line["n_scored"] == 11
    assert line["bpp"] == pytest.approx(np.mean(np.array(taken, float)), abs=1e-12)


def test_random_weights_do_not_compete() -> None:
    rows, scores = three()
    extra, more = rows_of(a_curve("pic[weights=random]", *arrays(seed=5)), weights="random")
    rows, scores = rows + extra, scores + more
    (made,) = bd_tables(gather(rows, scores), "anchor", resamples=20)
    assert [line[0].text for line in made.lines] == ["smaller", "better"]
    with pytest.raises(UnknownName, match="unknown curve 'pic"):
        bd_tables(gather(rows, scores), "pic[weights=random]")


def test_random_weights_have_no_rank_at_equal_rates() -> None:
    rows, scores = three()
    extra, more = rows_of(a_curve("pic[weights=random]", *arrays(seed=5)), weights="random")
    points = gather(rows + extra, scores + more)
    assert len(at_equal_rates(points, [METRIC])) > 2
    for made in at_equal_rates(points, [METRIC]):
        assert "anchor" in {line[0].text for line in made.lines} <= {"anchor", "smaller", "better"}
    assert "random weights, which are no results: pic[weights=random]" in measured(frame(points, [METRIC])).notes
    assert at_equal_rates(gather(extra, more), [METRIC]) == []


def test_unknown_names_are_answered() -> None:
    rows, scores = three()
    points = gather(rows, scores)
    with pytest.raises(UnknownName, match="did you mean 'anchor'"):
        bd_tables(points, "anchr")
    with pytest.raises(UnknownName, match="unknown metric 'lpips/alex'"):
        bd_tables(points, "anchor", ["lpips/alex"])
    with pytest.raises(UnknownName, match="pchip"):
        bd_tables(points, "anchor", method="spline")


def test_an_anchor_of_few_images_is_said_to_be_left_out() -> None:
    """It is compared with nothing, and a table without a line says why."""
    rows, scores = three()
    few = [row for row in rows if row.codec != "anchor" or row.image in ("image00", "image01")]
    for tables in (bd_tables, crossover_tables):
        (table,) = tables(gather(few, scores), "anchor", resamples=20)
        assert table.lines == ()
        assert len([note for note in table.notes if note.endswith(": 2 of 12 images; left out")]) == 5


def test_several_seeds_count_as_their_mean() -> None:
    rates, values = arrays(images=3)
    rows, scores = rows_of(a_curve("a", rates, values))
    again = [
        Row(**{**vars(row), "task_key": f"{row.task_key}+", "seed": 1, "bpp": (row.bpp or 0) + 0.1}) for row in rows
    ]
    more = [Score(f"{one.score_key}+", f"{one.task_key}+", METRIC, (one.value or 0) + 2) for one in scores]
    found = image_curves(gather(rows + again, scores + more), METRIC)["a"]
    np.testing.assert_allclose(found.rates, rates + 0.05)
    np.testing.assert_allclose(found.values, values + 1)
    assert found.complete(meaning(METRIC)) == found.images == ("image00", "image01", "image02")


def test_a_lossless_image_is_in_the_curve_of_a_pooled_error() -> None:
    """As in its table: the error of the image is 0 at that point."""
    rates, values = arrays(images=3)
    values[3, 1] = math.inf
    rows, scores = rows_of(a_curve("a", rates, values))
    for metric, images in (("psnr", ("image00", "image02")), ("psnr-pooled", ("image00", "image01", "image02"))):
        curve = image_curves(gather(rows, [replace(score, metric=metric) for score in scores]), metric)["a"]
        assert against(curve, curve, metric, resamples=2).images == images


def test_points_are_in_order_and_named() -> None:
    rates, values = arrays(images=2)
    rows, scores = rows_of(a_curve("a", rates[::-1], values[::-1]))
    found = image_curves(gather(rows, scores), METRIC)["a"]
    assert (np.diff(found.rates.mean(axis=1)) > 0).all()
    assert [setting.words for setting in found.settings] == [f"quality {10 * k}" for k in (4, 3, 2, 1, 0)]


# Pairs of images


def test_pairs_find_a_shift_of_every_image() -> None:
    rates, values = arrays()
    shifted = a_curve("b", rates, values + 0.5)
    for pair in matched.matched_points(a_curve("a", rates, values), shifted, resamples=50):
        assert pair.images == 12
        assert pair.at_rate is not None
        assert pair.at_rate.value == pytest.approx(0.5, abs=1e-9)
        assert pair.at_rate.high - pair.at_rate.low == pytest.approx(0, abs=1e-9)
    smaller = a_curve("b", 0.8 * rates, values)
    for number, pair in enumerate(matched.matched_points(a_curve("a", rates, values), smaller, resamples=50)):
        assert pair.at_quality is not None
        assert (pair.at_quality.value, pair.at_quality.n) == (pytest.approx(-20, abs=1e-6), 12)
        # Its highest rate is below the anchor's: nothing is extrapolated.
        assert (pair.at_rate is None) == (number == 4)


def test_a_quality_that_is_passed_twice_is_not_matched() -> None:
    rates = np.array([0.1, 0.2, 0.4, 0.8])
    assert rate_at(rates, np.array([30.0, 33.0, 31.0, 36.0]), 32.0) is not None
    assert math.isnan(rate_at(rates, np.array([30.0, 33.0, 31.0, 36.0]), 32.0))
    assert rate_at(rates, np.array([30.0, 33.0, 31.0, 36.0]), 34.0) == pytest.approx(0.4 * 2**0.6)
    assert math.isnan(rate_at(rates, np.array([30.0, 33.0, 35.0, 36.0]), 36.5))
    assert rate_at(rates, np.array([0.4, 0.3, 0.2, 0.1]), 0.2) == pytest.approx(0.4)
    assert math.isnan(rate_at(rates, np.array([30.0, 30.0, 31.0, 32.0]), 30.0))
    assert math.isnan(value_at(rates, rates, 0.05))
    assert value_at(rates, np.array([1.0, math.nan, 3.0, 4.0]), 0.2) == pytest.approx(2.0)


def test_images_that_cannot_be_matched_are_counted() -> None:
    rates, values = arrays(images=4)
    far = rates.copy()
    far[:, 0] *= 100
    made = matched.matched_table(
        matched.matched_points(a_curve("a", rates, values), a_curve("b", far, values + 1), resamples=20),
        a_curve("a", rates, values),
        a_curve("b", far, values),
        METRIC,
        "set",
    )
    assert made.header[0] == "a at"
    assert [line[0].text for line in made.lines] == [f"quality {10 * k}" for k in range(5)]
    assert [line[3].text for line in made.lines] == ["3"] * 5
    assert made.lines[2][2].text == "+1.00 [+1.00, +1.00]"


def test_intervals_of_pairs_hold_the_truth_as_often_as_they_say() -> None:
    """Of 200 intervals of 95 % over 24 images; `docs/statistics.md` has the figure of a longer look."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        rates = np.outer([0.1, 0.2, 0.4, 0.8], np.exp(rng.normal(0, 0.3, 24)))
        values = 30 + 4 * np.log2(rates)
        gains = rng.normal(0.5, 0.4, 24)
        pair = matched.matched_points(a_curve("a", rates, values), a_curve("b", rates, values + gains), resamples=400)[
            1
        ]
        assert pair.at_rate is not None
        held += pair.at_rate.low <= 0.5 <= pair.at_rate.high
    # Three standard errors of a share among 200.
    assert held / 200 == pytest.approx(0.95, abs=0.046)


# LaTeX

COMMANDS = {
    *("begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "textbf", "underline", "texttt"),
    *("textbackslash", "textasciicircum", "textasciitilde", "pm", "times", "cdot", "circ", "leq", "geq"),
    *("uparrow", "downarrow", "rightarrow", "leftarrow", "infty", "Delta", "lambda", "sigma", "mu"),
    *("dag", "ddag", "S", "dots", "footnotesize", "setlength", "tabcolsep", "par", "medskip"),
}


def well_formed(text: str) -> None:  # noqa: PLR0912 (a rule for each kind of token)
    """A strict reading of a table as LaTeX would: groups, environments, math, known commands, cells of each row."""
    body = re.sub(r"^%.*$", "", text, flags=re.MULTILINE)
    tokens = re.findall(r"\\[A-Za-z]+|\\.|[{}$&#^_~%]|[^\\{}$&#^_~%]+", body, re.DOTALL)
    assert "".join(tokens) == body
    depth, math_mode, opened, cells, widths = 0, False, [], 0, []
    for number, token in enumerate(tokens):
        following = "".join(tokens[number + 1 : number + 4])
        if token == "{":
            depth += 1
        elif token == "}":
            depth -= 1
            assert depth >= 0, "a brace closes nothing"
        elif token == "$":
            math_mode = not math_mode
        elif token in ("\\begin", "\\end"):
            name = re.match(r"\{([a-z]+)\}", following)
            assert name is not None
            if token == "\\begin":
                opened.append(name[1])
                assert "tabular" not in opened or re.match(
                    r"\{[a-z]+\}\{[lr]+\}", "".join(tokens[number + 1 : number + 7])
                )
            else:
                assert opened.pop() == name[1], f"{name[1]} is not what was opened"
        elif token == "&":
            assert (depth, math_mode, opened[-1]) == (0, False, "tabular"), "a cell ends inside a group"
            cells += 1
        elif token == "\\\\":
            assert (depth, math_mode) == (0, False), "a row ends inside a group"
            assert not following.lstrip().startswith(("[", "*")), "the next row is read as an argument"
            widths.append(cells + 1)
            cells = 0
        elif token in ("^", "_"):
            assert math_mode, f"{token} outside of math"
        elif token in ("#", "%"):
            raise AssertionError(f"a bare {token}")
        elif token.startswith("\\") and token[1:].isalpha():
            assert token[1:] in COMMANDS, token
        elif token.startswith("\\"):
            assert token[1] in "%_&#${}", token
        else:
            assert "\n\n" not in token, "a paragraph ends inside the table"
            assert all(letter in "\n" or letter.isprintable() for letter in token)
            assert all(ord(letter) < 0x17F for letter in token), token
    assert (depth, math_mode, opened) == (0, False, [])
    columns = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", body)
    assert columns
    assert set(widths) == set(map(len, columns))


NASTY = r"a_b%c&d#e$f{g}h~i^j\k|l<m>*n [o] `p` 中 é ±0.1 Δ† 50 %"


def a_table(text: str) -> Table:
    lines = ((Cell(text), Cell(text, 1)), (Cell("[" + text), Cell(text, 2)), (Cell("*" + text), Cell("–")))
    return Table(text, ("codec", f"{text} ↑"), lines, (text,))


def test_the_reader_of_latex_is_strict() -> None:
    good = latex(a_table("plain"))
    well_formed(good)
    for wrong in (
        good.replace(r"\bottomrule", "_"),
        good.replace("plain &", "plain & & "),
        good.replace(r"\end{table}", ""),
        good.replace(r"\textbf{", r"\textbf{{"),
        good.replace("plain", "pl%ain", 1),
        good.replace("plain", "pl$ain", 1),
        good.replace("plain", r"\unknown", 1),
        good.replace("{}[plain", "[plain"),
    ):
        assert wrong != good
        with pytest.raises(AssertionError):
            well_formed(wrong)


def test_any_name_is_well_formed() -> None:
    well_formed(latex(a_table(NASTY)))
    assert r"\texttt{U+4E2D} é" in latex(a_table(NASTY))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_well_formed(text: str) -> None:
    well_formed(latex(a_table(text)))
    assert all(ord(letter) < 0x17F for letter in escape(text))


def test_deltas_are_well_formed_in_latex_and_markdown() -> None:
    rows, scores = three()
    (made,) = bd_tables(gather(rows, scores), "anchor", resamples=20)
    text = latex(made)
    well_formed(text)
    assert r"BD-rate \% $\downarrow$" in text
    assert r"\textbf{" in text
    assert r"\underline{" in text
    bars = {line.count("|") for line in markdown(made).splitlines() if line.startswith("|")}
    assert bars == {7}


def compiled(folder: Path, *tables: str, packages: str = "booktabs,longtable,siunitx") -> str:
    """The log of a document with these tables; skips where there is no LaTeX."""
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("no pdflatex here (Debian: texlive-latex-recommended, texlive-science); a strict reader stands in")
    head = rf"\documentclass{{article}}\usepackage{{{packages}}}\sisetup{{separate-uncertainty, detect-weight}}"
    # As wide as the text of a conference with one column, 5.5 inches.
    page = r"\usepackage[textwidth=5.5in,textheight=9in]{geometry}\begin{document}"
    (folder / "table.tex").write_text("\n".join([head, page, *tables, r"\end{document}"]))
    for _ in range(2):  # a longtable has its widths from the run before
        line = [program, "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
        done = subprocess.run(line, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        log = (folder / "table.log").read_text(errors="replace")
        assert done.returncode == 0, log[-2000:]
    return log


def test_latex_compiles(tmp_path: Path) -> None:
    compiled(tmp_path, latex(a_table(NASTY)))


@pytest.mark.parametrize("siunitx", [False, True])
def test_long_and_wide_tables_stay_on_the_page(tmp_path: Path, siunitx: bool) -> None:
    """Fifty points under six metrics, as a run has them: no box is overfull, and the table goes over pages."""
    metrics = ("psnr dB ↑", "ms-ssim ↑", "flip ↓", "lpips/alex ↓", "fid/hific-patch ↓", "dists ↓")
    header = ("codec", "setting", "n", "bpp", *metrics)
    lines = [
        (
            *(f"codec-{n // 8}", f"quality {n}", "24", f"{0.1 + n:.4f} ±0.0100", f"{20 + n:.2f} ±0.85"),
            *("0.9512 ±0.0085", "–", "0.0421 ±0.0120" if n % 9 else "0.0421† [0.0301, 0.0712]"),
            *("12.3456 ±1.2345", "0.1234 ±0.0056"),
        )
        for n in range(56)
    ]
    long = Table.of_texts("kodak: means over images, ± half of the 95 % interval", header, lines, ["* partial"])
    short = Table(long.caption, header, tuple((*line[:4], Cell(line[4].text, 1), *line[5:]) for line in long.lines[:8]))
    texts = [latex(table, Names(), siunitx=siunitx) for table in (long, short)]
    assert texts[0].count(r"\begin{longtable}") == 2
    assert texts[1].count(r"\begin{tabular}") == 2
    assert "S[table-format=2.2(2)]" in texts[0] or not siunitx
    assert "PSNR (dB)" in texts[0]
    log = compiled(tmp_path, *texts)
    assert "Overfull" not in log
    assert int(re.search(r"Output written on table.pdf \((\d+) page", log)[1]) >= 3  # type: ignore[index]  # it is there


def test_columns_of_numbers_are_aligned_by_siunitx() -> None:
    lines = (
        (Cell("jpeg"), Cell("31.20 ±0.10", 1), Cell("24")),
        (Cell("webp"), Cell("9.10 ±0.05"), Cell("24* (1 failed)")),
        (Cell("avif"), Cell("–"), Cell("24* (2 failed)")),
    )
    text = latex(Table("t", ("codec", "psnr dB ↑", "n"), lines), Names(), siunitx=True)
    assert r"\begin{tabular}{lS[table-format=2.2(2)]r}" in text
    assert r"JPEG & \bfseries 31.20 +- 0.10 & 24 \\" in text
    assert r"AVIF 4:4:4 & {--} & 24* (2 failed) \\" in text


# The command


@pytest.fixture(scope="module")
def a_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two real codecs on two small images."""
    from PIL import Image as pil

    from rdpbench.cli import main

    folder = tmp_path_factory.mktemp("bd")
    pictures = folder / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(7)
    for number in range(2):
        coarse = pil.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        coarse.resize((72, 64), pil.Resampling.BICUBIC).save(pictures / f"i{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RDPBENCH_CACHE", str(folder / "cache"))
        line = ["run", "codec=jpeg,webp", "rate=20,40,60,80", f"data=folder:{pictures}", "metrics=psnr", "workers=0"]
        assert main([*line, "figures=false", "verify=0", "run=small"]) == 0
    return folder / "results/runs/small"


def _options(*words: str) -> Any:
    import argparse

    parser = argparse.ArgumentParser()
    bd_arguments(parser)
    parser.set_defaults(name="small")
    return parser.parse_args(list(words))


def test_the_command(a_store: Path, tmp_path: Path) -> None:
    import io

    from rich.console import Console

    from rdpbench.results.store.store import Store

    console = Console(file=io.StringIO(), width=200)
    words = ["--anchor", "jpeg", "--matched", "--resamples", "50", "--metric", "psnr"]
    options = _options(*words, "--latex", str(tmp_path / "a/bd.tex"), "--markdown", str(tmp_path / "bd.md"))
    assert command.bd(options, Store(a_store), console) == 0
    text = (tmp_path / "a/bd.tex").read_text()
    for part in text.split("% \\usepackage{booktabs}\n")[1:]:
        well_formed(part.strip())
    assert (tmp_path / "bd.md").read_text().count("| webp |") == 1
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "webp beside jpeg image by image" in shown
    assert "quality 40" in shown


def test_the_command_s_errors(a_store: Path) -> None:
    from rich.console import Console

    from rdpbench.errors import ConfigError
    from rdpbench.results.store.store import Store

    for words, error in (
        (["--anchor", "jpg"], "did you mean 'jpeg'"),
        (["--anchor", "jpeg", "--resamples", "3"], "needs 20"),
        (["--anchor", "jpeg", "--method", "spline"], "unknown method"),
        (["--metric", "lpips/alex"], "unknown metric"),
    ):
        with pytest.raises(ConfigError, match=error):
            command.bd(_options(*words), Store(a_store), Console(quiet=True))
