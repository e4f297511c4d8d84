"""What tests of studies share: a small run, and the command."""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from rdpbench.cli import main
from rdpbench.study import command

Study = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a real run: three codecs at matched rates on four images, with their reconstructions."""
    import numpy as np
    from PIL import Image as pil

    root = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    (root / "pictures").mkdir()
    for name in ("a", "b", "c", "d"):
        coarse = pil.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8))
        coarse.resize((160, 128), pil.Resampling.BICUBIC).save(root / "pictures" / f"{name}.png")
    words = ["codec=jpeg,webp,jpeg2000", f"data=folder:{root / 'pictures'}", "bpp=0.6", "metrics=psnr", "keep=all"]
    words += ["run=small", f"root={root}", "workers=0", "figures=false", "verify=0"]
    before = os.environ.get("RDPBENCH_CACHE")
    os.environ["RDPBENCH_CACHE"] = str(root / "cache")
    assert main(["run", *words]) == 0
    yield root
    os.environ.pop("RDPBENCH_CACHE")
    if before is not None:
        os.environ["RDPBENCH_CACHE"] = before


def _call(*words: str, code: int = 0) -> str:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    console = Console(file=io.StringIO(), width=250)
    assert command.run(parser.parse_args(words), console) == code
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture(scope="session")
def anywhere() -> Study:
    """Runs ``rdpbench study ...``; returns what was printed."""
    return _call


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The same, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return _call
