"""A store of version 2, of before rows and points were stored apart: it opens, and says what is coded again and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rdpbench.results.read import read_results
from rdpbench.results.store.store import Store

STORED = Path(__file__).parent / "store_v2"
RUN = ("data=folder:pictures", "codec=jpeg,avif", "rate=30,60", "run=old", "workers=0", "figures=false", "verify=0")
METRICS = "metrics=psnr,psnr-pooled"


@pytest.fixture
def old(tmp_path: Path, here: Any) -> Path:
    """The run in its folder, and its images where its rows say that they are."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in STORED.glob("*.png"):
        shutil.copy(path, pictures)
    store = Store(tmp_path / "results/runs/old")
    store.parts.mkdir(parents=True)
    shutil.copy(STORED / "rows.jsonl", store.parts / "20260101T000000000000-host-1.jsonl")
    for sha256, data in json.loads((STORED / "bitstreams.json").read_text()).items():
        assert store.bitstreams.put(bytes.fromhex(data)) == sha256
    return store.folder


def test_its_numbers_are_what_they_were(old: Path) -> None:
    """Also those of the pooled PSNR, whose scores were squared errors."""
    lines = read_results("old").set_index(["codec", "rate", "metric"])["value"].round(2)
    assert lines["jpeg", 60.0, "psnr"] == 33.13
    assert lines["jpeg", 60.0, "psnr-pooled"] == 33.11
    assert lines["avif", 30.0, "psnr"] == 32.05
    assert lines["avif", 30.0, "psnr-pooled"] == 32.04
    images = read_results("old", per="image").set_index(["codec", "rate", "metric", "image"])["value"].sort_index()
    pooled = images["avif", 60.0, "psnr-pooled"]
    assert pooled.to_numpy() == pytest.approx(images["avif", 60.0, "psnr"].to_numpy(), abs=1e-9)


def test_what_is_coded_again_says_why(old: Path, here: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """AVIF's own code changed since; of the rest only what a library of another version would code."""
    assert here("plan", *RUN, METRICS) == 0
    told = capsys.readouterr().out
    again = [line for line in told.splitlines() if line.startswith("again ")]
    assert any("avif: 6 tasks are stored, but version 1 is now" in line for line in again)
    assert here("run", *RUN, METRICS) == 0
    capsys.readouterr()
    # Now both editions are there: the installed one stands, and no mean is of both.
    lines = read_results("old")
    assert set(lines["n"]) == {3}
    assert len(lines) == 8
    assert here("show", "old") == 0
    assert "6 rows of earlier versions of codecs" in capsys.readouterr().out
    assert here("run", *RUN, METRICS) == 0
    assert "nothing to do" in capsys.readouterr().out
