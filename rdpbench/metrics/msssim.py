"""MS-SSIM (Wang, Simoncelli and Bovik, Asilomar 2003) of 8-bit RGB, as TensorFlow and pytorch-msssim define it.

Five scales, a Gaussian window of 11 taps and sigma 1.5 without padding, K = (.01, .03), L = 255. The product over
scales is taken per channel, then the mean over channels. Between scales 2 x 2 means; a side of odd length first
repeats its last row or column, as TensorFlow's ``image.ssim_multiscale`` does. pytorch-msssim pads zeros there
(docs/metrics.md has the differences).

With ``E`` the window's mean, s = x + y and d = x - y, each factor is one less a loss between 0 and 2:

    cs = (2 cov(x, y) + C2) / (var x + var y + C2) = 1 - 2 var d / (var s + var d + 2 C2)
    l  = (2 Ex Ey + C1) / (Ex^2 + Ey^2 + C1)       = 1 - 2 (Ed)^2 / ((Es)^2 + (Ed)^2 + 2 C1)

So ``y``, ``s^2`` and ``d^2`` are filtered, and losses are averaged, which are exactly 0 for equal images. Every step is
the same when x and y change places, and so is the value, bit for bit.

All sums are float64, since a variance is the small difference of two large numbers: in float32 the fifth digit is lost
(black against white: .29289 instead of .29295). ``einsum`` adds up the taps, in numpy's own loops and not in BLAS, so
that neither the time nor the digits hang on the kernel that BLAS has for a processor, or on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rdpbench.image import Image
from rdpbench.lazy import torch
from rdpbench.metrics.contract import Floats, PairMetric, Prepared, by_name, check_original, check_pair
from rdpbench.needs import Package

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
"""``(H, W, 3)``: the image at the first scale, means of its pixels at the others, which float32 holds exactly."""

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first."""
MINIMUM_SIDE = 161
"""Four halvings leave 11 pixels, one window."""

_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_GAUSSIAN = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
_WINDOW = _GAUSSIAN / _GAUSSIAN.sum()
_STRIP = 73_728
"""Values of one strip, about: few enough for the processor's cache, yet so many that calls take little of the time."""


@dataclass(frozen=True)
class Level:
    """What one scale of the original contributes to every pair."""

    pixels: Pixels
    mean: Floats
    """``Ex``, laid out as `Strips` says."""


