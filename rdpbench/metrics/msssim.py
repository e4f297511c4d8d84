"""MS-SSIM (Wang, Simoncelli and Bovik, Asilomar 2003) of 8-bit RGB, as TensorFlow and pytorch-msssim define it.

Five scales, a Gaussian window of 11 taps and sigma 1.5 without padding, K = (.01, .03), L = 255. The product over
scales is taken per channel, then the mean over channels. Between scales 2 x 2 means; a side of odd length first
repeats its last row or column, as TensorFlow's ``image.ssim_multiscale`` does. pytorch-msssim pads zeros there
(docs/metrics.md has the differences).

All sums are float64, since a variance is the small difference of two large numbers: in float32 the fifth digit is lost
(black against white: .29289 instead of .29295), and by how much depends on the processor. With ``E`` the window's mean,

    cs = (2 cov(x, y) + C2) / (var x + var y + C2) = 1 - (var x + var y - 2 cov) / (var x + var y + C2)
    l  = (2 Ex Ey + C1) / (Ex^2 + Ey^2 + C1)       = 1 - (Ex - Ey)^2 / (Ex^2 + Ey^2 + C1)

so ``y``, ``y^2`` and ``x y`` are filtered, and what is averaged is the distance from 1, which is exactly 0 for equal
images. Every step is the same when x and y change places, and so is the value, bit for bit.

The window is applied as small matrix products, several times as fast as 11 passes over the image: 8 neighbouring
results are one (8 x 18) band matrix times 18 rows. The first product writes its result turned, so that the second,
along the rows, is the same kind of product. Each is small enough that BLAS gives it one thread: the value does not
depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
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
_TAPS = 11
_GAUSSIAN = np.exp(-((np.arange(_TAPS) - _TAPS // 2) ** 2) / (2 * 1.5**2))
_WINDOW = _GAUSSIAN / _GAUSSIAN.sum()
ROWS = 8
"""Results per product: 8 doubles are one cache line."""
_COLUMNS = 1024
"""Widest product: OpenBLAS starts threads above 262144 multiplications, and 8 x 18 x 1024 stays below."""
_PAIR_MEAN = np.array([np.roll((0.25, 0, 0, 0.25, 0, 0), channel) for channel in range(3)], np.float32).T.copy()


@dataclass(frozen=True)
class Level:
    """What one scale of the original contributes to every pair. Strips are 8 rows of results, over all columns."""

    pixels: Pixels
    mean: Floats
    """``Ex``: ``(n strips, W - 10, 3 * 8)``; within a strip columns come first, then channels, then rows."""
    variance: Floats
    """``var x``, laid out like ``mean``."""


class Strips:
    """A window over strips of one scale, with the buffers that all strips share (they fit the cache)."""

    def __init__(self, shape: Sequence[int], window: Floats = _WINDOW) -> None:
        height, width = shape[:2]
        self._span = ROWS + len(window) - 1
        self._band = np.array([np.pad(window, (row, ROWS - 1 - row)) for row in range(ROWS)])
        self._band_turned = np.ascontiguousarray(self._band.T)
        self.used = 3 * width
        self.count = -(-(height - len(window) + 1) // ROWS)
        self.results = width - len(window) + 1
        blocks = -(-self.results // ROWS)
        chunks = -(-self.used // _COLUMNS)
        chunk = -(-self.used // chunks // ROWS) * ROWS
        self.columns = chunks * chunk
        self._chunked = (self._span, chunks, chunk)
        long = max(self.columns, 3 * (blocks * ROWS + len(window) - 1))
        turned = _aligned(long, ROWS)
        self._first = turned[: self.columns].reshape(chunks, chunk, ROWS)
        line = 3 * ROWS
        step = turned.itemsize * line
        # Overlapping windows of 18 columns (at 11 taps); a column holds 3 channels x 8 rows.
        self._second = as_strided(turned, (blocks, self._span, line), (step * ROWS, step, turned.itemsize))
        self._blocks = (blocks, ROWS, line)

    def source(self) -> Floats:
        """A buffer for a strip's rows of input: 18 at 11 taps."""
        return _aligned(self._span, self.columns)

    def result(self) -> Floats:
        """A buffer for what `mean` writes."""
        return _aligned(self._blocks[0] * ROWS, 3 * ROWS)

    def load(self, pixels: Pixels, strip: int, into: Floats) -> None:
        """Copy a strip's rows of ``(H, W, 3)``; rows that the image lacks become zero."""
        rows = pixels[strip * ROWS :][: self._span]
        into[: len(rows), : self.used] = rows.reshape(len(rows), -1)
        into[len(rows) :] = 0

    def centre(self, source: Floats) -> Floats:
        """The values in the middle of the window, laid out as `mean` lays out means: ``(W - 10, 3 * 8)``, a copy."""
        first = (self._span - ROWS) // 2
        rows = source[first : first + ROWS, 3 * first : 3 * (first + self.results)]
        return np.ascontiguousarray(rows.reshape(ROWS, self.results, 3).transpose(1, 2, 0)).reshape(self.results, -1)

    def mean(self, source: Floats, out: Floats) -> Floats:
        """Weighted means of a strip: ``(18, columns)`` to ``(W - 10, 3 * 8)``, a view of ``out``."""
        np.matmul(source.reshape(self._chunked).transpose(1, 2, 0), self._band_turned, out=self._first)
        np.matmul(self._band, self._second, out=out.reshape(self._blocks))
        return out[: self.results]


