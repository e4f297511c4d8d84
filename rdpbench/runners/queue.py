"""The queue of a run: chunks that anybody may claim who sees its folder, and how the dead are told from the living.

::

    queue/<plan>/plan.json                           what was typed, and which keys it stands for
    queue/<plan>/waiting/<name>.<lost>.json          a chunk that nobody has; its name is a number and a kind
    queue/<plan>/claimed/<name>.<lost>.<session>     a chunk that a session works on
    queue/<plan>/alive/<session>                     its lease, which changes as long as the session lives
    queue/<plan>/hand/<name>                         which task of a chunk that was lost before is in hand, and whose
    queue/<plan>/failures                            a byte for each task that failed

A chunk is claimed, given back and taken from the dead by renaming it, so that one claimer of many gets it; a chunk that
is done is removed, since what is done is in the store. ``lost`` counts the claimers that died over it.

Nobody compares clocks: those of two machines may be hours apart. Who looks at a lease remembers what it said, and by
its own clock for how long it has said so. On one machine the system knows: a lease is locked until its process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import random
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rdpbench.errors import StoreCorrupt
from rdpbench.paths import unwritable

RENEW_S = 15.0
"""Seconds between two changes of a lease."""
LEASE_S = 120.0
"""Seconds without a change after which a session counts as dead. NFS may show what is new a minute late."""
POLL_S = 0.5
"""Seconds between two looks at what others do."""
MOST_LOST = 3
"""Claimers that one task may take down: then it fails alone."""


class Lease:
    """That a session is alive: a file that this process changes now and then, and has locked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn, self._done, self._pid = 0, threading.Event(), os.getpid()
        beside = path.with_name(f".{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            self._locked = _lock(self._file, fcntl.LOCK_EX)
            self.renew()
            beside.rename(path)  # only now it can be seen: locked, and with its words
        except OSError as error:
            raise unwritable(path, error) from error
        # A codec may fork, and its child must not keep what this process held.
        os.register_at_fork(after_in_child=self._forget)
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """Change what it says."""
        self._turn += 1
        os.pwrite(self._file, f"{_kernel()} {int(self._locked)} {self._turn:09}\n".encode(), 0)
        if self._turn > 1:
            os.fsync(self._file)  # a client of NFS may keep it to itself otherwise

    @property
    def lost(self) -> bool:
        """Did somebody declare this session dead, as the lease did not change for long? Its chunks are theirs now."""
        return not self.path.exists() and _dead(self.path).exists()

    def end(self) -> None:
        """The session is over."""
        self._done.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self.path.unlink()
            if not (self.path.parents[1] / "plan.json").exists():  # the queue was done, and away, before we came
                for folder in self.path.parents[:3]:
                    folder.rmdir()
        self._forget()

    def _keep(self) -> None:
        while not self._done.wait(RENEW_S):
            with contextlib.suppress(OSError):  # a full disk, or a folder that is gone: others will tell
                self.renew()

    def _forget(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _lock(file: int, how: int) -> bool:
    """Lock an open file if nobody has it; False also where the file system knows no locks."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _dead(path: Path) -> Path:
    return path.with_name(f"{path.name}.dead")


@cache
def _kernel() -> str:
    """Which running system this is: locks are seen by all that it runs, in containers too."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{platform.node()}-{uuid.getnode():x}".replace(" ", "-")


class Watch:
    """Tells which leases are of sessions that are alive, by this process's own clock."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[bytes, float]] = {}

    def is_alive(self, path: Path) -> bool:
        """Is it? A lease that is new to us is, until it has not changed for `LEASE_S` while we looked."""
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        except OSError:  # a folder that answers late or wrongly says nothing of anybody
            return True
        try:
            says = os.read(file, 200)
            kernel, locked, _ = (*says.decode(errors="replace").split(), "", "", "")[:3]
            if kernel == _kernel() and locked == "1" and _lock(file, fcntl.LOCK_SH):
                return False
        finally:
            os.close(file)
        before, since = self._seen.get(path, (b"", 0.0))
        if before != says:
            self._seen[path] = says, time.monotonic()
            return True
        return time.monotonic() - since < LEASE_S


@dataclass
class Claim:
    """A chunk that this session has."""

    path: Path
    name: str
    chunk: dict[str, Any]
    """As it was published, and under ``lost`` those who died over it."""

    @property
    def lost(self) -> list[list[str]]:
        """The sessions that died over it, and the key of the task that each had in hand, as far as that is known."""
        pairs: list[list[str]] = self.chunk.get("lost", [])
        return pairs

    @property
    def poisoned(self) -> str:
        """The key of a task that took down its claimer time and again; empty if none did."""
        keys = {key for _, key in self.lost[1 - MOST_LOST :]}
        return keys.pop() if len(self.lost) >= MOST_LOST and len(keys) == 1 else ""


class Queue:
    """A folder of chunks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._watch = Watch()
        self._names: dict[str, list[str]] = {}
        """Chunks that were waiting when we looked last, by their kind, the first ones at the end."""

    @classmethod
    def publish(cls, folder: Path, plan: Mapping[str, Any], chunks: Iterable[Mapping[str, Any]]) -> Queue:
        """Make a queue: it appears whole, in the place of one that nobody works on.

        Raises:
            StoreUnwritable: it cannot be written.
        """
        beside = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            for left in folder.parent.glob(f".{folder.name}.*"):  # of a command that was killed here
                shutil.rmtree(left, ignore_errors=True)
            for name in ("waiting", "claimed", "alive", "hand"):
                (beside / name).mkdir(parents=True)
            for number, chunk in enumerate(chunks):
                (beside / "waiting" / f"{number:07}-{chunk['kind']}.0.json").write_text(json.dumps(chunk))
            (beside / "plan.json").write_text(json.dumps(plan, indent=1))
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        except OSError as error:
            raise unwritable(folder, error) from error
        return cls(folder)

    def plan(self) -> dict[str, Any]:
        """What was published with it.

        Raises:
            StoreCorrupt: it cannot be read.
        """
        path = self.folder / "plan.json"
        try:
            plan = json.loads(path.read_text())
            assert isinstance(plan, dict)
        except (OSError, ValueError, AssertionError) as error:
            raise StoreCorrupt(
                f"{path} is no plan of a run: {error}. The command that made it makes it again"
            ) from error
        return plan

    def lease(self, session: str) -> Lease:
        """Say that a session is alive; before it claims."""
        return Lease(self.folder / "alive" / session)

    def claim(self, session: str, kinds: Sequence[str]) -> Claim | None:
        """A chunk of these kinds for a session: one that waits, or one of a dead session; None if there is none now."""
        while names := self._waiting(kinds):
            name = names.pop()
            if claim := self._take(self.folder / "waiting" / name, session, name.split(".")[1]):
                return claim
            del names[-random.randrange(1, 16) :]  # noqa: S311 - others are quicker here: look elsewhere
        for path, holder in self._claimed():
            if _kind(path.name) in kinds and not self._is_alive(holder):
                self._declare_dead(holder)
                chunk, lost = path.name.split(".", 2)[:2]
                claim = self._take(path, session, str(int(lost) + 1))
                if claim:
                    claim.chunk["lost"] = [*claim.lost, [holder, self._in_hand(chunk, holder)]]
                    _rewrite(claim)
                    return claim
        return None

    def _waiting(self, kinds: Sequence[str]) -> list[str]:
        """Chunks of one of the kinds, if any wait."""
        if not any(self._names.get(kind) for kind in kinds):
            self._names = {}
            for name in sorted(_listed(self.folder / "waiting"), reverse=True):
                self._names.setdefault(_kind(name), []).append(name)
        return next((names for kind in kinds if (names := self._names.get(kind))), [])

    def _take(self, path: Path, session: str, lost: str) -> Claim | None:
        name = path.name.split(".")[0]
        taken = self.folder / "claimed" / f"{name}.{lost}.{session}"
        try:
            path.rename(taken)
        except OSError:  # another one has it; or a server that was asked twice, since its first answer came too late
            if not taken.exists():
                return None
        try:
            return Claim(taken, name, json.loads(taken.read_bytes()))
        except (OSError, ValueError) as error:
            raise StoreCorrupt(f"{taken} is no chunk: {error}. The command that made it makes it again") from error

    def note(self, claim: Claim, key: str) -> None:
        """Note which task of a chunk is in hand, where its claimers die: others will know which one it was."""
        if claim.lost:
            session = claim.path.name.split(".", 2)[2]
            (self.folder / "hand" / claim.name).write_text(f"{session}\n{key}\n")

    def _in_hand(self, name: str, session: str) -> str:
        with contextlib.suppress(OSError, ValueError):
            holder, key, _ = (self.folder / "hand" / name).read_text().split("\n")
            return key if holder == session else ""
        return ""

    def finish(self, claim: Claim) -> None:
        """A chunk is done, and what came of it is on the disk. If it was taken from us, others do it again."""
        with contextlib.suppress(FileNotFoundError):
            claim.path.unlink()

    def give_back(self, claim: Claim, rest: Mapping[str, Any]) -> None:
        """Put the rest of a chunk back for others; nobody died over it."""
        lost = claim.path.name.split(".", 2)[1]
        claim.chunk = {**rest, "lost": claim.lost}
        _rewrite(claim)
        with contextlib.suppress(FileNotFoundError):
            claim.path.rename(self.folder / "waiting" / f"{claim.name}.{lost}.json")

    def failed(self) -> None:
        """Count a task that failed."""
        with (self.folder / "failures").open("ab") as file:
            file.write(b".")

    @property
    def failures(self) -> int:
        """How many failed, whoever had them."""
        path = self.folder / "failures"
        return path.stat().st_size if path.is_file() else 0

    @property
    def left(self) -> int:
        """Chunks that are not done."""
        return len(_listed(self.folder / "waiting")) + len(_listed(self.folder / "claimed"))

    def living(self) -> list[str]:
        """Sessions that work on it, or did when we looked last."""
        sessions = [name for name in _listed(self.folder / "alive") if not name.endswith(".dead")]
        return [session for session in sessions if self._is_alive(session)]

    @property
    def holders(self) -> set[str]:
        """Sessions that have chunks, alive or dead."""
        return {session for _, session in self._claimed()}

    def bury(self) -> None:
        """Declare dead whoever is, so that what they wrote can be put away."""
        for session in {*_listed(self.folder / "alive")} - {*self.living()}:
            if not session.endswith(".dead"):
                self._declare_dead(session)

    @property
    def is_abandoned(self) -> bool:
        """Is it done, or of a command that nobody works on? One for jobs that may be on their way is kept."""
        return not self.living() and (not self.left or self.plan().get("runner") == "local")

    def remove(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()

    def _is_alive(self, session: str) -> bool:
        return self._watch.is_alive(self.folder / "alive" / session)

    def _declare_dead(self, session: str) -> None:
        path = self.folder / "alive" / session
        with contextlib.suppress(OSError):
            path.rename(_dead(path))

    def _claimed(self) -> Iterator[tuple[Path, str]]:
        for name in sorted(_listed(self.folder / "claimed")):
            yield self.folder / "claimed" / name, name.split(".", 2)[2]


def queues(folder: Path) -> list[Queue]:
    """Those of a run folder, by their names."""
    return [Queue(path.parent) for path in sorted((folder / "queue").glob("[!.]*/plan.json"))]


def remove_abandoned(folder: Path) -> None:
    """Take away queues of a run that nobody needs; the run's store is locked, so none is being made.

    So goes what is left of a queue whose command was killed when it made it or took it away.
    """
    for path in [*(folder / "queue").glob("*")]:
        queue = Queue(path)
        is_whole = not path.name.startswith(".") and (path / "plan.json").is_file()
        if queue.is_abandoned if is_whole else not queue.living():
            queue.remove()
    with contextlib.suppress(OSError):
        (folder / "queue").rmdir()


def living(folder: Path) -> set[str]:
    """The sessions that write to a run folder now, in whatever queue: their parts are theirs."""
    return {session for queue in queues(folder) for session in queue.living()}


def _kind(name: str) -> str:
    """Of a chunk, by the name of its file.

    >>> _kind("0000012-cpu.0.json")
    'cpu'
    """
    return name.partition(".")[0].rpartition("-")[2]


def _listed(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 - thousands of them
    except OSError:
        return []


def _rewrite(claim: Claim) -> None:
    """Write a claimed chunk again; if it was taken meanwhile, whoever has it has it as it was."""
    beside = claim.path.with_name(f".{claim.path.name}")
    with contextlib.suppress(FileNotFoundError):
        beside.write_text(json.dumps(claim.chunk))
        if claim.path.exists():
            beside.rename(claim.path)
