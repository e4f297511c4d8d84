"""Edge agreement: counted by hand on drawn edges, by plain loops on a photograph, and the same on any thread."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rdpbench.metrics.edges import METRICS, Agreement, EdgeF1, agreement, find_edges

EdgePrecision, EdgeRecall = METRICS["edges/canny-precision"], METRICS["edges/canny-recall"]
ALL = [EdgeF1, EdgePrecision, EdgeRecall]


def score(cls, x, y):
    metric = cls()
    return metric.score(metric.prepare(x), y)


def bars(*columns, width=64):
    """White from each even-numbered column to the next: an edge at each."""
    image = np.zeros((32, width, 3), np.uint8)
    for start, end in zip(columns[::2], columns[1::2], strict=True):
        image[:, start:end] = 200
    return image


@pytest.mark.parametrize(("shift", "found"), [(0, 1.0), (1, 1.0), (2, 1.0), (3, 0.0), (5, 0.0)])
def test_two_pixels_are_tolerated_and_three_are_not(shift, found):
    assert [score(cls, bars(20, 40), bars(20 + shift, 40 + shift)) for cls in ALL] == [found] * 3


def test_invented_and_lost_edges_by_hand():
    one, two = bars(16, 48), bars(16, 48, 56, 60)
    edges = [int(find_edges(image).pixels.sum()) for image in (one, two)]
    assert edges == [64, 128]  # two and four columns of 32 rows
    assert score(EdgePrecision, one, two) == score(EdgeRecall, two, one) == 0.5
    assert score(EdgeRecall, one, two) == score(EdgePrecision, two, one) == 1.0
    assert score(EdgeF1, one, two) == score(EdgeF1, two, one) == pytest.approx(2 / 3)


def test_no_edges_anywhere():
    flat, drawn = np.full((32, 64, 3), 90, np.uint8), bars(16, 48)
    assert [score(cls, flat, flat) for cls in ALL] == [1.0] * 3
    assert [score(cls, flat, drawn) for cls in ALL] == [0.0] * 3
    assert [score(cls, drawn, flat) for cls in ALL] == [0.0] * 3
    assert Agreement(0.0, 0.0).f1 == 0.0


def test_shares_by_plain_loops(photograph, compress):
    x = photograph[100:180, 180:280]
    original, reconstruction = find_edges(x), find_edges(compress(x, 5))
    spots = [list(zip(*np.nonzero(edges.pixels), strict=True)) for edges in (original, reconstruction)]

    def share(ours, others):
        return sum(any(math.dist(spot, other) <= 2 for other in others) for spot in ours) / len(ours)

    found = agreement(original, reconstruction)
    assert found.recall == pytest.approx(share(spots[0], spots[1]))
    assert found.precision == pytest.approx(share(spots[1], spots[0]))
    assert 0.2 < found.f1 < 0.95


def test_more_rate_keeps_more_edges(photograph, compress):
    metric = EdgeF1()
    prepared = metric.prepare(photograph)
    values = [metric.score(prepared, compress(photograph, quality)) for quality in (3, 10, 30, 90)]
    assert values == sorted(values)
    assert values[0] < 0.8
    assert values[-1] > 0.95
    assert metric.score(prepared, photograph) == 1.0


def test_threads_and_vector_code_change_nothing(photograph):
    import cv2

    before = cv2.getNumThreads()
    found = []
    try:
        for threads, optimized in ((1, True), (2, True), (7, True), (1, False)):
            cv2.setNumThreads(threads)
            cv2.setUseOptimized(optimized)
            found.append(find_edges(photograph))
    finally:
        cv2.setNumThreads(before)
        cv2.setUseOptimized(True)
    assert all(np.array_equal(found[0].pixels, one.pixels) for one in found)
    assert all(np.array_equal(found[0].near, one.near) for one in found)
    # The numbers of this detector; another library or another setting of it would not give them.
    assert [int(found[0].pixels.sum()), int(found[0].near.sum())] == [17796, 66183]


def test_the_order_of_channels_and_views(photograph):
    red = np.zeros((32, 64, 3), np.uint8)
    red[:, 32:, 0] = 255  # 76 in luma, 29 if it were taken for blue
    flipped = red[:, ::-1]
    assert find_edges(red).pixels.sum() == find_edges(flipped).pixels.sum() == 32
    blue = np.ascontiguousarray(red[..., ::-1])
    blue[blue > 0] = 150  # 17 in luma: below the threshold; 45, and seen, if it were taken for red
    assert find_edges(blue).pixels.sum() == 0
