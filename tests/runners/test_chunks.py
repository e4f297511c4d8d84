"""How a plan is cut: what concerns an image stays together, and images with little to do share a chunk."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rdpbench.runners.chunks import CHUNK, FEWEST, MOST_CHUNKS, chunks
from rdpbench.runners.left import Numbers
from rdpbench.setting import CodecSetting


def plan(images: int, rates: int) -> Any:
    """All of JPEG at some rates is left to do."""
    cells, entries = (array.astype(np.int32).ravel() for array in np.mgrid[:rates, :images])
    facts = {
        "sha256": entries.astype(np.int64),
        "height": np.full(len(entries), 64),
        "width": np.full(len(entries), 64),
    }
    codec = CodecSetting("jpeg", "jpeg", (), ())
    settings = [SimpleNamespace(rate=rate) for rate in range(rates)]
    every = [SimpleNamespace(codec=codec, setting=setting, dataset="set") for setting in settings]
    return SimpleNamespace(left=Numbers(cells, entries, entries), cells=every, of_entries=facts.__getitem__)


@pytest.mark.parametrize(
    ("images", "rates", "most"),
    [(24, 1, 24), (24, 19, 40), (FEWEST, 1, FEWEST), (30_000, 1, 1100), (5_000, 8, 1300), (50_000, 8, 2 * MOST_CHUNKS)],
)
def test_each_image_is_read_once_and_chunks_are_neither_tiny_nor_few(images: int, rates: int, most: int) -> None:
    found = chunks(plan(images, rates))
    assert sum(map(len, found)) == images * rates
    assert min(images, FEWEST // 2) <= len(found) <= most + CHUNK
    for chunk in found:
        runs = 1 + np.count_nonzero(np.diff(chunk.entries))
        assert runs == len(np.unique(chunk.entries)), "an image is read again for each of its rate points"
