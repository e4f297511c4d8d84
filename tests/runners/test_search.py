"""Searching the native setting for a target rate: the nearest there is, or out of range; never extrapolated."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdpbench.codecs.contract import Rate
from rdpbench.results.store import Store
from rdpbench.runners.search import count, search, settings

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


@given(axes, st.lists(rates, min_size=1, max_size=20), rates)
def test_nothing_is_nearer(axis: Rate, values: list[float], target: float) -> None:
    table = table_of(axis, values)
    calls: list[float] = []

    def measure(setting: float) -> float:
        calls.append(setting)
        return table[setting]

    found = search(axis, target, measure)
    assert len(calls) == len(set(calls)) == found.attempts <= math.ceil(math.log2(count(axis))) + 2
    assert all(axis.low <= axis.check("synthetic", setting) <= axis.high for setting in calls)
    if target < min(table.values()) or target > max(table.values()):
        assert found.setting is None
        assert found.bpp in (min(table.values()), max(table.values()))
        return
    assert found.setting is not None
    assert table[found.setting] == found.bpp
    nearest = min(abs(math.log(bpp / target)) for bpp in table.values())
    assert abs(math.log(found.bpp / target)) == pytest.approx(nearest)


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
    assert found.setting is not None
    # A step of the axis moves the rate by this much where it is steepest.
    steepest = max(
        abs(math.log(measure(settings(axis)(k + 1)) / measure(settings(axis)(k)))) for k in (0, count(axis) - 2)
    )
    assert abs(math.log(found.bpp / target)) <= max(0.002, steepest)


@pytest.mark.parametrize("target", [math.nextafter(1.0, 0), math.nextafter(2.0, 3)])
def test_just_outside_is_out_of_range(target: float) -> None:
    assert search(Rate("q", 0, 10), target, lambda q: 1 + q / 10).setting is None
    assert search(Rate("q", 0, 10, rises=False), target, lambda q: 2 - q / 10).setting is None


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
            assert f"comes no nearer than {highest:.4g}" in row.error
            assert row.bpp is None
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
    assert told == f"jpeg on folder: 2.5 bpp → setting {best}, {means[best]:.4f} bpp"
    assert "out of range: webp" in done.stdout or "webp on folder: 2.5 bpp →" in done.stdout
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
