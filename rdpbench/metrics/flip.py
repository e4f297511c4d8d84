"""FLIP for low dynamic range images: how visible the difference is when two images alternate in place.

A model of the eye's contrast sensitivity and of its attention to edges and points, without learned weights, computed
by its authors' own library (``flip-evaluator``). The observer sits where a degree of vision holds 67.02 pixels: 0.7 m
before a screen 0.7 m wide with 3840 columns. The number of threads that OpenMP gives the library changes no bit of its
error map (measured on 1, 2 and 8). Source: Andersson et al., "FLIP: a difference evaluator for alternating images",
PACMCGIT 2020.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rdpbench.image import Image
from rdpbench.metrics.contract import PairMetric, by_name, check_original, check_pair
from rdpbench.needs import Package

PIXELS_PER_DEGREE = 0.7 * (3840 / 0.7) * math.pi / 180
"""Distance in metres times pixels per metre times degrees to radians: 67.02."""


def error_map(original: Image, reconstruction: Image) -> NDArray[np.float32]:
    """FLIP of each pixel, ``float32 (H, W)`` in [0, 1].

    Raises:
        MetricError: not two ``uint8 (H, W, 3)`` of one size.

    >>> black = np.zeros((8, 8, 3), np.uint8)
    >>> error_map(black, black + 255).round(4)[0, 0]
    0.9674
    """
    from flip_evaluator import nbflip

    check_original(original, "flip")
    check_pair(original, reconstruction, "flip")
    first, second = (image.astype(np.float32) / np.float32(255) for image in (original, reconstruction))
    # The wrapper around this function ends the whole program where it could raise. Its flags: LDR, sRGB, no colour map
    # on the result, and no mean, which the library sums in float32.
    result, _, _ = nbflip.evaluate(first, second, False, True, False, False, {"ppd": PIXELS_PER_DEGREE})
    return np.asarray(result, np.float32)[:, :, 0]


class FLIP(PairMetric):
    """Mean of the FLIP error map, 0 for identical images, at most 1."""

    name = "flip"
    bounds = (0.0, 1.0)
    source = "Andersson et al. 2020, LDR-FLIP at 67.02 pixels per degree, mean of the map"
    needs = (Package("flip-evaluator"),)

    def prepare(self, original: Image) -> Image:
        """The original itself; the library has no step that it could take beforehand."""
        return check_original(original, self.name)

    def score(self, prepared: Image, reconstruction: Image) -> float:
        return float(error_map(prepared, reconstruction).mean(dtype=np.float64))


METRICS = by_name(FLIP)
