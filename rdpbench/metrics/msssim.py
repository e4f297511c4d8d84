"""MS-SSIM (Wang, Simoncelli and Bovik, Asilomar 2003) of 8-bit RGB, as TensorFlow and pytorch-msssim define it.

Five scales, a Gaussian window of 11 taps and sigma 1.5 without padding, K = (.01, .03), L = 255. The product over
scales is taken per channel, then the mean over channels. Between scales 2 x 2 means; a side of odd length first
repeats its last row or column, as TensorFlow's ``image.ssim_multiscale`` does (pytorch-msssim pads zeros there and
differs in the fourth decimal; for even sizes the two are one).

What is computed, for the speed and for the precision. With ``d = x - y`` and ``E`` the window's mean,

    cs = (2 cov(x, y) + C2) / (var x + var y + C2) = 1 - var d / (var x + var y + C2)
    l  = (2 Ex Ey + C1) / (Ex^2 + Ey^2 + C1)       = 1 - (Ed)^2 / (Ex^2 + Ey^2 + C1)

so ``d``, ``d^2`` and ``y^2`` are filtered (``Ey`` is ``Ex - Ed``) and what is averaged is the small distance from 1:
float32 then mostly errs by 1e-9 where the textbook form errs by 2e-7, and by 4e-7 at worst (flat areas, coarse JPEG).

The window is applied as small matrix products. 16 neighbouring results are one (16 x 26) band matrix times 26 rows:
more than half of the multiplications are by zero, and still it is eight times as fast as 11 passes over the image, as
BLAS keeps everything in registers. The first product writes its result turned, so that the second, along the rows, is
the same kind of product. Each product is small enough that BLAS gives it one thread: the value does not depend on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from rdpbench.image import Image
from rdpbench.metrics import contract
from rdpbench.metrics.checks import check_original, check_pair
from rdpbench.needs import Need, Package

Floats: TypeAlias = NDArray[np.float32]
Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
"""``(H, W, 3)``: the image at the first scale, means of its pixels at the others."""

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first."""
MINIMUM_SIDE = 161
"""Four halvings leave 11 pixels, one window."""

_C1, _C2 = np.float32((0.01 * 255) ** 2), np.float32((0.03 * 255) ** 2)
# The float32 window that torch computes, written out: computed here by numpy, its last digits move the result by 1e-6.
_HALF = (0.0010283804, 0.007598758, 0.036000773, 0.10936069, 0.21300553)
_WINDOW = np.array([*_HALF, 0.26601171, *reversed(_HALF)], np.float32)
_TAPS = len(_WINDOW)
_ROWS = 16
"""Results per product: 16 floats are one cache line; 8 and 32 are slower."""
_SPAN = _ROWS + _TAPS - 1
_COLUMNS = 512
"""Widest product: OpenBLAS starts threads above 262144 multiplications, and 16 x 26 x 512 stays below."""
_BAND = np.array([np.pad(_WINDOW, (row, _ROWS - 1 - row)) for row in range(_ROWS)], np.float32)
_BAND_TURNED = np.ascontiguousarray(_BAND.T)
_PAIR_MEAN = np.array([np.roll((0.25, 0, 0, 0.25, 0, 0), channel) for channel in range(3)], np.float32).T.copy()


@dataclass(frozen=True)
class Level:
    """What one scale of the original contributes to every pair. Strips are 16 rows of results, over all columns."""

    plane: Pixels
    """``x`` as rows of interleaved channels, zeros added below and to the right: ``(16 n + 10, columns)``."""
    mean: Floats
    """``Ex``: ``(n strips, W - 10, 3 * 16)``; within a strip columns come first, then channels, then rows."""
    variance: Floats
    """``var x + C2``, laid out like ``mean``."""


@dataclass(frozen=True)
class Prepared:
    """The original with its five levels: 15 MB for 512 x 768, that is 39 bytes per pixel."""

    original: Image
    levels: tuple[Level, ...]


