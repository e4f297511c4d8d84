"""Launchers start ``rdpbench worker`` where there are processors: as a SLURM array, or as actors on a Ray cluster.

No launcher knows what a task is. What a worker that dies had claimed goes back to the queue when its lease runs out, so
a launcher only sees to it that there are workers while chunks are left.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rdpbench.errors import ConfigError, MissingNeed, WorkerError
from rdpbench.progress import tell
from rdpbench.provenance import cores
from rdpbench.setting import Bench

LONGEST_ARRAY = 1000
"""Elements of an array: most clusters are set up for 1001, the last one is not ours."""
LEAVING_S = 60.0
"""Seconds that a worker may take to end its task when it is told to."""
MOST_DEATHS = 5
"""How often all that a launcher started may end before the work is done, and is started again."""


class Launcher(Protocol):
    """What starts workers."""

    def start(self) -> None:
        """Start them."""

    def alive(self) -> bool:
        """Are some of them there, or on their way? Those that died are started again as far as that is ours."""

    def stop(self) -> None:
        """End them: none has anything left to do, or nobody waits for them."""

    def last_words(self) -> str:
        """What they said before they ended, for an error."""


def launcher_of(bench: Bench, folder: Path) -> Launcher | None:
    """The launcher that ``runner=`` names, for a run folder; None for ``runner=local``.

    Raises:
        ConfigError: more workers than an array can have.
    """
    kind = bench.runner.get("name", "local")
    if kind == "local":
        return None
    return _Slurm(bench, folder) if kind == "slurm" else _Ray(bench, folder)


def _line(bench: Bench, folder: Path, *more: str) -> list[str]:
    """The command of a worker. Code of the user's own is named again, as it was here."""
    own = ("codec", "metrics", "data", "python")
    words = [word for word in bench.overrides if word.partition("=")[0] in own]
    workers = [] if bench.workers is None else [f"workers={bench.workers}"]
    words += [
        *workers,
        f"device={bench.runner['device']}",
        *([] if bench.timeout is None else [f"timeout={bench.timeout}"]),
    ]
    return [sys.executable, "-m", "rdpbench", "worker", str(folder.resolve()), "--attached", *more, *words]


class Element:
    """What an element of an array does. Submitit calls it; before its time is up, or it is preempted, `checkpoint`."""

    def __init__(self, line: Sequence[str], folder: str) -> None:
        self.line, self.folder = line, folder
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run a worker to its end."""
        self.process = subprocess.Popen(self.line, cwd=self.folder, stdin=subprocess.DEVNULL)
        while (code := self.process.poll()) is None:  # not wait(): `checkpoint` comes out of a signal amid it
            time.sleep(0.2)
        if code:
            raise RuntimeError(f"the worker ended with {code}")
        return code

    def checkpoint(self) -> Any:
        """End the worker after the task in hand; whoever is started in its place claims what is left."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.terminate()
            ends = time.monotonic() + LEAVING_S
            while self.process.poll() is None and time.monotonic() < ends:
                time.sleep(0.1)
            self.process.kill()
        return DelayedSubmission(Element(self.line, self.folder))


