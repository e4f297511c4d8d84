"""What all tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

ROOT = Path(__file__).parents[1]

# As in a worker: threads change pixels, and two test processes of two threads each fight over two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell ignores Ctrl-C for what it starts in the background, and children inherit that: tests send it to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and published curves beside the checkout; tests that need it skip without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder 'shared' beside the checkout: real images and published curves are not here")
    return folder


Images = Callable[..., Path]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """Makes a folder of small smooth images: ``images(4)``, ``images(2, name="my pictures", size=(30, 40))``."""

    def make(count: int, name: str = "pictures", size: tuple[int, int] = (40, 56), seed: int = 0) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for number in range(count):
            coarse = pil.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
            coarse.resize(size[::-1], pil.Resampling.BICUBIC).save(folder / f"image{number:02d}.png")
        return folder

    return make


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What a command runs with: a cache and temporary files of its own, none of the user's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RDPBENCH_", "PYTEST_"))}
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    own = {"RDPBENCH_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}
    # Of a short name: sockets lie there. Tests that time run beside others, which time too.
    with tempfile.TemporaryDirectory(prefix="rdp", ignore_cleanup_errors=True) as temporary:
        yield {**kept, **own, "TMPDIR": temporary}


@pytest.fixture
def rdpbench(tmp_path: Path, environment: dict[str, str]) -> Command:
    """Runs ``rdpbench ...`` as a user would, in ``tmp_path``: ``rdpbench("run", "codec=jpeg", code=0)``."""

    def run(
        *arguments: str,
        code: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "rdpbench", *arguments],
            cwd=cwd or tmp_path,
            env={**environment, **(env or {})},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        # A traceback is never what a user should meet.
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs ``rdpbench ...`` inside the test's process, for what a test only sets up: a second faster."""
    from rdpbench.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    # Tests that time run beside others, which time too.
    monkeypatch.setattr("rdpbench.runners.execute.lock_folder", lambda: tmp_path)
    return lambda *arguments: main(arguments)
