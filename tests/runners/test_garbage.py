"""``rdpbench gc``: what no row refers to goes, and nothing that one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rdpbench.results.store import store as stores
from rdpbench.results.store.store import Store
from rdpbench.runners.verify import verify


def test_what_rows_refer_to_stays(tmp_path: Path, here: Any, images: Any, capsys: Any, monkeypatch: Any) -> None:
    """With small segments, so that bitstreams lie in packs; verify finds all of them afterwards."""
    monkeypatch.setattr(stores, "SEALED", 2)
    line = [f"data=folder:{images(3)}", "codec=jpeg", "metrics=psnr", "figures=false", "workers=0", "keep=all", "run=a"]
    assert here("run", "rate=20", *line) == here("run", "rate=40,60", *line) == 0
    run = Store(tmp_path / "results/runs/a")

    def files() -> set[Path]:
        return {path for path in run.folder.rglob("[!.]*") if path.is_file()}

    stray = run.bitstreams.path(run.bitstreams.put(b"of a row that is gone"))
    run.bitstreams.pack([run.bitstreams.put(b"and packed")])
    picture = run.folder / "reconstructions/jpeg/20/image-00000000.png"
    picture.write_bytes(b"of another row")
    left = [run.folder / "rows.tmp", run.folder / "segments/rows-000099.parquet", stray, picture]
    for path in left[:2]:
        path.write_bytes(b"cut by a kill")
    packs = {*run.folder.glob("bitstreams/packs/*")}
    assert len(packs) > 2
    before = files()
    capsys.readouterr()

    assert here("gc", "a") == 0
    assert "6 files, 0.0 MB; to remove them, type: rdpbench gc a --delete" in capsys.readouterr().out
    assert files() == before
    assert here("gc", "a", "--delete") == 0
    gone = before - files()
    assert {*left} < gone
    assert len(gone - {*left}) == 2 == len(gone & packs)
    assert verify(run, None).findings == ()
    assert here("gc", "a") == 0
    assert "nothing to remove" in capsys.readouterr().out

    assert here("gc", "a", "--pictures", "--delete") == 0
    assert not [*run.folder.glob("reconstructions/*/*/*.png")]
    assert verify(run, None).findings == ()
    assert here("run", "rate=20,40,60", *line) == 0
    assert len([*run.folder.glob("reconstructions/*/*/*.png")]) == 9


DURING = """
import subprocess, sys
from pathlib import Path
from rdpbench.codecs.classical.pillow import JPEG

class Mine(JPEG):
    name = "mine"
    def decode(self, data):
        told = subprocess.run([sys.executable, "-m", "rdpbench", "gc", "a", "--delete"], capture_output=True, text=True)
        Path("told.txt").write_text(f"{told.returncode} {told.stderr}")
        return super().decode(data)
"""


def test_a_run_that_is_under_way_loses_nothing(tmp_path: Path, here: Any, images: Any) -> None:
    """A bitstream is written before its row: in between nothing refers to it."""
    (tmp_path / "own.py").write_text(DURING)
    line = [f"data=folder:{images(1)}", "rate=20", "metrics=psnr", "figures=false", "workers=0", "verify=0", "run=a"]
    assert here("run", "codec=./own.py:Mine", *line) == 0
    told = (tmp_path / "told.txt").read_text()
    assert told.startswith("2 rdpbench: results/runs/a is being worked on")
    store = Store(tmp_path / "results/runs/a")
    assert all(store.has_bitstream(row) for row in store.read().rows.values())
    assert here("gc", "a", "--delete") == 0