class MSSSIM(PairMetric):
    """MS-SSIM of 8-bit RGB, 1 for identical images; defined at the top of this module.

    >>> metric = MSSSIM()
    >>> grey = np.full((192, 192, 3), 100, np.uint8)
    >>> round(metric.score(metric.prepare(grey), grey + 20), 5)
    0.9978
    """

    name = "ms-ssim"
    version = "2"  # sums in float64; 1 was off by up to 9e-6 at the lowest rates, by 6e-5 for black against white
    higher_is_better = True
    bounds = (0.0, 1.0)
    perceptual = False
    source = "Wang, Simoncelli and Bovik 2003; 8-bit RGB, TensorFlow's padding of odd sizes"

    def prepare(self, original: Image) -> Prepared[tuple[Level, ...]]:
        """Filter the original at five scales, 27 MB for 512 x 768. Raises `MetricError` for a side below 161 pixels."""
        check_original(original, self.name, MINIMUM_SIDE)
        return Prepared(original, tuple(map(_prepare_level, _scales(original))))

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


def _prepare_level(pixels: Pixels) -> Level:
    strips = Strips(pixels.shape)
    x, mean_out, variance_out, spare = strips.source(), strips.result(), strips.result(), strips.result()
    mean = np.empty((strips.count, strips.results, 3 * ROWS))
    variance = np.empty_like(mean)
    for strip in range(strips.count):
        strips.load(pixels, strip, x)
        mean[strip], variance[strip] = moments(strips, x, mean_out, variance_out, spare)
    return Level(pixels, mean, variance)


def moments(
    strips: Strips, rows: Floats, mean_out: Floats, variance_out: Floats, spare: Floats
) -> tuple[Floats, Floats]:
    """Mean and variance of a strip: one way for both images, so that they may change places. Squares ``rows``."""
    mean = strips.mean(rows, mean_out)
    variance = strips.mean(np.multiply(rows, rows, out=rows), variance_out)
    variance -= np.multiply(mean, mean, out=spare[: strips.results])
    return mean, variance


def _mean_loss(level: Level, pixels: Pixels, *, luminance: bool) -> Floats:
    """Mean of ``1 - cs``, or of ``1 - cs * l`` with luminance, over the window's places: three channels."""
    height, width = pixels.shape[:2]
    strips = Strips(pixels.shape)
    y, product = strips.source(), strips.source()
    mean_out, variance_out, product_out, spare = (strips.result() for _ in range(4))
    loss = np.zeros((strips.count, 3, ROWS))
    for strip in range(strips.count):
        strips.load(pixels, strip, y)
        strips.load(level.pixels, strip, product)
        exy = strips.mean(np.multiply(product, y, out=product), product_out)
        ey, total = moments(strips, y, mean_out, variance_out, spare)
        ex, work = level.mean[strip], spare[: strips.results]
        covariance = np.subtract(exy, np.multiply(ex, ey, out=work), out=exy)
        covariance += covariance
        total += level.variance[strip]
        lost = np.subtract(total, covariance, out=covariance)
        total += _C2
        if luminance:
            # 1 - (1 - a/b)(1 - c/d) as one fraction.
            means = ex * ex + ey * ey + _C1
            lost, total = lost * means + (ex - ey) ** 2 * (total - lost), total * means
        # einsum multiplies while it sums.
        loss[strip] = np.einsum("ij,ij->j", lost, np.reciprocal(total, out=work)).reshape(3, ROWS)
    by_row = loss.transpose(1, 0, 2).reshape(3, -1)[:, : height - _TAPS + 1]
    return np.asarray(by_row.sum(axis=1) / ((height - _TAPS + 1) * (width - _TAPS + 1)))


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
    height, width = even.shape[:2]
    rows = np.add(even[0::2], even[1::2], dtype=np.float32).reshape(height // 2, width // 2, 6)
    return np.asarray(np.matmul(rows, _PAIR_MEAN), np.float32)


def _aligned(*shape: int) -> Floats:
    """Zeros that start at a cache line: numpy's own arrays do not, which costs vector code up to half its speed."""
    size = int(np.prod(shape)) * 8
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(np.float64).reshape(shape)
