"""A codec, metric or dataset that is not what it must be stops a command before anything is coded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rdpbench import registry
from rdpbench.codecs.contract import faults_of as codec_faults
from rdpbench.metrics.contract import faults_of as metric_faults

HEAD = """
import abc
from dataclasses import dataclass, field
from typing import Any, ClassVar
import numpy as np
from rdpbench import Bitstream, Rate
from rdpbench.metrics.contract import Estimate

class Codec:
    def encode(self, image, side): return Bitstream.whole(b"x")
    def decode(self, data): return np.zeros((40, 56, 3), np.uint8)

class Metric:
    unit, higher_is_better, perceptual = "", True, False
    def prepare(self, original): return original
    def score(self, prepared, reconstruction): return 1.0
    def reduce(self, values): return sum(values) / len(values)

class Features:
    id, version, needs, dim, beside, uses_device = "f", "1", (), 1, (), False
    def extract(self, images, **beside): return [np.ones((1, 1)) for _ in images]

class Set:
    kind, unit, higher_is_better, perceptual, minimum_images, features = "set", "", True, False, 2, Features
    def reduce(self, reference, distorted): return Estimate(1.0)

class Data:
    name, protocol, needs = "mine", "as-is", ()
    def samples(self): return iter(())
    def __len__(self): return 0
