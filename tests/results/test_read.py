"""`rdpbench.read_results`: one frame of runs and published numbers, every column documented."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import rdpbench
from rdpbench.errors import ConfigError, UnknownName
from rdpbench.results.read import COLUMNS, kinds
from rdpbench.results.stats.summary import summarise
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: two codecs on three images, one of which MS-SSIM refuses; and one codec on two."""
    from PIL import Image as pil

    from rdpbench.cli import main

    folder = tmp_path_factory.mktemp("read")
    rng = np.random.default_rng(3)
    for name, sizes in (("three", (176, 176, 40)), ("two", (64, 64))):
        (folder / name).mkdir()
        for number, size in enumerate(sizes):
            coarse = pil.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            coarse.resize((size, size), pil.Resampling.BICUBIC).save(folder / name / f"i{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RDPBENCH_CACHE", str(folder / "cache"))
        common = ["workers=0", "verify=0", "figures=false"]
        first = ["run", "codec=jpeg,webp", "rate=30,80", "data=folder:three", "metrics=psnr,ms-ssim", *common]
        assert main(first) == 0
        assert main(["run", "codec=jpeg", "rate=50", "data=folder:two", "metrics=psnr", *common, "run=other"]) == 0
    return folder / "results/runs"


def test_a_line_for_each_point_and_metric(root: Path) -> None:
    frame = rdpbench.read_results("folder-three", root=root)
    assert list(frame.columns) == list(kinds("point"))
    assert len(frame) == 2 * 2 * 2
    assert set(frame["run"]) == {"folder-three"}
    assert set(frame["bits_kind"]) == {"file"}
    assert set(frame["source"]) == {"run folder-three"}
    assert frame["family"].tolist() == frame["metric"].tolist()
    by_metric = frame.groupby("metric")["n_scored"].unique()
    assert (by_metric["psnr"].tolist(), by_metric["ms-ssim"].tolist()) == ([3], [2])
    summary = pd.read_csv(root / "folder-three/tables/summary.csv", float_precision="round_trip")
    keys = ["codec", "rate", "metric"]
    stated = summary.set_index(keys)["value"].to_dict()
    assert frame.set_index(keys)["value"].to_dict() == pytest.approx(stated, rel=1e-14)


def test_a_line_for_each_image(root: Path) -> None:
    frame = rdpbench.read_results("folder-three", root=root, per="image")
    assert list(frame.columns) == list(kinds("image"))
    assert len(frame) == 2 * 2 * 3 * 2
    refused = frame[frame["value"].isna()]
    assert set(refused["image"]) == {"i2"}
    assert refused["metric_error"].str.contains("pixels").all()
    points = rdpbench.read_results("folder-three", root=root)
    of = frame[(frame["metric"] == "psnr") & (frame["codec"] == "webp")].groupby("rate")["value"].mean()
    stated = points[(points["metric"] == "psnr") & (points["codec"] == "webp")].set_index("rate")["value"]
    assert of.to_dict() == pytest.approx(stated.to_dict(), rel=1e-14)


@pytest.mark.parametrize("per", ["point", "image"])
def test_the_columns_that_are_named_alone(root: Path, per: Any) -> None:
    whole = rdpbench.read_results("folder-three", "other", root=root, per=per)
    named = ["value", "codec", "metric_error" if per == "image" else "note", "run"]
    pd.testing.assert_frame_equal(
        rdpbench.read_results("folder-three", "other", root=root, per=per, columns=named), whole[named]
    )
    with pytest.raises(UnknownName, match=r"(?s)'bbp'.*bpp"):
        rdpbench.read_results("other", root=root, per=per, columns=["bbp"])


