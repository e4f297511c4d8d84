"""Bytes that depend on the processor: the gate knows of which codec, and where they have to be equal all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rdpbench import registry
from rdpbench.codecs.contract import FLOAT_LIBRARIES, facts_of
from rdpbench.gate.command import _cpu
from rdpbench.gate.compare import compare, read_tolerances
from rdpbench.gate.curves import StoredCurve, StoredPoint
from rdpbench.paths import conf_folder
from rdpbench.setting import Setting


def point(**changes: Any) -> StoredPoint:
    return replace(StoredPoint(Setting("quality", 30.0), 2, 2, "as-is", 0.5, {"psnr": 30.0}, {}, "aa"), **changes)


def test_a_coder_that_depends_on_the_cpu() -> None:
    tolerances = read_tolerances(conf_folder() / "regress.yaml")
    origin = {"configuration": {"use": "jpegxl"}, "coder": {"libjxl": "1"}, "cpu": "x86_64 avx2"}
    stored = StoredCurve((point(),), (), origin)
    same = StoredCurve((point(bitstreams="bb"),), (), origin)
    assert "bytes" in compare(stored, same, tolerances).findings[0].text
    elsewhere = StoredCurve((point(bitstreams="bb"),), (), {**origin, "cpu": "x86_64 avx512"})
    found = compare(stored, elsewhere, tolerances)
    assert (found.findings, len(found.notes)) == ((), 1)
    assert "stored avx2, now avx512" in found.notes[0]
    jpeg = {"configuration": {"use": "jpeg"}}
    stored, elsewhere = (replace(one, origin={**one.origin, **jpeg}) for one in (stored, elsewhere))
    assert len(compare(stored, elsewhere, tolerances).findings) == 1


def test_a_coder_that_depends_on_the_device() -> None:
    """Only where it computes there: the setting says nothing of a codec that does not."""
    tolerances = read_tolerances(conf_folder() / "regress.yaml")
    for use, findings in (("mini", 0), ("jpegxl", 1)):
        origin = {"configuration": {"use": use}, "coder": {"torch": "1"}, "cpu": "x86_64", "device": "cpu"}
        stored, there = (
            StoredCurve((point(bitstreams=one),), (), {**origin, "device": one}) for one in ("cpu", "cuda")
        )
        assert len(compare(stored, there, tolerances).findings) == findings


def test_every_codec_with_a_network_is_known_to_depend_on_the_processor() -> None:
    """By its class, in one place; and what does no floating-point arithmetic by itself is held to its bytes."""
    known = {name: facts_of(registry.load("codec", name)).depends_on_cpu for name in registry.names("codec")}
    networks = {name for name in known if "torch" in getattr(registry.load("codec", name), "preload", ())}
    assert {"mini", "elic", "pic", "perco", "sd-vae"} <= networks
    assert {name for name, what in known.items() if what == FLOAT_LIBRARIES} == {*networks, "hific-tfci"}
    assert {name for name, what in known.items() if what} - networks == {"jpegxl", "hific-tfci"}


def test_what_the_libraries_are_told_is_part_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a codec that they compute for; the bytes of others are expected to be equal under all of it."""
    for name in FLOAT_LIBRARIES:  # some machines set them
        monkeypatch.delenv(name, raising=False)
    every = {use: _cpu(facts_of(registry.load("codec", use)).depends_on_cpu) for use in ("mini", "jpegxl", "jpeg")}
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert _cpu(FLOAT_LIBRARIES) == f"{every['mini']} ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Prescott"
    assert (_cpu(("instructions",)), _cpu(())) == (every["jpegxl"], every["jpeg"])
