"""From rows to points: means, intervals, what is counted and what is left out."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from rdpbench.figures.command import by_tag
from rdpbench.gate.curves import measure
from rdpbench.registry import source_now
from rdpbench.results.stats.bootstrap import FINE, SMALL, shares
from rdpbench.results.stats.current import gather, of_store
from rdpbench.results.stats.points import Points, point_key
from rdpbench.results.stats.summary import at_rate, common_rates, compared, frame, summarise, tidy, with_interval
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.keys import definition, forget
from rdpbench.results.store.schema import Member, Row, Score, SetScore
from rdpbench.results.tables import measured


def row(image: int, bpp: float | None = 1.0, **changes: Any) -> Row:
    plain = {field.name: "" if "str" in str(field.type) or "Status" in str(field.type) else 1 for field in fields(Row)}
    made = {"codec": "jpeg", "dataset": "set", "dataset_size": 3, "protocol": "as-is", "rate_field": "quality"}
    made |= {"rate": 30.0, "target_bpp": None, "seed": 0, "image": f"image{image}", "status": "ok", "bpp": bpp}
    made |= changes
    key = "/".join(str(made[name]) for name in ("codec", "dataset", "rate", "target_bpp", "seed", "image"))
    return replace(Row(**plain), **{"task_key": key, **made})


def score(of: Row, value: float | None, metric: str = "psnr") -> Score:
    return Score(f"{of.task_key}/{metric}", of.task_key, metric, value, "" if value is not None else "refused")


def frame_of(rows: list[Row], values: list[float | None], metric: str = "psnr") -> pd.DataFrame:
    return summarise(rows, [score(one, value, metric) for one, value in zip(rows, values, strict=True)], [metric])


def point(rows: list[Row], values: list[float | None], metric: str = "psnr") -> Any:
    frame = frame_of(rows, values, metric)
    assert len(frame) == 1
    return frame.iloc[0]


def test_means_are_over_images() -> None:
    rows = [row(0, 0.5), row(1, 1.5), row(2, 4.0)]
    found = point(rows, [30.0, 32.0, 40.0])
    assert (found["n"], found["bpp"], found["value"]) == (3, 2.0, 34.0)
    assert not found["partial"]
    assert found["unit"] == "dB"
    assert found["bpp_lo"] < 2 < found["bpp_hi"]
    assert found["value_lo"] < 34 < found["value_hi"]


@given(st.lists(st.floats(-1e6, 1e6), min_size=SMALL, max_size=30))
def test_the_interval_is_the_expanded_bootstrap(values: list[float]) -> None:
    """Against the definition, with ten times the resamples at which statistics are evaluated."""
    array = np.array(values)
    mean, low, high = with_interval(array)
    picks = np.random.default_rng(2026).integers(0, len(values), (FINE, len(values)))
    means = np.sort(array[picks].mean(axis=1))
    spread = 1e-9 * (1 + np.abs(array).max())
    assert mean == pytest.approx(sum(values) / len(values), abs=spread)

    def percentile(q: float) -> float:
        place = q * (FINE - 1)
        below = math.floor(place)
        return float(means[below] + (place - below) * (means[min(below + 1, FINE - 1)] - means[below]))

    below, above = shares(len(values))
    assert low == pytest.approx(percentile(below), abs=spread)
    assert high == pytest.approx(percentile(above), abs=spread)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=SMALL - 1))
def test_the_interval_of_few_images_is_student_s(values: list[float]) -> None:
    """The interval of every textbook: mean and t times the standard error."""
    mean, low, high = with_interval(np.array(values))
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    spread = 1e-7 * (1 + max(map(abs, values)))
    assert (mean - half, mean + half) == pytest.approx((low, high), abs=spread)


def test_one_image_has_no_interval() -> None:
    mean, low, high = with_interval(np.array([3.0]))
    assert mean == 3
    assert math.isnan(low)
    assert math.isnan(high)


def test_fewer_images_are_marked() -> None:
    found = point([row(0), row(1)], [30.0, 31.0])
    assert found["partial"]
    assert (found["n"], found["dataset_size"]) == (2, 3)


def test_failed_and_out_of_range_are_counted_and_not_averaged() -> None:
    rows = [row(0, 1.0, target_bpp=1.0), row(1, None, target_bpp=1.0, status="error")]
    rows.append(row(2, None, target_bpp=1.0, status="out_of_range"))
    found = point(rows, [30.0, None, None])
    assert (found["n"], found["failed"], found["out_of_range"], found["partial"]) == (1, 1, 1, True)
    assert (found["bpp"], found["value"]) == (1.0, 30.0)


def test_all_failed_is_a_line_without_numbers() -> None:
    found = point([row(0, None, status="error")], [None])
    assert (found["n"], found["failed"]) == (0, 1)
    assert math.isnan(found["bpp"])
    assert math.isnan(found["value"])


def test_lossless_images_are_left_out_and_counted() -> None:
    found = point([row(0), row(1), row(2)], [30.0, math.inf, 34.0])
    assert (found["value"], found["n_scored"], found["infinite"]) == (32.0, 3, 1)
    found = point([row(0), row(1)], [math.inf, math.inf])
    assert (found["value"], found["infinite"]) == (math.inf, 2)


def test_images_that_a_metric_refused_are_counted() -> None:
    found = point([row(0), row(1), row(2)], [0.9, None, 0.7], "ms-ssim")
    assert found["n_scored"] == 2
    assert found["value"] == pytest.approx(0.8)


def test_pooled_psnr_is_of_the_mean_error() -> None:
    """Its rows hold decibels; the mean is of their squared errors, and so are the ends of the interval."""
    errors = [10.0, 40.0, 100.0]
    found = point([row(k) for k in range(3)], [10 * math.log10(255**2 / mse) for mse in errors], "psnr-pooled")
    assert found["value"] == pytest.approx(10 * math.log10(255**2 / 50))
    # Of three images the interval is Student's, of the decibels without each: in errors it would begin below zero.
    without = [10 * math.log10(255**2 / of) for of in (70, 55, 25)]
    half = 4.302653 * math.sqrt(2 / 3 * sum((one - sum(without) / 3) ** 2 for one in without))
    assert [found["value_lo"], found["value_hi"]] == pytest.approx(
        [found["value"] - half, found["value"] + half], rel=1e-6
    )
    many = [row(k, dataset_size=30) for k in range(30)]
    errors = np.random.default_rng(0).lognormal(3, 1, 30).tolist()
    found = point(many, [10 * math.log10(255**2 / mse) for mse in errors], "psnr-pooled")
    by_name = sorted(range(30), key=lambda k: many[k].image)
    _, low, high = with_interval(np.array(errors)[by_name])
    assert [found["value_lo"], found["value_hi"]] == pytest.approx(
        [10 * math.log10(255**2 / end) for end in (high, low)], abs=0.01
    )


def test_intervals_stay_where_values_can_be() -> None:
    """Rates are above zero, MS-SSIM is 1 at most, whatever three images say."""
    rows = [row(0, 0.02), row(1, 0.5), row(2, 4.0)]
    found = point(rows, [0.70, 0.999, 0.9999], "ms-ssim")
    assert 0 < found["bpp_lo"] < found["bpp"] < found["bpp_hi"]
    assert 0 < found["value_lo"] < found["value"] < found["value_hi"] < 1


def test_seeds_of_an_image_are_not_images() -> None:
    rows = [row(image, 1.0 + image, seed=seed) for image in (0, 1, 2) for seed in (0, 1)]
    found = point(rows, [30.0, 32.0, 40.0, 42.0, 50.0, 52.0])
    assert found["n"] == 3
    assert found["value"] == 41.0
    usual = with_interval(np.array([31.0, 41.0, 51.0]))
    assert [found["value"], found["value_lo"], found["value_hi"]] == pytest.approx(usual)


def test_the_spread_of_seeds_stands_beside_the_mean() -> None:
    """Of each seed the mean over images; an image that a seed lacks is in no seed's mean."""
    rows = [row(image, 1.0 + seed, seed=seed) for image in (0, 1, 2) for seed in (0, 1, 3)]
    values: list[float | None] = [30.0, 32.0, 31.0, 40.0, 44.0, 41.0, 50.0, 50.0, None]
    found = point(rows, values)
    assert found["seeds"] == 3
    assert found["value_seed_sd"] == pytest.approx(np.std([35, 38, 36], ddof=1))
    assert found["bpp_seed_sd"] == pytest.approx(np.std([1, 2, 4], ddof=1))
    alone = point([row(0), row(1)], [30.0, 31.0])
    assert alone["seeds"] == 1
    assert math.isnan(alone["value_seed_sd"])
    assert math.isnan(alone["bpp_seed_sd"])
    none = point([row(0, seed=0), row(1, seed=1)], [30.0, 31.0])
    assert math.isnan(none["value_seed_sd"]), "the seeds have no image in common"


