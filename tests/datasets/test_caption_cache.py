"""The cache of captions, which several processes may write at once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rdpbench.datasets.captioning import MadeCaption, cache_caption, cached_captions


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))


WRITER = """
import sys, time
from rdpbench.datasets.captioning import MadeCaption, cache_caption
worker, begin = int(sys.argv[1]), float(sys.argv[2])
time.sleep(max(0.0, begin - time.time()))
for k in range(15):
    print(cache_caption(f"pixels{k}", "model", MadeCaption(f"by {worker}", worker + 1.0, "cpu", "")))
    cache_caption(f"own {worker} {k}", "model", MadeCaption("", 0.5, "cpu", ""))
"""


def test_writers_at_once_lose_nothing_and_agree() -> None:
    begin = str(time.time() + 1.0)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(k), begin], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for k in range(4)
    ]
    told = [writer.communicate(timeout=120) for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, told
    wanted = [f"pixels{k}" for k in range(15)]
    found = cached_captions([*wanted, *(f"own {w} {k}" for w in range(4) for k in range(15))], "model")
    assert len(found) == 75
    # All were told the same, which is what stayed: text and seconds of one writer.
    stayed = "".join(f"{found[name]}\n" for name in wanted)
    assert told == [(stayed, "")] * 4
    assert all(found[name].text == f"by {found[name].seconds - 1:.0f}" for name in wanted)


def test_the_first_caption_of_a_key_stays() -> None:
    first, second = (
        MadeCaption("a red door", 2.5, "cpu, 1 thread", "torch 2"),
        MadeCaption("a barn", 0.1, "cuda: x", "torch 3"),
    )
    assert cache_caption("pixels", "model", first) == first
    assert cache_caption("pixels", "model", second) == first
    assert cache_caption("pixels", "other model", second) == second
    assert cached_captions(["pixels", "unknown"], "model") == {"pixels": first}
