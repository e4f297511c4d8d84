"""A codec's points image by image, which is what intervals and comparisons of pairs are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdpbench.results.schema import Row, Score

Floats = NDArray[np.float64]
Setting = tuple[str, float | None, float | None]
"""Name of the native setting, its value or None where a target was searched, and the target."""


@dataclass(frozen=True)
class ImageCurve:
    """Rates and values of one metric, ``(points, images)``, NaN where there is none; points by rising mean rate."""

    codec: str
    settings: tuple[Setting, ...]
    images: tuple[str, ...]
    rates: Floats
    values: Floats

    def of(self, images: Sequence[str]) -> ImageCurve:
        """The same points on these images, in this order."""
        columns = [self.images.index(image) for image in images]
        return ImageCurve(self.codec, self.settings, tuple(images), self.rates[:, columns], self.values[:, columns])

    @property
    def complete(self) -> tuple[str, ...]:
        """Images that have a finite rate and value at every point."""
        good = np.isfinite(self.rates).all(axis=0) & np.isfinite(self.values).all(axis=0)
        return tuple(image for image, whole in zip(self.images, good, strict=True) if whole)


def image_curves(rows: Iterable[Row], scores: Iterable[Score], metric: str) -> dict[str, ImageCurve]:
    """The curve of each codec under a metric of pairs; several seeds of an image count as their mean.

    Rows are of one dataset and protocol. A lossless image has an infinite PSNR, and is not complete.
    """
    values = {one.task_key: one.value for one in scores if one.metric == metric}
    found: dict[str, dict[Setting, dict[str, list[tuple[float, float]]]]] = {}
    for row in rows:
        value = values.get(row.task_key)
        if row.status == "ok" and row.bpp is not None and value is not None:
            at = (row.rate_field, row.rate if row.target_bpp is None else None, row.target_bpp)
            by_image = found.setdefault(row.codec, {}).setdefault(at, {})
            by_image.setdefault(row.image, []).append((row.bpp, value))
    return {codec: _curve(codec, settings) for codec, settings in found.items()}


def _curve(codec: str, settings: Mapping[Setting, Mapping[str, Sequence[tuple[float, float]]]]) -> ImageCurve:
    images = sorted({image for by_image in settings.values() for image in by_image})
    arrays = np.full((2, len(settings), len(images)), math.nan)
    for point, by_image in enumerate(settings.values()):
        for image, seeds in by_image.items():
            arrays[:, point, images.index(image)] = np.mean(seeds, axis=0)
    order = np.argsort(np.nanmean(arrays[0], axis=1), kind="stable")
    names = list(settings)
    return ImageCurve(codec, tuple(names[n] for n in order), tuple(images), arrays[0][order], arrays[1][order])


def setting_name(at: Setting) -> str:
    """A setting in words.

    >>> setting_name(("quality", 25.0, None)), len(setting_name(("none", None, None)))
    ('quality 25', 11)
    """
    field, rate, target = at
    if target is not None:
        return f"target {target:g} bpp"
    return f"{field} {rate:g}" if rate is not None else "one setting"
