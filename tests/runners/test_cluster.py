"""The campaign over several who take part in one run: whatever happens to them, each task is stored once, and true.

More than 200 seeded injections: signals to workers, to the command, to Ray's actors and its raylet, to jobs; preemption
with a requeue; workers that stand still until others take their chunks, and then go on; clocks an hour apart; a folder
that answers late. After each run its rows and scores are those of an undisturbed one. A handful of runs is fast.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.results.store.store import Store

ROOT = Path(__file__).parents[2]
IMAGES = 20
TASKS = 3 * IMAGES
LONGEST_S = 120

STEPS = Path(__file__).with_name("steps.py")
values = runpy.run_path(str(STEPS))["values"]
CODEC = STEPS.read_text()

# Starts commands in forked processes, which have imported all that takes time; each leads a session.
CREW = """
import datetime, json, os, pathlib, random, select, signal, sys, time
import hydra, numpy, pandas, pyarrow.parquet, rich.table
import rdpbench.config.bench, rdpbench.runners.execute, rdpbench.runners.work
from rdpbench import provenance
from rdpbench.cli import main
from rdpbench.runners import claim, queue

def shifted(hours):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.datetime.now(zone) + datetime.timedelta(hours=hours)
    provenance.datetime = Clock
    now = time.time
    time.time = lambda: now() + 3600 * hours

def late(seed):
    rng = random.Random(seed)
    def delayed(act):
        def act_late(*arguments, **named):
            if rng.random() < 0.3:
                time.sleep(rng.random() * 0.2)
            done = act(*arguments, **named)
            if rng.random() < 0.3:
                time.sleep(rng.random() * 0.2)
            return done
        return act_late
    for place, name in ((pathlib.Path, "rename"), (pathlib.Path, "unlink"), (os, "listdir"), (os, "pwrite")):
        setattr(place, name, delayed(getattr(place, name)))

def begin(order):
    os.setsid()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_DFL)
    out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update(order["environment"])
    queue.LEASE_S, queue.RENEW_S = 1.0, 0.1
    claim.FULL = int(os.environ.get("FULL", claim.FULL))
    if order["hours"]:
        shifted(order["hours"])
    if order["late"]:
        late(order["late"])
    code = main(order["words"])
    sys.stdout.flush()
    os._exit(code)

