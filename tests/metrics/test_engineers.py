"""Metrics that run in a program: against the program itself, called as its users do."""

from __future__ import annotations

import json
import re
import subprocess

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.errors import MetricError, MissingNeed
from rdpbench.metrics import programs
from rdpbench.metrics.programs import BUTTERAUGLI, FFMPEG, NEG, VMAF, ButteraugliMax, ButteraugliNorm, as_420
from rdpbench.results.store.keys import metric_identity

COUNTS = [1, pytest.param(10, marks=pytest.mark.slow)]
"""Of photographs."""


def score(metric, x, y):
    return metric.score(metric.prepare(x), y)


@pytest.fixture
def butteraugli():
    if BUTTERAUGLI.missing():
        pytest.skip(f"no libjxl to compare with: {BUTTERAUGLI.missing()}")
    return BUTTERAUGLI.find()


@pytest.mark.parametrize("count", COUNTS)
def test_butteraugli_is_what_the_program_prints_for_png_files(butteraugli, pairs, count, tmp_path):
    norm, largest = ButteraugliNorm(), ButteraugliMax()
    for name, x, y in pairs(count):
        files = [tmp_path / "x.png", tmp_path / "y.png"]
        for file, image in zip(files, (x, y), strict=True):
            pil.fromarray(image).save(file, compress_level=1)
        said = subprocess.run([butteraugli, *files], capture_output=True, text=True, check=True).stdout.split()
        assert [score(largest, x, y), score(norm, x, y)] == [float(said[0]), float(said[2])], name


def test_butteraugli_at_the_edges(butteraugli, photograph):
    x = photograph[:33, :41]
    one = x.copy()
    one[20, 20, 1] ^= 1
    grey = np.full((8, 8, 3), 128, np.uint8)
    for metric in (ButteraugliNorm(), ButteraugliMax()):
        assert score(metric, x, x) == score(metric, grey, grey) == 0
        assert 0 < score(metric, x, one) < 1
        assert score(metric, grey, grey + 40) > score(metric, grey, grey + 4) > 0
        with pytest.raises(MetricError, match="at least 8 pixels"):
            metric.prepare(x[:7])


def test_two_numbers_of_one_pair_take_one_call(butteraugli, photograph, monkeypatch):
    calls = []
    run = programs.run_program
    monkeypatch.setattr(programs, "run_program", lambda *given: calls.append(given) or run(*given))
    programs._printed.cache_clear()
    x = photograph[:64, :64]
    for metric in (ButteraugliNorm(), ButteraugliMax()):
        score(metric, x, x // 2)
    assert len(calls) == 1


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("metric", [VMAF, NEG])
def test_vmaf_is_that_of_ffmpeg_with_real_chroma(metric, pairs, count, tmp_path):
    """The planes are made by other code here, chroma and all, and the score is read from libvmaf's own log."""
    for name, x, y in pairs(count):
        files = [tmp_path / "y.yuv", tmp_path / "x.yuv"]
        for file, image in zip(files, (y, x), strict=True):
            file.write_bytes(planes(image))
        height, width = x.shape[:2]
        log = tmp_path / "log.json"
        inputs = [
            word for file in files for word in [*f"-f rawvideo -pix_fmt yuv420p -s {width}x{height} -i".split(), file]
        ]
        graph = f"libvmaf=model=version={metric.model}:log_fmt=json:log_path={log}:n_threads=1"
        command = [FFMPEG.path(), "-nostdin", *inputs, "-lavfi", graph, "-f", "null", "-"]
        subprocess.run(command, capture_output=True, check=True)
        expected = json.loads(log.read_text())["frames"][0]["metrics"]["vmaf"]
        assert score(metric(), x, y) == pytest.approx(expected, abs=1e-6), name


def planes(image):
    """BT.709 of limited range, 4:2:0 by means of 2 x 2, in floats; an odd side repeats its last."""
    red, green, blue = np.moveaxis(image / 255, -1, 0)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    parts = [np.floor(16.5 + 219 * luma + 1e-9)]
    for chroma in ((blue - luma) / 1.8556, (red - luma) / 1.5748):
        even = np.pad(chroma, [(0, chroma.shape[0] % 2), (0, chroma.shape[1] % 2)], mode="edge")
        parts.append(
            np.rint(128 + 224 * (even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]) / 4)
        )
    return b"".join(part.astype(np.uint8).tobytes() for part in parts)


@pytest.mark.parametrize("size", [(33, 33), (34, 57), (64, 81)])
def test_vmaf_at_the_edges(photograph, size):
    x = np.ascontiguousarray(photograph[: size[0], : size[1]])
    same = score(VMAF(), x, x)
    assert 97 < same < 98  # the model gives a still image less than 100
    assert score(VMAF(), x, x // 4) < same
    grey = np.full_like(x, 128)
    assert score(VMAF(), grey, grey) == pytest.approx(same, abs=3)
    with pytest.raises(MetricError, match="at least 33 pixels"):
        VMAF().prepare(x[:32])


def test_sharpening_pays_in_vmaf_alone(photograph):
    from PIL import ImageFilter

    x = photograph[:256, :256]
    sharper = np.array(pil.fromarray(x).filter(ImageFilter.UnsharpMask(2, 60, 0)))
    assert score(VMAF(), x, sharper) > score(NEG(), x, sharper) + 2


def test_luma_is_rounded_exactly():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    luma = np.frombuffer(as_420(image), np.uint8)[:1600].reshape(40, 40)
    exact = 16 + 219 * (image.astype(object) @ [2126, 7152, 722]) / 2550000
    assert np.abs(luma - exact.astype(float)).max() <= 0.5


def test_program_and_hash_are_in_the_key(monkeypatch, tmp_path):
    ours = metric_identity(VMAF.name)["made_by"]
    assert re.fullmatch(r"\S+ sha256:[0-9a-f]{64}", ours)
    monkeypatch.setenv("RDPBENCH_BUTTERAUGLI", str(tmp_path / "gone"))
    assert ButteraugliNorm.made_by() == "missing"
    with pytest.raises(MissingNeed, match="butteraugli_main"):
        score(ButteraugliNorm(), *np.zeros((2, 8, 8, 3), np.uint8))


def test_a_program_that_prints_something_else_is_told(monkeypatch, tmp_path):
    program = tmp_path / "butteraugli_main"
    program.write_text("#!/bin/sh\necho usage: none\n")
    program.chmod(0o755)
    monkeypatch.setenv("RDPBENCH_BUTTERAUGLI", str(program))
    programs._printed.cache_clear()
    with pytest.raises(MetricError, match="printed no score: 'usage: none"):
        score(ButteraugliNorm(), *np.zeros((2, 8, 8, 3), np.uint8))
