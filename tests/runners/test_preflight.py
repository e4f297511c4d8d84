"""What is missing is told at once and in full, before anything is downloaded or coded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rdpbench import registry
from rdpbench.codecs.elic import ELIC
from rdpbench.weights import Weights


def test_weights_that_only_a_browser_gets_are_all_listed(rdpbench: Any, images: Any, tmp_path: Path) -> None:
    """Two systems, all of their rate points; nothing is downloaded of the one that could be."""
    line = ["run", "codec=elic,bmshj2018-factorized", f"data=folder:{images(1)}", "metrics=psnr"]
    nowhere = {name: str(tmp_path / "nothing") for name in ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME")}
    done = rdpbench(*line, code=2, env=nowhere)
    assert "nothing was downloaded" in done.stderr
    assert "downloading" not in done.stderr
    for codec in ("elic", "bmshj2018-factorized"):
        axis = registry.load("codec", codec).rate  # type: ignore[attr-defined]
        assert done.stderr.count(f"codec {codec}: weights") == len(axis.points)
    assert done.stderr.count("only a browser gets it") == len(ELIC.rate.points)
    files = done.stderr.count("are not on this machine")
    for told in ("\n  licence  ", "\n  size     ", "\n  put it   at "):
        assert done.stderr.count(told) == files
    assert not (tmp_path / "results").exists()


def test_cards_of_pages_are_never_fetched() -> None:
    """A page for browsers answers a program with HTML, which would be pinned as if it were weights."""
    cards = [need.card for need in ELIC(quality=ELIC.rate.points[0]).weight_needs() if isinstance(need, Weights)]
    assert cards
    assert all(card.by_hand for card in cards)