"""
CODECS = {
    "class X:\n    pass": ["encode(image, side) is missing", "decode(data) is missing"],
    "class X:\n    def compress(self, image): pass\n    def decompress(self, data): pass": [
        "it has compress, decompress; write def encode(self, image, side): image is uint8 (H, W, 3); return bytes",
        "write def decode(self, data): data is bytes; return uint8 (H, W, 3)",
    ],
    "class X(Codec):\n    decode = None": ["decode(data) is missing"],
    "class X(Codec):\n    def encode(self, image): pass": ["encode() cannot be called with (image, side)"],
    "class X(Codec):\n    def decode(self, data, image): pass": ["decode() cannot be called with (data)"],
    "class X(Codec):\n    rate = 5": ["rate is 5, and no Rate"],
    "class X(Codec):\n    rate = ('quality', 1, 95)": ["rate is ('quality', 1, 95), and no Rate"],
    "class X(Codec):\n    rate = Rate('quality', 1, 95)": ["rate names the field 'quality', and it has none"],
    "@dataclass\nclass X(Codec):\n    q: int = 5\n    rate: ClassVar = Rate('quality', 1, 95)": [
        "rate names the field 'quality', and its fields are q"
    ],
    "@dataclass\nclass X(Codec):\n    q: int = 5\n    rate: ClassVar = Rate('q', 95, 1)": ["goes from 95 to 1"],
    "@dataclass\nclass X(Codec):\n    q: int = 5\n    rate: ClassVar = Rate('q', 1, 9, points=(5, 50))": [
        "rate 50 is outside"
    ],
    "@dataclass\nclass X(Codec):\n    q: int = 5\n    rate: ClassVar = Rate('q', '1', 9)": [
        "low '1', which is no number"
    ],
    "class X(Codec):\n    batches = True": ["encode_batch(images, sides) is missing"],
    "class X(Codec):\n    heavy = 'no'": ["heavy is 'no' (str)"],
    "class X(Codec):\n    uses_device = True": ['uses_device is True, but it cannot be built with device="cuda"'],
    "class X(Codec):\n    needs = ('torch',)": ["needs is ('torch',)"],
    "class X(Codec):\n    preload = 'torch'": ["preload is 'torch'"],
    "class X(Codec, abc.ABC):\n    @abc.abstractmethod\n    def open(self): ...": ["abstract; write its methods open"],
    "class X(Metric):\n    pass": ["encode(image, side) is missing"],
}
METRICS = {
    "class X:\n    pass": ["unit is missing", "higher_is_better is missing", "prepare(original) is missing", "score("],
    "class X(Metric):\n    unit = None": ["unit is None (NoneType)"],
    "class X(Metric):\n    unit = property(lambda self: 'dB')": ["unit is <property"],
    "class X(Metric):\n    higher_is_better = 'no'": ["higher_is_better is 'no' (str)"],
    "class X(Metric):\n    higher_is_better = 0": ["higher_is_better is 0 (int)"],
    "class X(Metric):\n    kind = 'pairs'": ["kind is 'pairs'; write one of kind = 'pair', 'set', 'decodes'"],
    "class X(Metric):\n    averaged = 'median'": ["averaged is 'median'"],
    "class X(Metric):\n    averaged = ['mean']": ["averaged is ['mean']"],
    "class X(Metric):\n    bounds = (1, 0)": ["bounds is (1, 0)"],
    "class X(Metric):\n    bounds = 1.0": ["bounds is 1.0"],
    "class X(Metric):\n    bounds = (0, 'inf')": ["bounds is (0, 'inf')"],
    "class X(Metric):\n    bounds = (float('nan'), 1)": ["bounds is (nan, 1)"],
    "class X(Metric):\n    def score(self, reconstruction): pass": ["score() cannot be called with (prepared, rec"],
    "class X(Metric):\n    def prepare(self): pass": ["prepare() cannot be called with (original)"],
    "class X(Metric):\n    beside = ('captions',)": ["prepare() cannot be called with (original, *, captions)"],
    "class X(Metric):\n    beside = ('depth',)": ["beside names 'depth', and what there is are captions, labels"],
    "class X(Metric):\n    beside = 'captions'": ["beside is 'captions'"],
    "class X(Metric):\n    def __init__(self, weights): pass": ["it cannot be built as X()"],
    "class X(Metric):\n    uses_device = True": ['it cannot be built as X(device="cpu")'],
    "class X(Metric):\n    def reduce(self, values): return sum(values)": ["reduce([1.0, 3.0]) gives 4.0"],
    "class X(Metric):\n    def reduce(self, values): return float(np.exp(np.log(values).mean()))": ["gives 1.73"],
    "class X(Metric):\n    def reduce(self, values): return 1 / 0": ["gives 'ZeroDivisionError"],
    "class X(Metric):\n    averaged = 'decibels'": ["the mean of tables would be 1.88587"],
    "class X(Set):\n    features = None": ["features is None, and no class"],
    "class X(Set):\n    minimum_images = 2.5": ["minimum_images is 2.5 (float)"],
    "class X(Set):\n    def reduce(self, values): pass": ["reduce() cannot be called with (reference, distorted)"],
    "class Y:\n    id = 'y'\nclass X(Set):\n    features = Y": ["its features Y: version is missing", "extract("],
    "class X(Metric):\n    decodes = '5'\n    kind = 'decodes'": ["decodes is '5' (str)", "score() cannot be called"],
    "class X(Codec):\n    pass": ["unit is missing", "score("],
}
DATASETS = {
    "class X:\n    pass": ["name is missing", "protocol is missing", "needs is missing", "samples() is missing"],
    "class X(Data):\n    __len__ = None": ["__len__() is missing"],
    "class X(Data):\n    name = 3": ["name is 3 (int)"],
    "class X(Data):\n    needs = None": ["needs is None"],
    "class X(Data):\n    def samples(self, limit): pass": ["samples() cannot be called with ()"],
    "class X(Data):\n    pinned = 'yes'": ["pinned is 'yes', and no method"],
}
CASES = [
    *(("codec", source, told) for source, told in CODECS.items()),
    *(("metric", source, told) for source, told in METRICS.items()),
    *(("data", source, told) for source, told in DATASETS.items()),
]


@pytest.mark.parametrize(("kind", "source", "told"), CASES)
def test_what_is_not_what_it_must_be_stops_before_anything_is_coded(
    tmp_path: Path, here: Any, capsys: pytest.CaptureFixture[str], images: Any, kind: str, source: str, told: list[str]
) -> None:
    (tmp_path / "own.py").write_text(HEAD + source)
    words = {"codec": "codec=jpeg", "data": f"data=folder:{images(1)}", "metric": "metrics=psnr"}
    words[kind] = {"metric": "metrics=psnr,", "codec": "codec=", "data": "data="}[kind] + "./own.py:X"
    assert here("run", *words.values(), "rate=30" if kind != "codec" else "figures=false", "workers=0") == 2
    said = capsys.readouterr().err
    assert "this run cannot start" in said
    assert all(fault in said for fault in told), said
    assert not (tmp_path / "results").exists()


def test_all_that_is_wrong_is_one_message(
    tmp_path: Path, here: Any, capsys: pytest.CaptureFixture[str], images: Any
) -> None:
    (tmp_path / "own.py").write_text(f"{HEAD}\nclass C: pass\nclass M: pass\nclass D: pass\n")
    line = ["codec=./own.py:C", "metrics=./own.py:M,psnr", "data=./own.py:D"]
    for command in ("plan", "run", "score"):
        assert here(command, *line) == 2
        said = capsys.readouterr().err
        for fault in ("own.py:C: encode(", "own.py:C: decode(", "own.py:M: unit", "own.py:D' is no dataset: name"):
            assert fault in said


def test_what_is_right_is_taken(tmp_path: Path, here: Any, images: Any) -> None:
    """The least that a class may state, and ways of stating it that are as good."""
    more = (
        "\n@dataclass(frozen=True)\nclass C(Codec):\n    q: int = 3\n    "
        "rate: ClassVar = Rate('q', 1, 9, points=(3,))\n"
        "class M(Metric):\n    reduce = staticmethod(lambda values: np.float32(np.mean(values)))\n"
        "class L:\n    unit, higher_is_better, perceptual = 'dB', True, False\n"
        "    def prepare(self, *all): return all\n    def score(self, *all, **more): return 1\n"
    )
    (tmp_path / "own.py").write_text(HEAD + more)
    metrics = "metrics=./own.py:M,./own.py:L,./own.py:Set"
    line = ["codec=./own.py:C,./own.py:Codec", f"data=folder:{images(2)}", metrics, "allow_unreliable=true"]
    assert here("run", *line, "figures=false", "verify=0", "workers=0") == 0


@pytest.mark.parametrize("name", sorted(registry.BUILTIN["codec"]))
def test_shipped_codecs_are_what_they_must_be(name: str) -> None:
    assert codec_faults(registry.load("codec", name)) == []


@pytest.mark.parametrize("name", sorted(registry.BUILTIN["metric"]))
def test_shipped_metrics_are_what_they_must_be(name: str) -> None:
    counted = f"{name}/5" if name.startswith("diversity/") else name
    assert metric_faults(registry.load("metric", counted)) == []