def test_the_spread_of_a_pooled_psnr_is_of_its_decibels() -> None:
    rows = [row(image, seed=seed) for seed in (0, 1) for image in (0, 1)]
    found = point(rows, [10 * math.log10(255**2 / mse) for mse in (10, 30, 40, 60)], "psnr-pooled")
    decibels = [10 * math.log10(255**2 / mse) for mse in (20, 50)]
    assert found["value_seed_sd"] == pytest.approx(np.std(decibels, ddof=1))


def curve(codec: str, points: dict[float, float], **changes: Any) -> tuple[list[Row], list[float | None]]:
    rows, values = [], []
    for number, (bpp, value) in enumerate(points.items()):
        rows += [row(image, bpp, codec=codec, rate=float(number), **changes) for image in range(3)]
        values += [value] * 3
    return rows, list(values)


def test_points_lie_in_the_order_of_their_rate() -> None:
    frame = frame_of(*curve("jpeg", {2.0: 40.0, 0.5: 30.0, 1.0: 35.0}))
    assert list(frame["bpp"]) == [0.5, 1.0, 2.0]


def test_interpolation_is_linear_in_log_rate() -> None:
    frame = frame_of(*curve("jpeg", {0.125: 30.0, 0.5: 34.0, 2.0: 40.0}))
    assert at_rate(frame, 0.25)["value"].tolist() == pytest.approx([32.0])
    assert at_rate(frame, 1.0)["value"].tolist() == pytest.approx([37.0])
    assert at_rate(frame, 0.125)["value"].tolist() == [30.0]
    assert at_rate(frame, 2.0)["value"].tolist() == [40.0]


