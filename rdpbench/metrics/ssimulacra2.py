"""SSIMULACRA 2.1 (Sneyers, Cloudinary, 2023): what engineers of codecs choose by, without learned weights, in numpy.

Six scales in linear light, 2 x 2 means between them (an odd side repeats its last row or column); at each the opsin
colours X, Y and B - Y, moved into 0 to 1. With ``m`` the window's mean of the original x and the reconstruction y:

    structure  1 - (1 - (mx - my)^2) (2 cov + C) / (var x + var y + C), at least 0
    ringing    where the ratio (1 + |y - my|) / (1 + |x - mx|) is above 1, by how much
    blur       where it is below 1, by how much

Of each, the mean and the fourth root of the mean fourth power; 108 numbers, weighed, and one curve to a score of at
most 100: 90 is visually lossless, 70 high, 50 medium, 30 low quality; very bad images are below 0.

The window is libjxl's: the impulse response of a recursive filter that stands for a Gaussian of sigma 1.5
(Charalampidis, "Recursive implementation of the Gaussian filter using truncated cosine functions", IEEE TSP 2016),
which has nine taps; outside the image there are zeros. A side below 128 pixels has fewer than six scales, and takes the
weights in libjxl's order: they are then those of other colours and scales, as in the program. Below 8 pixels there is
no score.

libjxl runs the filter in float32, whose rounding errors the filter never forgets; it takes them for lost structure, and
scores less: by .002 to .03 below a score of 70, by .01 to .3 at 85, by 1 for a step of one grey level in a flat image.
Here sums are float64, by the window of `msssim`; ``ssimulacra2/libjxl`` is the program's number (`programs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdpbench.image import Image
from rdpbench.metrics import msssim
from rdpbench.metrics.contract import Floats, PairMetric, Prepared, by_name, check_original, check_pair

MINIMUM_SIDE = 8
SCALES = 6

_C = 0.0009
_SIDE = (0.21292859201042219, 0.1093353727774603, 0.0360111146583644, 0.00941436780965375)
WINDOW = np.array([*_SIDE[::-1], 1 - 2 * sum(_SIDE), *_SIDE])
"""Impulse response of libjxl's recursive Gaussian of sigma 1.5."""
_BORDER = len(WINDOW) // 2

_LINEAR = np.arange(256) / 255
_LINEAR = np.where(_LINEAR <= 0.04045, _LINEAR / 12.92, ((_LINEAR + 0.055) / 1.055) ** 2.4).astype(np.float32)
_OPSIN = np.array(
    [
        [0.30, 0.622, 0.078],
        [0.23, 0.692, 0.078],
        [0.24342268924547819, 0.20476744424496821, 0.55181286650955360],
    ]
)
_BIAS = 0.0037930732552754493
_COLOURS = np.array([[7.0, -7.0, 0.0], [0.5, 0.5, 0.0], [-0.5, -0.5, 1.0]])
"""From cube roots of opsin values to X (14 times), Y and B - Y."""
_OFFSETS = np.array([[0.42], [0.01], [0.55]]) - np.cbrt(_BIAS) * _COLOURS.sum(axis=1, keepdims=True)

# By colour and scale: structure, ringing and blur by their mean, then by their fourth power.
_WEIGHTS = """
0 .0007376606707406586 0    0 .0007793481682867309 0
0 .0004371155730107379 0    1.1041726426657346 .00066284834129271 .00015231632783718752
0 .0016406437456599754 0    1.8422455520539298 11.441172603757666 0
.0007989109436015163 .000176816438078653 0    1.8787594979546387 10.94906990605142 0
.0007289346991508072 .9677937080626833 0    .00014003424285435884 .9981766977854967 .00031949755934435053
.0004550992113792063 0 0    .0013648766163243398 0 0

0 0 0    7.466890328078848 0 17.445833984131262
.0006235601634041466 0 0    6.683678146179332 .00037724407979611296 1.027889937768264
225.20515300849274 0 0    19.213238186143016 .0011401524586618361 .001237755635509985
176.39317598450694 0 0    24.43300999870476 .28520802612117757 .0004485436923833408
0 0 0    34.77906344483772 44.835625328877896 0
0 0 0    0 0 0

0 .0008680556573291698 0    0 0 0
0 .0005313191874358747 0    .00016533814161379112 0 0
0 0 0    .0004179171803251336 .0017290828234722833 0
.0020827005846636437 0 0    8.826982764996862 23.19243343998926 0
95.1080498811086 .9863978034400682 .9834382792465353    .0012286405048278493 171.2667255897307 .9807858872435379
0 0 0    .0005130064588990679 0 .00010854057858411537
"""
WEIGHTS = np.array(_WEIGHTS.split(), np.float64)

Colours = NDArray[np.float32]
"""X, Y and B - Y of one scale with zeros around, ``(H + 8, W + 8, 3)``."""


@dataclass(frozen=True)
class Level(msssim.Level):
    """What one scale of the original contributes to every pair."""

    sharpness: Floats
    """``1 + |x - mx|``, laid out like ``mean``."""


