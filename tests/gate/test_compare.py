"""Stored curves as files, and two of them compared; no command, nothing is coded."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rdpbench.errors import ConfigError
from rdpbench.gate.compare import Comparison, Finding, Tolerance, compare, junit, markdown, read_tolerances
from rdpbench.gate.curves import StoredCurve, StoredImage, StoredPoint, curve_path, load, measure, write
from rdpbench.paths import conf_folder
from rdpbench.results.stats.current import gather
from rdpbench.results.stats.points import point_key
from rdpbench.results.store.schema import Row, SetScore
from rdpbench.setting import Setting


def point(rate: float = 30.0, **changes: Any) -> StoredPoint:
    return replace(StoredPoint(Setting("quality", rate), 2, 2, "as-is", 0.5, {"psnr": 30.0}, {}, "aa"), **changes)


def test_bounds_may_be_a_reason() -> None:
    tolerances = read_tolerances(conf_folder() / "regress.yaml")
    rates = (10.0, 20.0, 30.0, 40.0)
    points = [point(rate, bpp=rate / 40, values={"edges/canny-f1": 0.5 + rate / 100}) for rate in rates]
    moved = [replace(one, bpp=one.bpp * 1.0009) for one in points]
    (drift,) = compare(StoredCurve(tuple(points)), StoredCurve(tuple(moved)), tolerances).drifts
    assert drift.rate.reason == tolerances.bd_rate["edges/canny-f1"]
    assert math.isnan(drift.rate_bound)
    assert math.isfinite(drift.metric_delta.value)
    assert drift.metric_bound == pytest.approx(0.0005 * 0.75)
    assert drift.beyond == ()


def test_only_shared_points_make_a_delta() -> None:
    """A point that is missing is a finding of its own; the others have not moved."""
    tolerances = read_tolerances(conf_folder() / "regress.yaml")
    points = [point(float(q), bpp=q / 40, values={"psnr": 20.0 + q**0.5}) for q in (10, 20, 30, 40, 50)]
    found = compare(StoredCurve(tuple(points)), StoredCurve(tuple(points[:2] + points[3:])), tolerances)
    assert [one.where for one in found.findings] == ["quality 30"]
    assert (found.drifts[0].rate.value, found.drifts[0].metric_delta.value) == (0, 0)


def test_what_was_found_before_an_error_is_told() -> None:
    verdict = Comparison((Finding("quality 30", "psnr: moved"),), (), (), ("quality 30",), "jpeg", "set", Path("x.csv"))
    root = ET.fromstring(junit([verdict], "two\nlines"))
    assert [suite.get("name") for suite in root] == ["rdpbench", "set/jpeg"]
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("4", "1", "1")
    text = markdown([verdict], "two\nlines")
    assert "    two\n    lines\n" in text
    assert "| jpeg on set | quality 30 | psnr: moved |" in text


def test_infinite_and_missing_values_survive_a_file_and_compare(tmp_path: Path) -> None:
    """Lossless images have infinite PSNR, refused ones none; a mean over other images is a finding of its own."""
    tolerances = read_tolerances(conf_folder() / "regress.yaml")
    values = {"psnr": math.inf, "ms-ssim": math.nan, "flip": 0.25}
    images = tuple(StoredImage(Setting(""), name, "00", "11", 0.1, values) for name in ("a,b\n\"c'", "d", "e"))
    only = StoredPoint(Setting(""), 3, 3, "as-is", 1 / 3, values, {"ms-ssim": 0, "flip": 2}, "aa")
    curve = StoredCurve((replace(only, bpp=0.33333333),), images, {"seeds": [0]})
    path = curve_path(tmp_path, "my set/../x", ".hidden")
    assert path == tmp_path / "my_set_.._x" / "_hidden.csv"
    write(path, curve)
    again = load(path, "")
    assert repr(again.points) == repr(curve.points)
    assert repr(again.images) == repr(curve.images)
    found = compare(again, curve, tolerances)
    assert (found.findings, found.notes) == ((), ())
    other = replace(curve.points[0], averaged={"ms-ssim": 0, "flip": 3}, values={**values, "psnr": 99.0})
    texts = [finding.text for finding in compare(again, StoredCurve((other,), (), curve.origin), tolerances).findings]
    assert any("flip: stored as the mean of 2 images, now of 3" in text for text in texts)
    assert any(text.startswith("psnr: inf → 99") for text in texts)


def test_a_metric_of_sets_is_stored_and_compared(tmp_path: Path) -> None:
    """It has a value for each point and none for an image."""
    known: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__, "")
    known |= {"codec": "jpeg", "rate_field": "quality", "target_bpp": None, "seed": 0, "dataset": "set"}
    known |= {"dataset_size": 2, "protocol": "as-is", "status": "ok", "bpp": 0.5, "bits_kind": "file"}
    known |= {"height": 10, "width": 10}
    rows = [
        Row(**known | {"task_key": f"{image}/{rate}", "image": image, "rate": rate, "reconstruction_sha256": f"{rate}"})
        for rate in (10.0, 20.0)
        for image in ("a", "b")
    ]
    at = [
        SetScore(f"{k}", point_key("fid/clean", of), "fid/clean", 2, 50.0 - k, 45.0, 55.0, None, True, "", "{}", "", "")
        for k, of in enumerate((rows[:2], rows[2:]))
    ]
    points, images = measure(gather(rows, [], at), ["fid/clean"])
    assert [one.values for one in points] == [{"fid/clean": 50.0}, {"fid/clean": 49.0}]
    assert all(math.isnan(one.values["fid/clean"]) for one in images)
    write(tmp_path / "jpeg.csv", StoredCurve(points, images))
    tolerances = read_tolerances(conf_folder() / "regress.yaml")
    assert compare(load(tmp_path / "jpeg.csv", ""), StoredCurve(points, images), tolerances).findings == ()
    worse, _ = measure(gather(rows, [], [replace(one, value=51.0) for one in at]), ["fid/clean"])
    (first, second) = compare(StoredCurve(points, images), StoredCurve(worse), tolerances).findings
    assert first.text.startswith("fid/clean: 50 → 51 (+1, +2 %), allowed 0.1 %")
    assert second.where == "quality 20"


def test_large_datasets_go_without_lines_per_image(tmp_path: Path) -> None:
    path = curve_path(tmp_path, "large", "jpeg")
    one = StoredImage(Setting("quality", 30.0), "a", "00", "11", 0.1, {"psnr": 30.0})
    write(path, StoredCurve((point(n=500),), (one,), {}))
    assert path.with_name("jpeg.images.csv").is_file()
    write(path, StoredCurve((point(n=501),), (one,), {}))
    assert not path.with_name("jpeg.images.csv").is_file()
    assert load(path, "").images == ()


def test_tolerances_add_up_and_bad_ones_are_refused(tmp_path: Path) -> None:
    assert Tolerance(0.5, 0.01).allows(100.0, 101.5)
    assert not Tolerance(0.5, 0.01).allows(100.0, 101.6)
    for odd in (math.nan, math.inf):
        assert not any(Tolerance(1e9, 1e9).allows(*pair) for pair in ((30.0, odd), (odd, 30.0), (-math.inf, odd)))
        assert Tolerance(0, 0).allows(odd, odd)
    assert read_tolerances(conf_folder() / "regress.yaml").of("a new one") == Tolerance(0, 0.001)
    path = tmp_path / "regress.yaml"
    for text in ("", "bpp: 3", "bpp: {absolute: -1, relative: 0}\nmetrics: {}\nbd: {}"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="both 0 or more"):
            read_tolerances(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match="is no YAML"):
        read_tolerances(path)
    path.write_text((conf_folder() / "regress.yaml").read_text() + "cpu_dependent: [mine]\n")
    with pytest.raises(ConfigError, match="cpu_dependent is no key"):
        read_tolerances(path)


@pytest.mark.parametrize("extra", ["bdd: {}", "bpp: {absolute: 0, relative: 0, relativ: 1}"])
def test_a_key_of_the_tolerances_that_nothing_reads_is_refused(tmp_path: Path, extra: str) -> None:
    key = extra.partition(":")[0]
    lines = (conf_folder() / "regress.yaml").read_text().splitlines()
    (tmp_path / "regress.yaml").write_text(
        "\n".join([*(line for line in lines if not line.startswith(f"{key}:")), extra])
    )
    with pytest.raises(ConfigError, match=r"'(bdd|relativ)' is none of"):
        read_tolerances(tmp_path / "regress.yaml")
    (tmp_path / "regress.yaml").write_text("\n".join([*lines, "bpp: {absolute: 9, relative: 9}"]))
    with pytest.raises(ConfigError, match="bpp is there twice"):
        read_tolerances(tmp_path / "regress.yaml")
