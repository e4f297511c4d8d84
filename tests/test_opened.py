"""Which files code of the user's opens: seen by Python's audit hook, in any thread; and which do not count."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rdpbench import registry
from rdpbench.assets.hashes import content_sha256, files_changed, hashes_of
from rdpbench.opened import CARRIED, opened

HEAD = """
import json, os, pathlib, subprocess, sys, tempfile, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
HERE = Path(__file__).parent
class Mine:
    def work(self):
"""
CARELESS = "ignore::pytest.PytestUnraisableExceptionWarning"
"""Files that are not closed, as in many a script."""


def files_of(folder: Path, body: str, *, times: int = 1) -> set[str]:
    """What a class that does this is seen to open, by name in its folder."""
    (folder / "mine.py").write_text(HEAD + "".join(f"        {line}\n" for line in body.splitlines()))
    registry.source_sha256("codec", f"{folder}/mine.py:Mine")  # as it is now
    cls: Any = registry.load("codec", f"{folder}/mine.py:Mine")
    noted = opened(registry.own_place("codec", f"{folder}/mine.py:Mine"))
    for _ in range(times):
        noted.begin()
        cls().work()
    return {os.path.relpath(name, folder) for name in noted.now()}


READS = {
    "open": "open(HERE / 'w.npy', 'rb').read()",
    "text": "(HERE / 'w.txt').read_text()",
    "numpy": "np.load(HERE / 'w.npy')",
    "numpy, mapped": "np.load(HERE / 'w.npy', mmap_mode='r')",
    "numpy, memmap as it is by default": "np.memmap(HERE / 'w.npy', 'u1')[:]",
    "numpy, from a file": "np.fromfile(HERE / 'w.npy', 'u1')",
    "torch": "import torch; torch.load(HERE / 'w.pt', weights_only=True)",
    "torch, mapped": "import torch; torch.load(HERE / 'w.pt', weights_only=True, mmap=True)",
    "image": "from PIL import Image; Image.open(HERE / 'w.png').load()",
    "os.open": "os.close(os.open(os.fsencode(HERE / 'w.txt'), os.O_RDONLY))",
    "relative": "open('w.txt').read()",
    "thread": "thread = threading.Thread(target=np.load, args=(HERE / 'w.npy',)); thread.start(); thread.join()",
    "pool": "list(ThreadPoolExecutor(1).map(np.load, [HERE / 'w.npy']))",
    "to a program": "subprocess.run(['cat', HERE / 'w.txt'], capture_output=True, check=True)",
    "to a shell": "subprocess.run(f'cat {HERE}/w.txt', shell=True, capture_output=True, check=True)",
    "a program": "subprocess.run([HERE / 'w.sh'], check=True)",
    "imported by name": "import importlib; importlib.import_module('h' + 'elper')",
    "below a folder that is there": "os.makedirs('inner', exist_ok=True); open('inner/w.bin').read()",
    "executed": "exec((HERE / 'w.txt').read_text())",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One file of each kind, and nothing else that may be opened."""
    import numpy as np
    import torch
    from PIL import Image as pil

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "w.txt").write_text("16")
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    np.save(tmp_path / "w.npy", np.arange(4))
    torch.save({"w": torch.zeros(2)}, tmp_path / "w.pt")
    pil.new("RGB", (4, 4)).save(tmp_path / "w.png")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/w.bin").write_text("1")
    (tmp_path / "w.sh").write_text("#!/bin/sh\n")
    (tmp_path / "w.sh").chmod(0o755)
    return tmp_path


@pytest.mark.filterwarnings(CARELESS)
@pytest.mark.parametrize("how", READS)
def test_files_are_seen_however_they_are_opened(folder: Path, how: str) -> None:
    wanted = (
        {"inner/w.bin"}
        if "inner" in READS[how]
        else {name for path in folder.iterdir() if (name := path.name) in READS[how]} or {"helper.py"}
    )
    assert files_of(folder, READS[how]) == wanted