class Strips:
    """A window over strips of one scale, with the buffers that all strips share.

    An image ``(H, W, 3)`` is ``(H, 3 W)`` here, and what 11 taps leave of it ``(H - 10, 3 W)``, whose last 30 columns
    are zeros: numpy takes whole arrays faster than parts of their rows.
    """

    def __init__(self, pixels: Pixels, window: Floats = _WINDOW) -> None:
        self._image = pixels.reshape(len(pixels), -1)
        self._window = window
        self._extra = len(window) - 1
        self.height, self._line = len(pixels) - self._extra, self._image.shape[1]
        self.used = self._line - 3 * self._extra
        strips = -(-self.height // max(16, _STRIP // self._line))
        self._rows = -(-self.height // strips)
        self._sources = np.empty((2, self._rows + self._extra, self._line))
        self._down = sliding_window_view(self._sources, len(window), axis=1)
        self._between = np.empty((self._rows, self._line))
        self._across = sliding_window_view(self._between, 3 * self._extra + 1, axis=1)[..., ::3]

    def __iter__(self) -> Iterator[slice]:
        """The rows of results of each strip."""
        for start in range(0, self.height, self._rows):
            yield slice(start, min(start + self._rows, self.height))

    def means(self) -> Floats:
        """Weighted means of the whole image."""
        means = np.zeros((self.height, self._line))
        for rows in self:
            self._load(rows, self._image, 0)
            self._mean(0, means[rows])
        return means

    def pairs(self, level: Level, constant: float) -> Iterator[tuple[slice, Floats]]:
        """Compare with an original: the rows of each strip, and ``Ey``, ``(Es)^2``, ``(Ed)^2`` and the loss of cs.

        These are ``(4, rows, 3 W)``, in a buffer that the next strip overwrites, and the caller may.
        """
        original = level.pixels.reshape(self._image.shape)
        buffer = np.empty((5, self._rows, self._line))
        for rows in self:
            buffer[..., self.used :] = 0  # the caller may have written there
            mean, mean_sum, mean_difference, loss, total = results = buffer[:, : rows.stop - rows.start]
            y, x = self._load(rows, self._image, 0), self._load(rows, original, 1)
            self._mean(0, mean)
            x -= y  # d
            y += y
            y += x  # s
            np.square(y, out=y)
            self._mean(0, total)
            np.square(x, out=x)
            self._mean(1, loss)
            np.add(level.mean[rows], mean, out=mean_sum)
            np.subtract(level.mean[rows], mean, out=mean_difference)
            total -= np.square(mean_sum, out=mean_sum)
            loss -= np.square(mean_difference, out=mean_difference)
            total += loss
            total += 2 * constant
            loss += loss
            loss /= total
            yield rows, results[:4]

    def _load(self, rows: slice, image: NDArray[Any], which: int) -> Floats:
        """The rows that a strip's windows cover, in one of the buffers."""
        source: Floats = self._sources[which, : rows.stop - rows.start + self._extra]
        source[...] = image[rows.start : rows.stop + self._extra]
        return source

    def _mean(self, which: int, out: Floats) -> None:
        """Weighted means of a buffer: down the columns, then along the rows."""
        rows = len(out)
        np.einsum("rnk,k->rn", self._down[which, :rows], self._window, out=self._between[:rows])
        np.einsum("rnk,k->rn", self._across[:rows], self._window, out=out[:, : self.used])


class MSSSIM(PairMetric):
    """MS-SSIM of 8-bit RGB, 1 for identical images; defined at the top of this module.

    >>> metric = MSSSIM()
    >>> grey = np.full((192, 192, 3), 100, np.uint8)
    >>> round(metric.score(metric.prepare(grey), grey + 20), 5)
    0.9978
    """

    name = "ms-ssim"
    # No new version when sums left BLAS: no value moved by 1e-12, and as much lay between processors before.
    version = "2"  # sums in float64; 1 was off by up to 9e-6 at the lowest rates, by 6e-5 for black against white
    higher_is_better = True
    bounds = (0.0, 1.0)
    perceptual = False
    source = "Wang, Simoncelli and Bovik 2003; 8-bit RGB, TensorFlow's padding of odd sizes"

    def prepare(self, original: Image) -> Prepared[tuple[Level, ...]]:
        """Filter the original at five scales, 15 MB for 512 x 768. Raises `MetricError` for a side below 161 pixels."""
        check_original(original, self.name, MINIMUM_SIDE)
        return Prepared(original, tuple(Level(pixels, Strips(pixels).means()) for pixels in _scales(original)))

    def score(self, prepared: Prepared[tuple[Level, ...]], reconstruction: Image) -> float:
        check_pair(prepared.original, reconstruction, self.name)
        product = np.ones(3)
        for level, pixels, weight in zip(prepared.content, _scales(reconstruction), WEIGHTS, strict=True):
            similarity = 1 - _mean_loss(level, pixels, luminance=level is prepared.content[-1])
            # A scale can be anti-correlated; as everywhere, it then counts as 0.
            product *= np.maximum(similarity, 0) ** weight
        return float(product.mean())


class TorchmetricsMSSSIM(PairMetric):
    """MS-SSIM as torchmetrics computes it (and PerCo(SD) reports it), which is another metric of the same name.

    It pads by reflection where `MSSSIM` does not pad, averages channels before it multiplies scales, and drops the last
    row or column of an odd side; apart by up to 0.01 where one channel alone is damaged. In float32, as the library is
    used: float64 takes twelve times as long, and moves the value by up to 2e-6.

    >>> metric = TorchmetricsMSSSIM()
    >>> grey = np.full((192, 192, 3), 100, np.uint8)
    >>> round(metric.score(metric.prepare(grey), grey + 20), 5)
    0.99777
    """

    name = "ms-ssim/torchmetrics"
    higher_is_better = True
    bounds = (0.0, 1.0)
    perceptual = False
    source = "torchmetrics' multiscale SSIM, 8-bit RGB as [0, 1] with data_range 1: PerCo(SD)"
    needs = (Package("torchmetrics"),)
    preload = ("torch",)

    def prepare(self, original: Image) -> Image:
        """The original itself. Raises `MetricError` for a side below the library's 176 pixels."""
        return check_original(original, self.name, 176)

    def score(self, prepared: Image, reconstruction: Image) -> float:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

        check_pair(prepared, reconstruction, self.name)
        first, second = (
            torch.tensor(np.ascontiguousarray(image)).permute(2, 0, 1)[None] / 255
            for image in (reconstruction, prepared)
        )
        with torch.inference_mode():
            return float(measure(first, second, data_range=1.0))


METRICS = by_name(MSSSIM, TorchmetricsMSSSIM)


def _mean_loss(level: Level, pixels: Pixels, *, luminance: bool) -> Floats:
    """Mean of ``1 - cs``, or of ``1 - cs * l`` with luminance, over the window's places: three channels."""
    strips = Strips(pixels)
    total = np.zeros(3)
    for _, (_, mean_sum, mean_difference, loss) in strips.pairs(level, _C2):
        if luminance:
            dark = 2 * mean_difference / (mean_sum + mean_difference + 2 * _C1)
            np.add(loss, dark - dark * loss, out=loss)
        total += loss.sum(axis=0).reshape(-1, 3).sum(axis=0)
    return total / (strips.height * strips.used / 3)


def _scales(image: Pixels) -> Iterator[Pixels]:
    """The image at its five scales."""
    yield image
    for _ in WEIGHTS[1:]:
        image = halve(image)
        yield image


def halve(pixels: Pixels) -> NDArray[np.float32]:
    """Means of 2 x 2 pixels; an odd last row or column is repeated first. Exact: values keep at most 16 bits."""
    odd = [(0, side % 2) for side in pixels.shape[:2]]
    even = np.pad(pixels, [*odd, (0, 0)], mode="edge") if odd != [(0, 0), (0, 0)] else pixels
    rows = np.add(even[0::2], even[1::2], dtype=np.float32)
    halved = np.empty((len(rows), rows.shape[1] // 2, 3), np.float32)
    for channel in range(3):  # over channels together, numpy would loop by threes
        np.add(rows[:, 0::2, channel], rows[:, 1::2, channel], out=halved[..., channel])
    halved *= np.float32(0.25)
    return halved
