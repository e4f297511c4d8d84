"""BD-rate and BD-metric: published values, the package's own, and reasons instead of senseless numbers."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from rdpbench.errors import UnknownName
from rdpbench.results.stats.bd import METHODS, bd_metric, bd_rate

T1 = (
    [(9487.76, 40.037), (4593.60, 38.615), (2486.44, 36.845), (1358.24, 34.851)],
    [(9787.80, 40.121), (4469.00, 38.651), (2451.52, 36.970), (1356.24, 34.987)],
)
M33 = (
    [(686.76, 40.28), (309.58, 37.18), (157.11, 34.24), (85.95, 31.42)],
    [(893.34, 40.39), (407.8, 37.21), (204.93, 34.17), (112.75, 31.24)],
)
T2 = (
    [(82472.76, 43.825), (26875.24, 41.404), (9487.76, 40.037), (4593.6, 38.615)],
    [(99896.96, 44.731), (33952.04, 41.875), (9787.8, 40.121), (4469.0, 38.651)],
)
# With more points: the third of the package's own examples.
T3 = (
    [*T2[0], (3600.0, 36.5), (2900.0, 35.1)],
    [*T2[1], (4040.0, 37.0), (3300.0, 36.5)],
)
LPIPS = [(0.05, 0.4), (0.1, 0.3), (0.2, 0.2), (0.4, 0.1)]
GOOD = [(0.1, 30.0), (0.2, 33.0), (0.4, 36.0), (0.8, 39.0)]


@pytest.mark.parametrize(
    ("curves", "method", "rate"),
    [
        (T1, "cubic", -4.4204627060),
        (T1, "pchip", -4.4174853506),
        (T1, "akima", -4.4252451570),
        (M33, "cubic", 31.3973740549),
        (M33, "pchip", 31.3798782024),
        (M33, "akima", 31.3839889843),
        (T2, "cubic", -4.6994375481),
        (T2, "pchip", -4.4721820028),
        (T2, "akima", -4.0857609404),
    ],
)
def test_published_rates(curves, method, rate):
    found = bd_rate(*curves, method=method)
    assert found.value == pytest.approx(rate, abs=1e-6)
    assert (found.reason, found.method) == ("", method)


@pytest.mark.parametrize(
    ("curves", "method", "psnr"),
    [
        (T1, "cubic", 0.1204094191),
        (T1, "pchip", 0.1196927854),
        (T1, "akima", 0.1194092703),
        (M33, "cubic", -1.1848979218),
        (M33, "pchip", -1.1834724046),
        (M33, "akima", -1.1836589701),
    ],
)
def test_published_psnr(curves, method, psnr):
    assert bd_metric(*curves, method=method).value == pytest.approx(psnr, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("curves", [T1, M33, T2, T3])
def test_equals_the_package(curves, method):
    """On the package's own examples (T1 to T3, example_usage.py), and on the data of VCEG-M33."""
    import bjontegaard

    columns = [list(column) for curve in curves for column in zip(*sorted(curve), strict=True)]
    rate = bjontegaard.bd_rate(*columns, method=method, min_overlap=0)
    if curves is T3 and method == "cubic":
        # One polynomial through six points turns round: -0.64 %, where the other methods say -2.5 and -3.0 %.
        assert rate == pytest.approx(-0.6392886, abs=1e-6)
        assert "turns round between the points" in bd_rate(*curves, method=method).reason
    else:
        assert bd_rate(*curves, method=method).value == pytest.approx(rate, rel=1e-7)
    psnr = bjontegaard.bd_psnr(*columns, method=method, min_overlap=0)
    assert bd_metric(*curves, method=method).value == pytest.approx(psnr, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_tenth_less_rate(method):
    less = [(0.9 * rate, value) for rate, value in GOOD]
    assert bd_rate(GOOD, less, method=method).value == pytest.approx(-10, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_one_decibel_more(method):
    rates = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
    anchor = list(zip(rates, 10 + 20 * np.log10(rates), strict=True))
    test = [(rate, value + 1) for rate, value in anchor]
    assert bd_rate(anchor, test, method=method).value == pytest.approx(-10.874906186625443, abs=1e-9)
    assert bd_metric(anchor, test, method=method).value == pytest.approx(1.0, abs=1e-12)


def test_lower_is_better():
    test = [(rate, 0.9 * value) for rate, value in LPIPS]
    found = bd_rate(LPIPS, test, higher_is_better=False)
    assert found.value == pytest.approx(-16.233549677484, abs=1e-9)
    assert found.overlap == pytest.approx((0.1, 0.36))
    assert found.fraction == pytest.approx(0.26 / 0.31)
    assert not found.narrow
    assert bd_metric(LPIPS, test).value == pytest.approx(-0.025, abs=1e-12)
    # Taken the wrong way round it is no curve at all.
    wrong = bd_rate(LPIPS, test)
    assert math.isnan(wrong.value)
    assert wrong.reason == "anchor: the metric does not rise from 0.4 at rate 0.05 to 0.3 at rate 0.1"


def test_any_order_of_points():
    shuffled = [[curve[i] for i in (2, 0, 3, 1)] for curve in M33]
    assert bd_rate(*shuffled).value == bd_rate(*M33).value
    assert bd_metric(*shuffled).value == bd_metric(*M33).value


def test_swapping_turns_the_sign():
    forth, back = bd_rate(*M33).value, bd_rate(*M33[::-1]).value
    assert (1 + forth / 100) * (1 + back / 100) == pytest.approx(1, abs=1e-12)
    assert bd_metric(*M33).value == pytest.approx(-bd_metric(*M33[::-1]).value, abs=1e-12)


def test_curves_of_different_length():
    more = [*M33[1], (500.0, 38.2)]
    assert bd_rate(M33[0], more).value == pytest.approx(31.4, abs=1)
    assert bd_metric(M33[0], more).value == pytest.approx(-1.18, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_the_unit_of_the_metric_does_not_matter(method):
    """KID of 1e-5 steps around a large offset: the polynomial would be ill-conditioned on the raw values."""
    test = [(1.1 * rate, value) for rate, value in LPIPS]
    moved = [[(rate, 7 + 1e-5 * value) for rate, value in curve] for curve in (LPIPS, test)]
    assert bd_rate(*moved, higher_is_better=False, method=method).value == pytest.approx(10, abs=1e-5)


@pytest.mark.parametrize("side", ["anchor", "test"])
def test_a_cubic_that_swings_out_between_points_has_no_metric(side: str) -> None:
    """Through these points it reaches 47 dB, five more than any of them; pchip stays between them."""
    steep = [(0.1, 30.0), (0.11, 40.0), (0.8, 41.0), (1.6, 41.5)]
    curves = (steep, GOOD) if side == "anchor" else (GOOD, steep)
    found = bd_metric(*curves, method="cubic")
    assert math.isnan(found.value)
    assert found.reason == f"{side}: the cubic interpolation turns round between the points; take pchip"
    assert math.isfinite(bd_metric(*curves, method="pchip").value)


def test_a_curve_that_turns_has_no_rate_but_a_metric():
    turns = [(0.1, 30.0), (0.2, 35.0), (0.4, 34.0), (0.8, 36.0)]
    import bjontegaard

    columns = [list(column) for curve in (turns, GOOD) for column in zip(*curve, strict=True)]
    assert abs(bjontegaard.bd_rate(*columns, method="cubic", min_overlap=0)) < math.inf, "the package gives a number"
    for method in METHODS:
        found = bd_rate(turns, GOOD, method=method)
        assert math.isnan(found.value)
        assert found.reason == "anchor: the metric does not rise from 35 at rate 0.2 to 34 at rate 0.4"
        assert math.isfinite(bd_metric(turns, GOOD, method=method).value)


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (
            [(0.1, 30.0), (0.2, 33.0), (0.4, 33.0), (0.8, 39.0)],
            "test: the metric does not rise from 33 at rate 0.2 to 33",
        ),
        ([(0.1, 50.0), (0.2, 53.0), (0.4, 56.0), (0.8, 59.0)], "the curves share no range of quality"),
        ([(0.1, 39.0), (0.2, 43.0), (0.4, 46.0), (0.8, 49.0)], "the curves share no range of quality"),
        (GOOD[:3], "test: 3 points, and at least 4 needed"),
        ([], "test: 0 points, and at least 4 needed"),
        ([*GOOD[:3], (0.8, math.inf)], "test: the value inf at rate 0.8 is not finite"),
        ([*GOOD[:3], (0.8, math.nan)], "test: the value nan at rate 0.8 is not finite"),
        ([*GOOD[:3], (math.nan, 50.0)], "test: the value 50 at rate nan is not finite"),
        ([(0.0, 29.0), *GOOD], "test: the rate 0 has no logarithm"),
        ([(-0.1, 29.0), *GOOD], "test: the rate -0.1 has no logarithm"),
        ([*GOOD, (0.4, 36.5)], "test: two points at rate 0.4"),
    ],
)
def test_no_rate_but_a_reason(test, reason):
    for swapped in (False, True):
        curves = (test, GOOD) if swapped else (GOOD, test)
        found = bd_rate(*curves)
        assert math.isnan(found.value)
        assert reason.replace("test:", "anchor:" if swapped else "test:") in found.reason


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ([(1.1, 30.0), (1.2, 33.0), (1.4, 36.0), (1.8, 39.0)], "the curves share no range of rate"),
        ([*GOOD[:3], (0.8, math.inf)], "test: the value inf at rate 0.8 is not finite"),
        (GOOD[:3], "test: 3 points"),
        ([*GOOD, (0.4, 36.5)], "test: two points at rate 0.4"),
    ],
)
def test_no_metric_but_a_reason(test, reason):
    found = bd_metric(GOOD, test)
    assert math.isnan(found.value)
    assert reason in found.reason


