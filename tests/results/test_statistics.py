"""How often intervals hold the truth, in simulations whose truth is known; `docs/statistics.md` states the figures.

Each simulated data set is a draw of images from a population: of different difficulty, so that rates and qualities
spread far more than codecs differ, and with a gain of one codec over the other that varies from image to image. The
truth is that of the population, by the same definition: means, and the deltas or the crossing of the mean curves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from rdpbench.results.stats import against, bootstrap
from rdpbench.results.stats.against import crossings, crossover
from rdpbench.results.stats.bd import Floats, RateValues, bd_metric, bd_rate
from rdpbench.results.stats.bootstrap import jackknifed
from rdpbench.results.stats.points import ImageCurve
from rdpbench.setting import Setting

BASE = np.array([0.1, 0.2, 0.4, 0.8])
SPREAD = 0.4
"""Of the logarithm of an image's rate."""


@dataclass(frozen=True)
class Population:
    """What images are drawn from."""

    slope: float = 4.0
    """Of the test codec, in dB per doubling of the rate; the anchor's is 4."""
    gain: float = 0.5
    """Of the test codec over the anchor at the lowest rate, in dB, on average."""
    varies: float = 0.5
    """Standard deviation of the gain over images."""

    def draw(self, rng: np.random.Generator, images: int) -> tuple[ImageCurve, ImageCurve]:
        """Both codecs on some images."""
        rates = np.outer(BASE, rng.lognormal(-(SPREAD**2) / 2, SPREAD, images))
        hard, gains = rng.normal(0, 3, images), rng.normal(0, self.varies, images)
        (_, anchor), (_, test) = self.curves()
        noise = rng.normal(0, 0.1, (2, len(BASE), images))
        return (
            _curve("anchor", rates, np.array(anchor)[:, None] + hard + noise[0]),
            _curve("test", rates, np.array(test)[:, None] + hard + gains + noise[1]),
        )

    def curves(self) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """The means over all images that there could be: rates and values of the anchor and of the test codec."""
        doublings = np.log2(BASE / BASE[0])
        return (BASE, 30 + 4 * doublings), (BASE, 30 + self.gain + self.slope * doublings)

    def points(self) -> tuple[RateValues, RateValues]:
        anchor, test = (list(zip(*map(list, one), strict=True)) for one in self.curves())
        return anchor, test


def _curve(codec: str, rates: Floats, values: Floats) -> ImageCurve:
    settings = tuple(Setting("quality", float(k)) for k in range(len(rates)))
    return ImageCurve(codec, settings, tuple(f"image{n:03d}" for n in range(rates.shape[1])), rates, values)


Ends = tuple[float, float]
Statistic = Callable[[ImageCurve, ImageCurve, int], Ends]


def of_mean(anchor: ImageCurve, _: ImageCurve, resamples: int) -> Ends:
    found = bootstrap.mean(anchor.values[1], resamples=resamples)
    return found.low, found.high


def of_rate(anchor: ImageCurve, _: ImageCurve, resamples: int) -> Ends:
    """Bits per pixel are skewed: a few images take many."""
    found = bootstrap.mean(anchor.rates[1], resamples=resamples)
    return found.low, found.high


def of_difference(anchor: ImageCurve, test: ImageCurve, resamples: int) -> Ends:
    found = bootstrap.mean(test.values[1] - anchor.values[1], resamples=resamples)
    return found.low, found.high


def of_delta(delta: Any) -> Statistic:
    def ends(anchor: ImageCurve, test: ImageCurve, resamples: int) -> Ends:
        arrays = (anchor.rates, anchor.values), (test.rates, test.values)
        found = bootstrap.of_curves(*arrays, delta, resamples=resamples)
        return found.low, found.high

    return ends


def of_crossover(anchor: ImageCurve, test: ImageCurve, resamples: int) -> Ends:
    found = crossover(anchor, test, "psnr", resamples=resamples)
    return found.low, found.high


def of_pairs(anchor: ImageCurve, test: ImageCurve, resamples: int) -> Ends:
    found = against.matched_points(anchor, test, resamples=resamples)[1].at_rate
    assert found is not None
    return found.low, found.high


USUAL, CROSSING = Population(), Population(slope=3.5, gain=0.75)
TRUTHS: dict[str, tuple[Population, Statistic, float]] = {
    "mean": (USUAL, of_mean, 34.0),
    "mean rate": (USUAL, of_rate, 0.2),
    "paired difference": (USUAL, of_difference, 0.5),
    "matched pair": (USUAL, of_pairs, 0.5),
    "BD-rate": (USUAL, of_delta(bd_rate), bd_rate(*USUAL.points()).value),
    "BD-metric": (USUAL, of_delta(bd_metric), bd_metric(*USUAL.points()).value),
    "crossover": (CROSSING, of_crossover, crossings(*CROSSING.points()).rates[0]),
}