@pytest.mark.filterwarnings(CARELESS)
@pytest.mark.parametrize(
    "body",
    [
        "open(HERE / 'new.txt', 'w').write('x'); open(HERE / 'new.txt').read()",
        "open(HERE / 'w.txt', 'a').write('x')",
        "open(HERE / 'new.txt', 'x').write('x'); os.replace('new.txt', 'newer.txt'); open(HERE / 'newer.txt').read()",
        "path = tempfile.mkdtemp(dir=HERE) + '/x'; subprocess.run(f'echo > {path}', shell=True); open(path).read()",
        "os.makedirs('made/in'); subprocess.run('echo x > made/in/x', shell=True); open('made/in/x').read()",
        "subprocess.run(['cp', '/dev/null', 'copy.txt'], check=True); open('copy.txt').read()",
        "subprocess.run('date +%s%N > w.txt', shell=True, check=True); open('w.txt').read()",
        "import colorsys, html.entities, rdpbench.codecs.classical.pillow; open(np.__file__); open('/proc/self/stat')",
        "open('/etc/hostname').read(); open(sys.executable, 'rb').read(9); open(__file__).read()",
        "Path('w.txt').exists(); Path('w.txt').stat(); os.listdir('.'); open('.') if 0 else None",
        "import linecache; linecache.checkcache(); linecache.getlines(str(HERE / 'helper.py'))",
        "import contextlib\nwith contextlib.suppress(OSError): open('gone.txt')",
    ],
)
def test_what_is_written_or_is_not_the_users_does_not_count(folder: Path, body: str) -> None:
    assert files_of(folder, body) == set()


def test_what_others_open_meanwhile_is_not_its_own(folder: Path) -> None:
    """Images are read ahead in another thread while a codec runs."""
    from rdpbench.datasets.index import ahead

    with ahead([folder / "w.png"] * 3, Path.read_bytes) as images:
        next(images)
        assert files_of(folder, "(HERE / 'w.txt').read_text()") == {"w.txt"}
        list(images)
    (folder / "w.npy").read_bytes()
    assert files_of(folder, "(HERE / 'w.txt').read_text()") == {"w.txt"}


def test_what_a_process_may_remember_counts_for_all_that_follows(folder: Path) -> None:
    body = "if not hasattr(np, 'kept'): np.kept = np.load('w.npy')"
    try:
        assert files_of(folder, body, times=3) == {"w.npy"}
    finally:
        import numpy as np

        del np.kept  # type: ignore[attr-defined]
    # A file for each image, of thousands, is not in the rows of all others.
    body = "np.at = getattr(np, 'at', 0) + 1\nPath(f'side{np.at}').read_text()"
    count = 3 * CARRIED
    for number in range(1, count + 1):
        (folder / f"side{number}").write_text("x")
    try:
        assert files_of(folder, body, times=count) >= {"side1", f"side{count}"}
        assert len(opened(f"{folder}/mine.py").now()) == CARRIED + 1
    finally:
        del np.at  # type: ignore[attr-defined]


def test_a_file_that_changed_while_it_was_in_use_has_no_hash(folder: Path) -> None:
    files_of(folder, "(HERE / 'w.txt').read_text()")
    noted = opened(f"{folder}/mine.py")
    path = str(folder / "w.txt")
    assert hashes_of(noted.now()) == {path: content_sha256(Path(path))}
    (folder / "w.txt").write_text("another")
    assert hashes_of(noted.now()) == {path: ""}
    (folder / "w.txt").unlink()
    assert hashes_of(noted.now()) == {path: ""}


def test_recorded_files_are_compared_with_the_disk(folder: Path) -> None:
    import json

    inner = folder / "deep" / "inner"
    inner.mkdir(parents=True)
    (inner / "a").write_text("1")
    (folder / "deep" / "back").symlink_to(folder / "deep")
    recorded = json.dumps({str(path): content_sha256(path) for path in (folder / "w.txt", folder / "deep")})
    assert not files_changed(recorded)
    assert not files_changed("{}")
    (inner / "a").write_text("2")
    assert files_changed(recorded)
    (inner / "a").write_text("1")
    assert not files_changed(recorded)
    (inner / "a").rename(inner / "b")
    assert files_changed(recorded)
    (inner / "b").rename(inner / "a")
    (folder / "w.txt").unlink()
    assert files_changed(recorded)
    assert files_changed('{"/": ""}')
    assert files_changed("no JSON")


def test_a_module_that_is_imported_from_elsewhere_is_a_file_that_is_opened(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the folders of PYTHONPATH, say: its source counts, though Python opens a .pyc; and it stays imported."""
    import subprocess
    import sys

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "rdpbench_test_elsewhere.py").write_text("VALUE = 1\n")
    subprocess.run([sys.executable, "-m", "compileall", "-q", elsewhere], check=True)
    monkeypatch.syspath_prepend(elsewhere)
    wanted = {os.path.relpath(elsewhere / "rdpbench_test_elsewhere.py", folder)}
    assert files_of(folder, "import rdpbench_test_elsewhere") == wanted
    registry.forget()
    assert files_of(folder, "import rdpbench_test_elsewhere") == wanted
