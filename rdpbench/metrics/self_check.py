"""Expected values of every metric, computed on this machine: what ``rdpbench check metrics=all`` prints.

No network's weights are needed. The values come from hand calculations, from closed forms, and from the reference
implementations (TensorFlow, torch-fidelity, google-research/cmmd, the Excel sheet of VCEG-M33), which were run on the
arrays and images that are made here by arithmetic alone. A tolerance is what float64 leaves, or float32 where a
reference has no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from rdpbench.image import Image
from rdpbench.lazy import pil, torch
from rdpbench.metrics import frechet, mmd, psnr
from rdpbench.metrics.contract import Floats


@dataclass(frozen=True)
class Check:
    """One expected value and what this machine makes of it."""

    name: str
    expected: float
    found: float
    tolerance: float

    @property
    def difference(self) -> float:
        """Found less expected; NaN where one of them is."""
        return self.found - self.expected

    @property
    def ok(self) -> bool:
        """Within the tolerance? Where NaN is expected, is it NaN?"""
        return math.isnan(self.found) if math.isnan(self.expected) else abs(self.difference) <= self.tolerance


def run() -> list[Check]:
    """All checks but those of BD-rate, which `deltas` makes; a second or two.

    >>> all(check.ok for check in run())
    True
    """
    groups = (_psnr, _msssim, _ssimulacra2, _frechet, _kernels, _cmmd, _miou, _patches, _clip, _resize, _lpips)
    return [check for group in groups for check in group()]


def deltas(bd_rate: Callable[..., Any], bd_metric: Callable[..., Any]) -> list[Check]:
    """Checks of BD-rate and BD-metric, which are handed over: metrics do not import results.

    >>> from rdpbench.results.stats.bd import bd_metric, bd_rate
    >>> len([check for check in deltas(bd_rate, bd_metric) if check.ok])
    14
    """
    sheets = {
        "VCEG-M33": (
            _points([686.76, 309.58, 157.11, 85.95], [40.28, 37.18, 34.24, 31.42]),
            _points([893.34, 407.8, 204.93, 112.75], [40.39, 37.21, 34.17, 31.24]),
            {"cubic": (31.3973740549, -1.1848979218), "pchip": (31.3798782024, -1.1834724046)},
        ),
        "T1": (
            _points([9487.76, 4593.60, 2486.44, 1358.24], [40.037, 38.615, 36.845, 34.851]),
            _points([9787.80, 4469.00, 2451.52, 1356.24], [40.121, 38.651, 36.970, 34.987]),
            {
                "cubic": (-4.4204627060, 0.1204094191),
                "pchip": (-4.4174853506, 0.1196927854),
                "akima": (-4.4252451570, 0.1194092703),
            },
        ),
    }
    checks = []
    for sheet, (anchor, test, expected) in sheets.items():
        for method, (percent, gain) in expected.items():
            rate, metric = bd_rate(anchor, test, method=method).value, bd_metric(anchor, test, method=method).value
            checks.append(Check(f"BD-rate {sheet} {method}", percent, rate, 1e-6))
            checks.append(Check(f"BD-metric {sheet} {method}", gain, metric, 1e-6))
    anchor = _points([0.05, 0.1, 0.2, 0.4], [0.4, 0.3, 0.2, 0.1])
    better = [(rate, 0.9 * value) for rate, value in anchor]
    rate = bd_rate(anchor, better, higher_is_better=False).value
    checks.append(Check("BD-rate LPIPS x 0.9", -16.233549677484, rate, 1e-6))
    checks.append(Check("BD-metric LPIPS x 0.9", -0.025, bd_metric(anchor, better).value, 1e-9))
    cheaper = [(0.9 * rate, value) for rate, value in sheets["T1"][0]]
    checks.append(Check("BD-rate rate x 0.9", -10.0, bd_rate(sheets["T1"][0], cheaper).value, 1e-9))
    turning = _points([0.1, 0.2, 0.4, 0.8], [30.0, 33.0, 32.0, 35.0])
    checks.append(Check("BD-rate of a curve that turns", math.nan, bd_rate(turning, sheets["T1"][0]).value, 0))
    return checks


def _points(rates: Iterable[float], values: Iterable[float]) -> list[tuple[float, float]]:
    return list(zip(rates, values, strict=True))


def synthetic(height: int, width: int) -> tuple[Image, Image]:
    """Waves with a pattern on top, and the same darkened with other waves; equal on all machines.

    >>> int(synthetic(192, 192)[0].sum())
    14411562
    """
    i, j, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    x = 128 + 60 * np.sin(2 * np.pi * (i + 2 * c) / 37) + 50 * np.cos(2 * np.pi * (j - 3 * c) / 23)
    x = np.clip(np.floor(x + ((7 * i + 13 * j + 29 * c) % 32 - 16) + 0.5), 0, 255)
    y = 0.85 * x + 18 + 12 * np.sin(2 * np.pi * ((i * j) % 101) / 101) + ((5 * i + 3 * j + 11 * c) % 17 - 8)
    return x.astype(np.uint8), np.clip(np.floor(y + 0.5), 0, 255).astype(np.uint8)


def wavy() -> tuple[Floats, Floats]:
    """Two sets of 40 vectors of 64 entries; pure arithmetic, equal on all machines."""
    i, j = np.meshgrid(np.arange(40), np.arange(64), indexing="ij")
    x = np.sin(0.7 * i * (j + 1) + j) + ((7 * i + 11 * j) % 13) / 13
    y = 1.1 * np.cos(0.9 * i * (j + 2) + j) + ((5 * i + 3 * j) % 17) / 17
    return x, y


def _psnr() -> Iterator[Check]:
    metric = psnr.PSNR()
    yield Check("PSNR of MSE 1 and 100, mean", 38.1308036087, metric.reduce([psnr.psnr_of(1), psnr.psnr_of(100)]), 1e-9)
    yield Check("PSNR of MSE 1 and 100, pooled", 31.0978898275, psnr.psnr_of(50.5), 1e-9)
    first, second = synthetic(512, 768)
    yield Check("PSNR 512 x 768", 25.8880894476, metric.score(metric.prepare(first), second), 1e-9)


def _msssim() -> Iterator[Check]:
    from rdpbench.metrics.msssim import MSSSIM

    metric = MSSSIM()
    # Odd sizes are where implementations differ.
    for size, expected in {(192, 192): 0.97803414, (255, 257): 0.97730200}.items():
        first, second = synthetic(*size)
        yield Check(f"MS-SSIM {size[0]} x {size[1]}", expected, metric.score(metric.prepare(first), second), 1e-8)
    for values, expected in {(100, 120): 0.9977996602602436, (0, 255): 0.2929504781162838}.items():
        first, second = (np.full((192, 192, 3), value, np.uint8) for value in values)
        score = metric.score(metric.prepare(first), second)
        yield Check(f"MS-SSIM of {values[0]} and {values[1]}", expected, score, 1e-11)


def _ssimulacra2() -> Iterator[Check]:
    from rdpbench.metrics.ssimulacra2 import SSIMULACRA2

    metric = SSIMULACRA2()
    # libjxl 0.11.1, whose float32 scores a little less or more.
    for size, expected in {(192, 192): 44.27374701, (255, 257): 41.75334173}.items():
        first, second = synthetic(*size)
        score = metric.score(metric.prepare(first), second)
        yield Check(f"SSIMULACRA 2 {size[0]} x {size[1]}", expected, score, 0.01)


def _frechet() -> Iterator[Check]:
    def value(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> float:
        moments = [frechet.Moments(2, mean, covariance) for mean, covariance in (first, second)]
        return frechet.distance(*moments).value

    zero, identity = np.zeros(16), np.eye(16)
    diagonal = value((np.zeros(2), np.diag([1.0, 4])), (np.array([1.0, 2]), np.diag([9.0, 16])))
    yield Check("Fréchet, diagonal", 13.0, diagonal, 1e-9)
    mixed = value((np.zeros(2), np.array([[2.0, 1], [1, 2]])), (np.ones(2), np.diag([1.0, 3])))
    yield Check("Fréchet, not commuting", 2.5166852264521173, mixed, 1e-9)
    yield Check("Fréchet, I and 4 I", 16.0, value((zero, identity), (zero, 4 * identity)), 1e-9)
    x, y = wavy()
    yield Check("Fréchet, fewer rows than entries", 51.28558, frechet.distance_of_rows(x, y).value, 1e-4)
    yield Check("Fréchet of a set and itself", 0.0, frechet.distance_of_rows(x, x).value, 1e-5)
    whole = reduce(frechet.merge, [frechet.moments(shard) for shard in np.split(x, [1, 4, 5, 21])])
    worst = float(np.abs(whole.covariance() - np.cov(x, rowvar=False)).max())
    yield Check("Fréchet, 5 shards and numpy", 0.0, worst, 1e-12)


def _kernels() -> Iterator[Check]:
    corners = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 0.0]])
    yield Check("KID by hand", -2.375, mmd.polynomial_mmd(*corners), 1e-12)
    yield Check("KID by hand, biased", 0.5625, mmd.polynomial_mmd(*corners, unbiased=False), 1e-12)
    yield Check("KID, full set", 0.4262034458, mmd.polynomial_mmd(*wavy()), 1e-9)
    twice = [mmd.kid(*wavy(), subsets=10, size=30).value for _ in range(2)]
    yield Check("KID, the same subsets twice", 0.0, twice[1] - twice[0], 0.0)


def _cmmd() -> Iterator[Check]:
    e = np.eye(4)
    pairs = {
        "e1 and e2": (e[:1], e[1:2], 19.900332501663787),
        "e1 and -e1": (e[:1], -e[:1], 39.60265338648949),
        "e1 e2 and e3 e4": (e[:2], e[2:], 9.950166250831893),
        "e1 e2 and e1 e3": (e[:2], e[[0, 2]], 4.975083125415972),
    }
    for name, (first, second, expected) in pairs.items():
        yield Check(f"CMMD {name}", expected, mmd.cmmd(first, second), 1e-9)
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in wavy())
    yield Check("CMMD of 40 vectors", 1.1554674144, mmd.cmmd(x, y), 1e-9)


def _miou() -> Iterator[Check]:
    from rdpbench.metrics.miou import confusion, merge, scores

    truths = np.array([[0, 0, 1, 1], [0, 0, 1, 255]]), np.array([[2, 2, 2, 2], [0, 0, 0, 0]])
    predictions = np.array([[0, 0, 1, 1], [0, 1, 1, 0]]), np.array([[2, 2, 0, 0], [0, 0, 0, 0]])
    pairs = zip(truths, predictions, strict=True)
    overlap = scores(merge(confusion(*pair, classes=3) for pair in pairs))
    for index, expected in enumerate((0.70, 0.75, 0.50)):
        yield Check(f"IoU of class {index}", expected, float(overlap.iou[index]), 1e-12)
    yield Check("mIoU", 0.65, overlap.miou, 1e-12)
    yield Check("pixel accuracy", 0.80, overlap.accuracy, 1e-12)


def _patches() -> Iterator[Check]:
    from rdpbench.metrics.inception_distances import corners

    sizes = {(512, 768): 8, (1356, 2040): 63, (1365, 2048): 68, (384, 384): 2, (383, 800): 3, (1024, 1024): 25}
    for (height, width), expected in sizes.items():
        yield Check(f"patches of {height} x {width}", expected, len(list(corners(height, width))), 0)


def _clip() -> Iterator[Check]:
    from rdpbench.metrics.clip import clip_score, hessel_score

    image, caption = np.array([3.0, 4.0]), np.array([1.0, 0.0])
    yield Check("CLIP score of [3, 4] and [1, 0]", 60.0, clip_score(image, caption), 1e-9)
    yield Check("CLIP score, Hessel", 1.5, hessel_score(image, caption), 1e-9)


def _resize() -> Iterator[Check]:
    from rdpbench.networks.inception import clean

    image = synthetic(512, 768)[0]
    planes = clean(torch.from_numpy(image).permute(2, 0, 1)[None].float())[0].numpy()
    channels = [pil.fromarray(image[:, :, c].astype(np.float32)) for c in range(3)]
    theirs = [np.asarray(channel.resize((299, 299), pil.Resampling.BICUBIC)).clip(0, 255) for channel in channels]
    yield Check("resize of fid/clean and Pillow", 0.0, float(np.abs(planes - np.stack(theirs)).max()), 2e-3)


def _lpips() -> Iterator[Check]:
    from importlib.util import find_spec
    from pathlib import Path

    sums = {
        "alex": (2.349532, 16.143026, 39.26844, 27.197178, 20.317177),
        "vgg": (6.925992, 8.858334, 17.515005, 51.521324, 47.034855),
        "squeeze": (5.690101, 1.18528, 16.326565, 71.012627, 37.370724, 24.262873, 17.590553),
    }
    spec = find_spec("lpips")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "weights" / "v0.1"
    for net, expected in sums.items():
        heads = torch.load(folder / f"{net}.pth", map_location="cpu", weights_only=True)
        worst = max(
            abs(float(head.double().sum()) - total) for head, total in zip(heads.values(), expected, strict=True)
        )
        yield Check(f"LPIPS {net}, sums of its linear layers", 0.0, worst, 1e-5)
