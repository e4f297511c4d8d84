"""Crossover rates: where they are, how many, what is said where there is none, and how sure they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdpbench.results.stats.against import Crossings, Crossover, crossings, crossover, crossover_table
from rdpbench.results.stats.bd import Floats
from rdpbench.results.stats.bootstrap import shares
from rdpbench.results.stats.points import ImageCurve
from rdpbench.setting import Setting

RATES = (0.05, 0.1, 0.2, 0.4, 0.8)
ANCHOR = [(rate, 30 + 4 * math.log2(rate / 0.05)) for rate in RATES]


def bent(slope: float, at: float, rates: tuple[float, ...] = RATES) -> list[tuple[float, float]]:
    """A curve that is ``slope`` dB per doubling and meets the anchor at a rate."""
    return [(rate, 30 + 4 * math.log2(at / 0.05) + slope * math.log2(rate / at)) for rate in rates]


# Of two curves


@pytest.mark.parametrize("at", [0.06, 0.1, 0.13, 0.4, 0.7999])
def test_one_crossing_is_where_it_was_put(at: float) -> None:
    found = crossings(ANCHOR, bent(3, at))
    assert found.rates == pytest.approx([at], rel=1e-9)
    assert (found.first, found.reason) == (1, "")
    assert found.shared == pytest.approx((0.05, 0.8))


def test_points_of_other_rates_change_nothing() -> None:
    """Both are straight on a log-rate axis, wherever their points lie."""
    found = crossings(ANCHOR, bent(3, 0.13, (0.03, 0.07, 0.15, 0.5)))
    assert found.rates == pytest.approx([0.13], rel=1e-9)
    assert found.shared == pytest.approx((0.05, 0.5))


def test_lower_is_better_turns_who_is_better_and_no_rate() -> None:
    up, down = (crossings(ANCHOR, bent(3, 0.13), higher_is_better=better) for better in (True, False))
    assert up.rates == down.rates
    assert (up.first, down.first) == (1, -1)
    falling = [[(rate, -value) for rate, value in curve] for curve in (ANCHOR, bent(3, 0.13))]
    assert crossings(*falling, higher_is_better=False).first == 1


def test_swapped_curves_cross_at_the_same_rates() -> None:
    one, two = crossings(ANCHOR, bent(3, 0.13)), crossings(bent(3, 0.13), ANCHOR)
    assert one.rates == pytest.approx(two.rates, rel=1e-12)
    assert one.first == -two.first


def test_several_crossings_are_all_told() -> None:
    gaps = (1.0, -1.0, 2.0, 2.0, -2.0)
    test = [(rate, value + gap) for (rate, value), gap in zip(ANCHOR, gaps, strict=True)]
    found = crossings(ANCHOR, test)
    assert found.rates == pytest.approx([0.05 * 2**0.5, 0.1 * 2 ** (1 / 3), 0.4 * 2**0.5])
    assert found.first == 1


@pytest.mark.parametrize(("gap", "first"), [(0.5, 1), (-0.5, -1)])
def test_none_says_who_is_better_throughout(gap: float, first: int) -> None:
    found = crossings(ANCHOR, [(rate, value + gap) for rate, value in ANCHOR])
    assert (found.rates, found.first) == ((), first)


def test_touching_is_not_crossing() -> None:
    gaps = (1.0, 0.0, 1.0, 1.0, 1.0)
    test = [(rate, value + gap) for (rate, value), gap in zip(ANCHOR, gaps, strict=True)]
    assert (crossings(ANCHOR, test).rates, crossings(ANCHOR, test).first) == ((), 1)
    through = [(rate, value + gap) for (rate, value), gap in zip(ANCHOR, (1, 0, -1, -1, -1), strict=True)]
    assert crossings(ANCHOR, through).rates == pytest.approx([0.1])
    stretch = [(rate, value + gap) for (rate, value), gap in zip(ANCHOR, (1, 0, 0, -1, -1), strict=True)]
    assert crossings(ANCHOR, stretch).rates == pytest.approx([math.sqrt(0.1 * 0.2)])


def test_equal_curves_do_not_cross_by_rounding() -> None:
    """The same straight line by other points: interpolated values differ in their last digits."""
    assert (crossings(ANCHOR, bent(4, 0.3, (0.05, 0.07, 0.11, 0.33, 0.8))).rates) == ()
    assert crossings(ANCHOR, ANCHOR) == Crossings((), 0, (pytest.approx(0.05), pytest.approx(0.8)))


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ([(1.0, 30.0), (2.0, 31.0)], "the curves share no range of rate"),
        ([(0.1, 30.0)], "test: 1 point, and at least 2 needed"),
        ([], "test: 0 points, and at least 2 needed"),
        ([(0.1, 30.0), (0.1, 31.0)], "test: two points at one rate"),
        ([(0.1, math.inf), (0.2, 31.0)], "test: a rate or value is not finite"),
        ([(0.0, 30.0), (0.2, 31.0)], "or a rate is zero"),
    ],
)
def test_no_rate_but_a_reason(test: list[tuple[float, float]], reason: str) -> None:
    assert reason in crossings(ANCHOR, test).reason
    assert reason.replace("test:", "anchor:") in crossings(test, ANCHOR).reason


# Of two codecs, with an interval


def an_image_curve(codec: str, rates: Floats, values: Floats) -> ImageCurve:
    settings = tuple(Setting("quality", float(k)) for k in range(len(rates)))
    return ImageCurve(codec, settings, tuple(f"image{n:02d}" for n in range(rates.shape[1])), rates, values)


def two(
    rng: np.random.Generator, images: int, at: float = 0.2, *, noise: float = 0.5, slope: float = 3.0
) -> tuple[ImageCurve, ImageCurve]:
    """Codecs on images of different difficulty, whose mean curves would cross at a rate if there were no noise."""
    rates = np.outer(RATES, np.ones(images)) * rng.lognormal(0, 0.3, images)
    hard = rng.normal(0, 3, images)
    anchor = np.array([value for _, value in ANCHOR])[:, None] + hard
    test = np.array([value for _, value in bent(slope, at)])[:, None] + hard + rng.normal(0, noise, images)
    return an_image_curve("anchor", rates, anchor), an_image_curve("mine", rates, test)


def test_the_interval_holds_the_rate_and_narrows_with_images() -> None:
    found = [crossover(*two(np.random.default_rng(1), images), "psnr", resamples=400) for images in (24, 400)]
    for one in found:
        assert one.low < one.crossings.rates[0] < one.high
        assert one.agree > 0.9
    assert math.log(found[1].high / found[1].low) < math.log(found[0].high / found[0].low) / 2
    assert (found[0].images, found[0].crossings.first) == (24, 1)


def test_the_interval_is_that_of_the_resampled_crossings() -> None:
    """One resample at a time, by the definition."""
    anchor, test = two(np.random.default_rng(2), 24)
    found = crossover(anchor, test, "psnr", resamples=200)
    picks = np.random.default_rng(2026).integers(0, 24, (200, 24))
    rates = []
    for pick in picks:
        curves = [
            list(zip(one.rates[:, pick].mean(axis=1), one.values[:, pick].mean(axis=1), strict=True))
            for one in (anchor, test)
        ]
        (rate,) = crossings(*curves).rates
        rates.append(rate)
    assert (found.low, found.high) == pytest.approx(np.quantile(rates, shares(24), method="nearest"))


def test_an_interval_may_be_open() -> None:
    """Near the end of the shared rates many resamples do not cross: the crossing lies beyond it."""
    high = crossover(*two(np.random.default_rng(3), 24, 0.75, noise=1.0), "psnr", resamples=200)
    assert len(high.crossings.rates) == 1
    assert high.high == math.inf
    assert 0.05 < high.low < 0.75
    low = crossover(*two(np.random.default_rng(3), 24, 0.055, noise=1.0), "psnr", resamples=200)
    texts = [[cell.text for cell in line] for line in crossover_table([high, low], "anchor", "psnr", "set").lines]
    assert texts[0][2].endswith(f", > {high.crossings.shared[1]:.3g}]")
    assert texts[0][3:5] == ["mine", "anchor"]
    if low.crossings.rates:
        assert low.low == -math.inf
        assert f"[< {low.crossings.shared[0]:.3g}, " in texts[1][2]
    else:
        assert texts[1][2] == "none"


def test_crossing_all_over_has_no_interval() -> None:
    """Two curves apart by noise alone cross somewhere in every resample, each time elsewhere."""
    rng = np.random.default_rng(4)
    anchor, _ = two(rng, 24)
    test = an_image_curve("mine", anchor.rates, anchor.values + rng.normal(0, 1, anchor.values.shape))
    found = crossover(anchor, test, "psnr", resamples=200)
    assert found.agree < 0.9
    assert math.isnan(found.low)
    made = crossover_table([found], "anchor", "psnr", "set")
    if len(found.crossings.rates) == 1:
        assert "resamples cross several times, or the other way round" in made.notes[0]
    else:
        assert made.lines[0][2].text.count(",") == max(0, len(found.crossings.rates) - 1)


def test_pooled_psnr_crosses_where_its_decibels_do() -> None:
    """What is stored per image are decibels; the curve is of those of the mean squared error."""
    rates = np.outer(RATES, np.ones(9))
    of = [255**2 / 10 ** (np.array([value for _, value in curve])[:, None] / 10) for curve in (ANCHOR, bent(3, 0.13))]
    curves = [
        an_image_curve(name, rates, 10 * np.log10(255**2 / (errors * np.linspace(0.5, 1.5, 9))))
        for name, errors in zip("ab", of, strict=True)
    ]
    found = crossover(*curves, "psnr-pooled", resamples=20)
    assert found.crossings.rates == pytest.approx([0.13], rel=1e-9)
    assert found.crossings.first == 1
    assert (found.low, found.high) == pytest.approx((0.13, 0.13), rel=1e-9)


def test_few_images_have_a_crossing_and_no_interval() -> None:
    """Of three images, resamples lie between the smallest and the largest, whatever the truth."""
    found = crossover(*two(np.random.default_rng(5), 7), "psnr", resamples=50)
    assert len(found.crossings.rates) == 1
    assert math.isnan(found.low)
    assert found.reason == "7 images, and resamples of fewer than 8 tell too little"
    assert math.isfinite(found.agree)


def test_images_that_both_have_whole() -> None:
    anchor, test = two(np.random.default_rng(5), 6)
    values = test.values.copy()
    values[0, 0] = math.inf
    assert crossover(anchor, an_image_curve("mine", test.rates, values), "psnr", resamples=20).images == 5
    values[:] = math.nan
    none = crossover(anchor, an_image_curve("mine", test.rates, values), "psnr")
    assert none.crossings.reason == "no image has all points of both curves"
    one = crossover(anchor.of(anchor.images[:1]), test.of(test.images[:1]), "psnr")
    assert one.crossings.rates
    assert one.reason == "one image has no interval"


def test_the_table_says_what_there_is() -> None:
    shared = (0.05, 0.8)
    found = [
        Crossover("one", 24, Crossings((0.2,), 1, shared), 0.15, 0.3, 0.99),
        Crossover("several", 24, Crossings((0.1, 0.2), -1, shared), agree=0.5),
        Crossover("none", 24, Crossings((), 1, shared), agree=1.0),
        Crossover("equal", 24, Crossings((), 0, shared), agree=1.0),
        Crossover("far", 24, Crossings((), 0, reason="the curves share no range of rate")),
        Crossover(
            "loose", 24, Crossings((0.2,), -1, shared), agree=0.5, reason="9 of 20 resamples cross several times"
        ),
    ]
    made = crossover_table(found, "anchor", "lpips/alex", "set")
    texts = {line[0].text: [cell.text for cell in line[2:5]] for line in made.lines}
    assert texts == {
        "one": ["0.2 [0.15, 0.3]", "one", "anchor"],
        "several": ["0.1, 0.2", "anchor", "anchor"],
        "none": ["none", "none", "none"],
        "equal": ["none", "equal", "equal"],
        "far": ["– (a)", "–", "–"],
        "loose": ["0.2 (b)", "anchor", "loose"],
    }
    assert made.header[2] == "crossover bpp under lpips/alex ↓"
    assert made.notes[:2] == (
        "(a) far: the curves share no range of rate",
        "(b) loose: no interval, 9 of 20 resamples cross several times",
    )


# The command


def test_the_command(tmp_path: Path, here: Any, images: Any, capsys: pytest.CaptureFixture[str]) -> None:
    images(3, size=(64, 72))
    line = ["run", "codec=jpeg,webp", "rate=10,30,60,90", "data=folder:pictures", "metrics=psnr", "workers=0"]
    assert here(*line, "figures=false", "verify=0", "run=small") == 0
    capsys.readouterr()
    markdown = tmp_path / "bd.md"
    words = ["bd", "small", "--anchor", "jpeg", "--crossover", "--resamples", "50", "--markdown", str(markdown)]
    assert here(*words) == 0
    assert "where codecs cross jpeg under psnr" in capsys.readouterr().out
    text = markdown.read_text()
    assert text.count("where codecs cross jpeg under psnr (linear in log rate), 95 % intervals over images") == 1
    row = next(line for line in text.splitlines() if line.startswith("| webp |") and line.count("|") == 8)
    assert [cell.strip() for cell in row.split("|")][2] == "3"