if __name__ == "__main__":
    lines, running = "", {}
    while True:
        if select.select([0], [], [], 0.02)[0]:
            read = os.read(0, 1 << 16).decode()
            if not read:
                break
            lines += read
            *orders, lines = lines.split("\\n")
            for order in map(json.loads, orders):
                if not (pid := os.fork()):
                    begin(order)
                running[pid] = order["ended"]
                print(pid, flush=True)
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            pathlib.Path(running.pop(pid)).write_text(str(os.waitstatus_to_exitcode(status)))
"""


class Started:
    """A command that is running."""

    def __init__(self, pid: int, out: Path, ended: Path) -> None:
        self.pid, self.out, self.ended = pid, out, ended

    @property
    def code(self) -> int | None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(self.ended.read_text())
        return None

    def kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> int:
        ends = time.monotonic() + LONGEST_S
        while (code := self.code) is None:
            assert time.monotonic() < ends, f"it waits for ever: {self.out.read_text()}"
            time.sleep(0.02)
        return code


class Crew:
    """A folder with images and a codec, an undisturbed run of it, and commands that work on others."""

    def __init__(self, base: Path) -> None:
        self.base = base
        (base / "pictures").mkdir()
        rng = np.random.default_rng(3)
        self.sums = []
        for number in range(IMAGES):
            image = pil.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((40, 24))
            image.save(base / f"pictures/image{number:02}.png")
            self.sums.append(int(np.asarray(image).sum()))
        shutil.copy(STEPS, base)
        (base / "crew.py").write_text(CREW)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RDPBENCH_", "PYTEST_"))}
        paths = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
        self.environment = {**kept, "RDPBENCH_CACHE": str(base / "cache"), "PYTHONPATH": paths}
        self.server = subprocess.Popen(
            [sys.executable, "crew.py"],
            cwd=base,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.count = 0
        self.hits: Counter[tuple[str, str]] = Counter()
        """Who was hit, and by what."""
        self.started: list[Started] = []
        self.run = ["codec=./steps.py:Steps", f"data=folder:{base}/pictures", "metrics=psnr", "figures=false"]
        whole = self.command("whole", "workers=0")
        assert whole.wait() == 0, whole.out.read_text()
        self.whole = values(self.store("whole").read())

    def store(self, run: str) -> Store:
        return Store(self.base / "results/runs" / run)

    def start(self, *words: str, hours: int = 0, late: int = 0, **environment: str) -> Started:
        self.count += 1
        out, ended = (self.base / f"{self.count}.{name}" for name in ("out", "code"))
        order = {"words": words, "hours": hours, "late": late, "environment": environment}
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print(json.dumps({**order, "out": str(out), "ended": str(ended)}), file=self.server.stdin, flush=True)
        self.started.append(Started(int(self.server.stdout.readline()), out, ended))
        return self.started[-1]

    def command(self, run: str, *more: str, **how: Any) -> Started:
        return self.start("run", *self.run, f"run={run}", "verify=2", *more, **how)

    def worker(self, run: str, *more: str, **how: Any) -> Started:
        return self.start("worker", run, "codec=./steps.py:Steps", *(more or ("workers=0",)), **how)

    def records(self, run: str) -> int:
        from pyarrow import parquet

        count = 0
        folder = self.store(run).folder
        for path in [*folder.glob("rows*.parquet"), *folder.glob("segments/rows*.parquet")]:
            with contextlib.suppress(FileNotFoundError):
                count += parquet.read_metadata(path).num_rows
        for path in self.store(run).parts.glob("*.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                count += path.read_bytes().count(b'"row"')
        return count

    def wait_for_records(self, run: str, count: int, of: Started) -> bool:
        """Wait for so many rows; False if the command ended before."""
        ends = time.monotonic() + LONGEST_S
        while self.records(run) < count:
            if of.code is not None:
                return False
            assert time.monotonic() < ends, of.out.read_text()
            time.sleep(0.01)
        return True

    def wait_for_queue(self, run: str) -> None:
        """Wait until the command is at work."""
        ends = time.monotonic() + LONGEST_S
        while not [*self.store(run).folder.glob("queue/*/alive/[!.]*")]:
            assert time.monotonic() < ends
            time.sleep(0.01)

    def check(self, run: str) -> None:
        """Each task once, with the values of the undisturbed run, and nothing left behind."""
        from pyarrow import parquet

        store = self.store(run)
        assert values(store.read()) == self.whole
        keys: list[str] = []
        for path in store.folder.glob("rows*.parquet"):
            keys += parquet.read_table(path, columns=["task_key"])["task_key"].to_pylist()
        assert len(keys) == len(set(keys))
        assert not (store.folder / "queue").exists()

    def finish(self, run: str) -> None:
        """The same command ends well, whatever state the run is in."""
        last = self.command(run, "workers=0")
        assert last.wait() == 0, last.out.read_text()
        self.check(run)

    def processes(self, name: str, inside: str = "") -> list[int]:
        """Processes of ours whose command line has these words."""
        out = []
        for pid in below(self.server.pid):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                out += [pid] if name in line and inside in line else []
        return out

    def end(self) -> None:
        for one in self.started:
            if one.code is None:
                one.kill(signal.SIGKILL)
        self.started.clear()


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    crew = Crew(tmp_path_factory.mktemp("crew"))
    yield crew
    for (who, fault), count in sorted(crew.hits.items()):  # with -s
        print(f"{who}, {fault}: {count}")
    print(f"{crew.hits.total()} injections")
    assert crew.server.stdin is not None
    crew.server.stdin.close()
    crew.server.wait(30)
    assert crew.server.stdout is not None
    crew.server.stdout.close()


@pytest.fixture
def crew(everybody: Crew) -> Iterator[Crew]:
    yield everybody
    everybody.end()


def seeds(fast: int, count: int) -> list[Any]:
    return [pytest.param(seed, marks=() if seed < fast else pytest.mark.slow) for seed in range(count)]


FAULTS = ("SIGKILL", "SIGTERM", "SIGUSR1", "SIGSTOP", "parent SIGKILL", "parent SIGTERM")
INJECTIONS = 6


@pytest.mark.parametrize("seed", seeds(2, 28))
def test_workers_come_and_go(crew: Crew, seed: int) -> None:
    """A command and two workers share a run; what is hit is started again, as a batch system would requeue it.

    In each third run, the clocks of two workers are an hour off, either way; in each third the folder answers late. In
    each second a part is full after a few lines, and is put away while others work.
    """
    rng, run = random.Random(seed), f"mix-{seed}"
    how: dict[str, Any] = {"PAUSE": "0.05", "late": seed if seed % 3 == 1 else 0, "FULL": "5" if seed % 2 else "9999"}
    hours = iter([1, -1] * INJECTIONS if seed % 3 == 2 else [0] * 2 * INJECTIONS)
    command = crew.command(run, "workers=0", **how)
    crew.wait_for_queue(run)
    workers = [crew.worker(run, **how, hours=next(hours)) for _ in range(2)]
    stopped: list[Started] = []
    for number in range(INJECTIONS):
        if not crew.wait_for_records(run, 6 * (number + 1), command):
            break
        time.sleep(rng.random() * 0.1)
        fault = rng.choice(FAULTS)
        crew.hits["mix", fault] += 1
        if fault.startswith("parent"):
            command.kill(signal.Signals[fault.split()[1]])
            command.wait()
            command = crew.command(run, "workers=0", **how)
        else:
            at = rng.randrange(2)
            workers[at].kill(signal.Signals[fault])
            stopped += [workers[at]] if fault == "SIGSTOP" else []
            workers[at] = crew.worker(run, **how, hours=next(hours))
        if stopped and rng.random() < 0.5:
            time.sleep(1.2)  # its lease ran out
            stopped.pop().kill(signal.SIGCONT)
    for one in stopped:
        one.kill(signal.SIGCONT)
    told = command.wait(), command.out.read_text()
    assert told[0] == 0, told
    for one in (*workers, *stopped):
        assert one.wait() == 0 or "Traceback" not in one.out.read_text(), one.out.read_text()
    crew.finish(run)


@pytest.mark.parametrize("seed", seeds(1, 6))
def test_local_processes_and_another_command(crew: Crew, seed: int) -> None:
    """Two commands with processes of their own; the processes and the commands are hit."""
    rng, run = random.Random(seed), f"local-{seed}"
    how = {"PAUSE": "0.05", "FULL": "9999" if seed % 2 else "7"}
    commands = [crew.command(run, "workers=2", **how) for _ in range(2)]
    for number in range(4):
        if not crew.wait_for_records(run, 8 * (number + 1), commands[0]):
            break
        name = rng.choice((signal.SIGKILL, signal.SIGTERM))
        if rng.random() < 0.4:
            at = rng.randrange(2)
            commands[at].kill(name)
            commands[at].wait()
            commands[at] = crew.command(run, "workers=2", **how)
            crew.hits["local", f"command {name.name}"] += 1
        elif children := [pid for pid in below(commands[number % 2].pid) if pid != commands[number % 2].pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(children[1:] or children), name)
                crew.hits["local", f"process {name.name}"] += 1
    for command in commands:
        assert command.wait() in (0, 1), command.out.read_text()
    crew.finish(run)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_part_is_put_away_while_the_run_goes_on(crew: Crew, workers: int) -> None:
    """What a kill leaves to be read line by line is one part at most, however long the run was."""
    run = f"full-{workers}"
    command = crew.command(run, f"workers={workers}", PAUSE="0.05", FULL="8")
    assert crew.wait_for_records(run, 40, command)
    command.kill(signal.SIGKILL)
    command.wait()
    in_parts = sum(path.read_bytes().count(b'"row"') for path in crew.store(run).parts.glob("*.jsonl"))
    assert in_parts < 30, "rows lie in parts that are over"
    assert len(crew.store(run).read().rows) > 24  # a row may be counted in a part and in Parquet
    crew.finish(run)
    assert len([*crew.store(run).folder.glob("sessions/*.json")]) > 4


def test_a_task_that_kills_its_workers_fails_alone(crew: Crew) -> None:
    poison = f"SIGKILL encode {crew.sums[4]}-8 -"
    for turn in range(8):
        command = crew.command("poison", "workers=0", PAUSE="0.2") if not turn else crew.worker("poison", FAULT=poison)
        if not turn:  # the command stands by, and the workers are killed one after the other
            crew.wait_for_queue("poison")
            command.kill(signal.SIGSTOP)
            first = command
        elif command.wait() == 0:
            break
    first.kill(signal.SIGCONT)
    assert first.wait() == 1, first.out.read_text()
    rows = crew.store("poison").read().rows.values()
    failed = [row for row in rows if row.status == "error"]
    assert len(rows) == TASKS
    assert [row.image for row in failed] == ["image04"]
    assert "those that worked on this image died 3 times over it" in failed[0].error


def test_a_worker_does_nothing_for_others_or_for_other_code(crew: Crew) -> None:
    """Code of one's own is named again; other keys are refused, and what a worker has no say in."""
    command = crew.command("strict", "workers=0", PAUSE="1")
    crew.wait_for_queue("strict")
    unnamed = crew.start("worker", "strict", "workers=0")
    (crew.base / "other.py").write_text(CODEC.replace("zlib.compress(", "zlib.compress(level=1, data="))
    other = crew.start("worker", "strict", "codec=./other.py:Steps", "workers=0")
    odd = crew.start("worker", "strict", "rate=3")
    assert unnamed.wait() == other.wait() == odd.wait() == 2
    assert "type them again: codec=./steps.py:Steps" in unnamed.out.read_text()
    assert "codec Steps: " in other.out.read_text()
    assert "rate=3 is not for a worker" in odd.out.read_text()
    command.kill(signal.SIGKILL)
    crew.finish("strict")


