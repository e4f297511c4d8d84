"""How a metric of pairs scores an image: built once, its original prepared once, code of the user's lent copies."""

from __future__ import annotations

from typing import Any

from rdpbench import registry
from rdpbench.datasets.contract import Sample
from rdpbench.image import Image
from rdpbench.metrics.contract import Lender, beside, meaning_of, number_of
from rdpbench.runners.sets import values

FAULTS = (Exception, SystemExit)
"""What code of the user's may raise over one image or score, and the next ones go on."""


class Original:
    """An original image, and what metrics prepared of it."""

    def __init__(self, pixels: Image) -> None:
        self.pixels = pixels
        self.copies = Lender(pixels, "original")
        """For metrics of the user's."""
        self.prepared: dict[str, Any] = {}


class PairScores:
    """Metrics of pairs of images, on a device as this process calls it."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._metrics: dict[str, Any] = {}

    def metric(self, name: str) -> Any:
        """A metric, built once."""
        if name not in self._metrics:
            cls = registry.load("metric", name)
            uses = getattr(cls, "uses_device", False)
            self._metrics[name] = cls(device=self._device) if uses else cls()
        return self._metrics[name]

    def score(
        self, name: str, original: Original, reconstruction: Lender, sample: Sample, protocol: str
    ) -> tuple[float, str]:
        """The value of an image, and remarks on it; ``sample`` has what the metric takes beside the original.

        Raises:
            MetricError: the metric refuses the image; or whatever a metric of the user's raises.
        """
        own, prepared, metric = is_own_metric(name), original.prepared, self.metric(name)
        try:
            if name not in prepared:
                extra = values(beside(type(metric)), sample, protocol)
                with original.copies.lending("prepare()", own) as copy:
                    prepared[name] = metric.prepare(copy, **extra)
                del copy
                original.copies.release()
            # What was prepared may be the original itself.
            with original.copies.guarding("score()"), reconstruction.lending("score()", own) as image:
                value = number_of(metric.score(prepared[name], image))
            remarks = getattr(metric, "remarks", None)
            return value, "; ".join(remarks(prepared[name])) if remarks else ""
        except FAULTS:
            if own:  # what was prepared is of no use if it holds the copy that was written into
                for other in filter(is_own_metric, list(prepared)):
                    del prepared[other]
            raise


def no_score(metric: type, value: float) -> str:
    """Why what a metric gave is no score; empty if it is one.

    >>> psnr = registry.load("metric", "psnr")
    >>> no_score(psnr, float("nan")), no_score(psnr, float("inf"))
    ('the metric gave nan, which is no score', '')
    """
    usable = meaning_of(metric).usable(value)
    return "" if usable else f"the metric gave {value}, which is no score"


def is_own_metric(name: str) -> bool:
    """Is it a metric of the user's, or of an installed package?"""
    return bool(registry.own_place("metric", name))
