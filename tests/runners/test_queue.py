"""The queue by itself: one claimer gets a chunk, the dead are told from the living, and no clock is compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rdpbench.runners import queue as module
from rdpbench.runners.queue import Queue, remove_abandoned

CPU = ("cpu",)
CHUNKS = [{"tasks": [[0, number, 0]], "changed": [], "keys": str(number), "kind": "cpu"} for number in range(40)]


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue.publish(tmp_path / "queue" / "plan", {"left": 40}, CHUNKS)


def numbers(folder: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in folder.iterdir())


def test_each_chunk_is_claimed_once(queue: Queue) -> None:
    """Eight claimers at once; together they get all chunks, and none twice."""
    taken: list[str] = []

    def work(session: str) -> None:
        own = Queue(queue.folder)
        lease = own.lease(session)
        while claim := own.claim(session, CPU):
            taken.append(claim.name)
            own.finish(claim)
        lease.end()

    threads = [threading.Thread(target=work, args=(f"host-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [f"{number:07}-cpu" for number in range(40)]
    assert queue.left == 0


def test_what_is_given_back_is_claimed_again_and_nobody_died_over_it(queue: Queue) -> None:
    lease = queue.lease("a")
    claim = queue.claim("a", CPU)
    assert claim is not None
    queue.give_back(claim, {**claim.chunk, "tasks": []})
    lease.end()
    again = Queue(queue.folder).claim("b", CPU)
    assert again is not None
    assert (again.name, again.chunk["tasks"], again.lost) == (claim.name, [], [])


DIES = """
import os, signal, sys
from pathlib import Path
from rdpbench.runners.queue import Queue
queue = Queue(Path(sys.argv[1]))
lease = queue.lease(sys.argv[2])
claim = queue.claim(sys.argv[2], ["cpu"])
queue.note(claim, "the task")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_task_that_takes_down_its_claimers_is_named(tmp_path: Path) -> None:
    """The system says at once that they are dead. Before a chunk is lost nobody notes what is in hand."""
    queue = Queue.publish(tmp_path / "queue" / "plan", {}, CHUNKS[:1])
    for session in ("a", "b", "c"):
        subprocess.run([sys.executable, "-c", DIES, str(queue.folder), session], check=False)
    lease = queue.lease("d")
    claim = queue.claim("d", CPU)
    lease.end()
    assert claim is not None
    assert claim.lost == [["a", ""], ["b", "the task"], ["c", "the task"]]
    assert claim.poisoned == "the task"
    assert claim.path.name == "0000000-cpu.3.d"


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_a_lease_of_another_machine_is_judged_by_our_own_clock(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Its time stamps may be an hour off, either way; what counts is whether it changes while we look."""
    monkeypatch.setattr(module, "LEASE_S", 0.3)
    lease = queue.folder / "alive" / "there"
    claimed = queue.folder / "claimed"

    def renew(turn: int) -> None:
        lease.write_text(f"another-kernel 1 {turn:09}\n")
        os.utime(lease, (time.time() + 3600 * hours,) * 2)

    renew(1)
    for number in range(40):
        path = queue.folder / "waiting" / f"{number:07}-cpu.0.json"
        path.rename(claimed / f"{number:07}-cpu.0.there")
    own = queue.lease("here")
    for turn in range(2, 7):  # alive for longer than a lease
        assert queue.claim("here", CPU) is None
        time.sleep(0.1)
        renew(turn)
    assert queue.claim("here", CPU) is None
    time.sleep(0.4)
    claim = queue.claim("here", CPU)
    own.end()
    assert claim is not None
    assert claim.lost == [["there", ""]]
    assert (queue.folder / "alive" / "there.dead").exists()


def test_who_was_declared_dead_learns_it(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a folder that did not answer for minutes: the chunk is another's now, and finishing it does no harm."""
    monkeypatch.setattr(module, "_kernel", lambda: "this one")
    lease = queue.lease("late")
    claim = queue.claim("late", CPU)
    assert claim is not None
    monkeypatch.setattr(module, "_kernel", lambda: "another")
    monkeypatch.setattr(module, "LEASE_S", 0.0)
    other = Queue(queue.folder)
    while len(numbers(queue.folder / "waiting")):
        assert other.claim("other", CPU) is not None
    other.claim("other", CPU)
    taken = other.claim("other", CPU)
    assert taken is not None
    assert taken.name == claim.name
    assert lease.lost
    queue.finish(claim)
    assert json.loads(taken.path.read_text())["lost"] == [["late", ""]]
    lease.end()


def test_nothing_stays_of_queues_that_killed_commands_left(tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    Queue.publish(folder / "done", {"runner": "local"}, [])
    (folder / ".done.17" / "waiting").mkdir(parents=True)  # killed when it was made
    half = Queue.publish(folder / "half", {"runner": "local"}, CHUNKS)
    (half.folder / "plan.json").unlink()  # killed when it was taken away
    Queue.publish(folder / "on-its-way", {"runner": "slurm"}, CHUNKS)
    remove_abandoned(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["on-its-way"], "jobs may wait for theirs"

    late = Queue(folder / "done").lease("late")  # of a worker that came as the queue was taken away
    assert (folder / "done").is_dir()
    late.end()
    assert [path.name for path in folder.iterdir()] == ["on-its-way"]
