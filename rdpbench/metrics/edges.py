"""Do the edges of a reconstruction lie where those of the original do? For codecs that send a sketch of the image.

A codec that draws an image anew from its outlines may be far from every pixel value and still keep the structure, which
is what its sketch was sent for. No paper fixes a protocol; this one is plain and has no random part:

- luma by OpenCV (BT.601, 8 bits), Canny's detector with a 3 x 3 Sobel filter, Euclidean gradient and the thresholds 100
  and 200, which are those of ControlNet's annotator;
- an edge pixel is found again if an edge pixel of the other image lies at most 2 pixels away (Euclidean, exact);
- *precision*: how many of the reconstruction's edge pixels the original has, low where structure is invented; *recall*:
  how many of the original's the reconstruction has, low where structure is lost; *F1*: their harmonic mean. Two images
  without any edge agree (1); if only one has none, it is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rdpbench.image import Image
from rdpbench.lazy import cv2
from rdpbench.metrics.contract import ComparingMetric, by_name, variant
from rdpbench.needs import Package

THRESHOLDS = (100, 200)
TOLERANCE = 2.0
"""Pixels."""


@dataclass(frozen=True)
class Agreement:
    """Shares of edge pixels that are found again, 0 to 1."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if both are 0.

        >>> round(Agreement(0.5, 1.0).f1, 4)
        0.6667
        """
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True)
class Edges:
    """An image's edge pixels and all pixels near one, ``bool (H, W)``."""

    pixels: NDArray[np.bool_]
    near: NDArray[np.bool_]


def find_edges(image: Image) -> Edges:
    """Edge pixels of ``uint8 (H, W, 3)``.

    >>> half = np.zeros((16, 16, 3), np.uint8)
    >>> half[:, 8:] = 255
    >>> edges = find_edges(half)
    >>> int(edges.pixels.sum()), int(edges.near.sum())
    (16, 80)
    """
    luma = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    pixels = cv2.Canny(luma, *THRESHOLDS, apertureSize=3, L2gradient=True) > 0
    if not pixels.any():
        return Edges(pixels, pixels)
    # Distance of each pixel to the nearest zero: edges are the zeros.
    distance = cv2.distanceTransform((~pixels).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return Edges(pixels, distance <= TOLERANCE)


def agreement(original: Edges, reconstruction: Edges) -> Agreement:
    """How far two images of one size agree on their edges."""
    if not original.pixels.any() and not reconstruction.pixels.any():
        return Agreement(1.0, 1.0)
    return Agreement(
        precision=_share(reconstruction.pixels, original.near), recall=_share(original.pixels, reconstruction.near)
    )


def _share(pixels: NDArray[np.bool_], near: NDArray[np.bool_]) -> float:
    count = int(pixels.sum())
    return int((pixels & near).sum()) / count if count else 0.0


class EdgeF1(ComparingMetric[Edges]):
    """F1 of the edges, 1 for identical images.

    >>> metric = EdgeF1()
    >>> half = np.zeros((16, 16, 3), np.uint8)
    >>> half[:, 8:] = 255
    >>> moved = np.roll(half, 2, axis=1)  # what leaves on the right comes in on the left: a second edge
    >>> round(metric.score(metric.prepare(half), moved), 4)
    0.6667
    """

    name = "edges/canny-f1"
    higher_is_better = True
    bounds = (0.0, 1.0)
    perceptual = False
    source = "F1 of Canny edges (OpenCV, luma, 100/200) within 2 pixels; a protocol of rdpbench"
    needs = (Package("opencv-python-headless", module="cv2"),)
    minimum_side = 3  # which the Sobel filter needs
    share: ClassVar[Literal["f1", "precision", "recall"]] = "f1"
    """Which number of an `Agreement` is reported."""

    def compute(self, image: Image) -> Edges:
        return find_edges(image)

    def compare(self, original: Edges, reconstruction: Edges) -> float:
        return float(getattr(agreement(original, reconstruction), self.share))


METRICS = by_name(
    EdgeF1,
    *(
        variant(EdgeF1, f"edges/canny-{share}", source=EdgeF1.source.replace("F1", share), share=share)
        for share in ("precision", "recall")
    ),
)