def held(name: str, images: int, sets: int, resamples: int) -> float:
    """The share of simulated data sets whose 95 % interval holds the truth."""
    population, statistic, truth = TRUTHS[name]
    rng = np.random.default_rng(2026)
    inside = 0
    for _ in range(sets):
        low, high = statistic(*population.draw(rng, images), resamples)
        inside += low <= truth <= high
    return inside / sets


def test_the_truths_are_those_of_the_population() -> None:
    """A very large data set has them, and they are what one computes by hand."""
    assert TRUTHS["BD-rate"][2] == pytest.approx(100 * (2 ** (-0.5 / 4) - 1))
    assert TRUTHS["BD-metric"][2] == pytest.approx(0.5)
    assert TRUTHS["crossover"][2] == pytest.approx(0.1 * 2**1.5)
    anchor, test = USUAL.draw(np.random.default_rng(1), 200_000)
    assert anchor.rates.mean(axis=1) == pytest.approx(BASE, rel=0.005)
    assert (test.values - anchor.values).mean(axis=1) == pytest.approx([0.5] * 4, abs=0.005)


@pytest.mark.parametrize(("name", "sets"), [("mean", 400), ("paired difference", 400), ("crossover", 60)])
def test_intervals_hold_the_truth_roughly(name: str, sets: int) -> None:
    """A short look; the figures are below."""
    share = held(name, 24, sets, 200)
    assert share == pytest.approx(0.95, abs=3.5 * math.sqrt(0.95 * 0.05 / sets))


@pytest.mark.slow
@pytest.mark.parametrize("images", [11, 24, 100])
@pytest.mark.parametrize("name", list(TRUTHS))
def test_intervals_hold_the_truth_at_the_nominal_rate(name: str, images: int) -> None:
    """Three standard errors of a share about 95 %; the mean rate is skewed and may be short by two percent more."""
    sets, resamples = (2000, 400) if name in ("mean", "mean rate", "paired difference") else (400, 250)
    share = held(name, images, sets, resamples)
    print(f"{name}, {images} images: {100 * share:.1f} %")
    error = 3 * math.sqrt(0.95 * 0.05 / sets)
    assert 0.95 - error - (0.02 if name == "mean rate" else 0) < share < 0.95 + error


DISTRIBUTIONS: dict[str, tuple[float, tuple[float, float]]] = {
    # Sigma of the logarithm, 0 for a normal distribution; and the bounds that the interval keeps to.
    "normal": (0, bootstrap.REAL),
    "log-normal 0.4": (0.4, bootstrap.REAL),
    "log-normal 0.8": (0.8, bootstrap.REAL),
    "log-normal 0.4, above 0": (0.4, (0, math.inf)),
    "log-normal 0.8, above 0": (0.8, (0, math.inf)),
}


def held_mean(name: str, images: int, sets: int) -> float:
    """The share of data sets whose interval of the mean holds it."""
    sigma, bounds = DISTRIBUTIONS[name]
    rng = np.random.default_rng(images)
    inside = 0
    for _ in range(sets):
        values = rng.lognormal(0, sigma, images) if sigma else rng.normal(size=images)
        found = bootstrap.mean(values, bounds=bounds)
        inside += found.low <= (math.exp(sigma**2 / 2) if sigma else 0) <= found.high
    return inside / sets


@pytest.mark.slow
@pytest.mark.parametrize("images", [2, 3, 4, 5, 6, 7, 8, 9, 10, 24, 100])
@pytest.mark.parametrize("name", list(DISTRIBUTIONS))
def test_intervals_of_any_number_of_images(name: str, images: int) -> None:
    """Of a normal distribution 95 %; a skewed one is known less well than 2 or 100 images can tell."""
    share = held_mean(name, images, 4000)
    print(f"{name}, {images} images: {100 * share:.1f} %")
    least = {"normal": 0.935, "log-normal 0.4": 0.91, "log-normal 0.8": 0.84}[name.partition(",")[0]]
    assert least < share < 0.965


@pytest.mark.slow
@pytest.mark.parametrize("images", [2, 3, 4, 5, 6, 7])
def test_deltas_of_few_images(images: int) -> None:
    """BD-rate below eight images: Student's interval, from the curves without each image."""
    share = held("BD-rate", images, 1000, 100)
    print(f"BD-rate, {images} images: {100 * share:.1f} %")
    assert 0.92 < share < 0.98


