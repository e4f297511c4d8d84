"""What is left of a plan, cut into chunks, each of which one worker does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdpbench.results.store.columns import groups_of
from rdpbench.results.store.keys import facts
from rdpbench.runners.left import Numbers
from rdpbench.runners.plan import Plan
from rdpbench.setting import CodecSetting

CHUNK = 32
"""Tasks in a chunk."""
MOST_CHUNKS = 5000
"""About so many chunks at most: those of a large plan have more tasks."""
FEWEST = 1024
"""Chunks from which on images share one: each is a file to write, claim and remove, 0.3 ms even on a disk of one's own;
but many machines are to have enough of them, too."""
TAIL = 8


def chunks(plan: Plan, batch: int = 1) -> list[Numbers]:
    """What is left in chunks for one worker each, the largest first; for batches, images of one size stand together.

    Codecs with weights are kept together by rate point, so that these load once; for the others all that concerns one
    image is, so that it is read, and what metrics need of the original is computed, once. The last ones are cut small,
    so that the workers end together.
    """
    left = plan.left
    if not len(left):
        return []
    size = CHUNK * max(1, len(left) // (CHUNK * MOST_CHUNKS))
    by_point = np.array([_by_point(cell.codec, batch) for cell in plan.cells])[left.cells]
    alone = _groups(plan, by_point)
    groups = _merged(alone, by_point, size)
    heights, widths = (plan.of_entries(name) for name in ("height", "width"))
    # Within a group image by image, as they were planned; for batches by the size of the image.
    order = np.lexsort((alone, widths, heights, groups) if batch > 1 else (alone, groups))
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    cuts = np.flatnonzero(place % size == 0)
    pixels = np.add.reduceat((heights * widths)[order], cuts)
    parts = np.split(order, cuts[1:])
    parts = [parts[number] for number in np.argsort(-pixels, kind="stable")]
    small = []
    for part in parts[-TAIL:]:
        step = len(part) if by_point[part[0]] else max(2, len(part) // 4)
        small += [part[start : start + step] for start in range(0, len(part), step)]
    return [left.take(part) for part in parts[:-TAIL] + small]


def _groups(plan: Plan, by_point: NDArray[np.bool_]) -> NDArray[np.int64]:
    """A number for each task that is left: what has the same is done together. Groups are numbered as they appear."""
    left = plan.left
    points: dict[tuple[CodecSetting, float | None, str], int] = {}
    of_cell = [points.setdefault((cell.codec, cell.setting.rate, cell.dataset), len(points)) for cell in plan.cells]
    hashes = plan.of_entries("sha256")
    keys = np.where(by_point, np.array(of_cell, np.int64)[left.cells], len(points) + hashes)
    return groups_of([keys])[0]


def _merged(groups: NDArray[np.int64], by_point: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """Groups of several images, of codecs without weights: about ``size`` tasks, where there are many images."""
    light = np.unique(groups[~by_point])
    images = max(1, min(len(light) // FEWEST, size * len(light) // max(1, int((~by_point).sum()))))
    merged = np.arange(groups.max() + 1)
    merged[light] = light[np.arange(len(light)) // images * images]
    return np.asarray(merged[groups])


def _by_point(codec: CodecSetting, batch: int) -> bool:
    """Is a rate point's work kept together? What loads weights, or is coded in batches."""
    stated = facts(codec)
    return stated.heavy or stated.uses_device or (batch > 1 and stated.batches)
