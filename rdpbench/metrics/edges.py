"""Do the edges of a reconstruction lie where those of the original do? For codecs that send a sketch of the image.

A codec that draws an image anew from its outlines may be far from every pixel value and still keep the structure, which
is what its sketch was sent for. No paper fixes a protocol; this one is plain and has no random part:

- luma by OpenCV (BT.601, 8 bits), Canny's detector with a 3 x 3 Sobel filter, Euclidean gradient and the thresholds 100
  and 200, which are those of ControlNet's annotator;
- an edge pixel is found again if an edge pixel of the other image lies at most 2 pixels away (Euclidean, exact);
- *precision*: how many of the reconstruction's edge pixels the original has; *recall*: how many of the original's the
  reconstruction has; *F1*: their harmonic mean. Two images without any edge agree (1); if only one has none, it is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.image import Image
from rdpbench.metrics import contract
from rdpbench.metrics.contract import check_original, check_pair
from rdpbench.needs import Need, Package

Mask: TypeAlias = NDArray[np.bool_]

THRESHOLDS = (100, 200)
TOLERANCE = 2.0
"""Pixels."""
MINIMUM_SIDE = 3
"""The Sobel filter's."""


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

    image: Image
    pixels: Mask
    near: Mask


def find_edges(image: Image) -> Edges:
    """Edge pixels of ``uint8 (H, W, 3)``.

    >>> half = np.zeros((16, 16, 3), np.uint8)
    >>> half[:, 8:] = 255
    >>> edges = find_edges(half)
    >>> int(edges.pixels.sum()), int(edges.near.sum())
    (16, 80)
    """
    import cv2

    luma = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    pixels = cv2.Canny(luma, *THRESHOLDS, apertureSize=3, L2gradient=True) > 0
    if not pixels.any():
        return Edges(image, pixels, pixels)
    # Distance of each pixel to the nearest zero: edges are the zeros.
    distance = cv2.distanceTransform((~pixels).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return Edges(image, pixels, distance <= TOLERANCE)


def agreement(original: Edges, reconstruction: Edges) -> Agreement:
    """How far two images of one size agree on their edges."""
    if not original.pixels.any() and not reconstruction.pixels.any():
        return Agreement(1.0, 1.0)
    return Agreement(
        precision=_share(reconstruction.pixels, original.near),
        recall=_share(original.pixels, reconstruction.near),
    )


def _share(pixels: Mask, near: Mask) -> float:
    count = int(pixels.sum())
    return int((pixels & near).sum()) / count if count else 0.0


class EdgeF1:
    """F1 of the edges, 1 for identical images; defined in this module's description.

    >>> metric = EdgeF1()
    >>> half = np.zeros((16, 16, 3), np.uint8)
    >>> half[:, 8:] = 255
    >>> moved = np.roll(half, 2, axis=1)  # what leaves on the right comes in on the left: a second edge
    >>> round(metric.score(metric.prepare(half), moved), 4)
    0.6667
    """

    name: ClassVar[str] = "edges/canny-f1"
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    unit: ClassVar[str] = ""
    perceptual: ClassVar[bool] = False
    source: ClassVar[str] = "F1 of Canny edges (OpenCV, luma, 100/200) within 2 pixels; a protocol of rdpbench"
    needs: ClassVar[tuple[Need, ...]] = (Package("opencv-python-headless", module="cv2"),)

    def prepare(self, original: Image) -> Edges:
        """The original's edges. Raises `MetricError`: not ``uint8 (H, W, 3)``, or a side below 3 pixels."""
        return find_edges(check_original(original, self.name, MINIMUM_SIDE))

    def score(self, prepared: Edges, reconstruction: Image) -> float:
        """The agreement. Raises `MetricError` for another size or type."""
        check_pair(prepared.image, reconstruction, self.name)
        return self.take(agreement(prepared, find_edges(reconstruction)))

    def take(self, found: Agreement) -> float:
        """The number that this metric reports of an agreement."""
        return found.f1

    def reduce(self, values: Sequence[float]) -> float:
        """Mean over images."""
        return contract.mean(values)


class EdgePrecision(EdgeF1):
    """Share of the reconstruction's edge pixels that the original has: low where structure is invented.

    >>> EdgePrecision().take(Agreement(0.5, 1.0))
    0.5
    """

    name: ClassVar[str] = "edges/canny-precision"
    source: ClassVar[str] = "precision of Canny edges (OpenCV, luma, 100/200) within 2 pixels; a protocol of rdpbench"

    def take(self, found: Agreement) -> float:
        """Precision."""
        return found.precision


class EdgeRecall(EdgeF1):
    """Share of the original's edge pixels that the reconstruction has: low where structure is lost.

    >>> EdgeRecall().take(Agreement(0.5, 1.0))
    1.0
    """

    name: ClassVar[str] = "edges/canny-recall"
    source: ClassVar[str] = "recall of Canny edges (OpenCV, luma, 100/200) within 2 pixels; a protocol of rdpbench"

    def take(self, found: Agreement) -> float:
        """Recall."""
        return found.recall
