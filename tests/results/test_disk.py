"""Runs on disks that are full, read-only or in use: the error says so, and what was measured stays true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rdpbench.results.store.store import Store

QUICK = ("metrics=psnr", "figures=false", "verify=0", "workers=0")


SLOW_CODEC = """
import time
from dataclasses import dataclass
from pathlib import Path
from rdpbench.codecs.contract import Bitstream

@dataclass(frozen=True)
class Slow:
    def encode(self, image, side):
        # The first image is coded at once, the others when they are let go.
        try:
            Path("first").touch(exist_ok=False)
        except FileExistsError:
            while not Path("go").exists():
                time.sleep(0.02)
        return Bitstream.whole(image.tobytes() + bytes([image.shape[0], image.shape[1]]))

    def decode(self, data):
        import numpy as np
        return np.frombuffer(data[:-2], np.uint8).reshape(data[-2], data[-1], 3)
"""


def test_two_runs_at_once(tmp_path: Path, rdpbench: Any, images: Any, environment: dict[str, str]) -> None:
    folder = images(6)
    (tmp_path / "slow.py").write_text(SLOW_CODEC)
    line = ["run", "codec=./slow.py:Slow", f"data=folder:{folder}", *QUICK]
    first = subprocess.Popen(
        [sys.executable, "-m", "rdpbench", *line], cwd=tmp_path, env=environment, stdout=-3, stderr=subprocess.PIPE
    )
    parts = tmp_path / "results/runs/folder-pictures/parts"
    while not any(path.stat().st_size for path in parts.glob("*.jsonl")):
        assert first.poll() is None
        time.sleep(0.02)
    timing = rdpbench(*line, "timing=true", code=2)
    assert "1 others work on results/runs/folder-pictures, and would be timed too" in timing.stderr
    threading.Timer(2, (tmp_path / "go").touch).start()
    assert "scored or timed from the store, 0 failed" in rdpbench(*line, code=0).stdout  # together with the first
    assert first.wait(60) == 0
    assert first.stderr is not None
    first.stderr.close()
    assert len(Store(parts.parent).read().rows) == 6
    assert not (parts.parent / "queue").exists()
    assert "nothing to do: all 6 tasks" in rdpbench(*line, code=0).stdout


def test_a_folder_that_cannot_be_written(tmp_path: Path, rdpbench: Any, images: Any) -> None:
    """A file where a folder should be, and a file system of the kernel's that takes no new folders."""
    (tmp_path / "file").write_text("a file where a folder should be")
    folder = images(1)
    for root in (f"{tmp_path}/file/runs", *(["/proc/runs"] if sys.platform == "linux" else [])):
        done = rdpbench("run", "codec=jpeg", f"data=folder:{folder}", f"root={root}", *QUICK, code=2)
        assert f"cannot write {root}/folder-pictures" in done.stderr
        assert "root=FOLDER" in done.stderr


def mounted(path: Path, options: str) -> bool:
    """Mount a small file system in memory, where this user may."""
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, check=False)
    return done.returncode == 0


def test_a_read_only_folder(tmp_path: Path, rdpbench: Any, images: Any) -> None:
    """What was stored can still be shown as far as possible and verified; nothing new is begun."""
    folder, place = images(2), tmp_path / "disk"
    line = ["run", "codec=jpeg", "rate=30", f"data=folder:{folder}", f"root={place}", *QUICK]
    if os.geteuid():
        rdpbench(*line, code=0)
        subprocess.run(["chmod", "-R", "a-w", str(place)], check=True)
        try:
            stays_true(rdpbench, line, place)
        finally:
            subprocess.run(["chmod", "-R", "u+w", str(place)], check=True)
        return
    if not mounted(place, "size=8m"):
        pytest.skip("permissions do not bind root, and this machine lets nobody mount")
    try:
        rdpbench(*line, code=0)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        stays_true(rdpbench, line, place)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def stays_true(rdpbench: Any, line: list[str], place: Path) -> None:
    more = rdpbench(*line, "rate=30,60", code=2)
    assert "cannot write" in more.stderr
    assert "root=FOLDER" in more.stderr
    checked = rdpbench("verify", "folder-pictures", f"--root={place}", code=0)
    assert "2 bitstreams decoded in a fresh process to the recorded pixels" in checked.stdout
    assert "cannot be noted" in checked.stderr


def test_a_full_disk(tmp_path: Path, rdpbench: Any, images: Any) -> None:
    """Rows before it are safe, the message says what to do, and the same command finishes once there is space."""
    folder, place = images(8, size=(64, 64)), tmp_path / "disk"
    (tmp_path / "slow.py").write_text(SLOW_CODEC)
    (tmp_path / "go").touch()  # it waits for nothing
    line = ["run", "codec=./slow.py:Slow", f"data=folder:{folder}", f"root={place}", *QUICK]
    # One bitstream is 12 kB: the disk holds a few.
    if not mounted(place, "size=72k"):
        pytest.skip("needs the right to mount a small disk")
    try:
        done = rdpbench(*line, code=2)
        assert "no space left to write" in done.stderr
        assert "What was measured so far is safe" in done.stderr
        store = Store(place / "folder-pictures")
        stored = set(store.read().rows)
        assert 0 < len(stored) < 8
        assert rdpbench(*line, code=2).stderr.count("no space left") == 1
        assert set(store.read().rows) >= stored
        subprocess.run(["mount", "-o", "remount,size=8m", str(place)], check=True)
        rdpbench(*line, code=0)
        assert set(store.read().rows) > stored
        assert len(store.read().rows) == 8
        assert list(store.folder.rglob("*.tmp")) == []
        assert (
            "0 findings"
            in rdpbench("verify", "folder-pictures", f"--root={place}", "--all", "codec=./slow.py:Slow", code=0).stdout
        )
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_limit_on_file_sizes_is_a_full_disk_too(tmp_path: Path, rdpbench: Any, images: Any) -> None:
    """Works for any user: the kernel refuses to let any file grow beyond 4 kB."""
    line = ["run", "codec=jpeg", f"data=folder:{images(4)}", *QUICK]
    limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 4; exec "$@"', "bash"]
    done = rdpbench(*line, code=2, prefix=limited)
    assert "no space left to write" in done.stderr
    store = Store(tmp_path / "results/runs/folder-pictures")
    before = store.read().rows
    rdpbench(*line, code=0)
    after = store.read().rows
    assert len(after) == 4 * 19
    assert {key: after[key] for key in before} == before


def test_a_session_is_noted(tmp_path: Path, rdpbench: Any, images: Any) -> None:
    rdpbench("run", "codec=jpeg", "rate=30", f"data=folder:{images(1)}", *QUICK, code=0)
    (path,) = (tmp_path / "results/runs/folder-pictures/sessions").glob("*.json")
    noted = json.loads(path.read_text())
    assert noted["command"].startswith("rdpbench run codec=jpeg rate=30")
    assert noted["packages"]["pillow"]
    assert path.stem == Store(path.parents[1]).read().rows.popitem()[1].session
