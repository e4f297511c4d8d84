"""``rdpbench worker``: take part in a run that is under way, here or on another machine that sees its folder."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdpbench.errors import ConfigError, StoreBusy, UnknownName
from rdpbench.progress import show_progress, tell
from rdpbench.provenance import packages
from rdpbench.results.store.keys import forget
from rdpbench.results.store.store import Store
from rdpbench.runners import server
from rdpbench.runners.claim import Agenda, Reservoir, Share, Tally, lacks_of, sources_of
from rdpbench.runners.execute import seats_of
from rdpbench.runners.preflight import check_contracts, check_decodes, check_devices, check_needs, fetch_weights
from rdpbench.runners.queue import Queue, queues
from rdpbench.runners.task import cells
from rdpbench.runners.worker import Stop
from rdpbench.setting import Bench

if TYPE_CHECKING:
    from rich.console import Console

    from rdpbench.runners.claim import ReadBench

OWN = ("codec", "metrics", "data", "python")
"""Settings that may name code or programs of the user's."""
EARLIER_S = 60.0
"""By how much a worker ends before its time is up."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What can be typed behind ``rdpbench worker``."""
    command.add_argument("name", help="the run's name, or its folder")
    command.add_argument("--minutes", type=float, metavar="N", help="end before so many minutes are up")
    command.add_argument("--attached", action="store_true", help="end when the process that started this one ends")
    what = "workers=, device=, timeout=; and what names code of your own, as the run has it: codec=, metrics=, data="
    command.add_argument("overrides", nargs="*", metavar="key=value", help=what)


def run(options: argparse.Namespace, _: Console) -> int:
    """Claim chunks of a run until none is left, or the time is up, or a signal says so.

    ``options.read`` makes the bench of a command.

    Raises:
        ConfigError: no such run, somebody else's, or one that code and data here do not stand for.
    """
    typed = dict(word.partition("=")[::2] for word in options.overrides)
    folder = _run_folder(options.name, Path(typed.pop("root", "") or "results/runs").expanduser())
    stop = Stop()
    _listen(stop, options)
    done = failures = 0
    for queue in queues(folder):
        if queue.left and not stop:
            tally = _take_part(queue, Store(folder), typed, options.read, stop)
            done, failures = done + len(tally.keys), failures + len(tally.errors)
    why = f"; stopped: {stop.reason}" if stop else ""
    print(f"{done} tasks done here, {failures} of them failed{why}", file=sys.stderr)
    return 0


def _run_folder(name: str, root: Path) -> Path:
    """A run folder, of this user."""
    places = [place for place in (root / name, Path(name).expanduser()) if (place / "queue").is_dir()]
    if not places:
        waiting = [path.parent.name for path in root.glob("*/queue")] if root.is_dir() else []
        if any(place.is_dir() for place in (root / name, Path(name))):
            tell(f"nothing waits in {name}: the run is done, or nobody has started it")
            return root / name
        raise UnknownName(
            "run", name, waiting, f"that has chunks to claim; looked in {root}, root=FOLDER looks elsewhere"
        )
    folder = places[0].resolve()
    for path in (folder, folder / "queue", *(folder / "queue").glob("*/plan.json")):
        if path.stat().st_uid != os.getuid():
            raise ConfigError(
                f"{path} belongs to another user, and says what is run here; only a run of your own is worked on"
            )
    return folder


