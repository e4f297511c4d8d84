"""The fork server: a small process that imports what workers share, once, and forks clean children from there.

It is started as early as a command allows, so that it is ready when the plan is.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterable, Sequence

from rdpbench import registry
from rdpbench.config import Bench

PRELOAD = ("PIL.Image", "rdpbench.runners.worker")
"""What every worker imports; heavier modules come from the ``preload`` of the codecs and metrics at hand."""


def start_server(preload: Sequence[str] = ()) -> None:
    """Start the fork server if it is not running."""
    from multiprocessing import forkserver

    multiprocessing.get_context("forkserver").set_forkserver_preload([*preload, *PRELOAD])
    forkserver.ensure_running()


def start_for(bench: Bench) -> None:
    """Start the fork server with what the codecs and metrics of a command want imported for all workers."""
    uses: list[tuple[registry.Kind, str]] = [("metric", name) for name in bench.metrics]
    uses += [("codec", codec.use) for codec, _ in bench.grid]
    start_server(_preload(uses))


def start_early(overrides: Sequence[str]) -> None:
    """Start the fork server before the configuration is composed, if it is certain that nothing heavy is wanted."""
    uses: list[tuple[registry.Kind, str]] = []
    for line in overrides:
        key, _, value = line.partition("=")
        if key in ("experiment", "decodes"):
            return  # they bring metrics, which may be heavy
        if key in ("codec", "metrics"):
            kind: registry.Kind = "codec" if key == "codec" else "metric"
            uses += [(kind, name.strip()) for name in value.strip("[]").split(",")]
    if all(name in registry.BUILTIN[kind] for kind, name in uses) and not _preload(uses):
        start_server()


def _preload(uses: Iterable[tuple[registry.Kind, str]]) -> list[str]:
    classes = [registry.load(kind, name) for kind, name in uses]
    return list(dict.fromkeys(module for cls in classes for module in getattr(cls, "preload", ())))


def import_ahead() -> None:
    """Import what the end of a run needs while this process waits for others."""

    def work() -> None:
        import pandas  # noqa: F401, ICN001
        import rich.table  # noqa: F401

    threading.Thread(target=work, daemon=True).start()