@pytest.mark.parametrize("rate", [math.nextafter(0.125, 0), math.nextafter(2.0, 3), 0.001, 100.0])
def test_nothing_is_extrapolated(rate: float) -> None:
    assert at_rate(frame_of(*curve("jpeg", {0.125: 30.0, 0.5: 34.0, 2.0: 40.0})), rate).empty


def test_one_point_is_no_curve() -> None:
    assert at_rate(frame_of(*curve("jpeg", {0.4: 34.0})), 0.4).empty


def test_common_rates_are_reached_by_two_codecs() -> None:
    first, second = curve("jpeg", {0.15: 30.0, 1.0: 40.0}), curve("webp", {0.05: 30.0, 0.5: 40.0})
    assert common_rates(frame_of(first[0] + second[0], first[1] + second[1])) == [0.2, 0.4]
    assert common_rates(frame_of(*first)) == []


def points_of(rows: list[Row], values: list[float | None], metric: str = "psnr") -> Points:
    return gather(rows, [score(one, value, metric) for one, value in zip(rows, values, strict=True)])


def test_rate_and_value_are_over_the_same_images() -> None:
    """An image that a metric refused, or that is lossless, is in neither; what was coded in all stands beside them."""
    found = point([row(0, 1.0), row(1, 2.0), row(2, 6.0)], [30.0, 32.0, None])
    assert (found["bpp"], found["value"], found["bpp_all"], found["n"], found["n_scored"]) == (1.5, 31.0, 3.0, 3, 2)
    found = point([row(0, 1.0), row(1, 2.0), row(2, 6.0)], [30.0, 32.0, math.inf])
    assert (found["bpp"], found["value"], found["bpp_all"], found["infinite"]) == (1.5, 31.0, 3.0, 1)


def test_a_lossless_image_is_in_the_mean_error() -> None:
    found = point([row(0, 1.0), row(1, 2.0)], [10 * math.log10(255**2 / 10), math.inf], "psnr-pooled")
    assert (found["bpp"], found["infinite"]) == (1.5, 0)
    assert found["value"] == pytest.approx(10 * math.log10(255**2 / 5))


def test_what_is_infinitely_bad_is_no_value() -> None:
    found = point([row(0), row(1), row(2)], [30.0, -math.inf, 34.0])
    assert (found["value"], found["n_scored"], found["infinite"]) == (32.0, 2, 0)
    found = point([row(0), row(1)], [0.1, math.inf], "lpips/alex")
    assert (found["value"], found["n_scored"]) == (0.1, 1)


