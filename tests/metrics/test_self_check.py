"""The expected values hold here, and a value that is off is told."""

from __future__ import annotations

import math

import pytest

from rdpbench.metrics import mmd, self_check
from rdpbench.metrics.self_check import Check


def test_every_value_holds():
    found = self_check.run()
    wrong = [(check.name, check.expected, check.found) for check in found if not check.ok]
    assert not wrong
    assert len(found) == len({check.name for check in found}) >= 35
    for metric in ("PSNR", "MS-SSIM", "Fréchet", "KID", "CMMD", "mIoU", "patches", "CLIP", "LPIPS"):
        assert any(check.name.startswith(metric) for check in found)


def test_deltas_hold():
    from rdpbench.results.stats.bd import bd_metric, bd_rate

    found = self_check.deltas(bd_rate, bd_metric)
    assert not [check for check in found if not check.ok]


def test_a_value_that_is_off_is_told(monkeypatch):
    right = mmd.cmmd
    monkeypatch.setattr(mmd, "cmmd", lambda *rows, **options: right(*rows, **options) * (1 + 1e-7))
    wrong = [check for check in self_check.run() if not check.ok]
    assert {check.name.partition(" ")[0] for check in wrong} == {"CMMD"}
    assert len(wrong) == 5
    assert wrong[0].difference == pytest.approx(1e-7 * wrong[0].expected, rel=1e-3)


def test_nan_is_a_value():
    assert Check("x", math.nan, math.nan, 0).ok
    assert not Check("x", math.nan, 1.0, 0).ok
    assert not Check("x", 1.0, math.nan, 0).ok
