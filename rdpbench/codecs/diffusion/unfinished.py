"""Long encodes that survive a kill: their state is written now and then, and taken up by the same work.

The state lies in the cache, under a hash of all that decides the result; it is gone when the work is done. A state
that cannot be read counts as none, and a cache that cannot be written costs time, not the encode.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rdpbench.paths import cache_folder

if TYPE_CHECKING:
    from torch import Tensor

EVERY_S = 60.0
"""Between two writes; work that takes less leaves no trace."""


class Unfinished:
    """The state of one piece of work."""

    def __init__(self, what: Mapping[str, object], every_s: float = EVERY_S) -> None:
        """Take all that decides the result, as JSON can hold it."""
        key = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
        self.path: Path = cache_folder() / "unfinished" / f"{key}.safetensors"
        self._every_s = every_s
        self._written = time.monotonic()

    def load(self) -> dict[str, Tensor] | None:
        """The state of a run that was killed; None if there is none."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.path)
        except (OSError, SafetensorError):
            return None

    def due(self) -> bool:
        """Is it time to `save`?"""
        return time.monotonic() - self._written >= self._every_s

    def save(self, state: Mapping[str, Tensor]) -> None:
        """Write the state, whole or not at all."""
        from safetensors.torch import save_file

        self._written = time.monotonic()
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_suffix(f".{os.getpid()}.part")
            save_file({name: one.detach().cpu().contiguous() for name, one in state.items()}, part)
            part.replace(self.path)

    def done(self) -> None:
        """Forget the state."""
        with contextlib.suppress(OSError):
            self.path.unlink()