def test_the_pooled_rate_is_of_all_bits_over_all_pixels() -> None:
    rows = [row(0, 2.0, height=10, width=10), row(1, 0.5, height=30, width=10)]
    found = point(rows, [30.0, 32.0])
    assert (found["bpp"], found["bpp_pooled"]) == (1.25, 0.875)


def test_points_are_compared_over_the_images_that_all_have() -> None:
    """A codec that failed on one image, or whose metric refused one, must not win by it."""
    rows, values = curve("jpeg", {0.125: 30.0, 1.0: 40.0})
    values = [value + k % 3 if value else value for k, value in enumerate(values)]
    fast_rows, fast_values = curve("fast", {0.125: 35.0, 1.0: 45.0})
    fast_rows[2] = replace(fast_rows[2], status="error", bpp=None)
    fast_values[2] = None
    lines, notes = compared(points_of(rows + fast_rows, values + fast_values), ["psnr"])
    assert lines["images"].nunique() == 1
    assert list(zip(lines["codec"], lines["n"], lines["value"], strict=True)) == [
        ("jpeg", 2, 30.5),
        ("jpeg", 2, 40.5),
        ("fast", 2, 35.0),
        ("fast", 2, 45.0),
    ]
    assert list(notes) == ["psnr: compared over the 2 of 3 images that all have"]


def test_a_short_trial_does_not_narrow_the_comparison_of_others() -> None:
    rows, values = curve("jpeg", {0.125: 30.0, 1.0: 40.0})
    lines, notes = compared(points_of([*rows, row(0, 0.3, codec="trial")], [*values, 50.0]), ["psnr"])
    assert set(lines["codec"]) == {"jpeg"}
    assert (lines["n"] == 3).all()
    assert list(notes) == ["psnr: trial, quality 30, is not compared: 1 of 3 images"]


def test_of_a_class_in_two_environments_nobody_knows_what_the_other_one_has(tmp_path: Path) -> None:
    """The one at hand counts where it is installed and came last; if it changed since, the note says what is known."""
    (tmp_path / "mine.py").write_text("class Mine: pass")
    use = f"{tmp_path}/mine.py:Mine"
    coder = json.dumps({"source_sha256": source_now("codec", use)})
    said: dict[str, Any] = {"coder": coder, "files": "{}"}
    apart = [row(k, 1.0, session="1", task_key=f"a{k}", use=f'{use}@{{"python": "/p"}}', **said) for k in range(2)]
    here = [row(k, 2.0, session="2", task_key=f"h{k}", use=use, **said) for k in range(2)]
    assert gather([*apart, *here], []).rows == here
    (tmp_path / "mine.py").write_text("class Mine: changed = True")
    forget()
    both = gather([*apart, *here], [])
    assert (both.rows, "it cannot be told which of them is installed" in both.notes[0]) == ([], True)
    assert gather([*here, *(replace(one, session="3") for one in apart)], []).rows[0].task_key == "a0"


def test_editions_of_a_codec_are_never_mixed() -> None:
    """Neither is installed: the one with all images stands; where both have them, there is no number, but a note."""
    packages = {f"package {number}": "1.0" for number in range(200)}
    coders = [json.dumps({**packages, "lib": lib}) for lib in "12"]
    old = [row(k, 1.0, session="1", task_key=f"old{k}", coder=coders[0]) for k in range(3)]
    new = [row(k, 2.0, session="2", task_key=f"new{k}", coder=coders[1]) for k in range(3)]
    other = [row(k, 3.0, session="1", codec="webp", task_key=f"webp{k}") for k in range(3)]
    assert gather([*old, *new[:2], *other], []).rows == [*old, *other]
    assert gather([*old[:2], *new, *other], []).rows == [*new, *other]
    both = gather([*old, *new, *other], [])
    assert both.rows == other
    assert "none of them is installed: lib 1; lib 2. No number" in both.notes[0]  # and no word of what is equal
    mixed = gather([*old, *(replace(one, coder='{"lib": "2"}') for one in new)], [])
    assert len(mixed.notes[0]) < 300
    neither = gather([*old[:2], *new[1:]], [])
    assert neither.rows == []