def test_a_cubic_that_turns_between_monotone_points_is_refused():
    steep = [(0.1, 30.0), (0.11, 30.1), (1.0, 39.9), (1.01, 40.0), (1.02, 40.1)]
    steps = [(0.1, 30.0), (0.5, 30.5), (0.52, 39.5), (2.0, 40.0)]
    assert math.isfinite(bd_rate(steep, steps).value)
    found = bd_rate(steep, steps, method="cubic")
    assert math.isnan(found.value)
    assert "the cubic interpolation turns round between the points; take pchip" in found.reason
    assert found.fraction == pytest.approx(10 / 10.1)


def test_the_overlap_is_told():
    narrow = bd_rate(GOOD, [(rate, value + 6) for rate, value in GOOD])
    assert narrow.overlap == (36, 39)
    assert narrow.fraction == pytest.approx(3 / 15)
    assert narrow.narrow
    found = bd_metric(GOOD, [(4 * rate, value) for rate, value in GOOD])
    assert found.overlap == pytest.approx((0.4, 0.8))
    assert found.fraction == pytest.approx(1 / 5)
    assert math.isfinite(found.value)


def test_an_unknown_method():
    for delta in (bd_rate, bd_metric):
        with pytest.raises(UnknownName, match="unknown method 'pchp': did you mean 'pchip'"):
            delta(GOOD, GOOD, method="pchp")


def test_importing_it_imports_no_matplotlib():
    code = "import sys, rdpbench.results.stats.bd; sys.exit('matplotlib' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