class _Slurm:
    """An array of workers."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.options, self.logs = bench.runner, folder / "logs" / "slurm"
        if self.options["jobs"] > LONGEST_ARRAY:
            raise ConfigError(f"runner.jobs={self.options['jobs']} is above the {LONGEST_ARRAY} elements of an array")
        self.line = _line(bench, folder, "--minutes", str(self.options["minutes"]))
        self.jobs: list[Any] = []

    def start(self) -> None:
        import submitit

        options = self.options
        try:
            executor = submitit.AutoExecutor(str(self.logs), cluster=options["cluster"], slurm_max_num_timeout=100)
        except RuntimeError as error:
            raise MissingNeed(
                f"runner=slurm: this machine has no SLURM ({error}); type it on a node that has srun and sbatch, or "
                "leave runner= out to compute here"
            ) from error
        given = {
            "slurm_partition": options["partition"],
            "slurm_account": options["account"],
            "mem_gb": options["memory_gb"],
            "gpus_per_node": options["gpus"] or None,
        }
        parameters: dict[str, Any] = dict(options["parameters"] or {})
        executor.update_parameters(
            name="rdpbench",
            timeout_min=int(options["minutes"]),
            cpus_per_task=options["cpus"],
            slurm_array_parallelism=options["jobs"],
            slurm_additional_parameters={"requeue": True, **parameters},
            **{name: value for name, value in given.items() if value is not None},
        )
        elements = [Element(self.line, str(Path.cwd()))] * options["jobs"]
        with executor.batch():
            self.jobs = [executor.submit(element) for element in elements]
        tell(f"{len(self.jobs)} workers: {', '.join(str(job.job_id) for job in self.jobs[:3])}; logs in {self.logs}")

    def alive(self) -> bool:
        return not all(job.done() for job in self.jobs)

    def stop(self) -> None:
        for job in self.jobs:
            if not job.done():
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    job.cancel(check=False)

    def last_words(self) -> str:
        for job in self.jobs:
            with contextlib.suppress(OSError):
                if said := (job.stderr() or "").strip():
                    return f"{job.paths.stderr} ends with: {said.splitlines()[-1]}"
        return f"logs are in {self.logs}"


class _Ray:
    """Actors, each with a worker; a process of its own drives them, since it dies with the node that it is on."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        kept = {name: os.environ[name] for name in os.environ if name.startswith(("RDPBENCH_", "PYTHONPATH"))}
        order = {"line": _line(bench, folder), "folder": str(Path.cwd()), "environment": kept, **bench.runner}
        self.order = json.dumps(order)
        self.log = folder / "logs" / "ray.log"
        self.deaths = 0
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rdpbench.runners.launch"],
                env={**environment, "RAY_DEDUP_LOGS": "0"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,  # what it started is ended with it
            )
        assert self.process.stdin is not None
        self.process.stdin.write(self.order + "\n")
        self.process.stdin.flush()  # it stays open: its end says that we are gone

    def alive(self) -> bool:
        assert self.process is not None
        if self.process.poll() is None:
            return True
        if self.process.returncode == 0 or self.deaths >= MOST_DEATHS:
            return False
        self.deaths += 1
        self.stop()
        self.start()
        return True

    def stop(self) -> None:
        if self.process is None:
            return
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LEAVING_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.is_file() else []
        return f"{self.log} ends with: {lines[-1] if lines else 'nothing'}"


def drive(order: Mapping[str, Any], is_wanted: Any) -> int:
    """Keep actors at work on a Ray cluster, one that is there or one of our own, until none has anything left to do.

    Args:
        order: ``line`` and ``folder`` of a worker, how many (``jobs``) with which ``cpus`` and ``gpus``, ``address``.
        is_wanted: is somebody waiting for them?
    """
    import ray

    place = order["address"]
    # Sockets lie in it, and their names may have about a hundred letters.
    temporary = None if place else tempfile.mkdtemp(prefix="rdp")
    own = {} if place else {"_temp_dir": temporary, "include_dashboard": False, "num_cpus": cores()}
    ray.init(address=place or "local", log_to_driver=False, configure_logging=False, **own)

    class Actor:
        def work(self) -> int:
            worker = subprocess.Popen(order["line"], cwd=order["folder"], stdin=subprocess.DEVNULL)
            while (code := worker.poll()) is None:
                time.sleep(0.2)
            return code

    jobs = order["jobs"] or max(1, int(ray.cluster_resources().get("CPU", 1)) // order["cpus"])
    environment = {"env_vars": order["environment"]}
    remote: Any = ray.remote(max_restarts=0, max_task_retries=0)(Actor)
    actors = remote.options(num_cpus=order["cpus"], num_gpus=order["gpus"], runtime_env=environment)
    deaths = 0
    working = {}
    for _ in range(jobs):
        actor = actors.remote()
        working[actor.work.remote()] = actor
    try:
        while working and is_wanted():
            ready, _ = ray.wait([*working], num_returns=1, timeout=0.2)
            for reference in ready:
                del working[reference]
                try:
                    code = ray.get(reference)
                except ray.exceptions.RayError as error:
                    code = 1
                    print(f"an actor is gone: {type(error).__name__}", flush=True)
                if code:  # attempts at tasks are counted in the queue; these are only so that nothing goes on for ever
                    deaths += 1
                    if deaths <= MOST_DEATHS * jobs:
                        actor = actors.remote()
                        working[actor.work.remote()] = actor
    finally:
        ray.shutdown()
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    return int(deaths > MOST_DEATHS * jobs)


def check_alive(launcher: Launcher, left: int) -> None:
    """Raise `WorkerError` if chunks are left and nobody works on them any more."""
    if not launcher.alive():
        raise WorkerError(
            f"all workers ended, and {left} chunks are left: {launcher.last_words()}. The same command goes on"
        )


def main() -> int:
    """Drive what the order on stdin says, as long as stdin stays open."""
    import select

    order = json.loads(sys.stdin.readline())
    return drive(order, lambda: not select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    sys.exit(main())