def test_a_curve_mixes_no_versions_of_a_codec() -> None:
    """Where none is installed the newest stands; a checkpoint for each rate is no other version."""

    def along(*coders: str) -> tuple[list[float], str]:
        rows = [
            row(
                k,
                rate=10.0 * n,
                session=str(n),
                task_key=f"{n} {k}",
                coder=json.dumps({"lib": lib, "weights": f"{n}" * 64}),
            )
            for n, lib in enumerate(coders)
            for k in range(2)
        ]
        points = gather(rows, [])
        return [point.setting.rate or 0.0 for point in points.points], " ".join(points.notes)

    assert along("1", "1", "1") == ([0.0, 10.0, 20.0], "")
    rates, note = along("1", "2", "2")
    assert rates == [10.0, 20.0]
    assert "quality 0: coded by another version" in note
    assert along("1", "1", "2")[0] == [20.0]


def test_native_settings_and_targets_of_images_are_two_curves() -> None:
    """A line through both would be of neither; where there is one kind alone, it has the codec's own label."""
    native = [row(k, 1.0, task_key=f"n{k}") for k in range(2)]
    targets = [row(k, 2.0, task_key=f"t{k}", target_bpp=2.0, rate=k) for k in range(2)]
    points = gather([*native, *targets, *(replace(one, codec="b", task_key=f"b{one.image}") for one in targets)], [])
    assert [point.codec for point in points.points] == ["jpeg", "jpeg[search=image]", "b"]
    assert {line.codec for line in points.rows} == {"jpeg", "jpeg[search=image]", "b"}
    assert set(tidy(points, [])["codec"]) == set(frame(points, [])["codec"]) == {"jpeg", "jpeg[search=image]", "b"}


def test_editions_of_a_metric_are_never_mixed() -> None:
    """The installed one, for all points alike; else the one that all images have; else none, and both are named."""
    rows = [row(k, rate=rate) for rate in (10.0, 20.0) for k in range(3)]

    def scores(edition: str, value: float, of: list[Row]) -> list[Score]:
        return [Score(f"{one.task_key}/{edition}", one.task_key, "psnr", value, definition=edition) for one in of]

    now = definition("psnr")
    found = gather(rows, [*scores("old", 1.0, rows), *scores(now, 35.0, rows[:2])])
    assert [found.value(one, "psnr") for one in rows] == [35.0, 35.0, None, None, None, None]
    assert "another version than" in found.notes[0]
    found = gather(rows, [*scores("old", 1.0, rows), *scores("older", 2.0, rows[:2])])
    assert [found.value(one, "psnr") for one in rows] == [1.0] * 6
    found = gather(rows, [*scores("old", 1.0, rows), *scores("older", 2.0, rows)])
    assert [found.value(one, "psnr") for one in rows] == [None] * 6
    assert "old of 6 images" in found.notes[0]
    assert "older of 6 images" in found.notes[0]


def test_scores_against_captions_that_changed_are_not_mixed() -> None:
    rows = [row(k) for k in range(3)]
    old = [Score(f"old{k}", one.task_key, "psnr", 1.0, definition="1", session="1") for k, one in enumerate(rows)]
    new = [Score(f"new{k}", one.task_key, "psnr", 2.0, definition="1", session="2") for k, one in enumerate(rows[:2])]
    found = gather(rows, [*new, *old])
    assert [found.value(one, "psnr") for one in rows] == [2.0, 2.0, None]


def test_a_changed_image_replaces_the_one_of_its_name() -> None:
    rows = [
        row(0, 1.0, session="1", task_key="old"),
        row(1, 1.0, session="1"),
        row(0, 2.0, session="2", task_key="new"),
    ]
    assert gather(rows, []).rows == rows[1:]


def test_images_of_one_name_and_other_pixels_are_not_compared() -> None:
    first = [row(k, codec="a", pixel_sha256=f"{k}") for k in range(3)]
    second = [row(k, codec="b", pixel_sha256="new" if k == 0 else f"{k}") for k in range(3)]
    lines, _ = compared(points_of(first + second, [30.0, 31, 32, 40, 41, 42]), ["psnr"])
    assert lines["value"].tolist() == [31.5, 41.5]


def stored(rows: list[Row]) -> list[Row]:
    contents = Contents({one.task_key: one for one in rows})
    return of_store(contents).rows


def test_two_folders_of_one_name_stay_two() -> None:
    first = [row(k, manifest="m1", root="/x/imgs", session="1", task_key=f"x{k}") for k in range(2)]
    second = [row(k + 2, manifest="m2", root="/y/imgs", session="2", task_key=f"y{k}") for k in range(2)]
    points = of_store(Contents({one.task_key: one for one in first + second})).points
    assert [len(point.rows) for point in points] == [2, 2]
    assert len({point.where for point in points}) == 2


