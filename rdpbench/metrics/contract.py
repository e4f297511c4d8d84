"""What a metric is: a number for a pair of images, with its meaning as class data.

A *pair* metric works in two steps, so that what depends on the original alone is computed once however many codecs and
rates are scored against it: ``prepare(original)`` and then ``score(prepared, reconstruction)``. ``reduce`` turns the
per-image values into the number of a table; the default is their mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from rdpbench.image import Image
from rdpbench.needs import Need


@runtime_checkable
class Metric(Protocol):
    """The contract of a pair metric. Images are ``uint8 (H, W, 3)`` of equal size."""

    name: ClassVar[str]
    """Name with protocol, such as ``ms-ssim`` or ``lpips/alex``."""
    version: ClassVar[str]
    """Raised when the code changes the number; enters the key of each score."""
    higher_is_better: ClassVar[bool]
    unit: ClassVar[str]
    """``dB`` or empty."""
    perceptual: ClassVar[bool]
    """Drawn on the perception axis?"""
    source: ClassVar[str]
    """Paper or standard."""
    needs: ClassVar[tuple[Need, ...]]

    def prepare(self, original: Image) -> Any: ...

    def score(self, prepared: Any, reconstruction: Image) -> float: ...

    def reduce(self, values: Sequence[float]) -> float: ...


def mean(values: Sequence[float]) -> float:
    """Mean over images; an infinite value (a lossless image's PSNR) is left out unless all are infinite.

    >>> mean([30.0, 32.0, math.inf])
    31.0
    """
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        return math.fsum(finite) / len(finite)
    return values[0] if values else math.nan