def _listen(stop: Stop, options: argparse.Namespace) -> None:
    """End after the task in hand: on a signal, before the time is up, or when nobody waits for us any more."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: stop.set(signal.Signals(number).name))
    if options.minutes is not None:
        timer = threading.Timer(max(0.0, 60 * options.minutes - EARLIER_S), stop.set, ["the time is nearly up"])
        timer.daemon = True
        timer.start()
    if options.attached:
        parent = os.getppid()

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(0.2)
            stop.set("the process that started this one is gone")

        threading.Thread(target=watch, daemon=True).start()


def _take_part(queue: Queue, store: Store, typed: Mapping[str, str], read: ReadBench, stop: Stop) -> Tally:
    plan = queue.plan()
    if plan["timing"]:
        raise StoreBusy(f"{store.folder} is timed, which one process does alone; others would be timed too")
    bench = replace(_bench_of(plan, typed, read), root=store.folder.parent, run=store.folder.name)
    if Path(plan["cwd"]).is_dir():
        os.chdir(plan["cwd"])  # relative paths of data and options are of that folder
    fetch_weights(bench)
    check_contracts(bench)
    forget()
    check_needs(bench)
    check_devices(bench.devices)
    check_decodes(bench)
    if bench.workers != 0:
        server.start_for(bench)
    agenda = Agenda(tuple(cells(bench)), lacks_of(queue), plan["metrics"], cache(lambda: store.read().rows))
    _check_same(plan, agenda, bench)
    tally = Tally(Reservoir(0))
    share = Share(queue, agenda, bench, store, seats_of(bench), stop, shared=True)
    with show_progress("", plan["left"], "tasks") as shown:
        share.take(tally, shown, lambda *_: None, ())
    return tally


def _bench_of(plan: Mapping[str, Any], typed: Mapping[str, str], read: ReadBench) -> Bench:
    """What the command of a plan stood for, with what was typed here in the place of what was typed there.

    Raises:
        ConfigError: it names code of the user's, and this command does not.
    """
    if odd := [name for name in typed if name not in (*OWN, "workers", "device", "timeout", "workers_per_device")]:
        raise ConfigError(
            f"{odd[0]}={typed[odd[0]]} is not for a worker: the run has its settings; workers=, device= and timeout= "
            f"are its own, and {', '.join(OWN)} name code of yours again"
        )
    command: list[str] = plan["command"]
    for word in command:
        name = word.partition("=")[0]
        if name in OWN and name not in typed and _names_code(name, word.partition("=")[2]):
            raise ConfigError(f"this run has code or programs of your own; to run them here, type them again: {word}")
    # On which machines the run computes is not this worker's affair: it computes here.
    kept = [word for word in command if not word.startswith("runner") and word.partition("=")[0] not in typed]
    bench = read([*kept, *(f"{name}={value}" for name, value in typed.items())])
    by_name = {(codec.name, data.name): (codec, data) for codec, data in bench.grid}
    try:
        pairs = [(*by_name[codec, data], tuple(rates)) for codec, data, rates in plan["grid"]]
    except KeyError as error:
        raise ConfigError(f"this run has {error.args[0]}, and what was typed here stands for {[*by_name]}") from error
    changes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in plan["settings"].items()
    }
    return replace(bench, grid=tuple((replace(codec, rates=rates), data) for codec, data, rates in pairs), **changes)


def _names_code(name: str, value: str) -> bool:
    """Does a setting name a class, a file or a program of the user's?"""
    if name == "python":
        return value not in ("", "null")
    names = [part.strip() for part in value.strip("[]").split(",")]
    return any(
        (":" in part and not part.startswith(("folder:", "manifest:"))) or part.endswith((".yaml", ".py"))
        for part in names
    )


def _check_same(plan: Mapping[str, Any], agenda: Agenda, bench: Bench) -> None:
    """Raise `ConfigError`, which says what differs, unless the tasks are the same here as where the run was planned."""
    if agenda.keys == plan["keys"]:
        return
    here = {"cells": len(agenda.cells), "tasks": sum(map(len, agenda.cells))}
    lines = [f"{number} {name} here, {plan[name]} there" for name, number in here.items() if number != plan[name]]
    pairs = {**packages(), **sources_of(bench)}, {**plan["packages"], **plan["sources"]}
    names = [name for name in sorted({*pairs[0], *pairs[1]}) if pairs[0].get(name) != pairs[1].get(name)]
    lines += [f"{name}: {pairs[0].get(name, 'none')} here, {pairs[1].get(name, 'none')} there" for name in names[:20]]
    told = "\n  ".join(lines or ["the images, weights or programs differ"])
    raise ConfigError(f"nothing is done here, since the tasks of this run are others on this machine:\n  {told}")
