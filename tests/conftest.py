"""What all tests share."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.needs import absent

ROOT = Path(__file__).parents[1]

# As in a worker: threads change pixels, and two test processes of two threads each fight over two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where a test takes two, a thread that waits gives its core to the one it waits for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Hundreds of commands are started; each would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell ignores Ctrl-C for what it starts in the background, and children inherit that: tests send it to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LIGHT = importlib.util.find_spec("torch") is None
"""Is only the light core installed? Then a test that meets a package of an extra is skipped, and says which."""


_imported = 0


def pytest_runtest_logstart() -> None:
    """Codecs collect garbage before they load: what was imported, a million objects, need not be looked through."""
    global _imported  # noqa: PLW0603 - of this process
    if len(sys.modules) > _imported + 100:
        gc.collect()
        gc.freeze()
        _imported = len(sys.modules)


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # libraries complain about what an ending process leaves behind


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    yield from _without_extras()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    yield from _without_extras()


def _without_extras() -> Generator[None]:
    try:
        return (yield)
    except Exception as error:
        chain: BaseException | None = error
        while LIGHT and chain is not None:
            told = absent(chain) if isinstance(chain, ModuleNotFoundError) else str(chain)
            if found := re.search(r"pip install 'rdpbench\[\w+\]'", told or ""):
                pytest.skip(f"needs an extra: {found[0]}")
            chain = chain.__cause__ or chain.__context__
        raise


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and published curves beside the checkout; tests that need it skip without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder 'shared' beside the checkout: real images and published curves are not here")
    return folder


Images = Callable[..., Path]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
COMMAND = (
    "hydra",
    "pandas",
    "pyarrow.parquet",
    "rich.console",
    "rich.table",
    "rdpbench.config.bench",
    "rdpbench.runners.execute",
)
"""What most commands import."""


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
    own = {"RDPBENCH_CACHE": str(tmp_path / "cache"), "PYTHONPATH": paths(), "COLUMNS": "200"}
    # Of a short name: sockets lie there. Tests that time run beside others, which time too.
    with tempfile.TemporaryDirectory(prefix="rdp", ignore_cleanup_errors=True) as temporary:
        yield {**kept, **own, "TMPDIR": temporary}


class Forks:
    """Runs programs in new processes, without the time that imports take: `forks.py` has imported ``modules``."""

    def __init__(self, *modules: str) -> None:
        line = [sys.executable, str(Path(__file__).with_name("forks.py")), *modules]
        self.environment = {**os.environ, "PYTHONPATH": paths()}
        self._server = subprocess.Popen(
            line,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._folder = tempfile.TemporaryDirectory()

    def run(
        self, words: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """What ``python WORDS`` does, started in ``folder``."""
        if of_python(environment) != of_python(self.environment):  # only a new interpreter reads them
            return run_anew([sys.executable, *words], folder, environment, timeout)
        files = {name: Path(self._folder.name, name) for name in ("out", "err")}
        for file in files.values():
            file.unlink(missing_ok=True)  # what is left of the program before may hold the old one
            file.touch()
        order: dict[str, Any] = {"words": words, "folder": str(folder), "environment": dict(environment)}
        order |= {name: str(file) for name, file in files.items()}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(order), file=self._server.stdin, flush=True)
        if not select.select([self._server.stdout], [], [], timeout)[0]:
            self.close()
            raise subprocess.TimeoutExpired(words, timeout)
        code = int(self._server.stdout.readline())
        out, err = (file.read_text() for file in files.values())
        return subprocess.CompletedProcess([sys.executable, *words], code, out, err)

    @property
    def ended(self) -> bool:
        return self._server.poll() is not None

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.communicate()
        self._folder.cleanup()


def paths() -> str:
    """``PYTHONPATH`` of what tests start: this checkout first."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def of_python(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("PYTHON")}


def run_anew(
    line: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture(scope="session")
def forks() -> Iterator[Callable[..., Forks]]:
    """Starts a `Forks` for the modules that programs import, or returns the one that was started for them."""
    started: dict[tuple[str, ...], Forks] = {}

    def start(*modules: str) -> Forks:
        if modules not in started or started[modules].ended:
            started[modules] = Forks(*modules)
        return started[modules]

    yield start
    for server in started.values():
        server.close()


@pytest.fixture
def rdpbench(tmp_path: Path, environment: dict[str, str], forks: Callable[..., Forks]) -> Command:
    """Runs ``rdpbench ...`` as a user would, in ``tmp_path``: ``rdpbench("run", "codec=jpeg", code=0)``."""

    def run(
        *arguments: str,
        code: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        words, folder, variables = ["-m", "rdpbench", *arguments], cwd or tmp_path, {**environment, **(env or {})}
        if prefix:
            done = run_anew([*prefix, sys.executable, *words], folder, variables, 240)
        else:
            done = forks(*COMMAND).run(words, folder, variables)
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
    from rdpbench.runners.server import start_server

    if "PYTEST_XDIST_WORKER" in os.environ:  # many tests are to come, and some of their workers need these
        start_server(("torch", "rdpbench.codecs.learned.library"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    # Tests that time run beside others, which time too.
    monkeypatch.setattr("rdpbench.runners.execute.lock_folder", lambda: tmp_path)
    return lambda *arguments: main(arguments)