def test_an_image_that_was_removed_from_a_folder_is_in_no_mean() -> None:
    old = [row(k, manifest="m1", root="/x", session="1", task_key=f"old{k}") for k in range(3)]
    new = [row(k, manifest="m2", root="/x", session="2", task_key=f"new{k}") for k in range(2)]
    assert stored(old + new) == new
    # Another curve was not measured on the new state: it stays what it was, apart.
    webp = [row(k, manifest="m1", root="/x", session="1", codec="webp", task_key=f"webp{k}") for k in range(3)]
    assert stored(old + webp + new) == [*webp, *new]


def test_a_copy_of_a_folder_is_not_gone_with_the_state_of_the_other() -> None:
    """Two folders with the same files have one manifest; one of them changes, the other does not."""
    first = [row(k, manifest="m1", root="/x", session="1") for k in range(3)]
    changed = [row(k, manifest="m2", root="/x", session="3", task_key=f"new{k}") for k in range(2)]
    for session in "24":
        contents = Contents({one.task_key: one for one in first + changed})
        for one in first:
            place = {"codec": "jpeg", "dataset": "set", "manifest": "m1", "root": "/y", "session": session}
            said = {"dataset_size": 3, "manifest_kind": "made", "tags": "", "caption_source": ""}
            contents.members[one.task_key] = Member(one.task_key, one.task_key, **place, **said)
        points = of_store(contents).points
        assert sorted((point.where.manifest, len(point.rows)) for point in points) == [("m1", 3), ("m2", 2)]


def test_two_folders_with_the_same_files_count_a_row_once() -> None:
    first = [row(k, root="/x", status="error" if k == 0 else "ok") for k in range(3)]
    found = gather(first + [replace(one, root="/y") for one in first], [])
    assert [len(point.rows) for point in found.points] == [3]


def test_the_pixels_of_an_image_are_the_newest_for_all_seeds() -> None:
    old = [row(0, 1.0, seed=seed, session="1", pixel_sha256="old", task_key=f"old{seed}") for seed in (0, 1)]
    new = row(0, 2.0, seed=1, session="2", pixel_sha256="new", task_key="new1")
    assert gather([*old, new], []).rows == [new]


def shared() -> tuple[list[Row], list[Row]]:
    """A set, and one that has its first two tasks and others."""
    first = [row(k) for k in range(3)]
    part = [replace(one, dataset="part", manifest="m2") for one in first[:2]]
    return first, part


def test_editions_are_chosen_set_by_set_where_sets_share_tasks() -> None:
    """The old edition is all that the whole set has; of the part of it both are there, and that has no number."""
    whole, part = shared()
    old = [Score(f"old{k}", one.task_key, "psnr", 1.0, definition="1-old") for k, one in enumerate(whole)]
    older = [Score(f"older{k}", one.task_key, "psnr", 2.0, definition="1-older") for k, one in enumerate(part)]
    for rows in (whole + part, part + whole):
        found = gather(rows, [*old, *older])
        assert [found.value(one, "psnr") for one in whole] == [1.0, 1.0, 1.0]
        assert [found.value(one, "psnr") for one in part] == [None, None]
        told = "2 versions of it are stored, and none of them is installed: 1-old of 2 images; 1-older of 2 images"
        assert [note for note in found.notes if "No number" in note] == [f"psnr on part: {told}. No number"]


def test_images_are_named_set_by_set_where_sets_share_tasks() -> None:
    """In one set an image has two states; in the other it has one, and all codecs have it."""
    whole, part = shared()
    whole.append(replace(whole[0], codec="webp", task_key="other", pixel_sha256="other"))
    part.append(replace(part[0], codec="webp", task_key="same", seed=0))
    for rows in (whole + part, part + whole):
        found = gather(rows, [])
        assert [found.name(one) for one in part] == ["image0", "image1", "image0"]
        assert len({found.name(one) for one in whole}) == 4