def test_two_commands_that_differ_run_side_by_side(crew: Crew) -> None:
    first = crew.command("both", "workers=0", PAUSE="0.02")
    second = crew.command("both", "workers=0", "metrics=ms-ssim,psnr", "allow_partial=true", PAUSE="0.02")
    assert (first.wait(), second.wait()) == (0, second.code), first.out.read_text()
    assert len(crew.store("both").read().rows) == TASKS
    assert crew.store("both").read().rows.keys() == crew.whole["rows"].keys()


def test_too_many_failures_stop_a_run_and_all_who_take_part(crew: Crew, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(crew.base / "pictures", folder)
    line = ["run", f"codec={tmp_path}/bad.py:Bad", f"data=folder:{folder}", "metrics=psnr", "figures=false"]
    (tmp_path / "bad.py").write_text(
        CODEC.replace("Steps", "Bad").replace("return Bitstream", "1 / 0; return Bitstream")
    )
    run = crew.start(*line, "run=bad", "workers=0", "max_failures=5")
    assert run.wait() == 1
    assert "stopped: 5 tasks failed, and max_failures=5; the same command goes on" in run.out.read_text()
    assert len(crew.store("bad").read().rows) == 5


def below(pid: int) -> list[int]:
    """A process and its descendants."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    out = [pid]
    for one in out:
        out += parents.get(one, [])
    return out


JOBS = {
    "worker killed": ("rdpbench worker", signal.SIGKILL),
    "worker told to end": ("rdpbench worker", signal.SIGTERM),
    "job preempted": ("submitit.core._submit", signal.SIGUSR2),
}
ACTORS = {
    "worker killed": ("rdpbench worker", signal.SIGKILL),
    "worker told to end": ("rdpbench worker", signal.SIGTERM),
    "actor killed": ("ray::Actor", signal.SIGKILL),
    "raylet killed": ("raylet/raylet", signal.SIGKILL),
    "driver killed": ("rdpbench.runners.launch", signal.SIGKILL),
}
"""What is hit: words of a command line, and with which signal."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runner", "seed"), [*(("slurm", seed) for seed in range(6)), *(("ray", seed) for seed in range(5))]
)
def test_what_launchers_start_is_hit(crew: Crew, runner: str, seed: int) -> None:
    """And a command beside them takes part. What does not end well goes on when it is typed again."""
    module, faults = {"slurm": ("submitit", JOBS), "ray": ("ray", ACTORS)}[runner]
    if not importlib.util.find_spec(module):
        pytest.skip(f"{module} is not installed: pip install 'rdpbench[{runner}]'")
    rng, run = random.Random(seed), f"{runner}-{seed}"
    local = ("runner.cluster=local", "runner.minutes=10") if runner == "slurm" else ()
    line = (f"runner={runner}", "runner.jobs=2", "workers=1", *local)
    command = crew.command(run, *line, PAUSE="0.15")
    in_turn = list(itertools.islice(itertools.cycle(faults), seed, seed + 4))
    for number, fault in enumerate(in_turn):
        if not crew.wait_for_records(run, 8 * (number + 1), command):
            break
        words, name = faults[fault]
        alive = crew.processes(words, "" if runner == "ray" and words != "rdpbench worker" else run)
        for pid in alive and [rng.choice(alive)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, name)
                crew.hits[runner, fault] += 1
    assert crew.hits[runner, in_turn[0]], f"{in_turn[0]}: nobody was there to be hit"
    if seed % 2:  # two launchers at once on one run
        crew.command(run, "workers=1").wait()
    if command.wait():
        again = crew.command(run, *line)
        assert again.wait() == 0, (command.out.read_text(), again.out.read_text())
    crew.finish(run)


def slurm(*line: str) -> str:
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else ""


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["scancel --signal=USR2", "scontrol requeue", "scancel"])
def test_slurm_itself(crew: Crew, fault: str) -> None:
    """A job of a real SLURM is preempted, queued again by its administrator, or cancelled; the others go on."""
    if not shutil.which("sinfo") or "idle" not in slurm("sinfo"):
        pytest.skip("no SLURM with an idle node here")
    if not importlib.util.find_spec("submitit"):
        pytest.skip("submitit is not installed: pip install 'rdpbench[slurm]'")
    run = f"slurm-{fault.rsplit(maxsplit=1)[-1].lstrip('-').replace('=', '-')}"
    line = ("runner=slurm", "runner.jobs=2", "runner.minutes=10", "workers=1")
    command = crew.command(run, *line, PAUSE="0.4")
    assert crew.wait_for_records(run, 8, command), command.out.read_text()
    jobs = slurm("squeue", "-h", "-t", "R", "-n", "rdpbench", "-o", "%i").split()
    subprocess.run([*fault.split(), jobs[0]], check=True)
    assert command.wait() == 0, command.out.read_text()
    crew.finish(run)
