"""The examples of docs/own.md run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench import read_results
from rdpbench.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "own.md"


def test_codec_metric_and_dataset_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    text = PAGE.read_text()
    files = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in files] == ["metric.py", "distance.py", "dataset.py"]
    for name, code in files:
        Path(name).write_text(code)
    Path("scans").mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        blocks = np.kron(random.integers(0, 255, (12, 16, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        pil.fromarray(blocks).save(f"scans/page{number}.png")
    (command,) = re.findall(r"^rdpbench (run .*)$", text, re.MULTILINE)
    assert main([*command.split(), "workers=0", "figures=false"]) == 0
    frame = read_results("scans")
    values = {(row.rate, row.metric.rpartition("/")[2]): row.value for row in frame.itertuples()}
    assert len(values) == 6
    # The definitions again, on what Pillow's JPEG gives.
    for quality in (50, 90):
        errors, colours = [], []
        for path in sorted(Path("scans").glob("*.png")):
            original = np.asarray(pil.open(path)).astype(int)
            pil.open(path).save("x.jpg", quality=quality)
            coded = np.asarray(pil.open("x.jpg")).astype(int)
            errors.append(np.abs(np.diff(coded, axis=1) - np.diff(original, axis=1)).mean())
            colours.append(coded.mean((0, 1)) - original.mean((0, 1)))
        own = {name: value for (rate, name), value in values.items() if rate == quality}
        assert own["metric.py:EdgeError"] == pytest.approx(np.mean(errors), abs=1e-9)
        assert own["distance.py:ColourDistance"] == pytest.approx(np.linalg.norm(np.mean(colours, 0)), abs=1e-4)
