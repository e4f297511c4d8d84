"""The fork server: a small process that imports what workers share, once, and forks clean children from there.

It is started as early as a command allows, so that it is ready when the plan is.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Sequence

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
    classes = [registry.load("metric", name) for name in bench.metrics]
    classes += [registry.load("codec", codec.use) for codec, _ in bench.grid]
    start_server(list(dict.fromkeys(module for cls in classes for module in getattr(cls, "preload", ()))))


def import_ahead() -> None:
    """Import what the end of a run needs while workers are busy and this process is not."""

    def work() -> None:
        import pandas  # noqa: F401, ICN001
        import pyarrow.parquet  # noqa: F401

    threading.Thread(target=work, daemon=True).start()
