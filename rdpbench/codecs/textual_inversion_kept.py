"""What a long search shows and leaves: a line every half minute, and its vectors, for encodes that differ elsewhere.

Neither guidance scale nor sampler nor guide enters the search, so that a sweep over them needs one search an image.
Vectors are kept in the cache, under a hash of all that decides them, only where ``reuse=true`` asks for it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import numpy as np

from rdpbench.codecs.diffusion.unfinished import Unfinished
from rdpbench.codecs.textual_inversion_coding import Vectors

TOLD_EVERY_S = 30.0


class Finished(Unfinished):
    """The vectors of a search that is done."""

    def __init__(self, what: Mapping[str, object]) -> None:
        super().__init__(what)
        self.path = self.path.parents[1] / "textual-inversion" / self.path.name

    def vectors(self, shape: tuple[int, int]) -> Vectors | None:
        """They, or None if they are not here."""
        found = (self.load() or {}).get("vectors")
        if found is None or tuple(found.shape) != shape:
            return None
        vectors: Vectors = found.numpy().astype(np.float32)
        return vectors

    def keep(self, vectors: Vectors) -> None:
        """Write them."""
        import torch

        self.save({"vectors": torch.from_numpy(vectors)})


class Teller:
    """Tells where a search is, now and then."""

    def __init__(self, codec: str, steps: int) -> None:
        self._codec, self._steps = codec, steps
        self._told = self._started = time.monotonic()
        self._first: int | None = None

    def __call__(self, step: int, error: float) -> None:
        """Called after each step, with the mean error of the last ones."""
        now = time.monotonic()
        if self._first is None:
            self._first = step - 1  # a search that goes on after a kill does not start at none
        if now - self._told < TOLD_EVERY_S:
            return
        self._told = now
        left = (now - self._started) / (step - self._first) * (self._steps - step)
        line = f"{self._codec}: vectors, step {step} of {self._steps}, error {error:.4f}, about {left:.0f} s left"
        print(line, file=sys.stderr)
