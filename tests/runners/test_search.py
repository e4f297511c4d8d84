"""Searching the native setting for a target rate: the nearest there is, or out of range; never extrapolated."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from rdpbench.codecs.contract import Rate
from rdpbench.config.bench import read_bench
from rdpbench.paths import available
from rdpbench.results.store.keys import TOLERANCE, axis_of, build
from rdpbench.results.store.store import Store
from rdpbench.runners.search import FEW, MOST, Nearest, count, is_near, is_whole, search, settings

QUICK = ("metrics=psnr", "figures=false", "verify=0", "workers=0")

axes = st.builds(
    lambda low, steps, step, rises: Rate("q", low, low + steps * step, step, rises),
    st.integers(-20, 60),
    st.integers(1, 130),
    st.sampled_from([1, 2, 5, 0.5, 0.1]),
    st.booleans(),
)
rates = st.floats(1e-3, 30, allow_nan=False)


def table_of(axis: Rate, values: list[float]) -> dict[float, float]:
    """A monotone rate function over the axis: rising bytes in the order of the search, with plateaus."""
    at = settings(axis)
    curve = sorted(values[k % len(values)] * (1 + k // len(values)) for k in range(count(axis)))
    return {at(k): curve[k] for k in range(count(axis))}


class Measured:
    """A table that is asked; every setting once, and only legal ones."""

    def __init__(self, axis: Rate, table: dict[float, float]) -> None:
        self.axis, self.table, self.calls = axis, table, list[float]()

    def __call__(self, setting: float) -> float:
        assert self.axis.low <= self.axis.check("synthetic", setting) <= self.axis.high
        assert setting not in self.calls
        self.calls.append(setting)
        return self.table[setting]

    def off(self, target: float) -> float:
        """How near any setting comes, as a ratio above 1."""
        return min(max(bpp / target, target / bpp) for bpp in self.table.values())


@given(axes, st.lists(rates, min_size=1, max_size=20), rates)
def test_nothing_is_nearer(axis: Rate, values: list[float], target: float) -> None:
    measure = Measured(axis, table_of(axis, values))
    found = search(axis, target, measure)
    assert found.attempts == len(measure.calls)
    assert measure.table[found.setting] == found.bpp
    assert max(found.bpp / target, target / found.bpp) == pytest.approx(measure.off(target))
    bisected = math.ceil(math.log2(count(axis))) + 2
    assert is_whole(axis, found.attempts) or found.attempts <= bisected
    if measure.off(target) < 1.0999:
        assert found.attempts <= bisected


@given(
    axes,
    st.lists(rates, min_size=1, max_size=128),
    rates,
    st.sampled_from([0.001, 0.05, 0.1, 0.5]),
)
@settings_of_hypothesis(max_examples=300)
def test_rates_need_not_rise(axis: Rate, values: list[float], target: float, tolerance: float) -> None:
    axis = replace(axis, high=min(axis.high, axis.low + (FEW - 1) * axis.step))
    at = settings(axis)
    measure = Measured(axis, {at(k): values[k % len(values)] for k in range(count(axis))})
    found = search(axis, target, measure, tolerance)
    assert found.attempts == len(measure.calls) <= FEW
    assert measure.table[found.setting] == found.bpp
    if is_near(found.bpp, target, min(tolerance, TOLERANCE)):
        return
    assert found.attempts == count(axis)
    assert max(found.bpp / target, target / found.bpp) == measure.off(target)


@given(
    st.booleans(),
    st.lists(st.tuples(st.floats(0.04, 0.3), rates), min_size=1, max_size=6),
    st.tuples(rates, rates),
    rates,
    st.sampled_from([0.01, 0.1]),
)
@settings_of_hypothesis(max_examples=300)
def test_a_continuous_axis_may_turn(
    rises: bool, turns: list[tuple[float, float]], ends: tuple[float, float], target: float, tolerance: float
) -> None:
    """Curves that turn up to six times, each time at least two steps of the grid after the last."""
    axis = Rate("distance", 0, 1, step=0, rises=rises)
    places = [0.0]
    for gap, _ in turns:
        places += [places[-1] + gap] if places[-1] + gap < 0.96 else []
    heights = np.log([ends[0], *[height for _, height in turns][: len(places) - 1], ends[1]])
    curve = np.exp(np.interp(np.linspace(0, 1, count(axis)), [*places, 1.0], heights))
    at = settings(axis)
    measure = Measured(axis, {at(k): float(curve[k]) for k in range(count(axis))})
    found = search(axis, target, measure, tolerance)
    assert found.attempts == len(measure.calls) <= MOST
    assert measure.table[found.setting] == found.bpp
    near = is_near(found.bpp, target, tolerance)
    assert near or is_whole(axis, found.attempts)
    step = float(np.abs(np.diff(np.log(curve))).max())  # neighbouring settings may lie to both sides of the tolerance
    if math.log(measure.off(target)) + step <= math.log1p(tolerance):
        assert near
    if not near:
        assert math.log(max(found.bpp / target, target / found.bpp)) == pytest.approx(
            math.log(measure.off(target)), abs=step
        )


@given(st.integers(FEW + 1, 2000), st.integers(0, 2**32 - 1), rates)
def test_many_settings_of_any_rates_stay_bounded(steps: int, seed: int, target: float) -> None:
    axis = Rate("q", 0, steps)
    table = dict(enumerate(np.random.default_rng(seed).uniform(0.001, 30, steps + 1).tolist()))
    measure = Measured(axis, table)
    found = search(axis, target, measure)
    assert found.attempts == len(measure.calls) <= MOST
    assert found.bpp == min((table[k] for k in measure.calls), key=lambda bpp: max(bpp / target, target / bpp))
    assert is_near(found.bpp, target, TOLERANCE) or is_whole(axis, found.attempts)


def test_an_inner_setting_is_found_where_the_ends_do_not_reach() -> None:
    below = search(Rate("q", 1, 20), 0.3, lambda q: 0.3 if q == 7 else q / 10 + 1)
    assert below == Nearest(7, 0.3, 20)
    above = search(Rate("q", 1, 20), 9, lambda q: 8.8 if q == 7 else q / 10 + 1)
    assert above == Nearest(7, 8.8, 20)
    # Declared the wrong way round: bisection finds it all the same.
    assert search(Rate("q", 1, 100), 0.25, lambda q: (101 - q) / 100) == Nearest(76, 0.25, 8)


def test_a_codec_that_writes_nothing_has_a_rate_too() -> None:
    assert search(Rate("q", 0, 10), 0.5, lambda q: q / 10) == Nearest(5, 0.5, 5)
    assert search(Rate("q", 0, 3), 0.5, lambda q: 0.0).bpp == 0


@pytest.mark.parametrize("wanted", [0.1, 0.5, 3.0])
def test_a_looser_tolerance_finds_the_same(wanted: float) -> None:
    rates = np.random.default_rng(1).uniform(0.1, 3, 51).tolist()
    usual = search(Rate("q", 0, 50), 0.7, lambda q: rates[int(q)])
    assert search(Rate("q", 0, 50), 0.7, lambda q: rates[int(q)], wanted) == usual


def test_every_setting_that_a_search_may_try_can_be_built() -> None:
    """A codec that has weights for three rates must not promise all between them."""
    searched = set()
    # What is legal for a sketch is up to the codec of the sketch, and refused by that one.
    for name in [name for name in available("codec") if name not in ("own", "pics-sketch", "pics-canny", "pics-webp")]:
        [(codec, _)] = read_bench([f"codec={name}", "data=samples"]).grid
        axis = axis_of(codec)
        if axis is None:
            continue
        last = count(axis) - 1
        for k in {0, 1, last // 3, last // 2, last - 1, last} if last else {0}:
            build(codec, settings(axis)(k))
        searched.add(name)
    assert {"jpeg", "jpegxl", "vtm", "mbt2018", "hific", "perco"} <= searched


@given(st.floats(0.01, 10), st.floats(1.1, 1e4), st.booleans(), st.floats(0, 1), st.floats(0.3, 3))
def test_a_continuous_axis_comes_near(low: float, span: float, rises: bool, where: float, power: float) -> None:
    axis = Rate("lambda", low, low * span, 0, rises)
    sign = 1 if rises else -1

    def measure(setting: float) -> float:
        assert low <= setting <= low * span
        return float(setting ** (sign * power))

    ends = sorted([measure(axis.low), measure(axis.high)])
    target = math.exp(math.log(ends[0]) + where * (math.log(ends[1]) - math.log(ends[0])))
    target = min(max(target, ends[0]), ends[1])
    found = search(axis, target, measure)
    # A step of the axis moves the rate by this much where it is steepest.
    steepest = max(
        abs(math.log(measure(settings(axis)(k + 1)) / measure(settings(axis)(k)))) for k in (0, count(axis) - 2)
    )
    assert abs(math.log(found.bpp / target)) <= max(0.002, steepest)


@pytest.mark.parametrize(("target", "near"), [(0.909, False), (0.91, True), (2.2, True), (2.201, False)])
def test_what_is_outside_is_in_range_within_the_tolerance(target: float, near: bool) -> None:
    for axis, measure in (
        (Rate("q", 0, 10), lambda q: 1 + q / 10),
        (Rate("q", 0, 10, rises=False), lambda q: 2 - q / 10),
    ):
        found = search(axis, target, measure)
        assert found.bpp == (1 if target < 1 else 2)
        assert is_near(found.bpp, target, TOLERANCE) == near
        assert found.attempts == (11 if not near else 1 if target < 1 else 2)


@pytest.mark.parametrize(("target", "setting"), [(1.0, 0), (2.0, 10)])
def test_the_ends_belong_to_the_range(target: float, setting: float) -> None:
    assert search(Rate("q", 0, 10), target, lambda q: 1 + q / 10).setting == setting


def rows_of(tmp_path: Path) -> list[Any]:
    return list(Store(tmp_path / "results/runs/folder-pictures").read().rows.values())


def bpp_table(tmp_path: Path, here: Any, folder: Path) -> dict[tuple[str, float], float]:
    """Every quality of JPEG on every image, measured."""
    assert here("run", "codec=jpeg", "rate=range(1,101)", f"data=folder:{folder}", "run=all", *QUICK) == 0
    return {(row.image, row.rate): row.bpp for row in Store(tmp_path / "results/runs/all").read().rows.values()}


def test_targets_per_image(tmp_path: Path, rdpbench: Any, here: Any, images: Any) -> None:
    folder = images(2, size=(128, 160))  # on smaller ones JPEG's bytes do not rise at every step
    done = rdpbench("run", "codec=jpeg", "bpp=0.9,900", f"data=folder:{folder}", *QUICK, code=0)
    rows, table = rows_of(tmp_path), bpp_table(tmp_path, here, folder)
    assert sorted((row.status, row.target_bpp) for row in rows) == [("ok", 0.9)] * 2 + [("out_of_range", 900.0)] * 2
    for row in rows:
        if row.status == "ok":
            assert row.bpp == table[row.image, row.rate]
            best = min(abs(math.log(bpp / 0.9)) for (image, _), bpp in table.items() if image == row.image)
            assert abs(math.log(row.bpp / 0.9)) == pytest.approx(best)
            assert row.attempts > 3
        else:
            highest = max(bpp for (image, _), bpp in table.items() if image == row.image)
            assert row.error == (
                f"no setting of jpeg is within 10 % of 900 bpp for image {row.image}; "
                f"the nearest of 100 tried, quality 100, gives {highest:.4g}"
            )
            assert (row.bpp, row.rate, row.attempts) == (highest, 100, 100)
    assert "out of range: jpeg, target 900 bpp, image00" in done.stdout
    assert "(2 out of range)" in done.stdout
    again = rdpbench("run", "codec=jpeg", "bpp=0.9,900", f"data=folder:{folder}", *QUICK, code=0)
    assert "nothing to do: all 4 tasks" in again.stdout


def test_targets_for_the_mean(tmp_path: Path, rdpbench: Any, here: Any, images: Any) -> None:
    folder = images(3)
    line = ["run", "codec=jpeg,webp", "bpp=2.5", "search=dataset", f"data=folder:{folder}", *QUICK]
    done = rdpbench(*line, code=0)
    told = next(text for text in done.stdout.splitlines() if "2.5 bpp →" in text)
    table = bpp_table(tmp_path, here, folder)
    means = {rate: math.fsum(bpp for (_, other), bpp in table.items() if other == rate) / 3 for rate in range(1, 101)}
    best = min(means, key=lambda rate: abs(math.log(means[rate] / 2.5)))
    assert told == f"jpeg on folder-pictures: 2.5 bpp → setting {best}, {means[best]:.4f} bpp"
    assert "out of range: no setting of webp" in done.stdout or "webp on folder-pictures: 2.5 bpp →" in done.stdout
    again = rdpbench(*line, code=0)
    assert "nothing to do" in again.stdout


def test_a_codec_without_a_rate_cannot_be_searched(rdpbench: Any, images: Any, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        "class One:\n    def encode(self, image, side): ...\n    def decode(self, data): ...\n"
    )
    done = rdpbench("run", "codec=./one.py:One", "bpp=1", f"data=folder:{images(1)}", *QUICK, code=2)
    assert "codec 'One' has a single rate point; leave out rate= and bpp=" in done.stderr


def test_a_plan_of_a_search_over_the_dataset_says_why_not(rdpbench: Any, images: Any) -> None:
    line = ["codec=jpeg", "bpp=1", f"data=folder:{images(1)}"]
    assert "search=dataset decides" in rdpbench("plan", *line, "search=dataset", code=2).stderr
    assert json.loads(rdpbench("plan", *line, "--json", code=0).stdout)["left"] == 1