def test_editions_of_a_metric_of_sets() -> None:
    """Those of points that are gone do not count; where it cannot be told which is current, a note says so."""
    rows = [row(k, reconstruction_sha256=f"{rate} {k}", rate=rate) for rate in (10.0, 20.0) for k in range(3)]
    keys = {rate: point_key("fid/clean", [one for one in rows if one.rate == rate]) for rate in (10.0, 20.0)}

    def scored(edition: str, key: str) -> SetScore:
        told = {"reliable": True, "reason": "", "extra": "{}", "reference": "originals", "time": "1"}
        return SetScore(f"{edition}{key}", key, "fid/clean", 3, 5.0, None, None, None, definition=edition, **told)

    def values(*scores: SetScore) -> list[float]:
        return frame(gather(rows, [], scores), ["fid/clean"])["value"].fillna(0).tolist()

    one = [scored("a", keys[10.0]), scored("a", keys[20.0])]
    assert values(*one, scored("b", "of a point that is gone")) == [5.0, 5.0]
    assert values(*one, scored("b", keys[10.0])) == [5.0, 5.0]
    assert values(scored("a", keys[10.0]), scored("b", keys[20.0])) == [0.0, 0.0]
    assert (
        "fid/clean on set: 2 versions"
        in gather(rows, [], [*one, scored("b", keys[10.0]), scored("b", keys[20.0])]).notes[0]
    )


def test_the_rate_of_lossless_images_is_of_the_seeds_that_were_scored() -> None:
    found = point([row(0, 1.0, seed=0), row(0, 3.0, seed=1)], [math.inf, None])
    assert (found["value"], found["bpp"], found["bpp_all"]) == (math.inf, 1.0, 2.0)


def test_seeds_without_an_error_have_no_spread() -> None:
    rows = [row(k, 1.0 + seed, seed=seed) for k in range(2) for seed in (0, 1)]
    assert math.isnan(point(rows, [math.inf] * 4, "psnr-pooled")["value_seed_sd"])


def test_the_gate_averages_the_errors_of_seeds() -> None:
    found = gather([row(0, seed=0), row(0, seed=1)], [])
    scores = [score(one, value, "psnr-pooled") for one, value in zip(found.rows, (20.0, math.inf), strict=True)]
    _, images = measure(gather(found.rows, scores), ["psnr-pooled"])
    assert images[0].values["psnr-pooled"] == pytest.approx(20 + 10 * math.log10(2))


def test_tables_split_by_tag() -> None:
    tags = ["photo", "photo,jpeg-source", "scan"]
    rows = [row(number, tags=tag) for number, tag in enumerate(tags)]
    scores = [score(one, value) for one, value in zip(rows, (30.0, 40.0, 90.0), strict=True)]
    tables = {table.caption.split(":")[0]: table for table in by_tag(gather(rows, scores), ["psnr"])}
    assert list(tables) == ["set, jpeg-source", "set, photo", "set, scan"]
    photo = [cell.text for cell in tables["set, photo"].lines[0]]
    assert photo[2] == "2", "all images of the tag are there, so the point is not partial"
    assert photo[-1].startswith("35.00")


def test_tables_show_the_spread_of_seeds() -> None:
    rows = [row(image, 1.0 + seed, seed=seed) for seed in (0, 1) for image in (0, 1, 2)]
    made = measured(frame_of(rows, [30.0, 32.0, 34.0, 31.0, 33.0, 35.0]))
    assert made.lines[0][3].text == "1.5000 ±0.0000 s 0.7071"
    assert made.lines[0][4].text.endswith(" s 0.71")
    assert made.notes == (
        "s: standard deviation over the seeds of a stochastic codec, which the intervals do not hold",
    )
    assert " s " not in measured(frame_of([row(0), row(1)], [30.0, 31.0])).lines[0][4].text


def test_values_of_sets_of_other_images_are_not_averaged() -> None:
    """A distance depends on the number of its images: that of a seed which lacks one is another quantity."""
    seeds = [[row(k, seed=seed, reconstruction_sha256=f"{seed}{k}") for k in range(3)] for seed in (0, 1)]
    told: dict[str, Any] = {"reliable": True, "reason": "", "extra": "{}", "reference": "originals", "time": "1"}

    def line(*there: list[Row]) -> Any:
        keys = [(point_key("fid/clean", rows), len(rows)) for rows in there]
        sets = [
            SetScore(k, k, "fid/clean", size, 5.0 + n, None, None, None, **told) for n, (k, size) in enumerate(keys)
        ]
        return frame(gather([one for rows in there for one in rows], [], sets), ["fid/clean"]).iloc[0]

    assert line(*seeds)["value"] == 5.5
    lacking = line(seeds[0], seeds[1][:2])
    assert math.isnan(lacking["value"])
    assert lacking["note"].startswith("its seeds lack different images")
