"""The fault campaign: damage, signals and hostile codes at seeded places; nothing is lost, nothing waits for ever.

Whatever was injected: the command ends in time, its exit status says whether all is well, damage is named, and once
what the message advises is done, the same command finishes with each task exactly once and the values of an undisturbed
run. The fast cases are a sample of the slow ones, which are more than 250.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.cli import main
from rdpbench.results.store.log import PartReader
from rdpbench.results.store.schema import OF_THE_MACHINE
from rdpbench.results.store.store import Store
from rdpbench.runners.verify import verify

ROOT = Path(__file__).parents[2]
IMAGES, RATES = 4, 3
TASKS = IMAGES * RATES
LONGEST_S = 90
"""No command of the campaign takes longer; one that does waits for ever."""

STEPS = Path(__file__).with_name("steps.py")
values = runpy.run_path(str(STEPS))["values"]


class Bench:
    """A folder with images, a codec and a metric, an undisturbed run, and runs that are disturbed."""

    def __init__(self, base: Path) -> None:
        self.base = base
        (base / "pictures").mkdir()
        rng = np.random.default_rng(7)
        self.sums = []
        for number in range(IMAGES):
            coarse = pil.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
            image = coarse.resize((40, 24), pil.Resampling.BICUBIC)
            image.save(base / f"pictures/image{number}.png")
            self.sums.append(int(np.asarray(image).sum()))
        shutil.copy(STEPS, base)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RDPBENCH_", "PYTEST_"))}
        paths = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
        self.environment = {**kept, "RDPBENCH_CACHE": str(base / "cache"), "PYTHONPATH": paths}
        self.line = ["run", "codec=./steps.py:Steps", f"data=folder:{base}/pictures", "metrics=psnr,./steps.py:Error"]
        self.line += ["figures=false", "verify=0"]
        code, told = self.here("whole")
        assert code == 0, told
        self.whole = values(self.store("whole").read())
        with self.started("cut", PAUSE="0.1") as process:
            self.wait_for_records("cut", 7, process)
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.3)  # its workers notice

    def store(self, run: str) -> Store:
        return Store(self.base / "results/runs" / run)

    def here(self, run: str, *more: str) -> tuple[int, str]:
        """The command inside this process, and what it printed."""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            code = main([*self.line, f"run={run}", "workers=0", *more])
        return code, out.getvalue()

    @contextlib.contextmanager
    def started(self, run: str, *more: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "rdpbench", *self.line, f"run={run}", "workers=2", *more],
            cwd=self.base,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_listen,  # noqa: PLW1509 - it only sets signals
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def outcome(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        told = process.communicate(timeout=LONGEST_S)[0]
        # A command that is killed while it starts a worker leaves that one speechless: Python itself tells of it then.
        assert process.returncode < 0 or "Traceback" not in told, told
        return process.returncode, told

    def wait_for_records(self, run: str, count: int, process: subprocess.Popen[str]) -> None:
        parts = self.store(run).parts
        while sum(path.read_bytes().count(b"\n") for path in parts.glob("*.jsonl")) < count:
            assert process.poll() is None, "the run ended before anything was injected"
            time.sleep(0.002)

    def check(self, run: str) -> None:
        """Each task once, with the values of the undisturbed run, and no file that says otherwise."""
        from pyarrow import parquet

        store = self.store(run)
        assert values(store.read()) == self.whole
        assert list(store.parts.glob("*.jsonl")) == []
        keys = parquet.read_table(store.folder / "rows.parquet", columns=["task_key"])["task_key"].to_pylist()
        assert len(keys) == len(set(keys)) == TASKS

    def finish(self, run: str, *more: str) -> None:
        code, told = self.here(run, *more)
        assert code == 0, told
        self.check(run)


def _listen() -> None:
    """What nohup or a shell ignores is inherited: here each signal does what it does by default."""
    for name in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(name, signal.SIG_DFL)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    base = tmp_path_factory.mktemp("campaign")
    before, cache = Path.cwd(), os.environ.get("RDPBENCH_CACHE")
    os.chdir(base)
    os.environ["RDPBENCH_CACHE"] = str(base / "cache")
    yield Bench(base)
    os.chdir(before)
    if cache is None:
        del os.environ["RDPBENCH_CACHE"]
    else:
        os.environ["RDPBENCH_CACHE"] = cache


@pytest.fixture
def bench(prepared: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(prepared.base)
    monkeypatch.setenv("RDPBENCH_CACHE", str(prepared.base / "cache"))
    return prepared


def cases(fast: int, *axes: Any) -> list[Any]:
    """All combinations; every so many of them is fast, the others are slow."""
    every = list(itertools.product(*axes))
    quick = {every[number * len(every) // fast] for number in range(fast)}
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in every]


# Storage, between runs


def flip(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def replaced(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(len(data))


def inserted(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(3) + data[at:]


def line_lost(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[rng.randrange(len(lines) - 1)]
    return b"".join(lines)


def line_repeated(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    lines.insert(at := rng.randrange(len(lines) - 1), lines[at])
    return b"".join(lines)


def lines_swapped(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines) - 2)
    lines[at : at + 2] = lines[at + 1], lines[at]
    return b"".join(lines)


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    damage.__name__: damage for damage in (flip, cut, replaced, inserted, line_lost, line_repeated, lines_swapped)
}
FILES = {
    "rows": "rows.parquet",
    "scores": "scores.parquet",
    "checksums": "parquet.sha256",
    "session": "sessions/*.json",
    "bitstream": "bitstreams/*/*.bin",
    "part": "parts/*.jsonl",
}


@pytest.mark.parametrize(
    ("file", "damage", "seed"),
    [
        *cases(9, FILES, ("flip", "cut", "replaced", "inserted", "deleted"), range(5)),
        *cases(1, ("part",), ("line_lost", "line_repeated", "lines_swapped"), range(5)),
    ],
)
def test_a_stored_file_is_damaged(bench: Bench, file: str, damage: str, seed: int) -> None:
    """It is named; no good file is given up; the same command finishes once the damaged one is out of the way."""
    rng, run = random.Random(f"{file} {damage} {seed}"), f"{file}-{damage}-{seed}"
    store = bench.store(run)
    shutil.copytree(bench.store("cut" if file == "part" else "whole").folder, store.folder)
    path = rng.choice(sorted(store.folder.glob(FILES[file])))
    good = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(DAMAGES[damage](good, rng))
        assert path.read_bytes() != good or damage == "lines_swapped"
    found = "\n".join(verify(store, None).findings)
    if file != "part" or damage != "deleted":  # of a run that was killed nobody knows what it had
        assert path.name in found
    if file == "checksums":
        assert "rows.parquet was damaged" not in found
    code, told = bench.here(run)
    if code:
        assert (code, path.name in told) == (2, True), told
        assert "elete" not in told.replace("deleted", ""), "good data may be in it"
        if file == "checksums":
            assert "can be read" in told or "was changed after writing, or" in told
            told = subprocess.run("sha256sum *.parquet > parquet.sha256", cwd=store.folder, shell=True, check=True).args
        else:
            path.rename(bench.base / f"{run}.aside")
    elif file == "bitstream":
        path.unlink(missing_ok=True)
    bench.finish(run)
    left = [line for line in verify(store, None).findings if "/sessions/" not in line and file != "checksums"]
    assert left == []


# Storage, while a run writes to it


def lose_parts(store: Store, rng: random.Random) -> None:
    shutil.rmtree(store.parts)


def lose_a_part(store: Store, rng: random.Random) -> None:
    next(store.parts.glob("*.jsonl")).unlink()


def lose_the_folder(store: Store, rng: random.Random) -> None:
    store.folder.rename(store.folder.with_name(f"{store.folder.name}-trash"))
    shutil.rmtree(store.folder.with_name(f"{store.folder.name}-trash"))


def rename_the_folder(store: Store, rng: random.Random) -> None:
    store.folder.rename(store.folder.with_name(f"{store.folder.name}-renamed"))


def rename_parts(store: Store, rng: random.Random) -> None:
    store.parts.rename(store.folder / "moved")


def replace_a_part(store: Store, rng: random.Random) -> None:
    path = next(store.parts.glob("*.jsonl"))
    beside = path.with_suffix(".tmp")
    beside.write_bytes(rng.randbytes(2000))
    beside.replace(path)


def cut_a_part(store: Store, rng: random.Random) -> None:
    path = next(store.parts.glob("*.jsonl"))
    os.truncate(path, rng.randrange(path.stat().st_size))


def flip_a_part(store: Store, rng: random.Random) -> None:
    path = next(store.parts.glob("*.jsonl"))
    with path.open("r+b") as file:
        at = rng.randrange(path.stat().st_size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def lose_bitstreams(store: Store, rng: random.Random) -> None:
    shutil.rmtree(store.folder / "bitstreams")


def lose_sessions(store: Store, rng: random.Random) -> None:
    shutil.rmtree(store.folder / "sessions")


_IN_PARTS = (lose_parts, lose_a_part, rename_parts, replace_a_part, cut_a_part, flip_a_part)
_AROUND = (lose_the_folder, rename_the_folder, lose_bitstreams, lose_sessions)
ACCIDENTS = {accident.__name__: accident for accident in (*_IN_PARTS, *_AROUND)}


@pytest.mark.parametrize(("accident", "seed"), cases(3, ACCIDENTS, range(3)))
def test_storage_changes_while_a_run_writes(bench: Bench, accident: str, seed: int) -> None:
    """The run ends with an error that says so, or well; what it had is saved where that can be."""
    rng, run = random.Random(f"{accident} {seed}"), f"{accident}-{seed}"
    store = bench.store(run)
    with bench.started(run, "verify=4", PAUSE="0.1") as process:
        bench.wait_for_records(run, rng.randrange(4, TASKS - 1), process)  # two are of the call and the metric
        ACCIDENTS[accident](store, rng)
        code, told = bench.outcome(process)
    if accident in ("lose_bitstreams", "lose_sessions"):
        assert code in (0, 1), told
        assert code == 0 or "is missing" in told
    else:
        assert code == 2, told
        assert any(word in told for word in ("deleted", "moved", "renamed", "gone", "changed", "not what was written"))
    if accident == "rename_the_folder":
        shutil.rmtree(store.folder, ignore_errors=True)
        store.folder.with_name(f"{run}-renamed").rename(store.folder)
    if accident == "rename_parts":
        shutil.rmtree(store.parts, ignore_errors=True)
        (store.folder / "moved").rename(store.parts)
    if accident in ("cut_a_part", "flip_a_part", "replace_a_part"):
        for path in store.parts.glob("*.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                if "-saved" not in path.name:
                    path.rename(bench.base / f"{run}.aside")
    # Looked at between its renaming and its end, a folder that is deleted was moved; what is moved is not saved.
    moved = accident == "lose_the_folder" and "was moved or renamed" in told
    if accident not in ("lose_sessions", "cut_a_part", "flip_a_part") and not moved:
        assert store.read().rows, "what was measured is saved"
    bench.finish(run)
    left = [line for line in verify(store, None).findings if "/sessions/" not in line]
    assert left == []
    if accident == "lose_sessions":
        assert "sessions" in "\n".join(verify(store, None).findings)


# Signals


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Worker processes: those of its session whose parent is the fork server."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, rest = path.read_text().split(" ", 1)[0], path.read_text().rpartition(")")[2].split()
            stats.append((int(pid), int(rest[1]), int(rest[3])))
    session = [(pid, parent) for pid, parent, session in stats if session == process.pid]
    servers = {pid for pid, parent in session if parent == process.pid}
    return [pid for pid, parent in session if parent in servers]


@pytest.mark.parametrize(("name", "seed"), cases(1, ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"), range(4)))
def test_a_signal_to_the_command(bench: Bench, name: str, seed: int) -> None:
    """Every other one is sent to its workers too, as a terminal does."""
    rng, run = random.Random(f"{name} {seed}"), f"command-{name}-{seed}"
    with bench.started(run, PAUSE="0.05") as process:
        bench.wait_for_records(run, count := rng.randrange(1, TASKS - 3), process)
        time.sleep(rng.random() * 0.05)
        (os.kill if seed % 2 else os.killpg)(process.pid, getattr(signal, name))
        code, told = bench.outcome(process)
    assert code == (130 if name == "SIGINT" else -getattr(signal, name)), told
    stored = values(bench.store(run).read())["rows"]
    assert stored.items() <= bench.whole["rows"].items()
    if name == "SIGINT":
        parts = [PartReader(path) for path in bench.store(run).parts.glob("*.jsonl")]
        assert sum(len([*part]) for part in parts) >= count
        assert all(part.closed for part in parts)
    bench.finish(run)


def test_everything_is_killed_several_times(bench: Bench) -> None:
    kept: set[str] = set()
    for count in (2, 5, 9):
        with bench.started("several", PAUSE="0.05") as process:
            bench.wait_for_records("several", max(1, count - len(kept)), process)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        stored = set(bench.store("several").read().rows)
        assert stored >= kept, "a row that was there before the kill is gone"
        kept = stored
    assert 0 < len(kept) < TASKS
    bench.finish("several")


@pytest.mark.slow
def test_everything_is_killed_at_any_time(bench: Bench) -> None:
    """Start-up, planning, coding, compaction, tables: wherever the kill lands."""
    rng, more = random.Random(5), ("figures=true", "verify=4")
    begun = time.monotonic()
    with bench.started("timed", *more) as process:
        code, told = bench.outcome(process)
    assert code == 0, told
    length = time.monotonic() - begun
    for run in (f"any-{number}" for number in range(12)):
        for _ in range(2):
            with bench.started(run, *more) as process:
                time.sleep(rng.random() * length)
        bench.finish(run)


def test_the_command_alone_is_killed_and_typed_again_at_once(bench: Bench) -> None:
    """Its workers are still coding while the next one begins: they must not hold the lock, nor disturb."""
    with bench.started("at-once", PAUSE="0.2") as process:
        bench.wait_for_records("at-once", 3, process)
        left = workers_of(process)
        process.kill()
        process.wait()
        assert [*filter(_readable, (Path(f"/proc/{pid}/cmdline") for pid in left))]
        bench.finish("at-once")


@pytest.mark.parametrize(("name", "seed"), cases(2, ("SIGKILL", "SIGTERM", "SIGHUP", "SIGSEGV", "SIGSTOP"), range(4)))
def test_a_signal_to_a_worker(bench: Bench, name: str, seed: int) -> None:
    """What the system did is tried again by the same call; a crash, and a worker that stands still, is a failed row."""
    rng, run = random.Random(f"{name} {seed}"), f"worker-{name}-{seed}"
    with bench.started(run, "timeout=6", PAUSE="0.1") as process:
        bench.wait_for_records(run, rng.randrange(4, TASKS - 2), process)
        time.sleep(rng.random() * 0.05)
        os.kill(rng.choice(workers_of(process)), getattr(signal, name))
        code, told = bench.outcome(process)
    if name in ("SIGSEGV", "SIGSTOP"):
        assert code in (0, 1), told  # 0: it had nothing left to do
        failed = [row.error for row in bench.store(run).read().rows.values() if row.status == "error"]
        assert len(failed) == code
        assert all("SIGSEGV" in error or "no result within 6 seconds" in error for error in failed)
    else:
        assert code == 0, told
        bench.check(run)
    bench.finish(run, "retry_failed=true")


# Hostile codecs and metrics

HOSTILE = {
    "forks": 0,
    "leaves-a-child": 0,
    "no-space once": 0,
    "SIGTERM once": 0,
    "SIGKILL once": 0,
    "forks-and-dies": 1,
    "hangs": 1,
    "ignores-and-hangs": 1,
    "exits": 1,
    "sys-exits": 1,
    "SIGABRT": 1,
    "surrogate": 1,
    "endless": 1,
    "SIGKILL": 2,
    "no-space": 2,
}
"""0: as if nothing had been; 1: a row that fails until retry_failed; 2: one that the next call tries by itself."""


@pytest.mark.parametrize(
    ("what", "place", "seed"),
    [
        *cases(4, HOSTILE, ("encode",), range(2)),
        *cases(1, ("forks", "hangs", "exits", "surrogate", "no-space once"), ("metric",), range(2)),
    ],
)
def test_a_codec_or_metric_is_hostile(bench: Bench, what: str, place: str, seed: int) -> None:
    run = f"{what.replace(' ', '-')}-{place}-{seed}"
    fault, _, once = what.partition(" ")
    victim, mark = random.Random(run).choice(bench.sums), str(random.Random(run).randrange(10**9))
    fault = f"{fault} {place} {victim} {bench.base / f'{run}.once' if once else '-'}"
    timeout = 2 if "hangs" in fault else 4  # each of three tasks takes it
    with bench.started(run, f"timeout={timeout}", FAULT=fault, MARK=mark) as process:
        code, told = bench.outcome(process)
    contents = bench.store(run).read()
    assert len(contents.rows) == TASKS
    errors = [row.error for row in contents.rows.values() if row.status == "error"]
    errors += [score.error for score in contents.scores.values() if score.value is None]
    assert all(len(error) < 5000 and error.encode() for error in errors)
    kind = HOSTILE[what]
    if kind == 0:
        assert code == 0, told
        assert errors == []
    elif place == "encode":
        assert code == 1, told
        assert Counter(error.startswith(OF_THE_MACHINE) for error in errors) == {kind == 2: RATES}
    else:
        assert errors
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)]
    assert not any(mark.encode() in command for command in commands), "a child of the codec lives on"
    bench.finish(run, *(["retry_failed=true"] if kind == 1 else []))


def test_a_codec_that_forks_inside_the_command_itself(bench: Bench) -> None:
    """With workers=0 its child is a second run of the same command: it ends, and stores nothing."""
    with bench.started("forks-here", "workers=0", FAULT=f"forks encode {bench.sums[1]} -") as process:
        code, told = bench.outcome(process)
    assert code == 0, told
    assert told.count(f"{TASKS} tasks coded") == 1
    bench.check("forks-here")


def test_a_worker_whose_command_is_killed_does_not_hang_on(bench: Bench) -> None:
    """Nobody is there to end it; it has an alarm of its own."""
    early = bench.base / "early"  # every Python of the command runs this first; else it would be half a minute
    early.mkdir()
    (early / "sitecustomize.py").write_text("from rdpbench.runners import pool\npool.GRACE_S = 3.0\n")
    fault = f"hangs encode {bench.sums[0]} -"
    path = f"{early}{os.pathsep}{bench.environment['PYTHONPATH']}"
    with bench.started("orphan", "timeout=1", PYTHONPATH=path, FAULT=fault) as process:
        bench.wait_for_records("orphan", 3, process)
        left = workers_of(process)
        process.kill()
        process.wait()
        ends = time.monotonic() + LONGEST_S
        while any(Path(f"/proc/{pid}").exists() for pid in left):
            assert time.monotonic() < ends
            time.sleep(0.2)
    bench.finish("orphan", "retry_failed=true")


@pytest.mark.parametrize("size", [240, 300])
def test_long_names(tmp_path: Path, rdpbench: Any, size: int) -> None:
    """Of a run: refused before anything is coded. Of an image: cut, where its reconstruction is kept."""
    name, word = "n" * size, "ä" * (size // 2)
    (tmp_path / "pictures").mkdir()
    pil.effect_noise((40, 24), 50).convert("RGB").save(tmp_path / f"pictures/{'n' * 240}.png")
    line = ["run", "codec=jpeg", "rate=30", "data=folder:pictures", "metrics=psnr", "figures=false", "workers=0"]
    for run in (name, word):
        done = rdpbench(*line, f"run={run}", "keep=all", code=2)
        assert "must be a plain name of one folder" in done.stderr
    rdpbench(*line, "run=short", "keep=all", code=0)
    assert len(list((tmp_path / "results").rglob("reconstructions/**/*.png"))) == 1


def _readable(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.read_bytes()
        return True
    return False
