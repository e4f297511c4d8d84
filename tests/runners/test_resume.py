"""Killed at any moment, the same command finishes: every row once, none lost, the values of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rdpbench.results.store.contents import Contents
from rdpbench.results.store.log import PartReader
from rdpbench.results.store.store import Store

VOLATILE = {"session", "time", "encode_s", "decode_s", "score_s", "peak_memory_mb", "verified"}
"""What may differ between two runs of the same: clocks, memory, and whether verification has seen a row."""

# Takes a few milliseconds an image, so that a kill lands in the middle; bytes and pixels depend on the input alone.
CODEC = """
import time, zlib
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from rdpbench.codecs.contract import Bitstream, Rate

@dataclass(frozen=True)
class Steps:
    step: int = 8
    pause: float = 0.03
    rate: ClassVar[Rate] = Rate("step", 1, 64, rises=False, points=(4, 8, 16, 32))

    def encode(self, image, side):
        time.sleep(self.pause)
        return Bitstream.whole(bytes([*image.shape[:2], self.step]) + zlib.compress((image // self.step).tobytes()))

    def decode(self, data):
        levels = np.frombuffer(zlib.decompress(data[3:]), np.uint8).reshape(data[0], data[1], 3).astype(int)
        return np.clip(levels * data[2] + data[2] // 2, 0, 255).astype(np.uint8)
"""


class Runs:
    """The same command, killed or not."""

    def __init__(self, tmp_path: Path, folder: Path, environment: dict[str, str], pause: float = 0.03) -> None:
        (tmp_path / "steps.py").write_text(CODEC)
        self.tmp_path, self.environment = tmp_path, environment
        self.line = [sys.executable, "-m", "rdpbench", "run", "codec=./steps.py:Steps", f"data=folder:{folder}"]
        self.line += ["metrics=psnr", "figures=false", "verify=0", "workers=2", f"codec.options.pause={pause}"]

    @contextlib.contextmanager
    def started(self, run: str, *more: str) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [*self.line, f"run={run}", *more],
            cwd=self.tmp_path,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def finish(self, run: str, *more: str) -> int:
        with self.started(run, *more) as process:
            return process.wait(120)

    def store(self, run: str) -> Store:
        return Store(self.tmp_path / "results/runs" / run)

    def wait_for_records(self, run: str, count: int, process: subprocess.Popen[bytes]) -> None:
        parts = self.store(run).parts
        while sum(path.read_bytes().count(b"\n") for path in parts.glob("*.jsonl")) < count:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.002)


def values(contents: Contents) -> dict[str, Any]:
    """All that must be equal."""
    rows = {
        key: {name: value for name, value in vars(row).items() if name not in VOLATILE}
        for key, row in contents.rows.items()
    }
    scores = {key: {**vars(score), "session": ""} for key, score in contents.scores.items()}
    return {"rows": rows, "scores": scores}


def check(runs: Runs, killed: str, whole: str, tasks: int) -> None:
    store = runs.store(killed)
    contents = store.read()
    assert len(contents.rows) == tasks
    assert values(contents) == values(runs.store(whole).read())
    assert list(store.parts.glob("*.jsonl")) == []
    from pyarrow import parquet

    keys = parquet.read_table(store.folder / "rows.parquet", columns=["task_key"])["task_key"].to_pylist()
    assert len(keys) == len(set(keys)) == tasks


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """Worker processes: the processes of its session whose parent is the fork server."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, rest = path.read_text().split(" ", 1)[0], path.read_text().rpartition(")")[2].split()
            stats.append((int(pid), int(rest[1]), int(rest[3])))
    session = [(pid, parent) for pid, parent, session in stats if session == process.pid]
    servers = {pid for pid, parent in session if parent == process.pid}
    return [pid for pid, parent in session if parent in servers]


def test_sigkill_of_everything_several_times(tmp_path: Path, images: Any, environment: dict[str, str]) -> None:
    runs, rng = Runs(tmp_path, images(6), environment), random.Random(11)
    assert runs.finish("whole") == 0
    kept: set[str] = set()
    for count in sorted(rng.sample(range(1, 22), 3)):
        with runs.started("killed") as process:
            runs.wait_for_records("killed", max(1, count - len(kept)), process)
            time.sleep(rng.random() * 0.03)
            os.killpg(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        stored = set(runs.store("killed").read().rows)
        assert stored >= kept, "a row that was there before the kill is gone"
        kept = stored
    assert 0 < len(kept) <= 24
    assert runs.finish("killed") == 0
    check(runs, "killed", "whole", 24)


@pytest.mark.slow
def test_sigkill_at_any_time(tmp_path: Path, images: Any, environment: dict[str, str]) -> None:
    """Start-up, planning, coding, compaction, tables: wherever the kill lands."""
    runs, rng = Runs(tmp_path, images(6), environment, pause=0.005), random.Random(5)
    started = time.monotonic()
    assert runs.finish("whole", "figures=true", "verify=4") == 0
    length = time.monotonic() - started
    for number in range(12):
        run = f"killed{number}"
        for _ in range(2):
            with runs.started(run, "figures=true", "verify=4") as process:
                time.sleep(rng.random() * length)
                os.killpg(process.pid, signal.SIGKILL)
        assert runs.finish(run) == 0
        check(runs, run, "whole", 24)


def test_the_parent_alone_is_killed_and_run_again_at_once(
    tmp_path: Path, images: Any, environment: dict[str, str]
) -> None:
    """Its workers are still coding while the next run begins: they must not hold the lock, nor disturb."""
    runs = Runs(tmp_path, images(6), environment, pause=0.2)
    with runs.started("killed") as process:
        runs.wait_for_records("killed", 3, process)
        process.kill()
        process.wait()
        assert runs.finish("killed") == 0
    assert runs.finish("whole") == 0
    check(runs, "killed", "whole", 24)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sigkill_of_one_worker(tmp_path: Path, images: Any, environment: dict[str, str], seed: int) -> None:
    """No codec is to blame for that: a new worker does its task, and all others."""
    runs, rng = Runs(tmp_path, images(6), environment), random.Random(seed)
    with runs.started("killed") as process:
        runs.wait_for_records("killed", rng.randrange(1, 8), process)
        victim = rng.choice(children(process))
        os.kill(victim, signal.SIGKILL)
        assert process.wait(120) == 0
    assert runs.finish("whole") == 0
    check(runs, "killed", "whole", 24)


def test_control_c_stores_what_was_finished(tmp_path: Path, images: Any, environment: dict[str, str]) -> None:
    runs = Runs(tmp_path, images(6), environment, pause=0.1)
    with runs.started("killed") as process:
        runs.wait_for_records("killed", 2, process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    [part] = [PartReader(path) for path in runs.store("killed").parts.glob("*.jsonl")]
    assert 2 <= len(list(part)) < 24
    assert part.closed
    assert runs.finish("killed") == 0
    assert len(runs.store("killed").read().rows) == 24


def test_workers_or_none_give_the_same(tmp_path: Path, images: Any, environment: dict[str, str]) -> None:
    runs = Runs(tmp_path, images(3), environment, pause=0)
    assert runs.finish("two") == 0
    assert runs.finish("none", "workers=0") == 0
    check(runs, "none", "two", 12)
