"""FLIP: what its library must keep doing, and that our inputs reach it as they should."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from rdpbench.metrics.flip import FLIP, PIXELS_PER_DEGREE, error_map


def score(x, y):
    metric = FLIP()
    return metric.score(metric.prepare(x), y)


def test_the_observer_is_the_librarys_default():
    from flip_evaluator import nbflip

    grey = np.full((8, 8, 3), 0.5, np.float32)
    _, _, used = nbflip.evaluate(grey, grey, False, True, False, False, {})
    assert pytest.approx(used["ppd"], rel=1e-6) == PIXELS_PER_DEGREE


def test_pinned_values(synthetic):
    # Values of flip-evaluator 1.7; a library that gives others is another metric, and `version` must be raised.
    black = np.zeros((32, 32, 3), np.uint8)
    assert score(black, black + 255) == pytest.approx(0.967388, abs=1e-5)
    assert score(*synthetic(192, 192)) == pytest.approx(0.198470, abs=1e-5)


def test_agrees_with_the_librarys_own_entry(photograph, compress):
    import flip_evaluator

    x = photograph[:200, :200]
    y = compress(x, 30)
    as_unit = [image.astype(np.float32) / np.float32(255) for image in (x, y)]
    theirs, mean, _ = flip_evaluator.evaluate(*as_unit, "LDR", applyMagma=False)
    assert np.array_equal(error_map(x, y), theirs[:, :, 0])
    assert score(x, y) == pytest.approx(mean, rel=1e-4)


def test_coarser_is_worse_and_equal_is_zero(photograph, compress):
    x = photograph[:128, :128]
    values = [score(x, compress(x, quality)) for quality in (5, 20, 50, 90)]
    assert values == sorted(values, reverse=True)
    assert score(x, x) == 0
    assert score(x[:1, :1], x[:1, :1]) == 0


def test_threads_change_nothing():
    program = (
        "import numpy as np; from rdpbench.metrics.flip import error_map\n"
        "x = np.random.default_rng(0).integers(0, 256, (120, 150, 3), dtype=np.uint8)\n"
        "import hashlib; print(hashlib.sha256(error_map(x, x // 2).tobytes()).hexdigest())"
    )
    found = set()
    for threads in ("1", "4"):
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1