def test_several_runs_and_published_numbers_in_one_frame(root: Path) -> None:
    frame = rdpbench.read_results("folder-three", root / "other", published=True, root=root)
    assert list(frame.columns) == list(kinds("point"))
    own = frame[frame["run"] != ""]
    assert own.groupby("run").size().to_dict() == {"folder-three": 8, "other": 1}
    published = frame[frame["run"] == ""]
    assert len(published) > 10_000
    assert (published["source_id"] != "").all()
    assert (own["source_id"] == "").all()
    alone = rdpbench.read_results("folder-three", root=root)
    pd.testing.assert_frame_equal(own[own["run"] == "folder-three"].reset_index(drop=True), alone)


def test_columns_have_the_types_that_are_said(root: Path) -> None:
    letters = {"text": "O", "number": "f", "count": "i", "yes/no": "b"}
    for per in ("point", "image"):
        frame = rdpbench.read_results("folder-three", "other", root=root, per=per)  # type: ignore[arg-type]  # both
        for name, kind in kinds(per).items():  # type: ignore[arg-type]  # both
            assert frame[name].dtype.kind == letters[kind] or kind == "text", name
            assert frame[name].notna().all() or kind == "number", name
        text = frame[[name for name, kind in kinds(per).items() if kind == "text"]]  # type: ignore[arg-type]  # both
        assert all(isinstance(cell, str) for column in text for cell in text[column])


def test_every_column_is_documented() -> None:
    """A column that is added without a meaning, or a meaning whose column is gone, fails here."""
    own = {"run", "family", "variant", "bits_kind", "grade", "machine", "source_id", "source", "digitised", "doubtful"}
    assert set(kinds("point")) == {*summarise((), (), ()).columns, *own}
    assert list(kinds("image")) == ["run", *(field.name for field in fields(Row)), "metric", "value", "metric_error"]
    lines = [line.split(" | ", 2) for line in COLUMNS.read_text().splitlines() if line.startswith("| `")]
    assert len(lines) == len(kinds("point")) + len(kinds("image"))
    for name, kind, meaning in lines:
        assert kind in ("text", "number", "count", "yes/no"), name
        assert len(meaning) > 8, name
        assert meaning.endswith(". |"), name


def test_what_cannot_be_meant(root: Path) -> None:
    for call, error, told in (
        (rdpbench.read_results, ConfigError, "name a run"),
        (lambda: rdpbench.read_results("othr", root=root), UnknownName, "did you mean 'other'"),
        (lambda: rdpbench.read_results("other", root=root, per="pixel"), UnknownName, "image, point"),
        (lambda: rdpbench.read_results("other", root=root, per="image", published=True), ConfigError, "leave out"),
        (lambda: rdpbench.read_results("other", root / "other", root=root), ConfigError, "named twice"),
        (lambda: rdpbench.read_results(["other", "a"], root=root), ConfigError, "one by one"),
    ):
        with pytest.raises(error, match=told):
            call()


def test_two_runs_of_one_name_are_told_apart(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere/other"
    shutil.copytree(root / "other", copy)
    frame = rdpbench.read_results("other", copy, root=root)
    assert set(frame["run"]) == {f"{root.name}/other", "elsewhere/other"}


def test_two_editions_of_a_metric_are_not_in_one_frame(root: Path, tmp_path: Path) -> None:
    """What another version gave is left out, and said; alone it is read."""
    copy = tmp_path / "elsewhere/older"
    shutil.copytree(root / "other", copy)
    store = Store(copy)
    scores = store.read().scores.values()
    with contextlib.closing(store.writer(store.new_session())) as part:
        for score in scores:
            part.append({"scores": [vars(replace(score, value=99.0, definition="0-older"))]})
    [metric] = {score.metric for score in scores}
    assert set(rdpbench.read_results(copy)["value"]) == {99.0}
    for per in ("point", "image"):
        with pytest.warns(UserWarning, match=f"{metric} of run older .* is left out: its edition is 0-older"):
            frame = rdpbench.read_results("other", copy, root=root, per=per)
        assert 99.0 not in set(frame["value"])
        assert "0-older" in frame.attrs["notes"][-1]


def test_importing_rdpbench_stays_light() -> None:
    code = "import sys, rdpbench; sys.exit(bool({'pandas', 'pyarrow', 'torch', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
