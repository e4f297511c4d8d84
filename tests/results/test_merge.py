"""``rdpbench merge``: one run of several, with nothing lost and nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rdpbench.results.store.store import Store
from rdpbench.runners.verify import verify


def test_two_runs_become_one(tmp_path: Path, here: Any, images: Any, capsys: Any) -> None:
    """They share some tasks; what came of all of them is what one run would have, and nothing is left to do."""
    line = [f"data=folder:{images(3)}", "metrics=psnr", "figures=false", "workers=0"]
    assert here("run", "codec=jpeg", "rate=20,40", *line, "run=a") == 0
    assert here("run", "codec=jpeg", "rate=40,60", *line, "run=b") == 0
    assert here("run", "codec=jpeg", "rate=20,40,60", *line, "run=whole") == 0
    assert here("merge", "a", "b", "--into", "c") == 0
    assert "c holds 9 rows now" in capsys.readouterr().out
    stores = {name: Store(tmp_path / "results/runs" / name) for name in ("c", "whole")}
    merged, whole = (store.read() for store in stores.values())
    assert {key: row.bitstream_sha256 for key, row in merged.rows.items()} == {
        key: row.bitstream_sha256 for key, row in whole.rows.items()
    }
    assert {key: score.value for key, score in merged.scores.items()} == {
        key: score.value for key, score in whole.scores.items()
    }
    assert verify(stores["c"], None).findings == ()
    assert here("run", "codec=jpeg", "rate=20,40,60", *line, "run=c") == 0
    assert "nothing to do: all 9 tasks" in capsys.readouterr().out
    assert here("merge", "a", "c", "--into", "c") == 2
    assert "cannot be merged into itself" in capsys.readouterr().err