class _Strips:
    """The window over strips of one scale, with the buffers that all strips share (they fit the cache)."""

    def __init__(self, height: int, width: int) -> None:
        self.used = 3 * width
        self.count = -(-(height - _TAPS + 1) // _ROWS)
        self.results = width - _TAPS + 1
        blocks = -(-self.results // _ROWS)
        chunks = -(-self.used // _COLUMNS)
        chunk = -(-self.used // chunks // 16) * 16
        self.columns = chunks * chunk
        self._chunked = (_SPAN, chunks, chunk)
        long = max(self.columns, 3 * (blocks * _ROWS + _TAPS - 1))
        turned = _aligned(long, _ROWS)
        self._first = turned[: self.columns].reshape(chunks, chunk, _ROWS)
        line = 3 * _ROWS
        step = turned.itemsize * line
        # Overlapping windows of 26 columns; a column holds 3 channels x 16 rows.
        self._second = as_strided(turned, (blocks, _SPAN, line), (step * _ROWS, step, turned.itemsize))
        self._blocks = (blocks, _ROWS, line)

    def source(self) -> Floats:
        """A buffer for 26 rows of input."""
        return _aligned(_SPAN, self.columns)

    def result(self) -> Floats:
        """A buffer for what `mean` writes."""
        return _aligned(self._blocks[0] * _ROWS, 3 * _ROWS)

    def load(self, rows: Pixels, into: Pixels) -> None:
        """Copy up to 26 rows ``(n, W, 3)``; rows that the image lacks become zero."""
        into[: len(rows), : self.used] = rows.reshape(len(rows), -1)
        into[len(rows) :] = 0

    def mean(self, source: Floats, out: Floats) -> Floats:
        """Weighted means of a strip: ``(26, columns)`` to ``(W - 10, 3 * 16)``, a view of ``out``."""
        np.matmul(source.reshape(self._chunked).transpose(1, 2, 0), _BAND_TURNED, out=self._first)
        np.matmul(_BAND, self._second, out=out.reshape(self._blocks))
        return out[: self.results]


class MSSSIM:
    """MS-SSIM of 8-bit RGB, 1 for identical images; defined in this module's description.

    Source: Wang, Simoncelli and Bovik, "Multiscale structural similarity", Asilomar 2003.

    >>> metric = MSSSIM()
    >>> grey = np.full((192, 192, 3), 100, np.uint8)
    >>> round(metric.score(metric.prepare(grey), grey + 20), 5)
    0.9978
    """

    name: ClassVar[str] = "ms-ssim"
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    unit: ClassVar[str] = ""
    perceptual: ClassVar[bool] = False
    source: ClassVar[str] = "Wang, Simoncelli and Bovik 2003; 8-bit RGB, TensorFlow's padding of odd sizes"
    needs: ClassVar[tuple[Need, ...]] = ()

    def prepare(self, original: Image) -> Prepared:
        """Filter the original at five scales.

        Raises:
            MetricError: not ``uint8 (H, W, 3)``, or a side below 161 pixels.
        """
        check_original(original, self.name, MINIMUM_SIDE)
        levels = []
        pixels: Pixels = original
        for scale in range(len(WEIGHTS)):
            pixels = _halve(pixels) if scale else pixels
            levels.append(_prepare_level(pixels))
        return Prepared(original, tuple(levels))

    def score(self, prepared: Prepared, reconstruction: Image) -> float:
        """MS-SSIM of the pair. Raises `MetricError` for another size or type."""
        check_pair(prepared.original, reconstruction, self.name)
        product = np.ones(3)
        pixels: Pixels = reconstruction
        for scale, (level, weight) in enumerate(zip(prepared.levels, WEIGHTS, strict=True)):
            pixels = _halve(pixels) if scale else pixels
            similarity = 1 - _mean_loss(level, pixels, luminance=scale == len(WEIGHTS) - 1)
            # A scale can be anti-correlated; as everywhere, it then counts as 0.
            product *= np.maximum(similarity, 0) ** weight
        return float(product.mean())

    def reduce(self, values: Sequence[float]) -> float:
        """Mean over images."""
        return contract.mean(values)


class TorchmetricsMSSSIM:
    """MS-SSIM as torchmetrics computes it (and PerCo(SD) reports it), which is another metric of the same name.

    It pads by reflection where `MSSSIM` does not pad, averages channels before it multiplies scales, and drops the last
    row or column of an odd side. Within 5e-5 of `MSSSIM` on ordinary distortions; apart by up to 0.01 where one
    channel alone is damaged.

    >>> metric = TorchmetricsMSSSIM()
    >>> grey = np.full((192, 192, 3), 100, np.uint8)
    >>> round(metric.score(metric.prepare(grey), grey + 20), 5)
    0.99777
    """

    name: ClassVar[str] = "ms-ssim/torchmetrics"
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    unit: ClassVar[str] = ""
    perceptual: ClassVar[bool] = False
    source: ClassVar[str] = "torchmetrics' multiscale SSIM, 8-bit RGB as [0, 1] with data_range 1: PerCo(SD)"
    needs: ClassVar[tuple[Need, ...]] = (Package("torchmetrics"),)
    preload: ClassVar[tuple[str, ...]] = ("torch",)

    def prepare(self, original: Image) -> Image:
        """The original itself. Raises `MetricError` for another type, or a side below the library's 176 pixels."""
        return check_original(original, self.name, 176)

    def score(self, prepared: Image, reconstruction: Image) -> float:
        """MS-SSIM of the pair. Raises `MetricError` for another size or type."""
        import torch
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

        check_pair(prepared, reconstruction, self.name)
        first, second = (
            torch.tensor(np.ascontiguousarray(image)).permute(2, 0, 1)[None] / 255
            for image in (reconstruction, prepared)
        )
        with torch.inference_mode():
            return float(measure(first, second, data_range=1.0))

    def reduce(self, values: Sequence[float]) -> float:
        """Mean over images."""
        return contract.mean(values)


def _prepare_level(pixels: Pixels) -> Level:
    strips = _Strips(*pixels.shape[:2])
    plane: Pixels = np.zeros((strips.count * _ROWS + _TAPS - 1, strips.columns), pixels.dtype)  # type: ignore[assignment]
    strips.load(pixels, plane)
    rows, square, out = strips.source(), strips.source(), strips.result()
    mean = np.empty((strips.count, strips.results, 3 * _ROWS), np.float32)
    variance = np.empty_like(mean)
    for strip in range(strips.count):
        rows[:] = plane[strip * _ROWS :][:_SPAN]
        mean[strip] = strips.mean(rows, out)
        np.multiply(rows, rows, out=square)
        variance[strip] = strips.mean(square, out) - mean[strip] ** 2 + _C2
    return Level(plane, mean, variance)


def _mean_loss(level: Level, pixels: Pixels, *, luminance: bool) -> NDArray[np.float64]:
    """Mean of ``1 - cs``, or of ``1 - cs * l`` with luminance, over the window's places: three channels."""
    height, width = pixels.shape[:2]
    strips = _Strips(height, width)
    y, other = strips.source(), strips.source()
    gap, square, gap_square, spare = (strips.result() for _ in range(4))
    loss = np.zeros((strips.count, 3, _ROWS))
    for strip in range(strips.count):
        top = strip * _ROWS
        strips.load(pixels[top : top + _SPAN], y)
        np.subtract(level.plane[top : top + _SPAN], y, out=other)
        ed = strips.mean(other, gap)
        ed2 = strips.mean(np.multiply(other, other, out=other), gap_square)
        ey2 = strips.mean(np.multiply(y, y, out=y), square)
        ex, work = level.mean[strip], spare[: strips.results]
        ey = np.subtract(ex, ed, out=work)
        means = ex**2 + ey**2 + _C1 if luminance else None
        total = np.subtract(ey2, np.multiply(ey, ey, out=work), out=ey2)
        total += level.variance[strip]
        ed *= ed
        lost = np.subtract(ed2, ed, out=ed2)
        if means is not None:
            # 1 - (1 - a/b)(1 - c/d) as one fraction.
            lost, total = lost * means + ed * (total - lost), total * means
        # numpy's division takes four times as long as its reciprocal, and einsum multiplies while it sums.
        loss[strip] = np.einsum("ij,ij->j", lost, np.reciprocal(total, out=work)).reshape(3, _ROWS)
    by_row = loss.transpose(1, 0, 2).reshape(3, -1)[:, : height - _TAPS + 1]
    return np.asarray(by_row.sum(axis=1) / ((height - _TAPS + 1) * (width - _TAPS + 1)))


def _halve(pixels: Pixels) -> Floats:
    """Means of 2 x 2 pixels; an odd last row or column is repeated first. Exact: values keep at most 16 bits."""
    odd = [(0, side % 2) for side in pixels.shape[:2]]
    even = np.pad(pixels, [*odd, (0, 0)], mode="edge") if odd != [(0, 0), (0, 0)] else pixels
    height, width = even.shape[:2]
    rows = np.add(even[0::2], even[1::2], dtype=np.float32).reshape(height // 2, width // 2, 6)
    return np.asarray(np.matmul(rows, _PAIR_MEAN))


def _aligned(*shape: int) -> Floats:
    """Zeros that start at a cache line: numpy's own arrays do not, which costs vector code up to half its speed."""
    size = int(np.prod(shape)) * 4
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(np.float32).reshape(shape)