class SSIMULACRA2(PairMetric):
    """SSIMULACRA 2.1 of 8-bit sRGB, 100 for identical images; defined at the top of this module.

    >>> metric = SSIMULACRA2()
    >>> grey = np.full((64, 64, 3), 100, np.uint8)
    >>> round(metric.score(metric.prepare(grey), grey + 20), 2)
    43.69
    """

    name = "ssimulacra2"
    higher_is_better = True
    bounds = (-np.inf, 100.0)
    source = "Sneyers 2023, SSIMULACRA 2.1 as in libjxl 0.11; 8-bit sRGB"

    def prepare(self, original: Image) -> Prepared[tuple[Level, ...]]:
        """Filter the original at its scales: 33 MB for 512 x 768. Raises `MetricError` for a side below 8 pixels."""
        check_original(original, self.name, MINIMUM_SIDE)
        return Prepared(original, tuple(map(_prepared, _scales(original))))

    def score(self, prepared: Prepared[tuple[Level, ...]], reconstruction: Image) -> float:
        check_pair(prepared.original, reconstruction, self.name)
        return score_of([_norms(*pair) for pair in zip(prepared.content, _scales(reconstruction), strict=True)])


METRICS = by_name(SSIMULACRA2)


def score_of(norms: Sequence[Floats]) -> float:
    """The score of what each scale has lost, ``(3, 2, 3)``: by colour, norm, and structure, ringing or blur.

    >>> score_of([np.zeros((3, 2, 3))])
    100.0
    """
    every = np.stack(norms, axis=1).ravel()
    lost = 0.9562382616834844 * float((WEIGHTS[: len(every)] * every).sum())
    lost = 2.326765642916932 * lost - 0.020884521182843837 * lost**2 + 6.248496625763138e-05 * lost**3
    return float(100 - 10 * max(lost, 0.0) ** 0.6276336467831387)


def _scales(image: Image) -> Iterator[Colours]:
    linear: NDArray[np.float32] = _LINEAR[image]
    for scale in range(SCALES):
        if scale:
            if min(linear.shape[:2]) < MINIMUM_SIDE:
                return
            linear = msssim.halve(linear)
        yield _colours(linear)


def _colours(linear: NDArray[np.float32]) -> Colours:
    height, width = linear.shape[:2]
    padded = np.zeros((height + 2 * _BORDER, width + 2 * _BORDER, 3), np.float32)
    inside = padded[_BORDER:-_BORDER, _BORDER:-_BORDER]
    for start in range(0, height, 8):  # a few rows at a time stay in the cache
        rows = linear[start : start + 8]
        planes = rows.reshape(-1, 3).T.astype(np.float64, order="C")
        roots = np.einsum("dc,cn->dn", _OPSIN, planes)
        np.cbrt(np.add(roots, _BIAS, out=roots), out=roots)
        moved = np.einsum("dc,cn->dn", _COLOURS, roots, out=planes)
        inside[start : start + 8] = (moved + _OFFSETS).T.reshape(rows.shape)
    return padded


def _prepared(colours: Colours) -> Level:
    mean = msssim.Strips(colours, WINDOW).means()
    return Level(colours, mean, _sharpness(colours, mean, np.empty_like(mean)))


def _sharpness(colours: Colours, mean: Floats, out: Floats) -> Floats:
    """``1 + |x - mx|`` of some rows: the window's middle is four rows down, and four columns along."""
    middle = colours.reshape(-1)[_BORDER * (mean.shape[1] + 3) :][: mean.size].reshape(mean.shape)
    np.abs(np.subtract(middle, mean, out=out), out=out)
    return np.add(out, 1, out=out)


def _norms(level: Level, colours: Colours) -> Floats:
    """Mean and fourth root of the mean fourth power of structure, ringing and blur, ``(3, 2, 3)``."""
    strips = msssim.Strips(colours, WINDOW)
    sums = np.zeros((2, 3, 3 * colours.shape[1]))
    for rows, (mean, spare, mean_difference, loss) in strips.pairs(level, _C):
        # 1 - (1 - a) (1 - b) = a (1 - b) + b
        structure = np.subtract(loss, np.multiply(loss, mean_difference, out=spare), out=loss)
        structure += mean_difference
        np.maximum(structure, 0, out=structure)
        sharp = _sharpness(colours[rows.start :], mean, mean)
        sharp /= level.sharpness[rows]
        sharp -= 1
        blur = np.minimum(sharp, 0, out=spare)  # negative, hence the sign below
        ringing = np.maximum(sharp, 0, out=sharp)
        for which, lost in enumerate((structure, ringing, blur)):
            sums[0, which] += lost.sum(axis=0)
            square = np.square(lost, out=lost)
            sums[1, which] += np.einsum("rn,rn->n", square, square)
    norms = np.abs(sums[..., : strips.used]).reshape(2, 3, -1, 3).mean(axis=2).transpose(2, 0, 1) / strips.height
    norms[:, 1] **= 0.25
    return norms