@pytest.mark.slow
@pytest.mark.parametrize("images", [100, 500])
@pytest.mark.parametrize("loss", [0.05, 0.3])
def test_distances_between_sets(images: int, loss: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the jackknife holds: the value that such a set has on average; and how far that is from the population's.

    Features of 16 entries, of reconstructions that resemble their originals.
    """
    from rdpbench.metrics.contract import bounds_of
    from rdpbench.results.stats.bootstrap import jackknife
    from rdpbench.runners.sets import set_metric

    wide, small = np.linspace(1, 0.3, 16), type("Small", (), {"dim": 16})

    def draw(rng: np.random.Generator, count: int) -> tuple[list[Any], list[Any]]:
        first = rng.normal(size=(count, 16)) * wide + 0.3
        second = (1 - loss) * first + loss * (0.8 * rng.normal(size=(count, 16)) * wide + 0.3)
        return [*first[:, None].astype(np.float32)], [*second[:, None].astype(np.float32)]

    gap = 1 - math.sqrt((1 - loss) ** 2 + (0.8 * loss) ** 2)
    whole = draw(np.random.default_rng(1), 24_000)
    for name in ("fid/clean", "kid/clean/full", "kid/clean/split", "cmmd", "cmmd/unbiased", "cmmd/split"):
        cls: Any = set_metric(name)
        monkeypatch.setattr(cls, "features", small)
        usual = set_metric("kid/clean/full" if name.startswith("kid") else "cmmd/unbiased")
        monkeypatch.setattr(usual, "features", small)
        # Originals of one half against reconstructions of the other: no pair of an image with itself.
        truth = (
            float(gap**2 * wide @ wide)
            if name == "fid/clean"
            else usual().reduce(whole[0][:12_000], whole[1][12_000:]).value
        )
        rng, values, ends = np.random.default_rng(2), [], []
        for _ in range(200):
            sides = draw(rng, images)
            value = cls().reduce(*sides).value
            interval = jackknife(cls(), *sides, value=value, bounds=bounds_of(cls))
            assert not isinstance(interval, str)
            values.append(value)
            ends.append(interval)
        centre = float(np.mean(values))
        own, population = (np.mean([low <= of <= high for low, high in ends]) for of in (centre, truth))
        print(f"{name}, {images} images, loss {loss}: mean {centre:.5f}, population {truth:.5f}, ", end="")
        print(f"held: {100 * own:.1f} % and {100 * population:.1f} %")
        assert 0.91 < own <= 0.995
        if name.endswith("/split"):
            assert centre == pytest.approx(truth, abs=4 * float(np.std(values)) / 14 + 0.02 * truth)
            assert population > 0.85


@pytest.mark.slow
def test_miou_rises_with_the_number_of_images() -> None:
    """133 classes of very different frequency, of which an image has a few: why few images have no mIoU."""
    classes, rng = 133, np.random.default_rng(3)
    often = 1 / np.arange(1, classes + 1)
    often /= often.sum()
    easy = np.random.default_rng(7).beta(6, 3, classes)
    right, union = np.zeros((2, 20_000, classes))
    for image in range(len(right)):
        here = np.unique(rng.choice(classes, 1 + rng.poisson(6), p=often))
        pixels = 10_000 * rng.dirichlet(np.ones(len(here)))
        odds = np.log(easy[here] / (1 - easy[here])) + rng.normal(0, 0.5) + rng.normal(0, 0.7, len(here))
        found = pixels / (1 + np.exp(-odds))
        right[image, here], union[image, here] = found, pixels
        for of, wrong in zip(rng.choice(classes, (2, len(here)), p=often), (0.7, 0.3), strict=True):
            np.add.at(union[image], of, wrong * (pixels - found))

    def miou(images: Any) -> float:
        of, whole = right[images].sum(axis=0), union[images].sum(axis=0)
        return float((of[whole > 0] / whole[whole > 0]).mean())

    means = {}
    for count in (3, 20, 100, 500):
        values, inside = [], []
        for _ in range(300):
            images = rng.integers(0, len(right), count)
            values.append(miou(images))
            blocks = np.array_split(rng.permutation(count), 10)
            without = np.array([miou(np.delete(images, block)) for block in blocks]) if count >= 20 else None
            inside.append((math.nan, math.nan) if without is None else jackknifed(values[-1], without, (0, 1)))
        means[count] = float(np.mean(values))
        held_own = np.mean([low <= means[count] <= high for low, high in inside])
        print(f"mIoU of {count} images: {means[count]:.3f}, held {100 * held_own:.1f} %")
        assert count < 20 or 0.92 < held_own < 0.995
    whole = miou(slice(None))
    print(f"mIoU of the population: {whole:.3f}")
    assert means[3] < 0.7 * whole < means[100] < means[500] < whole
